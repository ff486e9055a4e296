"""What a supervisor leaves for the one after it, whose container has its image's files again."""

from __future__ import annotations

import contextlib
import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.support.agent import Supervised, note

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = ("sh", "-c", "echo up; exec sleep 600")


@pytest.fixture
def name() -> Iterator[str]:
    made = uuid.uuid4().hex
    yield made
    with contextlib.suppress(FileNotFoundError):
        note(made, COMMAND).rmdir()


@contextlib.contextmanager
def heir(name: str) -> Iterator[Supervised]:
    """A supervisor in a container after one whose files were changed."""
    note(name, COMMAND).mkdir(mode=0o700)
    with Supervised(*COMMAND, name=name) as supervised:
        yield supervised


def test_the_first_change_leaves_a_note_and_nothing_else_does(name: str) -> None:
    with Supervised(*COMMAND, name=name) as supervised:
        peer = supervised.peer()
        peer.ask("hold")
        peer.ask("restart 1000")
        assert peer.hear().startswith("ended ")
        assert peer.hear().startswith("started ")
        assert not supervised.note.exists()
        peer.say("changing")
        peer.ask("state")
        assert supervised.note.is_dir()


def test_with_a_note_the_command_waits_for_a_peer_to_bring_what_was_changed(name: str) -> None:
    with heir(name) as supervised:
        peer = supervised.peer()
        assert peer.first == "state unstarted 0"
        assert peer.ask("restart 1000") == "restarting 1"
        assert peer.hear().startswith("started ")
        assert supervised.line() == "up"


def test_where_no_peer_comes_the_command_is_started_in_the_end(name: str) -> None:
    with heir(name) as supervised:
        assert supervised.line() == "up"
        assert supervised.peer().first.startswith("state started ")


def test_a_peer_that_asks_for_nothing_does_not_keep_it_from_starting(name: str) -> None:
    with heir(name) as supervised:
        peer = supervised.peer()
        assert peer.ask("hold") == "holding 0"
        assert peer.hear().split()[::3] == ["started", "1"]


def test_a_container_that_is_to_end_before_that_ends_at_once(name: str) -> None:
    with heir(name) as supervised:
        supervised.peer()
        supervised.process.send_signal(signal.SIGTERM)
        assert supervised.ended() == 128 + signal.SIGTERM


def test_who_asks_it_to_stop_is_told_that_it_has(name: str) -> None:
    with heir(name) as supervised:
        peer = supervised.peer()
        peer.ask("hold")
        assert peer.ask("stop 1000") == "stopping 0"
        assert peer.hear() == "stopped 0"
        assert peer.ask("restart 1000") == "restarting 1"
        assert peer.hear().startswith("started ")


def test_what_is_no_note_of_its_own_holds_nothing_up(name: str) -> None:
    """Anybody may write where it stands."""
    note(name, COMMAND).symlink_to("/tmp")
    try:
        with Supervised(*COMMAND, name=name) as supervised:
            assert supervised.peer().first.startswith("state started ")
            assert supervised.line() == "up"
    finally:
        note(name, COMMAND).unlink()
