"""The scan against what is really on disk: exact, incremental, and never out of its tree."""

from __future__ import annotations

import os
import shutil
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.ignore_rules import IgnoreRules
from devloop.errors import DevloopError
from devloop.watch import scan as scan_module
from devloop.watch import tree as tree_module
from devloop.watch.rules import ContextRules
from devloop.watch.scan import TreeScanner
from tests.support.examples import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devloop.model import Snapshot


def rules(text: str = "") -> ContextRules:
    return ContextRules(IgnoreRules.parse(text))


def scanner(root: Path, text: str = "") -> TreeScanner:
    return TreeScanner(root, rules(text))


def fresh(root: Path, text: str = "") -> Snapshot:
    return scanner(root, text).scan(None, Cancel())


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def age(root: Path) -> Callable[[], int]:
    """A clock so far ahead that every file under any root counts as settled."""
    return lambda: os.stat(root).st_ctime_ns + 60_000_000_000  # noqa: PTH116


def test_entries_hold_type_mode_size_digest_and_link(tmp_path: Path) -> None:
    write(tmp_path / "src/app.py", "hello").chmod(0o640)
    (tmp_path / "empty").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("src/app.py")
    entries = fresh(tmp_path).entries
    assert list(entries) == ["empty", "link", "src", "src/app.py"]
    assert entries["empty"].type == "dir"
    assert entries["empty"].mode == 0o700
    assert entries["link"].link == "src/app.py"
    assert entries["link"].type == "symlink"
    file = entries["src/app.py"]
    assert (file.type, file.mode, file.size) == ("file", 0o640, 5)
    assert file.digest == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_touch_changes_the_stamp_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    tree = scanner(tmp_path)
    before = tree.scan(None, Cancel())
    os.utime(path, ns=(1, 1))
    after = tree.scan({path}, Cancel())
    assert after.digest == before.digest
    assert after.stamp != before.stamp
    assert tree.changes == ()


def test_written_to_something_else_and_back_shows_in_the_stamp(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "one")
    tree = scanner(tmp_path)
    before = tree.scan(None, Cancel())
    write(path, "two")
    os.utime(path, ns=(1, 1))
    write(path, "one")
    os.utime(path, ns=(1, 1))
    after = tree.scan(None, Cancel())
    assert after.digest == before.digest
    assert after.stamp != before.stamp


@pytest.mark.parametrize("kind", ["content", "mode", "name", "type", "link"])
def test_every_kind_of_change_shows_in_the_digest(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "d/a", "one")
    (tmp_path / "l").symlink_to("d/a")
    tree = scanner(tmp_path)
    before = tree.scan(None, Cancel())
    match kind:
        case "content":
            write(path, "two")
        case "mode":
            path.chmod(0o755)
        case "name":
            path.rename(tmp_path / "d/b")
        case "type":
            path.unlink()
            path.mkdir()
        case _:
            (tmp_path / "l").unlink()
            (tmp_path / "l").symlink_to("d/b")
    after = tree.scan(None, Cancel())
    assert after.digest != before.digest
    assert set(tree.changes) == after.changed_since(before) != set()


def test_same_size_and_time_is_read_again_while_young(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "one")
    tree = scanner(tmp_path)
    before = tree.scan(None, Cancel())
    times = (path.stat().st_mtime_ns, path.stat().st_mtime_ns)
    path.write_text("two")
    os.utime(path, ns=times)
    assert tree.scan(None, Cancel()).digest != before.digest


def test_settled_files_are_not_read_again(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / f"d{i % 3}/f{i}")
    tree = TreeScanner(tmp_path, rules(), clock=age(tmp_path))
    tree.scan(None, Cancel())
    assert tree.read == 20
    tree.scan(None, Cancel())
    assert tree.read == 0
    write(tmp_path / "d0/f0", "new")
    tree.scan(None, Cancel())
    assert tree.read == 1


def test_young_files_are_read_once_more_and_then_trusted(tmp_path: Path) -> None:
    write(tmp_path / "a")
    now = [os.stat(tmp_path / "a").st_ctime_ns]  # noqa: PTH116
    tree = TreeScanner(tmp_path, rules(), clock=lambda: now[0])
    for later, read in [(0, 1), (1, 1), (3, 1), (3, 0)]:
        now[0] += later * 1_000_000_000
        tree.scan(None, Cancel())
        assert tree.read == read


def test_pipes_and_sockets_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "a")
    tree = scanner(tmp_path)
    assert list(tree.scan(None, Cancel()).entries) == ["a"]
    assert list(tree.scan({tmp_path / "pipe"}, Cancel()).entries) == ["a"]


def test_symlinks_are_never_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(tmp_path / "outside/secret")
    write(root / "a")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(".")
    (root / "dangling").symlink_to("nowhere")
    tree = scanner(root)
    expected = ["a", "dangling", "loop", "out"]
    assert list(tree.scan(None, Cancel()).entries) == expected
    hints = {root / "out/secret", root / "loop/a", root / "loop/loop/a"}
    assert list(tree.scan(hints, Cancel()).entries) == expected


def test_a_directory_swapped_for_a_symlink_is_not_entered(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(tmp_path / "outside/secret")
    write(root / "d/a")
    tree = scanner(root)
    tree.scan(None, Cancel())
    shutil.rmtree(root / "d")
    (root / "d").symlink_to(tmp_path / "outside")
    assert list(tree.scan({root / "d/secret"}, Cancel()).entries) == ["d"]


def test_names_in_any_bytes(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9\n.txt"
    with open(name, "wb") as file:  # noqa: PTH123
        file.write(b"x")
    snapshot = fresh(tmp_path)
    assert [os.fsencode(path) for path in snapshot.entries] == [b"caf\xe9\n.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", ["d/a", "d"])
def test_unreadable_is_an_error_that_names_the_path(tmp_path: Path, name: str) -> None:
    write(tmp_path / "d/a")
    (tmp_path / name).chmod(0)
    try:
        with pytest.raises(DevloopError) as raised:
            fresh(tmp_path)
    finally:
        (tmp_path / name).chmod(0o700)
    assert raised.value.code == "env/file-unreadable"
    assert str(tmp_path / name) in raised.value.diagnosis.message


def test_a_read_error_names_the_path_and_the_next_scan_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "d/a")
    tree = scanner(tmp_path)
    tree.scan(None, Cancel())
    write(path, "two")
    write(tmp_path / "d/b")
    with monkeypatch.context() as patch:
        patch.setattr(scan_module, "read_small", lambda *_: None)
        patch.setattr(scan_module, "hash_file", _refuse)
        with pytest.raises(DevloopError) as raised:
            tree.scan({path}, Cancel())
    assert str(path) in raised.value.diagnosis.message
    # The failed scan's hints are gone, so the next looks at everything.
    assert tree.scan(set(), Cancel()) == fresh(tmp_path)


def test_what_may_not_be_read_does_no_harm_where_no_build_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "pgdata/base/1")
    write(tmp_path / "secret")
    app = write(tmp_path / "app.py")
    (tmp_path / "pgdata").chmod(0o700)
    asked: list[str] = []

    def needed(path: str) -> bool:
        asked.append(path)
        return path == "app.py"

    real = os.open

    def opened(path: Any, *given: Any, **more: Any) -> int:
        if os.fspath(path) in ("pgdata", "secret"):
            raise PermissionError(13, "Permission denied")
        return real(path, *given, **more)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(DevloopError, match="cannot read"):
        fresh(tmp_path)
    tree = TreeScanner(tmp_path, rules(), needed=needed)
    before = tree.scan(None, Cancel())
    assert before.entries.keys() == {"app.py", "pgdata"}
    assert before.entries["pgdata"].mode == 0o700
    assert set(asked) == {"pgdata", "secret"}
    write(app, "two")
    assert tree.scan({app, tmp_path / "pgdata"}, Cancel()).digest != before.digest
    assert tree.changes == ("app.py",)


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_file_that_will_not_hold_still_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a", "one")
    tree = TreeScanner(tmp_path, rules(), clock=age(tmp_path))
    real = os.read
    sizes = iter(range(1, 100))

    def restless(fd: int, length: int) -> bytes:
        data = real(fd, length)
        os.truncate(path, next(sizes))
        return data

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", restless)
        tree.scan(None, Cancel())
    path.write_text("one")
    assert tree.scan(None, Cancel()).digest == fresh(tmp_path).digest
    assert tree.read == 1


def test_a_cancelled_scan_is_made_up_for(tmp_path: Path) -> None:
    for i in range(5):
        write(tmp_path / f"d{i}/a")
    tree = scanner(tmp_path)
    tree.scan(None, Cancel())
    shutil.rmtree(tmp_path / "d1")
    write(tmp_path / "d9/a")
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        tree.scan(None, cancel)
    assert tree.scan(set(), Cancel()) == fresh(tmp_path)


def test_a_missing_root_is_an_error_and_its_return_is_seen(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "d/a")
    tree = scanner(root)
    before = tree.scan(None, Cancel())
    root.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        tree.scan({root / "d/a"}, Cancel())
    write(root / "d/b")
    after = tree.scan(set(), Cancel())
    assert list(after.entries) == ["d", "d/b"]
    assert set(tree.changes) == after.changed_since(before) == {"d/a", "d/b"}


def test_ignored_parents_of_excepted_files_are_entries(tmp_path: Path) -> None:
    write(tmp_path / "vendor/keep/a.txt")
    write(tmp_path / "vendor/b")
    text = "vendor\n!vendor/keep/*.txt"
    tree = scanner(tmp_path, text)
    assert list(tree.scan(None, Cancel()).entries) == ["vendor", "vendor/keep", "vendor/keep/a.txt"]
    (tmp_path / "vendor/keep/a.txt").unlink()
    gone = tree.scan({tmp_path / "vendor/keep/a.txt"}, Cancel())
    assert dict(gone.entries) == {}
    assert gone == fresh(tmp_path, text)


def test_what_is_pruned_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("node_modules/a/b", ".git/objects/c", ".devloop/d", "src/e"):
        write(tmp_path / name)
    opened: list[str] = []
    real = os.open

    def spy(path: str, *args: int, **kwargs: int) -> int:
        opened.append(os.path.basename(path))  # noqa: PTH119
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", spy)
    TreeScanner(tmp_path, rules("node_modules"), clock=age(tmp_path)).scan(None, Cancel())
    assert sorted(opened[1:]) == ["e", "src"]


def test_other_rules_from_the_next_scan_on(tmp_path: Path) -> None:
    write(tmp_path / "a.md")
    write(tmp_path / "d/b")
    tree = scanner(tmp_path)
    tree.scan(None, Cancel())
    for text in ("*.md", "d", "", "*\n!d/b"):
        tree.use(rules(text))
        assert tree.scan(set(), Cancel()) == fresh(tmp_path, text)


def test_a_big_directory_hashes_the_same_in_any_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across the size at which a directory is hashed in groups, up and down, one by one or at
    once."""
    monkeypatch.setattr(tree_module, "_BIG", 20)
    tree = scanner(tmp_path)
    before = tree.scan(None, Cancel())
    for i in range(30):
        path = write(tmp_path / f"f{i}")
        after = tree.scan({path}, Cancel())
        assert after == fresh(tmp_path)
        assert set(tree.changes) == after.changed_since(before) == {f"f{i}"}
        before = after
    for i in range(30):
        path = tmp_path / f"f{i}"
        if i % 3:
            write(path, "new")
        else:
            path.unlink()
        # Every fourth time by looking at everything.
        assert tree.scan(None if i % 4 == 0 else {path}, Cancel()) == fresh(tmp_path)


def lasting(snapshot: Snapshot) -> Snapshot:
    """Without files that are named like temporary ones: whether they are there depends on time."""
    found = {p: e for p, e in snapshot.entries.items() if e.type == "dir" or not p.endswith("~")}
    return replace(snapshot, entries=found)


def test_a_file_that_is_named_like_a_temporary_one_stays_and_starts_nothing(tmp_path: Path) -> None:
    old = [write(tmp_path / name) for name in ("notes~", "data/4913")]
    new = tmp_path / ".app.py.swp"
    now = [time.time_ns()]
    write(tmp_path / "app.py")
    tree = TreeScanner(tmp_path, rules(""), clock=lambda: now[0])
    before = tree.scan(None, Cancel())
    assert {"notes~", "data/4913"} <= before.entries.keys()
    write(new)
    write(old[0], "other")
    old[1].unlink()
    narrow = tree.scan({tmp_path / "app.py"}, Cancel())
    assert narrow.digest == before.digest
    assert narrow.stamp == before.stamp
    assert narrow.entries["notes~"] != before.entries["notes~"]
    assert narrow.entries.keys() == {"app.py", "data", "notes~"}
    assert ".app.py.swp" not in tree.scan(None, Cancel()).entries
    now[0] += 120 * 10**9
    assert ".app.py.swp" in tree.scan(None, Cancel()).entries
    tree.use(rules("*.swp"))
    assert ".app.py.swp" not in tree.scan(None, Cancel()).entries
    assert ".app.py.swp" not in tree.scan({new}, Cancel()).entries


NAMES = st.sampled_from(["a", "b", "c.md", "vendor", "x~", "é"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ACTIONS = st.one_of(
    st.tuples(st.just("write"), PATHS, st.sampled_from(["", "1", "22"])),
    st.tuples(st.sampled_from(["remove", "mkdir", "chmod", "touch", "fifo", "link"]), PATHS),
    st.tuples(st.just("move"), PATHS, PATHS),
    st.tuples(st.just("scan"), st.booleans()),
)


def act(root: Path, action: tuple[object, ...]) -> Iterable[Path]:
    """Do it if it can be done; the paths that an event would name."""
    verb, name, *rest = action
    path = root / str(name)
    try:
        match verb:
            case "write" if path.is_fifo():
                path.unlink()
            case "write":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(rest[0]))
            case "remove" if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            case "remove":
                path.unlink()
            case "mkdir":
                path.mkdir(parents=True)
            case "chmod":
                path.chmod(stat.S_IMODE(path.stat().st_mode) ^ 0o010, follow_symlinks=True)
            case "touch":
                os.utime(path)
            case "fifo":
                os.mkfifo(path)
            case "link":
                path.symlink_to("a")
            case _:
                target = root / str(rest[0])
                path.rename(target)
                return [path, target]
    except OSError:
        pass
    # A new parent's event names the parent, and a write through a symlink the file it leads to.
    real = path.parent.resolve() / path.name if path.parent.exists() else path
    named = {path, real, Path(os.path.realpath(path))}
    return [p for end in named for p in (end, *end.parents) if root in p.parents]


def test_a_directory_whose_place_a_file_took_inside_a_directory_that_came_back(
    tmp_path: Path,
) -> None:
    (tmp_path / "a" / "a").mkdir(parents=True)
    (tmp_path / "a" / "a" / "a").write_text("")
    tree = scanner(tmp_path, "")
    tree.scan(None, Cancel())
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a").write_text("")
    assert tree.scan(frozenset({tmp_path / "a"}), Cancel()) == fresh(tmp_path, "")


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow])
@given(
    actions=st.lists(ACTIONS, max_size=25),
    text=st.sampled_from(["", "*.md", "vendor\n!vendor/a", "*\n!a\n**/b", "**/c.md\n!a/**"]),
)
def test_incremental_equals_from_scratch(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[object, ...]], text: str
) -> None:
    root = tmp_path_factory.mktemp("tree")
    # Half of the trees are scanned as if all files were old, so that the stat cache is used.
    tree = (
        TreeScanner(root, rules(text), clock=age(root)) if len(actions) % 2 else scanner(root, text)
    )
    hints: set[Path] = set()
    before = tree.scan(None, Cancel())
    for action in [*actions, ("scan", True)]:
        if action[0] != "scan":
            hints.update(act(root, action))
            continue
        after = tree.scan(hints if action[1] else None, Cancel())
        assert lasting(after) == lasting(fresh(root, text))
        assert list(after.entries) == sorted(after.entries)
        assert set(tree.changes) == after.changed_since(before)
        hints, before = set(), after
    shutil.rmtree(root)
