"""Where expensive things are kept between runs, each under a hash of what it was made from.

Nothing is ever changed in place: a directory or file appears under its final name in one rename, so
an interrupted run leaves only a `.part-*` leftover, which the next run removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PART = ".part-"


def home() -> Path:
    """Return the cache's directory: $DEVLOOP_TEST_CACHE, or devloop-tests in the user's cache."""
    if own := os.environ.get("DEVLOOP_TEST_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "devloop-tests"


def bin_dir() -> Path:
    """Return the directory of links to the programs that the set-up had to bring itself."""
    return home() / "bin"


def key(*inputs: str | Path) -> str:
    """Return a short hash of strings and of the contents and names of files and directories."""
    total = hashlib.sha256()
    for part in inputs:
        if isinstance(part, str):
            total.update(f"text {part}\0".encode())
            continue
        files = [part] if part.is_file() else sorted(part.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                name = file.name if file == part else file.relative_to(part).as_posix()
                executable = bool(file.stat().st_mode & 0o100)
                total.update(f"file {name} {executable}\0".encode())
                total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:12]


def made(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cached file or directory `name`, first made by `make` under a temporary name.

    `name` holds the hash of everything it depends on; `make` gets a path that does not exist yet,
    in an empty directory that it may use for its own leftovers.
    """
    final = home() / name
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    for old in final.parent.glob(PART + "*"):
        shutil.rmtree(old, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=PART, dir=final.parent))
    try:
        make(work / final.name)
        (work / final.name).rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def forget(pattern: str, keep: int = 2) -> None:
    """Remove all but the newest few that match, for each change of an input leaves one more.

    More than one is kept because two checkouts may take turns.
    """
    found = sorted(home().glob(pattern), key=lambda place: place.stat().st_mtime, reverse=True)
    for place in found[keep:]:
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)


def link(target: Path, name: str) -> None:
    """Put a program into our bin directory under `name`, in one step even if one is there."""
    directory = bin_dir()
    directory.mkdir(parents=True, exist_ok=True)
    place = directory / name
    if place.is_symlink() and place.readlink() == target:
        return
    fresh = directory / f".{name}.{os.getpid()}"
    fresh.symlink_to(target)
    fresh.rename(place)


@contextmanager
def lock() -> Iterator[None]:
    """Keep two set-ups of one user from working at the same time; the second one waits."""
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
