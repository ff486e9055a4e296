"""A service's test in its image, by a `docker` program that is scripted."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.location import Location
from devloop.builders.tester import DockerTests
from devloop.config.commands import ImageTest, argv_of
from devloop.engine.reporters import SilentReporter
from devloop.errors import Code, DevloopError
from devloop.events import LogLine
from devloop.hooks.tester import ImageTester
from devloop.model import ImageRef
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from devloop.events import Event

IMAGE = ImageRef(repository="localhost:5001/web", tag="devloop-1", digest="sha256:ab")
PLACE = Location("devloop.yaml", 5, 5)


class Lab:
    """`script` is what `docker run` does; `calls` are all that were made."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, script: str):
        program = root / "bin" / "docker"
        program.parent.mkdir()
        log = root / "calls"
        body = f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" = run ] || exit 0\n{script}\n'
        program.write_text(body)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        self._log = log
        self.events: list[Event] = []
        self.places: list[Sequence[str]] = []
        self.tester = ImageTester(
            service="web",
            test_=ImageTest(command=argv_of(("pytest -q",)), location=PLACE),
            places=(DockerTests("web", root),),
            publish=self.events.append,
            locate=self.locate,
        )

    def locate(self, lines: Sequence[str]) -> Location | None:
        return Location("app.py", 3) if "app.py" in " ".join(lines) else None

    def test(self, image: ImageRef = IMAGE, *, again: bool = False) -> None:
        self.tester.test(image, SilentReporter(), Cancel(), again=again)

    def failed(self) -> DevloopError:
        with pytest.raises(DevloopError) as caught:
            self.test()
        return caught.value

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines()

    @property
    def runs(self) -> list[str]:
        return [call for call in self.calls if call.startswith("run ")]


def test_the_command_takes_the_place_of_the_images_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, monkeypatch, "echo passed")
    lab.test()
    [run] = lab.runs
    assert run.endswith("--entrypoint sh localhost:5001/web@sha256:ab -c pytest -q")
    assert "--rm" in run
    assert "-v" not in run.split()
    assert [(e.pod, e.text) for e in lab.events if isinstance(e, LogLine)] == [("test", "passed")]


def test_an_image_that_passed_is_not_tested_again_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, monkeypatch, "exit 0")
    lab.test()
    lab.test()
    assert len(lab.runs) == 1
    lab.test(again=True)
    assert len(lab.runs) == 2


def test_a_failure_has_its_last_lines_and_the_place_that_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, monkeypatch, "echo app.py:3: AssertionError; exit 1")
    found = lab.failed().diagnosis
    assert (found.code, found.location) == (Code.TEST_FAILED, Location("app.py", 3))
    assert found.message == "`pytest -q` exited 1"
    assert found.detail == ("app.py:3: AssertionError",)


def test_a_failure_without_a_place_is_one_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, monkeypatch, "exit 2")
    assert lab.failed().diagnosis.location == PLACE


def test_a_command_that_the_image_does_not_have_is_said_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, monkeypatch, "echo 'exec: pytest: not found'; exit 127")
    found = lab.failed().diagnosis
    assert "cannot be run in the image" in found.message
    assert "build.target" in found.suggestions[0]


def test_a_docker_that_is_gone_is_no_failure_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?"
    lab = Lab(tmp_path, monkeypatch, f"echo 'docker: {text}'; exit 125")
    assert lab.failed().code is Code.ENV_DOCKER_UNREACHABLE


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("manifest unknown: manifest unknown.", Code.REGISTRY_IMAGE_GONE),
        ("Get https://r/v2/: dial tcp 10.0.0.1:443: connection refused", Code.REGISTRY_UNREACHABLE),
        ("unauthorized: authentication required.", Code.REGISTRY_UNAUTHORIZED),
    ],
)
def test_an_image_that_cannot_be_had_is_no_failure_of_the_test(
    said: str, code: Code, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (
        f"Unable to find image '{IMAGE.pinned}' locally",
        f"docker: Error response from daemon: {said}",
        "See 'docker run --help'.",
    )
    lab = Lab(
        tmp_path, monkeypatch, f'printf "%s\\n" "{lines[0]}" "{lines[1]}" "{lines[2]}"; exit 125'
    )
    found = lab.failed().diagnosis
    assert (found.code, found.cause) == (code, f"Error response from daemon: {said}")


def test_a_test_that_is_given_up_leaves_no_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, monkeypatch, "echo begun; exec sleep 60")
    cancel, ended = Cancel(), []

    def work() -> None:
        try:
            lab.tester.test(IMAGE, SilentReporter(), cancel, again=False)
        except Cancelled:
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: bool(lab.events))
    cancel.set()
    thread.join(10)
    assert ended
    name = lab.runs[0].split()[3]
    assert f"rm --force {name}" in lab.calls


def test_what_a_session_before_left_is_removed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, monkeypatch, "exit 0")
    lab.test()
    lab.test(again=True)
    asked = [call for call in lab.calls if call.startswith("ps ")]
    assert asked == [f"ps --all --quiet --filter label=devloop.dev/test-of={tmp_path}#web"]
