"""The demo's check, as far as it goes without a cluster."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import demo, setup, shell
from tests.support.machine.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "sample"
    (folder / "templates").mkdir(parents=True)
    (folder / "README.md").write_text("It says Hello there.\n")
    (folder / "templates/page.html").write_text("<h1>Hello there</h1>\n")
    monkeypatch.setattr(demo, "SAMPLE", folder)
    copy = tmp_path / "copy"
    demo.clone(copy)
    return copy


def test_the_copy_is_clean(sample: Path) -> None:
    state = demo.GitState.of(sample)
    assert state.changed == ""
    assert "page.html" in state.staged


def test_the_heading_is_found_in_its_source(sample: Path) -> None:
    file, old, new = demo.plan_edit(sample, "<body><h1 class=x> Hello there </h1>")
    assert file == sample / "templates/page.html"
    assert old == "Hello there"
    assert new.startswith("Hello there ")


def test_a_page_that_cannot_be_edited(sample: Path) -> None:
    with pytest.raises(shell.MachineError, match="no <h1>"):
        demo.plan_edit(sample, "<p>nothing</p>")
    with pytest.raises(shell.MachineError, match="Another"):
        demo.plan_edit(sample, "<h1>Another</h1>")


def test_an_edit_is_timed_and_shows_in_git_alone(sample: Path) -> None:
    before = demo.GitState.of(sample)
    file = sample / "templates/page.html"
    waits: list[str] = []
    seconds = demo.timed_edit(
        file, "Hello", "Bye", lambda: waits.append(file.read_text()), iter([5.0, 5.75]).__next__
    )
    assert seconds == 0.75
    assert waits == ["<h1>Bye there</h1>\n"]
    assert file.read_text() == "<h1>Bye there</h1>\n"
    after = demo.GitState.of(sample)
    assert after.changed == " M templates/page.html\n"
    assert (after.head, after.refs, after.staged) == (before.head, before.refs, before.staged)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("    ports: [8080]\n", [8080]),
        ('    ports: [8080, "9000:80"]\n', [8080, 9000]),
        ("name: x\n", []),
    ],
)
def test_ports(text: str, found: list[int], tmp_path: Path) -> None:
    config = tmp_path / "devloop.yaml"
    config.write_text(text)
    assert demo.ports(config) == found


def test_a_port_that_is_taken_is_told_of_at_once(tmp_path: Path) -> None:
    config = tmp_path / "devloop.yaml"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config.write_text(f"    ports: [{port}]\n")
        with pytest.raises(shell.MachineError, match=f"port {port}"):
            demo.check_ports(config)
    demo.check_ports(config)


def _session(
    tmp_path: Path, *events: Mapping[str, object], then: str = "time.sleep(60)"
) -> Session:
    lines = [json.dumps(event) for event in events]
    program = f"import time\nfor line in {lines!r}: print(line, flush=True)\n{then}"
    return Session([sys.executable, "-c", program], cwd=tmp_path, env={})


def test_a_session_tells_its_address(tmp_path: Path) -> None:
    forward = {"type": "forward.changed", "state": "listening", "local": 8081}
    over = {"type": "iteration.finished", "outcome": "ready"}
    with _session(tmp_path, forward, over) as session:
        session.settled(10)
        assert session.address(10) == "http://127.0.0.1:8081/"


def test_a_failed_deployment_is_told_at_once(tmp_path: Path) -> None:
    over = {"type": "iteration.finished", "outcome": "failed", "why": "the build broke"}
    with (
        pytest.raises(shell.MachineError, match="the build broke"),
        _session(tmp_path, over) as session,
    ):
        session.settled(60)


def test_a_session_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(shell.MachineError, match=r"ended with 3(.|\n)*no cluster"),
        _session(
            tmp_path, then="import sys; print('no cluster', file=sys.stderr); sys.exit(3)"
        ) as s,
    ):
        s.address(10)


def test_exports_are_quoted() -> None:
    assert setup.exports({"A": "x y", "B": "$HOME"}) == "export A='x y'\nexport B='$HOME'\n"
