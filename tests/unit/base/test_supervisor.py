"""What stands before a container's command, and which commands it must not stand before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from devloop.base import supervisor
from devloop.base.supervisor import PROGRAM, is_init, program, supervise, under

if TYPE_CHECKING:
    from pathlib import Path

INITS = [
    ("/init",),
    ("/sbin/init", "--log-level=info"),
    ("/lib/systemd/systemd",),
    ("/usr/bin/s6-svscan", "/etc/s6"),
    ("runsvdir", "-P", "/etc/service"),
    ("/sbin/openrc-init",),
]


@pytest.mark.parametrize("command", INITS)
def test_an_init_system_is_process_1_itself(command: tuple[str, ...]) -> None:
    assert is_init(command)
    assert under(command, supervise()) == [*command]


@pytest.mark.parametrize(
    "command", [("python", "app.py"), ("init",), ("/app/init",), ("tini", "--"), ("sh", "-c", "")]
)
def test_any_other_command_is_not(command: tuple[str, ...]) -> None:
    assert not is_init(command)
    assert under(command, supervise()) == [*supervise(), *command]


def test_only_another_stop_signal_than_sigterm_is_named() -> None:
    assert supervise() == (PROGRAM, "supervise", "--")
    assert supervise(15) == supervise()
    assert supervise(3) == (PROGRAM, "supervise", "--stop-signal", "3", "--")


@pytest.mark.parametrize("before", [(), supervise(), supervise(3)])
@pytest.mark.parametrize("after", [(), supervise(), supervise(3)])
def test_a_command_has_one_supervisor_at_most(
    before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    command = ["run", "--", "-x", "--"]
    assert under([*before, *command], after) == [*after, *command]


def test_no_command_stays_none() -> None:
    assert under([], supervise()) == []


def test_an_init_system_loses_the_supervisor_that_it_has() -> None:
    assert under([*supervise(), "/init"], supervise()) == ["/init"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of an installed devloop with a program for one platform."""
    monkeypatch.setattr(supervisor, "resources", SimpleNamespace(files=lambda _: tmp_path))
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "linux-amd64").write_bytes(b"program")
    return tmp_path


def test_the_program_is_the_platform_s(installed: Path) -> None:
    assert program("linux/amd64") == b"program"
    (installed / "agents" / "linux-amd64").unlink()
    assert program("linux/amd64") is None


@pytest.mark.parametrize(
    "platform", ["linux/arm64", "linux/arm/v7", "windows/amd64", "None/None", "../x", "linux", ""]
)
@pytest.mark.usefixtures("installed")
def test_there_is_none_for_any_other(platform: str) -> None:
    assert program(platform) is None


def test_there_is_none_where_devloop_was_installed_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "resources", SimpleNamespace(files=lambda _: tmp_path))
    assert program("linux/amd64") is None
