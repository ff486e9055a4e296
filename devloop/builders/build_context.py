"""The build context as builders get it: exactly what the scan saw.

An image's tag is made from that, so a builder has to be given the same files: the scan leaves out
`.git`, devloop's own state and editors' temporary files, and `build.ignore` adds patterns. Docker
takes an ignore file only from beside the Dockerfile or from the context's root, so a merged one is
written beside a copy of the Dockerfile. Matching patterns is not done here.

The classic builder takes its context in one piece, as a tar. One that reads a directory by itself
and later gets a copy where files change faster than it reads: its image would never be what a scan
saw. In both, every file is checked against the scan while it is read, and file times are the
disk's: BuildKit keeps them, and so does this.

Which ignore file counts: https://docs.docker.com/build/concepts/context/#filename-and-location
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.editor_files import TEMPORARY, has_mark, is_temporary
from devloop.base.file_content import ContentChanged, VerifiedFiles
from devloop.base.patterns import ignore_line
from devloop.builders.image.tar_writer import END, header, padding, reading_context
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from devloop.model import ContextEntry, Scan, Snapshot


def stream(
    context: Path, scan: Scan, replaced: Mapping[str, bytes] | None = None
) -> Iterator[bytes]:
    """Yield the tar in pieces, in the order of the paths. `replaced` gives contents for files that
    are to differ from the disk or that the scan did not see.

    Raises build/context-changed and env/file-unreadable in the middle of the stream."""
    contents = dict(replaced or {})
    with VerifiedFiles(context, scan.kept) as files, reading_context():
        for path, entry in scan.snapshot.entries.items():
            if path in contents:
                continue
            if is_temporary(path.rpartition("/")[2]):
                yield from _passing_member(context, files, path, entry)
            else:
                yield from _member(context, files, path, entry)
    for path in sorted(contents):
        data = contents[path]
        yield header(path, "file", mode=0o644, size=len(data)) + data + padding(len(data))
    yield END


def _passing_member(
    context: Path, files: VerifiedFiles, path: str, entry: ContextEntry
) -> Iterator[bytes]:
    """An editor's temporary file, unless the editor has removed or rewritten it meanwhile."""
    try:
        yield from [b"".join(_member(context, files, path, entry))]
    except ContentChanged:
        return


def _member(context: Path, files: VerifiedFiles, path: str, entry: ContextEntry) -> Iterator[bytes]:
    if entry.type == "file":
        with files.open(path, entry.size, entry.digest) as file:
            yield header(path, "file", mode=entry.mode, size=entry.size, mtime=file.mtime)
            yield from file
        yield padding(entry.size)
        return
    full = context / path
    try:
        mtime = int(os.lstat(full).st_mtime)
        if entry.type == "symlink" and os.readlink(full) != entry.link:  # noqa: PTH115 - any bytes
            raise ContentChanged(path)
    except OSError:
        raise ContentChanged(path) from None
    yield header(path, entry.type, mode=entry.mode, mtime=mtime, link=entry.link)


def directories_of(snapshot: Snapshot) -> set[str]:
    """All directories of the context, those among them that are there only for what is below."""
    found = {path for path, entry in snapshot.entries.items() if entry.type == "dir"}
    for path in snapshot.entries:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found


@contextlib.contextmanager
def copied(context: Path, scan: Scan, within: Path) -> Iterator[Path]:
    """A directory in `within` with what `scan` saw below `context`, for as long as the block
    lasts. Raises build/context-changed, env/disk-full and env/file-unreadable."""
    with tempfile.TemporaryDirectory(prefix="devloop-context-", dir=within) as directory:
        try:
            _copy(context, scan, Path(directory))
        except OSError as error:
            raise failed_preparing(error) from error
        yield Path(directory)


def _copy(context: Path, scan: Scan, into: Path) -> None:
    """With modes and times."""
    snapshot = scan.snapshot
    ordered = sorted(directories_of(snapshot))
    for path in ordered:
        (into / path).mkdir(exist_ok=True)
    with VerifiedFiles(context, scan.kept) as files, reading_context():
        for path, entry in snapshot.entries.items():
            goal = into / path
            if entry.type == "file":
                with files.open(path, entry.size, entry.digest) as file, goal.open("wb") as copy:
                    copy.writelines(file)
                    mtime = file.mtime
                goal.chmod(entry.mode)
                os.utime(goal, (mtime, mtime))
            elif entry.type == "symlink":
                goal.symlink_to(entry.link)
                _like(context / path, goal, path)
    # What lies below a directory is written by now: it may be read-only, and its time stays.
    for path in reversed(ordered):
        entry_of = snapshot.entries.get(path)
        _like(context / path, into / path, path, mode=entry_of.mode if entry_of else None)


def _like(original: Path, goal: Path, path: str, mode: int | None = None) -> None:
    with reading_context():
        try:
            found = os.lstat(original)
        except FileNotFoundError:
            raise ContentChanged(path) from None
    if not goal.is_symlink():
        goal.chmod(found.st_mode & 0o7777 if mode is None else mode)
    os.utime(goal, (found.st_mtime, found.st_mtime), follow_symlinks=False)


def ignore_file(context: Path, dockerfile: Path) -> Path | None:
    """The ignore file that Docker would use: `<Dockerfile>.dockerignore`, else the context's."""
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    return next((path for path in (own, context / ".dockerignore") if path.is_file()), None)


def extra_patterns(
    text: str, ignore: Iterable[str], directories: Iterable[str], files: Iterable[str] = ()
) -> tuple[str, ...]:
    """The patterns to add at the end of an ignore file that reads `text`.

    `ignore` is the config's `build.ignore`, `directories` the paths of the context's directories,
    `files` its files: those that are named like temporary ones stay nevertheless. A pattern for
    temporary files that would also match one of the directories is left out: taking it back in with
    "!" would take in what the user's own patterns leave out below it."""
    lines = [*(line for line in text.splitlines() if not line.startswith("#")), *ignore]
    exceptions = (line.strip()[1:].strip() for line in lines if line.strip().startswith("!"))
    wanted = any(".git" in pattern.split("/") for pattern in exceptions)
    names = {name for path in directories if has_mark(name := path.rpartition("/")[2])}
    temporary = (
        f"**/{pattern}"
        for pattern in TEMPORARY
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names)
    )
    # Twice, since a directory that an earlier pattern has matched already does not count again for
    # what an exception ("!**/*.py") takes back from it (moby/patternmatcher).
    git = () if wanted else ("**/.git", "**/.git/**")
    staying = (f"!{ignore_line(path)}" for path in files if is_temporary(path.rpartition("/")[2]))
    return (*ignore, *git, "**/.devloop", "**/.devloop/**", *temporary, *staying)


def merged(text: str, extra: tuple[str, ...]) -> str:
    separator = "" if not text or text.endswith("\n") else "\n"
    return text + separator + "".join(f"{pattern}\n" for pattern in extra)


@contextlib.contextmanager
def arranged(
    context: Path,
    dockerfile: Path,
    ignore: tuple[str, ...],
    snapshot: Snapshot,
    rewrite: Callable[[str], str] = lambda text: text,
    *,
    within: Path | None = None,
) -> Iterator[Path]:
    """The Dockerfile to hand to BuildKit for as long as the block lasts: what `rewrite` makes of
    it, with the merged ignore file beside it, in a directory of their own (in `within`). Raises
    env/disk-full and env/file-unreadable."""
    with contextlib.ExitStack() as stack:
        try:
            own = ignore_file(context, dockerfile)
            text = own.read_bytes().decode("utf-8", "surrogateescape") if own else ""
            paths = directories_of(snapshot), snapshot.entries
            text = merged(text, extra_patterns(text, ignore, *paths))
            directory = stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="devloop-build-", dir=within, ignore_cleanup_errors=True
                )
            )
            copy = Path(directory, dockerfile.name)
            written = rewrite(dockerfile.read_bytes().decode("utf-8", "surrogateescape"))
            copy.write_bytes(written.encode("utf-8", "surrogateescape"))
            beside = copy.with_name(f"{copy.name}.dockerignore")
            beside.write_bytes(text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise failed_preparing(error) from error
        yield copy


def failed_preparing(error: OSError) -> DevloopError:
    """The error for a fault of the disk before a build: env/disk-full or env/file-unreadable."""
    code = Code.ENV_DISK_FULL if error.errno == errno.ENOSPC else Code.ENV_FILE_UNREADABLE
    return DevloopError.of(
        code,
        f"cannot prepare the build: {error.filename or 'temporary directory'}",
        cause=error.strerror or str(error),
    )
