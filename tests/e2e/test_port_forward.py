"""Visitors at localhost while files are saved every second: the whole loop behind the port."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import free_port
from tests.support.port_forward_lab import Browser, wrong_answers
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.session import Devloop, Workspace

    Start = Callable[..., Devloop]

EDITS = 12


@pytest.mark.parametrize("keep_alive", [True, False], ids=["http/1.1", "http/1.0"])
def test_saves_every_second_under_visitors(
    devloop: Start, workspace: Workspace, keep_alive: bool
) -> None:
    if keep_alive:
        workspace.replace(
            "app.py",
            "    def do_GET(self)",
            '    protocol_version = "HTTP/1.1"\n\n    def do_GET(self)',
        )
    workspace.version("0")
    port = free_port()
    session = devloop("dev", PORT=str(port))
    session.finished("ready", seconds=120)
    with (
        Browser("127.0.0.1", port, keep_alive=True) as kept,
        Browser("127.0.0.1", port, keep_alive=False) as fresh,
    ):
        until(lambda: min(kept.version, fresh.version) == 0, 30)
        for version in range(1, EDITS + 1):
            workspace.version(str(version))
            time.sleep(1)
        # Some were superseded before they were deployed; the last one is what is on disk.
        until(lambda: min(kept.version, fresh.version) == EDITS, 90)
    assert wrong_answers(kept, fresh) == [], session.story()
    if keep_alive:
        assert kept.connections == 1


def test_visitors_of_a_broken_app_wait_until_it_is_mended(
    devloop: Start, workspace: Workspace
) -> None:
    """In place there is no old pod left to answer; rolled, the old one goes on."""
    workspace.version("0")
    port = free_port()
    session = devloop("dev", PORT=str(port))
    session.finished("ready", seconds=120)
    with Browser("127.0.0.1", port, keep_alive=False) as visitor:
        until(lambda: visitor.version == 0, 30)
        whole = workspace.read("app.py")
        workspace.save("app.py", "raise SystemExit('broken')\n")
        session.finished("failed", seconds=120)
        workspace.save("app.py", whole.replace('VERSION = "0"', 'VERSION = "1"'))
        until(lambda: visitor.version == 1, 120)
    assert wrong_answers(visitor) == [], session.story()


def test_a_session_ends_at_once_under_visitors(devloop: Start, workspace: Workspace) -> None:
    workspace.version("0")
    port = free_port()
    session = devloop("dev", PORT=str(port))
    session.finished("ready", seconds=120)
    browsers = [Browser("127.0.0.1", port, keep_alive=bool(n % 2)) for n in range(8)]
    for browser in browsers:
        browser.__enter__()
    try:
        until(lambda: all(browser.version == 0 for browser in browsers), 30)
        session.interrupt()
    finally:
        for browser in browsers:
            browser.__exit__()
    assert session.process.returncode == 130
