"""The small parts of watching that need no real watcher."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.base.editor_files import has_mark, is_temporary
from devloop.base.file_content import FileCache
from devloop.watch.event_buffer import ADDED, DELETED, MODIFIED, EventBuffer, FileEvent
from devloop.watch.pauses import LONGEST_SECONDS, GitOperations, Pace, SleepDetector
from devloop.watch.watchset import SilentMounts

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


TEMPORARY = [
    *["app.py~", ".app.py.swp", ".app.py.swx", ".app.py.swo", ".app.py.un~", "4913"],
    *["App.java___jb_tmp___", "App.java___jb_old___", ".#app.py", "#app.py#", "flymake_app.py"],
    *["flycheck_app.py", ".app.py.kate-swp", ".goutputstream-9FX3B2", ".~lock.a.odt#"],
    *[".app.py.kak.aB3x9Z", "settings.json.vsctmp", "x-go-tmp-umask", "a\nb~"],
    *[".nfs000000000a1b2c3d00000001", ".fuse_hidden0000a1b200000001", "app.py.tmp~"],
]
ORDINARY = [
    *["app.py", "4913.json", "54913", "5036", "swp", "a.swp", ".swp.py", "#", "a#b", "jb_tmp"],
    *[".env", ".gitignore", "~a", "kate-swp", "tmp", "a.tmp", "sedentary", "umask", "c#", "#c"],
    *[".config.swift", "flymake", ".nfs", ".#", "~", "a.orig", "a.bak"],
]


@pytest.mark.parametrize("name", TEMPORARY)
def test_editors_files_are_known(name: str) -> None:
    assert has_mark(name)
    assert is_temporary(name)


@pytest.mark.parametrize("name", [n for n in ORDINARY if n not in {"~", ".#"}])
def test_other_files_are_left_alone(name: str) -> None:
    assert not is_temporary(name)


MOUNTS = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /mnt/c rw,noatime - 9p drvfs rw,dirsync
31 22 0:27 / /mnt/my\040share rw - fuse.sshfs me@host:/ rw
32 30 8:1 / /mnt/c/local rw - ext4 /dev/sda1 rw
33 22 0:28 / /data rw - fuse.mergerfs pool rw
34 22 0:29 / /over rw - nfs4 server:/x rw
35 34 0:30 / /over rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", None),
        ("/", None),
        ("/mnt/c", "9p"),
        ("/mnt/c/project/src", "9p"),
        ("/mnt/cd", None),
        ("/mnt/c/local/x", None),
        ("/mnt/my share/x", "fuse.sshfs"),
        ("/data/x", None),
        ("/over/x", None),
    ],
)
def test_file_systems_that_keep_quiet(path: str, kind: str | None) -> None:
    assert SilentMounts(MOUNTS).kind(path) == kind


def test_no_mount_table_is_no_silent_mount() -> None:
    assert SilentMounts("").kind("/mnt/c") is None


def test_the_event_buffer_merges_and_gives_up_counting() -> None:
    box = EventBuffer()
    assert box.take(0).changes == set()
    box.put([FileEvent(ADDED, "/a"), FileEvent(MODIFIED, "/b")])
    box.put([FileEvent(MODIFIED, "/b")])
    found = box.take(5)
    assert (found.changes, found.many) == ({(1, "/a"), (2, "/b")}, False)
    box.put([FileEvent(MODIFIED, f"/{i}") for i in range(2000)])
    box.put([FileEvent(MODIFIED, "/late")])
    found = box.take(5)
    assert found.many
    assert found.changes == {(2, "/late")}
    box.put([FileEvent(MODIFIED, "/a")], many=True)
    found = box.take(5)
    assert found.many
    assert found.changes == {(2, "/a")}
    box.fail(OSError("x"))
    box.wake()
    found = box.take(5)
    assert isinstance(found.fault, OSError)


def test_the_last_event_of_a_path_says_whether_it_is_whole() -> None:
    box = EventBuffer()
    box.put(
        [
            FileEvent(ADDED, "/new"),
            FileEvent(MODIFIED, "/new", True),
            FileEvent(ADDED, "/moved", True),
        ]
    )
    box.put(
        [
            FileEvent(MODIFIED, "/open"),
            FileEvent(MODIFIED, "/again", True),
            FileEvent(MODIFIED, "/mode", None),
        ]
    )
    box.put(
        [
            FileEvent(MODIFIED, "/again", False),
            FileEvent(MODIFIED, "/new", None),
            FileEvent(DELETED, "/gone"),
        ]
    )
    found = box.take(5)
    assert found.whole == {"/new", "/moved"}
    assert found.unfinished == {"/open", "/again", "/gone"}
    assert found.begun == {"/new"}


def test_the_wait_for_the_rest_of_a_save() -> None:
    pace = Pace()
    plain = pace.window(unfinished=False, new=False)
    assert plain < pace.window(unfinished=False, new=True) < LONGEST_SECONDS
    assert pace.window(unfinished=True, new=False) == LONGEST_SECONDS
    # Nothing was hinted yet, so nothing went on.
    pace.came(0.0)
    assert pace.window(unfinished=False, new=False) == plain


def test_the_wait_grows_where_saves_go_on_and_shrinks_where_they_do_not() -> None:
    pace = Pace()
    plain = pace.window(unfinished=False, new=False)
    pace.hinted(1.0)
    pace.came(1.0 + 3 * plain)
    assert pace.window(unfinished=False, new=False) > 3 * plain
    for i in range(100):
        pace.hinted(2.0 + i)
        pace.came(2.001 + i)
        pace.came(2.002 + i)
    assert pace.window(unfinished=False, new=False) == LONGEST_SECONDS
    # What comes later than the longest wait is another save, however soon.
    for i in range(100):
        pace.hinted(200.0 + i)
        pace.came(200.0 + i + 2 * LONGEST_SECONDS)
    assert pace.window(unfinished=False, new=False) == plain


def test_the_event_buffer_wakes_the_one_that_waits() -> None:
    box = EventBuffer()
    thread = threading.Timer(0.02, box.wake)
    thread.start()
    assert not box.take(60).changes
    thread.join()


def test_sleep_is_a_jump_between_two_clocks() -> None:
    slept = iter([100.0, 100.2, 103.0, 110.0, 110.0, 90.0])
    detector = SleepDetector(lambda: next(slept))
    assert [detector.woke() for _ in range(5)] == [False, False, True, False, True]
    assert not SleepDetector().woke()


def test_git_is_busy_while_it_holds_the_index(tmp_path: Path) -> None:
    write(tmp_path / ".git/HEAD")
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    git = GitOperations([str(inner)])
    assert not git.busy()
    lock = write(tmp_path / ".git/index.lock")
    assert git.busy()
    git.tolerate()
    assert not git.busy()
    lock.unlink()
    write(tmp_path / ".git/other")
    write(lock)
    os.utime(lock, ns=(5, 5))
    assert git.busy()


def test_git_in_a_worktree(tmp_path: Path) -> None:
    write(tmp_path / "main/.git/worktrees/w/HEAD")
    write(tmp_path / "w/.git", "gitdir: ../main/.git/worktrees/w\n")
    git = GitOperations([str(tmp_path / "w")])
    write(tmp_path / "main/.git/worktrees/w/index.lock")
    assert git.busy()
    assert not GitOperations([str(tmp_path / "elsewhere")]).busy()


def test_single_files_are_read_when_they_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "one")
    files = FileCache()
    first = files.digest(str(path), Cancel())
    # Young files are read each time, so that a rewrite within one tick of the clock shows.
    times = (path.stat().st_mtime_ns, path.stat().st_mtime_ns)
    write(path, "two")
    os.utime(path, ns=times)
    second = files.digest(str(path), Cancel())
    assert first != second
    link = tmp_path / "link"
    link.symlink_to("a")
    assert files.digest(str(link), Cancel()) == second
    assert files.digest(str(tmp_path / "gone"), Cancel()) is None
    os.mkfifo(tmp_path / "pipe")
    assert files.digest(str(tmp_path / "pipe"), Cancel()) is None
    assert files.digest(str(tmp_path), Cancel()) is None
