"""What the supervisor says of the container's files: never more than is known."""

from __future__ import annotations

import hashlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.integration.agent.test_serve import Serve, framed
from tests.support.agent import Peer, Supervised, python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    with Supervised(*python("import time; time.sleep(600)")) as made:
        yield made


def put(root: Path, name: str, content: bytes) -> bytes:
    size, digest = len(content), hashlib.sha256(content).hexdigest()
    return framed("put", root, name, 644, "", size, digest) + content


def known(supervised: Supervised) -> str:
    peer = supervised.peer()
    answer = peer.ask("content")
    peer.close()
    return answer


def change(peer: Peer, mark: str) -> None:
    peer.say("changing")
    peer.say(f"mark {mark}")


def test_at_first_it_is_the_images_and_then_what_the_last_mark_says(supervised: Supervised) -> None:
    peer = supervised.peer()
    assert peer.ask("content") == "content image"
    for mark in ("a", "0123456789abcdef" * 4):
        change(peer, mark)
        assert known(supervised) == f"content {mark}"


def test_who_is_killed_in_the_middle_leaves_it_unknown(supervised: Supervised) -> None:
    peer = supervised.peer()
    peer.ask("content")
    change(peer, "a")
    peer.say("changing")
    peer.close()
    assert known(supervised) == "content unknown"
    other = supervised.peer()
    assert other.ask("content") == "content unknown"
    change(other, "b")
    assert "refused" in other.hear()
    assert known(supervised) == "content unknown"


def test_who_takes_over_what_is_known_goes_on_from_there(supervised: Supervised) -> None:
    for mark in ("a", "b"):
        peer = supervised.peer()
        peer.ask("content")
        change(peer, mark)
        assert known(supervised) == f"content {mark}"
        peer.close()


@pytest.mark.parametrize("asks", [False, True])
def test_two_who_change_it_leave_it_unknown_for_good(supervised: Supervised, asks: bool) -> None:
    one, other = supervised.peer(), supervised.peer()
    one.ask("content")
    if asks:
        other.ask("content")
    change(one, "a")
    assert known(supervised) == "content a"
    change(other, "b")
    assert other.hear().startswith("refused mark")
    assert one.ask("content") == "content unknown"
    change(one, "c")
    assert one.hear().startswith("refused mark")
    assert known(supervised) == "content unknown"


@pytest.mark.parametrize("mark", ["", "image", "A", "a b", "a" * 65])
def test_what_is_no_mark_marks_nothing(supervised: Supervised, mark: str) -> None:
    peer = supervised.peer()
    peer.ask("content")
    change(peer, mark)
    assert peer.hear().split()[0] in ("refused", "unknown")
    assert known(supervised) == "content unknown"


def test_a_mark_without_a_change_is_refused(supervised: Supervised) -> None:
    peer = supervised.peer()
    peer.ask("content")
    assert peer.ask("mark a").startswith("refused mark")
    assert known(supervised) == "content image"


def test_whatever_is_brought_makes_it_unknown_until_it_is_marked(
    supervised: Supervised, tmp_path: Path
) -> None:
    steps = [
        put(tmp_path, "file", b"1"),
        framed("dir", tmp_path, "directory", 755, ""),
        framed("link", tmp_path, "link", "", "file"),
        framed("gone", tmp_path, "link"),
    ]
    with Serve(supervised.name) as serve:
        for mark, step in zip("abcd", steps, strict=True):
            serve.send(framed("content"))
            while not serve.line().startswith("content"):
                pass
            assert [a for a in serve.batch(step) if a.startswith("bad")] == []
            assert known(supervised) == "content unknown"
            serve.batch(step, framed("mark", mark))
            assert known(supervised) == f"content {mark}"


def test_who_is_gone_is_heard_to_its_end_before_anything_is_said(supervised: Supervised) -> None:
    first = supervised.peer()
    second = supervised.peer()
    second.ask("content")
    first.close()
    os.kill(supervised.pid, signal.SIGSTOP)
    try:
        for _ in range(5):
            second.say("state")
        second.say("changing")
        second.close()
        third = supervised.peer(greeted=False)  # in the place of the first
        third.say("content")
    finally:
        os.kill(supervised.pid, signal.SIGCONT)
    assert third.hear().startswith("state")
    assert third.hear() == "content unknown"


def test_half_a_batch_is_not_marked(supervised: Supervised, tmp_path: Path) -> None:
    with Serve(supervised.name) as serve:
        serve.send(framed("content"))
        answers = serve.batch(
            put(tmp_path, "file", b"1"),
            framed("gone", tmp_path, "../file"),
            framed("mark", "a"),
        )
        assert [a.split()[1] for a in answers if a.startswith("bad")] == ["3"]
        assert known(supervised) == "content unknown"
