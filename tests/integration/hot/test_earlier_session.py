"""Sessions that begin on containers of an earlier one, with the real supervisor and agent: what is
served at the end is what is on disk, or it is said that nobody knows what is.
"""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.engine.reporters import SilentReporter
from devloop.errors import DevloopError
from devloop.model import ImageRef, Resumed, Standing
from devloop.sync import earlier_session
from tests.integration.agent.test_serve import Serve, framed
from tests.integration.hot.test_restarts import Process
from tests.integration.hot.test_syncer import image
from tests.support.agent import needs_linux
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from devloop.engine.ports import StandingOf

pytestmark = needs_linux


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """The container has what a session brought to it that has ended; another one begins."""
    made = Process(tmp_path)
    made.changed_to("1")
    made.bring()
    made.sync.close()
    yield made
    made.close()


def stands(images: Mapping[str, ImageRef]) -> Standing:
    return Standing(image=images[image(1).digest], pods=("web-0",))


def resumed(process: Process, standing: StandingOf = stands) -> Resumed | str:
    """What the session that begins knows."""
    process.sync = process.syncer()
    return process.sync.resume(process.world.scan(), standing, Cancel())


def container_of_its_image(process: Process) -> None:
    """The container's files are its image's again, and its supervisor another."""
    process.supervised.__exit__()
    (process.world.app / "code").write_text("0")
    process.start()
    process.world.run(image(1), incarnation=2)


def somebody_else_writes(process: Process, mark: str | None) -> None:
    with Serve(process.supervised.name) as serve:
        serve.send(framed("content"))
        size, digest = 1, hashlib.sha256(b"x").hexdigest()
        put = framed("put", process.world.app, "foreign", 644, "", size, digest) + b"x"
        serve.batch(put, *([framed("mark", mark)] if mark else []))


def test_it_goes_on_from_there(process: Process) -> None:
    process.changed_to("2")
    assert resumed(process) == Resumed(image=image(1), current=False, held=False)
    process.bring()
    assert process.answer() == "2"
    process.changed_to("3")
    process.bring()
    assert process.answer() == "3"


def test_what_is_there_already_is_left_alone(process: Process) -> None:
    pid = process.supervised.peer().first
    assert resumed(process) == Resumed(image=image(1), current=True, held=False)
    assert process.supervised.peer().first == pid
    process.changed_to("2")
    process.bring()
    assert process.answer() == "2"


def test_what_was_taken_back_is_brought_back(process: Process) -> None:
    process.changed_to("0")
    assert resumed(process) == Resumed(image=image(1), current=False, held=True)
    process.bring()
    assert process.answer() == "0"


def test_what_was_added_and_is_gone_goes(process: Process) -> None:
    assert not isinstance(resumed(process), str)
    (process.world.context / "new").write_text("1")
    process.bring()
    process.sync.close()
    (process.world.context / "new").unlink()
    assert not isinstance(resumed(process), str)
    process.bring()
    assert not (process.world.app / "new").exists()


def test_a_container_that_began_anew_has_what_its_image_has(process: Process) -> None:
    container_of_its_image(process)
    assert resumed(process) == Resumed(image=image(1), current=False, held=False)
    process.bring()
    assert process.answer() == "1"


@pytest.mark.parametrize("mark", [None, "beef"])
def test_files_that_somebody_else_brought_are_not_known(process: Process, mark: str | None) -> None:
    somebody_else_writes(process, mark)
    process.changed_to("2")
    found = resumed(process)
    assert isinstance(found, str)
    assert "somebody else" in found
    # Nor is the container taken for one that has its image, when the session has made that one.
    process.sync.image_contains(image(1), process.world.scan())
    assert process.sync.strays(Cancel()) == ("web-0",)


def test_a_container_with_more_than_its_image_is_brought_to_what_is_served(
    process: Process,
) -> None:
    process.changed_to("0")
    process.sync = process.syncer()
    process.sync.image_contains(image(1), process.world.scan())
    assert process.sync.strays(Cancel()) == ()
    assert process.answer() == "0"


def test_without_memory_there_is_nothing_to_go_on_from(process: Process) -> None:
    shutil.rmtree(process.contents)
    assert resumed(process) == ""
    process.sync.image_contains(image(1), process.world.scan())
    process.changed_to("2")
    scan = process.world.scan()
    # What the container says that it has is what is on disk, which needs no memory.
    assert process.sync.strays(Cancel()) == ()
    process.sync.sync(scan, SilentReporter(), Cancel())
    assert process.answer() == "2"


def test_the_manifests_of_then_were_others(process: Process) -> None:
    process.world.deploy = "other"
    assert resumed(process) == "the manifests changed since the last session"


def test_the_recipe_of_then_was_another(process: Process) -> None:
    process.world.recipe = "other"
    assert resumed(process) == "what shapes the image changed since the last session"


def test_an_image_of_nobody(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier_session, "_LOOK", 0.2)
    process.world.run(image(7))
    process.changed_to("2")
    assert resumed(process) == "pod web-0 runs an image of unknown content"


def test_a_session_killed_in_the_middle_leaves_what_nobody_knows(process: Process) -> None:
    with Serve(process.supervised.name) as serve:
        serve.send(framed("content"))
        serve.send(framed("gone", process.world.app, "nothing"))
    process.changed_to("2")
    found = resumed(process)
    assert isinstance(found, str)
    assert "not known" in found


def test_what_another_session_changes_at_the_same_time_is_no_success(process: Process) -> None:
    process.changed_to("2")
    assert not isinstance(resumed(process), str)
    somebody_else_writes(process, None)
    with pytest.raises(DevloopError, match="somebody else changes its files"):
        process.bring()
    process.sync.image_contains(image(1), process.world.scan())
    assert process.sync.strays(Cancel()) == ("web-0",)


def test_streams_are_opened_while_it_is_found_out_what_stands(process: Process) -> None:
    before = len(process.world.streams)

    def slowly(images: Mapping[str, ImageRef]) -> Standing:
        until(lambda: len(process.world.streams) > before)
        return stands(images)

    process.changed_to("2")
    assert resumed(process, slowly) == Resumed(image=image(1), current=False, held=False)
    process.bring()
    assert process.answer() == "2"
    # The worker goes on with the one that was opened.
    assert len(process.world.streams) == before + 1


@pytest.mark.parametrize("why", ["nothing stands", "in time", "closed"])
def test_a_stream_that_nobody_takes_ends(
    process: Process, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr("devloop.sync.early_agents._UNTAKEN", 0.0 if why == "in time" else 60.0)
    before = len(process.world.streams)
    process.sync = process.syncer()
    until(lambda: len(process.world.streams) > before)
    if why == "nothing stands":
        scan = process.world.scan()
        assert process.sync.resume(scan, lambda _: "nothing stands", Cancel()) == why
    elif why == "closed":
        process.sync.close()
    until(lambda: process.world.streams[-1].is_closed)
    # Its container is as any other for what comes.
    assert why == "closed" or resumed(process) == Resumed(image=image(1), current=True, held=False)


def test_a_container_of_an_unknown_image_gets_no_stream_ahead_of_time(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier_session, "_LOOK", 0.2)
    process.world.run(image(7))
    before = len(process.world.streams)
    process.changed_to("2")
    assert resumed(process) == "pod web-0 runs an image of unknown content"
    assert len(process.world.streams) == before
