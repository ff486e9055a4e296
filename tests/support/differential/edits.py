"""What happens to a build context: edits as plain data, made at random and done on disk.

An edit that cannot be done (the path went away when the case was made smaller) does nothing, so
that any part of a list of edits is a list of edits. No edit leaves the context: a symlink is never
followed, wherever it points.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from devloop.base.editor_files import LEFT_OUT_DIRECTORIES, is_temporary

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["Edit", "Tree", "apply", "from_json", "random_edit", "random_tree", "to_json"]

Kind = Literal[
    "write", "save", "remove", "rename", "chmod", "chown", "symlink", "mkdir", "hardlink", "touch"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change of the context. `path` and `other` are relative, decoded with surrogateescape.

    write: in place, save: atomically; both make the directories above and put `text` there `times`
    times.
    rename: `path` becomes `other`, which is removed first. symlink and hardlink: `path` is made, to
    `other`. remove takes trees. chown gives the path an owner that no image may show."""

    kind: Kind
    path: str
    other: str = ""
    mode: int = 0
    text: str = ""
    times: int = 1

    def __str__(self) -> str:
        words = [self.kind, repr(self.path)]
        if self.other:
            words.append(f"-> {self.other!r}")
        if self.kind in ("write", "save", "mkdir", "chmod"):
            words.append(f"{self.mode:o}")
        if self.kind in ("write", "save"):
            words.append(f"{self.text!r} x {self.times}")
        return " ".join(words)


def to_json(edit: Edit) -> dict[str, Any]:
    return {key: value for key, value in asdict(edit).items() if value not in ("", 0)}


def from_json(data: dict[str, Any]) -> Edit:
    return Edit(**data)


def apply(root: Path, edit: Edit) -> None:
    """Do `edit` under `root`, or nothing if it cannot be done."""
    path = _place(root, edit.path)
    other = _place(root, edit.other) if edit.kind in ("rename", "hardlink") else None
    try:
        _DO[edit.kind](path, other, edit)
    except (OSError, ValueError):
        # The case was made smaller: what this edit builds on is gone.
        return


def _place(root: Path, path: str) -> bytes:
    return os.path.join(os.fsencode(root), os.fsencode(path))  # noqa: PTH118 - bytes


def _directories_above(path: bytes) -> None:
    """Make the directories above `path`; what stands in the way and is no directory stops it."""
    parent = os.path.dirname(path)  # noqa: PTH120
    try:
        if not stat.S_ISDIR(os.lstat(parent).st_mode):
            raise NotADirectoryError
    except FileNotFoundError:
        _directories_above(parent)
        os.mkdir(parent)  # noqa: PTH102
        os.chmod(parent, 0o755)  # noqa: PTH101
    else:
        _check_above(parent)


def _check_above(path: bytes) -> None:
    """Raise unless every directory on the way is a real one: nothing is done behind a symlink."""
    parent = os.path.dirname(path)  # noqa: PTH120
    while parent not in (b"/", b""):
        if stat.S_ISLNK(os.lstat(parent).st_mode):
            raise NotADirectoryError
        parent = os.path.dirname(parent)  # noqa: PTH120


def _remove(path: bytes) -> None:
    _check_above(path)
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)  # noqa: PTH108


def _clear(path: bytes) -> None:
    if os.path.lexists(path):
        _remove(path)


def _write(path: bytes, _: bytes | None, edit: Edit) -> None:
    _directories_above(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    if os.path.islink(path):  # noqa: PTH114
        os.unlink(path)  # noqa: PTH108
    fd = os.open(path, flags)
    with os.fdopen(fd, "wb") as file:
        file.write(edit.text.encode("utf-8", "surrogateescape") * edit.times)
        os.fchmod(fd, edit.mode or 0o644)


def _save(path: bytes, _: bytes | None, edit: Edit) -> None:
    _directories_above(path)
    if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
        return
    beside = os.path.join(os.path.dirname(path), b".save-tmp")  # noqa: PTH118, PTH120
    _write(beside, None, edit)
    os.rename(beside, path)  # noqa: PTH104


def _do_remove(path: bytes, _: bytes | None, edit: Edit) -> None:
    _remove(path)


def _rename(path: bytes, other: bytes | None, edit: Edit) -> None:
    assert other is not None
    if (other + b"/").startswith(path + b"/") or (path + b"/").startswith(other + b"/"):
        return
    os.lstat(path)
    _check_above(path)
    _directories_above(other)
    _clear(other)
    os.rename(path, other)  # noqa: PTH104


def _chmod(path: bytes, _: bytes | None, edit: Edit) -> None:
    _check_above(path)
    if not os.path.islink(path):  # noqa: PTH114
        os.chmod(path, edit.mode)  # noqa: PTH101


def _chown(path: bytes, _: bytes | None, edit: Edit) -> None:
    _check_above(path)
    found = os.lstat(path)
    os.lchown(path, 4321, 1234)
    if not stat.S_ISLNK(found.st_mode):
        # The kernel takes set-uid bits away.
        os.chmod(path, stat.S_IMODE(found.st_mode))  # noqa: PTH101


def _symlink(path: bytes, _: bytes | None, edit: Edit) -> None:
    _directories_above(path)
    _clear(path)
    os.symlink(os.fsencode(edit.other), path)  # noqa: PTH211 - bytes


def _mkdir(path: bytes, _: bytes | None, edit: Edit) -> None:
    _directories_above(path)
    if os.path.lexists(path) and not (
        os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114
    ):
        _remove(path)
    if not os.path.lexists(path):
        os.mkdir(path)  # noqa: PTH102
    os.chmod(path, edit.mode or 0o755)  # noqa: PTH101


def _hardlink(path: bytes, other: bytes | None, edit: Edit) -> None:
    assert other is not None
    if path == other or not stat.S_ISREG(os.lstat(other).st_mode):
        return
    _check_above(other)
    _directories_above(path)
    _clear(path)
    os.link(other, path)


def _touch(path: bytes, _: bytes | None, edit: Edit) -> None:
    _check_above(path)
    os.utime(path, follow_symlinks=False)


_DO: dict[str, Callable[[bytes, bytes | None, Edit], None]] = {
    "write": _write,
    "save": _save,
    "remove": _do_remove,
    "rename": _rename,
    "chmod": _chmod,
    "chown": _chown,
    "symlink": _symlink,
    "mkdir": _mkdir,
    "hardlink": _hardlink,
    "touch": _touch,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What is in a context now, by type; relative paths."""

    files: tuple[str, ...]
    directories: tuple[str, ...]
    links: tuple[str, ...]

    @classmethod
    def of(cls, root: Path) -> Tree:
        files, directories, links = [], [], []
        top = os.fsencode(root)
        for directory, names, others in os.walk(top):
            for name in (*names, *others):
                path = os.path.join(directory, name)  # noqa: PTH118
                shown = os.fsdecode(os.path.relpath(path, top))
                if os.path.islink(path):  # noqa: PTH114
                    links.append(shown)
                elif name in others:
                    files.append(shown)
                else:
                    directories.append(shown)
        return cls(
            files=tuple(sorted(files)),
            directories=tuple(sorted(directories)),
            links=tuple(sorted(links)),
        )

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.files, *self.directories, *self.links)


DIRECTORIES = (
    "app",
    "lib",
    "conf",
    "app/sub",
    "app/sub/deep",
    "lib/x",
    "a b",
    "ünï",
    "static",
    "empty",
)
FILES = ("main.py", "x.py", "y.py", "z.txt", "README.md", "run.sh", "data", "a", "b.json", ".env")
ODD = (
    *(
        "a b",
        " lead",
        "trail ",
        "it's",
        'quo"te',
        "back\\slash",
        "new\nline",
        "tab\tx",
        "-rf",
        "--x",
    ),
    *("[a]*?", "[a", "a]", "*", "?", "{a,b}", "!x", "#y", "$HOME", "${x}", "`id`", "a;b", "a&b"),
    *(
        "ü",
        "u\u0308",
        "é",
        "e\u0301",
        "日本",
        "😀",
        "\u202ertl",
        "\x01ctl",
        "\x7f",
        "..x",
        "...",
        "a..b",
    ),
    *(
        "\udcff\udcfe",
        "bad\udce9",
        "A",
        "Main.PY",
        "con",
        "x" * 255,
        "ü" * 127,
        "y" * 101,
        ".hidden",
    ),
    *(
        ".wh.foo",
        ".wh..wh..opq",
        ".wh.main.py",
        ".wh.",
        "PaxHeader",
        "@LongLink",
        "a:b",
        "a=b",
        "%20",
    ),
)
MODES = (0o644, 0o644, 0o644, 0o644, 0o755, 0o755, 0o600, 0o664, 0o400, 0o4755, 0o2755, 0o777, 0)
DIRECTORY_MODES = (0o755, 0o755, 0o755, 0o700, 0o775, 0o1777, 0o2755, 0o500, 0o777, 0)
TARGETS = (
    *(
        "main.py",
        "../main.py",
        "../../x",
        "app",
        "app/sub",
        "../lib",
        ".",
        "..",
        "/",
        "/etc/passwd",
    ),
    *("/nowhere", "nowhere", "dangling/deep", "ü", "a b", "/app", "bad\udce9", "loop", "t" * 150),
)
IGNORES = (
    *("*.md", "**/*.md", "!README.md", "lib", "!lib/x", "app/sub", "!app/sub/deep", "*", "!app"),
    *("**/.env", "a b", "**/x.py", "!**/x.py", "conf/*", "!conf/a", "# note", "", "Dockerfile"),
    *(".dockerignore", "static/**", "!lib/**", "/z.txt", "**", "!main.py"),
)


def _usable(path: str) -> bool:
    """Devloop leaves out by design what is named like an editor's file, `.git` and `.devloop`."""
    names = path.split("/")
    return not any(is_temporary(n) or n in LEFT_OUT_DIRECTORIES or n in (".", "..") for n in names)


def _text(rng: random.Random) -> tuple[str, int]:
    roll = rng.random()
    if roll < 0.08:
        return "", 1
    word = f"{rng.getrandbits(40):x}\n"
    if roll < 0.12:
        return word, rng.choice([100, 6000, 90_000])
    return word, rng.randint(1, 3)


def _new_path(rng: random.Random, tree: Tree, *, odd: float = 0.15) -> str:
    """A path that may or may not be there."""
    roll = rng.random()
    if roll < 0.02:
        parent = "/".join(["deep-folder-name-of-some-length"] * rng.randint(3, 9))
    elif roll < 0.25:
        parent = ""
    elif roll < 0.85 and tree.directories:
        parent = rng.choice(tree.directories)
    else:
        parent = rng.choice(DIRECTORIES)
    name = rng.choice(ODD) if rng.random() < odd else rng.choice(FILES)
    path = f"{parent}/{name}" if parent else name
    return path if _usable(path) else "plain"


def _protected(path: str) -> bool:
    """The recipe's own files change by other means. (An ignore file that is a directory is an error
    in devloop and nothing to Docker.)"""
    return path in ("Dockerfile", "Dockerfile.dockerignore", ".dockerignore")


def _pick(rng: random.Random, paths: Sequence[str]) -> str | None:
    """One of the paths; the recipe's own files are not for edits."""
    choice = [p for p in paths if not _protected(p)]
    return rng.choice(choice) if choice else None


def ignore_text(rng: random.Random) -> str:
    return "".join(f"{line}\n" for line in rng.sample(IGNORES, rng.randint(0, 4)))


def random_edit(rng: random.Random, tree: Tree) -> tuple[Edit, ...]:
    """One thing that a developer may do, as one or more edits."""
    makers = [maker for maker, _ in _MAKERS]
    weights = [weight for _, weight in _MAKERS]
    while True:
        maker = rng.choices(makers, weights)[0]
        made = maker(rng, tree)
        own = maker is _ignore or not any(_protected(e.path) or _protected(e.other) for e in made)
        if made and own:
            return made


Made = tuple[Edit, ...]


def _change(rng: random.Random, tree: Tree) -> Made:
    path = _pick(rng, tree.files)
    if path is None:
        return ()
    text, times = _text(rng)
    kind: Kind = rng.choice(["write", "save"])
    return (Edit(kind=kind, path=path, text=text, times=times, mode=rng.choice(MODES[:6])),)


def _add(rng: random.Random, tree: Tree) -> Made:
    text, times = _text(rng)
    path = _new_path(rng, tree)
    return (Edit(kind="write", path=path, text=text, times=times, mode=rng.choice(MODES)),)


def _delete(rng: random.Random, tree: Tree) -> Made:
    path = _pick(rng, (*tree.files, *tree.files, *tree.links, *tree.directories))
    return (Edit(kind="remove", path=path),) if path else ()


def _move(rng: random.Random, tree: Tree) -> Made:
    path = _pick(rng, (*tree.files, *tree.links, *tree.directories))
    if path is None:
        return ()
    other = _new_path(rng, tree) if rng.random() < 0.7 else _pick(rng, tree.all)
    return (Edit(kind="rename", path=path, other=other),) if other else ()


def _modes(rng: random.Random, tree: Tree) -> Made:
    if tree.directories and rng.random() < 0.35:
        path = rng.choice((*tree.directories, "."))
        return (Edit(kind="chmod", path=path, mode=rng.choice(DIRECTORY_MODES)),)
    path = _pick(rng, tree.files) or "."
    return (Edit(kind="chmod", path=path, mode=rng.choice(MODES)),)


def _link(rng: random.Random, tree: Tree) -> Made:
    path = _pick(rng, tree.links) if tree.links and rng.random() < 0.5 else _new_path(rng, tree)
    there = _pick(rng, tree.all)
    if there is None or rng.random() < 0.2:
        target = rng.choice(TARGETS)
    else:
        # As a person would write it.
        target = posixpath.relpath(there, posixpath.dirname(path or "") or ".")
    return (Edit(kind="symlink", path=path, other=target),) if path else ()


def _file_to_directory(rng: random.Random, tree: Tree) -> Made:
    path = _pick(rng, (*tree.files, *tree.links))
    if path is None:
        return ()
    inside = (
        Edit(kind="write", path=f"{path}/{name}", text=f"{rng.getrandbits(20):x}", mode=0o644)
        for name in rng.sample(FILES, rng.randint(0, 2))
    )
    mode = rng.choice(DIRECTORY_MODES)
    return (Edit(kind="remove", path=path), Edit(kind="mkdir", path=path, mode=mode), *inside)


def _directory_to_file(rng: random.Random, tree: Tree) -> Made:
    path = _pick(rng, tree.directories)
    if path is None:
        return ()
    text = f"was a directory {rng.getrandbits(20):x}"
    return (
        Edit(kind="remove", path=path),
        Edit(kind="write", path=path, text=text, mode=rng.choice(MODES)),
    )


def _directory_to_link(rng: random.Random, tree: Tree) -> Made:
    path = _pick(rng, tree.directories)
    return (Edit(kind="symlink", path=path, other=rng.choice(TARGETS)),) if path else ()


def _directory(rng: random.Random, tree: Tree) -> Made:
    path = f"{_new_path(rng, tree)}.d"
    if len(os.fsencode(path.rpartition("/")[2])) > 255:
        return ()
    return (Edit(kind="mkdir", path=path, mode=rng.choice(DIRECTORY_MODES)),)


def _odd_name(rng: random.Random, tree: Tree) -> Made:
    text, times = _text(rng)
    path = _new_path(rng, tree, odd=1.0)
    return (Edit(kind="write", path=path, text=text, times=times, mode=rng.choice(MODES)),)


def _ignore(rng: random.Random, tree: Tree) -> Made:
    if rng.random() < 0.2:
        return (Edit(kind="remove", path=".dockerignore"),)
    return (Edit(kind="save", path=".dockerignore", text=ignore_text(rng), mode=0o644),)


def _second_name(rng: random.Random, tree: Tree) -> Made:
    other = _pick(rng, tree.files)
    if other is None:
        return ()
    return (Edit(kind="hardlink", path=_new_path(rng, tree, odd=0), other=other),)


def _swap(rng: random.Random, tree: Tree) -> Made:
    one, two = _pick(rng, tree.files), _pick(rng, (*tree.files, *tree.directories))
    if one is None or two is None or one.startswith(two) or two.startswith(one):
        return ()
    return (
        Edit(kind="rename", path=one, other="swapping"),
        Edit(kind="rename", path=two, other=one),
        Edit(kind="rename", path="swapping", other=two),
    )


def _touched(rng: random.Random, tree: Tree) -> Made:
    path = _pick(rng, tree.all)
    return (Edit(kind="touch", path=path),) if path else ()


def _owned(rng: random.Random, tree: Tree) -> Made:
    path = _pick(rng, tree.all)
    return (Edit(kind="chown", path=path),) if path else ()


_MAKERS: tuple[tuple[Callable[[random.Random, Tree], Made], int], ...] = (
    (_change, 30),
    (_add, 12),
    (_delete, 10),
    (_move, 8),
    (_modes, 8),
    (_link, 6),
    (_file_to_directory, 4),
    (_directory_to_file, 3),
    (_directory_to_link, 3),
    (_directory, 4),
    (_odd_name, 5),
    (_ignore, 2),
    (_second_name, 1),
    (_swap, 1),
    (_touched, 1),
    (_owned, 1),
)


def random_tree(rng: random.Random) -> tuple[Edit, ...]:
    """A context of some ten to forty paths, as edits of an empty directory."""
    made: list[Edit] = []
    for directory in DIRECTORIES:
        if rng.random() < 0.75:
            made.append(Edit(kind="mkdir", path=directory, mode=rng.choice(DIRECTORY_MODES[:6])))
            for name in rng.sample(FILES, rng.randint(0, 4)):
                text, times = _text(rng)
                mode = rng.choice(MODES)
                path = f"{directory}/{name}"
                made.append(Edit(kind="write", path=path, text=text, times=times, mode=mode))
    for name in rng.sample(FILES, rng.randint(1, 5)):
        text, times = _text(rng)
        made.append(Edit(kind="write", path=name, text=text, times=times, mode=rng.choice(MODES)))
    seen = Tree(
        files=tuple(e.path for e in made if e.kind == "write"),
        directories=tuple(e.path for e in made if e.kind == "mkdir"),
        links=(),
    )
    for maker, chance in ((_link, 0.5), (_odd_name, 0.4), (_ignore, 0.4), (_directory, 0.3)):
        if rng.random() < chance:
            made += maker(rng, seen)
    return tuple(made)
