"""Finding out what state a Docker Engine is in."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import engine, gobuild

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ("Docker version 26.1.5+dfsg1, build a72d7cd", 26),
        ("Docker version 28.2.2, build e6534b4", 28),
        ("", 0),
    ],
)
def test_docker_version(text: str, major: int) -> None:
    assert engine.version(text) == major


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.24rc1 linux/arm64", (1, 24)),
        ("gofmt", (0, 0)),
    ],
)
def test_go_version(text: str, version: tuple[int, int]) -> None:
    assert gobuild.parse_version(text) == version


def _dead_pid() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_leftovers_of_a_killed_daemon_are_removed(tmp_path: Path) -> None:
    inner = tmp_path / "docker/containerd"
    inner.mkdir(parents=True)
    # One number is nobody's any more, the other belongs to another program by now.
    (tmp_path / "docker.pid").write_text(f"{_dead_pid()}\n")
    (inner / "containerd.pid").write_text(str(os.getpid()))
    (tmp_path / "docker.sock").touch()
    (inner / "containerd.sock").touch()
    assert engine.clear_leftovers(tmp_path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_daemon_that_lives_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker.pid").write_text(str(os.getpid()))
    (tmp_path / "docker.sock").touch()
    monkeypatch.setattr(engine, "process_name", lambda _: "dockerd")
    assert not engine.clear_leftovers(tmp_path)
    assert (tmp_path / "docker.pid").exists()
    assert (tmp_path / "docker.sock").exists()


def test_nothing_left_behind(tmp_path: Path) -> None:
    assert engine.clear_leftovers(tmp_path)


def test_stop_ends_a_process_that_does_not_listen() -> None:
    process = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo up; sleep 60 & wait; sleep 60"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"up\n"
        engine.stop(process.pid, seconds=0.2)
        assert process.wait(30) != 0
    # what it left is in its group
    subprocess.run(["pkill", "-KILL", "-g", str(process.pid)], check=False)
