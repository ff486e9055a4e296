"""What a session promises whatever happens in it: its status, its last event, its end."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from devloop.app import session as sessions
from devloop.app.session import Session
from devloop.base.cancel import Cancelled
from devloop.base.threads import supervised
from devloop.errors import Code, DevloopError, ExitStatus

if TYPE_CHECKING:
    from devloop.config.loader import LoadedProject


def _fails(error: Exception) -> None:
    raise error


def _last_event(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    event: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert event["type"] == "session.ended"
    return event


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ZeroDivisionError("surprise"), ZeroDivisionError),
        # Nobody handled it where it came from, so its status is not the session's.
        (DevloopError.of(Code.CLUSTER_UNREACHABLE, "surprise"), RuntimeError),
    ],
)
def test_a_bug_in_any_thread_ends_the_session_with_its_report(
    error: Exception, raised: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> LoadedProject:
        thread = supervised("test", _fails, error)
        thread.start()
        thread.join()
        raise Cancelled

    with pytest.raises(raised, match="surprise"):
        Session(load, mode="dev", output="json").run()
    end = _last_event(capsys)
    assert end["exit_code"] == ExitStatus.BUG
    assert "surprise" in str(end["why"])


def test_what_does_not_close_in_time_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sessions, "_CLOSE", 0.01)
    release = threading.Event()

    def load() -> LoadedProject:
        session.stop(ExitStatus.INTERRUPTED, "stopped by SIGINT")
        release.wait(60)
        raise Cancelled

    session = Session(load, mode="dev", output="json")
    assert session.run() is ExitStatus.INTERRUPTED
    assert not release.is_set()
    release.set()
    assert _last_event(capsys)["exit_code"] == ExitStatus.INTERRUPTED
