"""Going back to an image in a session that writes into containers, with the real supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.hot.test_earlier_session import container_of_its_image
from tests.integration.hot.test_restarts import Process
from tests.integration.hot.test_syncer import image
from tests.support.agent import needs_linux
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.model import Scan

pytestmark = needs_linux


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    yield made
    made.close()


def untouched(process: Process, scan: Scan | None) -> bool:
    return process.sync.image_again(image(1), scan) == {"web-0"}


def test_a_container_that_got_something_is_told_and_its_successor_gets_nothing(
    process: Process,
) -> None:
    scan = process.world.scan()
    until(lambda: untouched(process, scan))
    process.changed_to("1")
    process.bring()
    assert not untouched(process, scan)
    # The one in its place is left as its image made it, until there is something new.
    container_of_its_image(process)
    until(lambda: untouched(process, scan))
    until(lambda: process.answer() == "0")  # its process may have been started once more
    process.changed_to("2")
    process.bring()
    assert process.answer() == "2"


def test_what_an_image_of_before_is_made_of_is_remembered(process: Process) -> None:
    until(lambda: untouched(process, None))
    process.changed_to("1")
    process.bring()
    assert process.answer() == "1"


def test_without_that_there_is_no_sync_until_the_next_image(process: Process) -> None:
    assert process.sync.image_again(image(9), None) == frozenset()
    assert "not known yet" in str(process.sync.blocker(process.world.scan()))
