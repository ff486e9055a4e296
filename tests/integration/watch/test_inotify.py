"""Linux's watcher alone: what it says of each way to change a file, and its limits."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.watch import inotify
from devloop.watch.event_buffer import ADDED, DELETED, MODIFIED, EventBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.watch.inotify import InotifyWatch

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux's own events"),
]


class Seen:
    """What came since the last look at it, once it has come to rest."""

    def __init__(self, box: EventBuffer, root: Path) -> None:
        self._box = box
        self._root = root
        self.changes: set[tuple[int, str]] = set()
        self.whole: set[str] = set()
        self.unfinished: set[str] = set()
        self.begun: set[str] = set()
        self.many = False

    def look(self) -> Seen:
        found = Seen(self._box, self._root)
        rest = time.monotonic() + 0.05
        while (left := rest - time.monotonic()) > 0:
            mail = self._box.take(left)
            assert mail.fault is None
            found.many |= mail.many
            found.changes |= {(kind, self._short(path)) for kind, path in mail.changes}
            found.whole = (found.whole - self._all(mail.unfinished)) | self._all(mail.whole)
            found.unfinished = (found.unfinished - self._all(mail.whole)) | self._all(
                mail.unfinished
            )
            found.begun |= self._all(mail.begun)
        return found

    def _short(self, path: str) -> str:
        return os.path.relpath(path, self._root)

    def _all(self, paths: set[str]) -> set[str]:
        return {self._short(path) for path in paths}


@pytest.fixture
def box() -> EventBuffer:
    return EventBuffer()


@pytest.fixture
def watch(box: EventBuffer, tmp_path: Path) -> Iterator[InotifyWatch]:
    (tmp_path / "a").write_text("one")
    watch = inotify.InotifyWatch(box)
    assert watch.add(str(tmp_path))
    yield watch
    watch.close()


@pytest.fixture
def seen(box: EventBuffer, tmp_path: Path, watch: InotifyWatch) -> Seen:
    return Seen(box, tmp_path)


def replace(path: Path) -> None:
    other = path.with_name("b")
    other.write_text("two")
    other.replace(path)


@pytest.mark.parametrize(
    ("act", "kinds", "whole", "begun"),
    [
        (lambda path: path.write_text("two"), {MODIFIED}, True, False),
        (replace, {ADDED}, True, False),
        (lambda path: (path.unlink(), path.write_text("two")), {1, 2, 3}, True, True),
        (Path.unlink, {DELETED}, False, False),
        (lambda path: path.rename(path.with_name("b")), {DELETED}, False, False),
        (lambda path: path.chmod(0o700), {MODIFIED}, None, False),
        (Path.touch, {MODIFIED}, None, False),
    ],
)
def test_what_is_said_of_a_file(
    seen: Seen,
    tmp_path: Path,
    act: Callable[[Path], object],
    kinds: set[int],
    whole: bool | None,
    *,
    begun: bool,
) -> None:
    act(tmp_path / "a")
    got = seen.look()
    assert {kind for kind, path in got.changes if path == "a"} == kinds
    assert ("a" in got.whole, "a" in got.unfinished) == (whole is True, whole is False)
    assert ("a" in got.begun) is begun
    assert not got.many


def test_a_file_that_is_still_open_is_unfinished(seen: Seen, tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as file:
        file.write("half")
        file.flush()
        assert seen.look().unfinished == {"a"}
        file.write("whole")
    got = seen.look()
    assert (got.whole, got.unfinished) == ({"a"}, set())


def test_names_in_any_bytes(seen: Seen, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.write_text("x")
    assert seen.look().whole == {odd.name}


def test_only_the_directory_itself_and_no_longer_than_wanted(
    seen: Seen, tmp_path: Path, watch: InotifyWatch
) -> None:
    (tmp_path / "in").mkdir()
    assert seen.look().changes == {(ADDED, "in")}
    (tmp_path / "in/x").write_text("x")
    assert not seen.look().changes
    watch.add(f"{tmp_path}/in")
    (tmp_path / "in/x").write_text("y")
    assert seen.look().whole == {"in/x"}
    watch.remove(f"{tmp_path}/in")
    watch.remove(f"{tmp_path}/never")
    (tmp_path / "in/x").write_text("z")
    assert not seen.look().changes


def test_one_directory_under_two_names(seen: Seen, tmp_path: Path, watch: InotifyWatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    seen.look()
    watch.add(f"{tmp_path}/real")
    watch.add(f"{tmp_path}/link")
    (tmp_path / "real/x").write_text("x")
    assert seen.look().whole == {"real/x", "link/x"}
    watch.remove(f"{tmp_path}/real")
    (tmp_path / "real/x").write_text("y")
    assert seen.look().whole == {"link/x"}


def test_a_directory_in_the_place_of_another(
    seen: Seen, tmp_path: Path, watch: InotifyWatch
) -> None:
    directory = tmp_path / "in"
    directory.mkdir()
    assert watch.add(str(directory))
    assert not watch.add(str(directory))
    directory.rename(tmp_path / "away")
    directory.mkdir()
    assert watch.add(str(directory))
    seen.look()
    (tmp_path / "away/x").write_text("x")
    assert not seen.look().changes
    (directory / "x").write_text("x")
    assert seen.look().whole == {"in/x"}
    shutil.rmtree(directory)
    assert (DELETED, "in") in seen.look().changes
    assert watch.directories == {str(tmp_path)}


def test_what_cannot_be_watched_is_passed_over(tmp_path: Path, watch: InotifyWatch) -> None:
    assert not watch.add(f"{tmp_path}/gone")
    assert not watch.add(f"{tmp_path}/a")
    assert watch.directories == {str(tmp_path)}


def test_an_overflow_is_told(
    box: EventBuffer, watch: InotifyWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the kernel puts at the end of a full queue: watch -1, no name.
    words, overflow = watch._file_events(inotify._HEAD.pack(-1, 0x4000, 0, 0))
    assert (words, overflow) == ([], True)


@pytest.mark.parametrize(
    ("number", "error"), [(24, inotify.LimitReachedError), (38, OSError), (23, Exception)]
)
def test_a_kernel_that_refuses(
    box: EventBuffer, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    class Refusing:
        def inotify_init1(self, flags: int) -> int:
            ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *a, **k: Refusing())
    with pytest.raises(error):
        inotify.InotifyWatch(box)
