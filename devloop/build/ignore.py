"""What a builder must leave out of the context beyond the user's ignore file, and how to tell it.

`.git` and devloop's own state are never watched, so they must not reach an image either unless the
user asks for them; `build.ignore` adds patterns of its own. Docker takes an ignore file only from
beside the Dockerfile or from the context's root, so a merged one is written beside a copy of the
Dockerfile. Matching patterns is the watch's job, not this module's.

Which ignore file counts: https://docs.docker.com/build/concepts/context/#filename-and-location
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["arranged", "extra_patterns", "ignore_file", "merged"]

# Left out unless the user's file takes them back in with "!".
ALWAYS = (".git", ".devloop")


def ignore_file(context: Path, dockerfile: Path) -> Path | None:
    """The ignore file that Docker would use: `<Dockerfile>.dockerignore`, else the context's."""
    for path in (
        dockerfile.with_name(f"{dockerfile.name}.dockerignore"),
        context / ".dockerignore",
    ):
        if path.is_file():
            return path
    return None


def _named(line: str) -> tuple[bool, str]:
    """Whether a line takes paths back in, and its pattern in its plainest form."""
    line = line.strip()
    negated = line.startswith("!")
    return negated, line.removeprefix("!").strip().strip("/").removeprefix("./")


def extra_patterns(text: str, ignore: tuple[str, ...], present: frozenset[str]) -> tuple[str, ...]:
    """The patterns to add at the end of an ignore file that reads `text`.

    `present` names those of `ALWAYS` that exist in the context: others need no pattern."""
    lines = [_named(line) for line in text.splitlines() if not line.startswith("#")]
    exceptions = any(negated for negated, _ in lines)
    extra = list(ignore)
    for name in ALWAYS:
        wanted = any(negated and name in pattern.split("/") for negated, pattern in lines)
        # A later "!" pattern may take the name back in by accident (`*`, then `!**/*.py`).
        known = not exceptions and (False, name) in lines
        if name in present and not wanted and not known:
            extra.append(name)
    return tuple(extra)


def merged(text: str, extra: tuple[str, ...]) -> str:
    separator = "" if not text or text.endswith("\n") else "\n"
    return text + separator + "".join(f"{pattern}\n" for pattern in extra)


@contextlib.contextmanager
def arranged(context: Path, dockerfile: Path, ignore: tuple[str, ...]) -> Iterator[Path]:
    """The Dockerfile to hand to BuildKit: the user's own, or for as long as the block lasts a copy
    with a merged ignore file beside it."""
    try:
        own = ignore_file(context, dockerfile)
        text = own.read_bytes().decode("utf-8", "surrogateescape") if own else ""
    except OSError as error:
        raise _failed(error) from error
    present = frozenset(name for name in ALWAYS if os.path.lexists(context / name))
    extra = extra_patterns(text, ignore, present)
    if not extra:
        yield dockerfile
        return
    try:
        folder = Path(tempfile.mkdtemp(prefix="devloop-build-"))
    except OSError as error:
        raise _failed(error) from error
    try:
        yield _copy(dockerfile, folder, merged(text, extra))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(dockerfile: Path, folder: Path, text: str) -> Path:
    copy = folder / dockerfile.name
    try:
        shutil.copyfile(dockerfile, copy)
        copy.with_name(f"{copy.name}.dockerignore").write_bytes(
            text.encode("utf-8", "surrogateescape")
        )
    except OSError as error:
        raise _failed(error) from error
    return copy


def _failed(error: OSError) -> DevloopError:
    code = "env/disk-full" if error.errno == errno.ENOSPC else "env/file-unreadable"
    return DevloopError.of(
        code,
        f"cannot prepare the build: {error.filename or 'temporary folder'}",
        cause=error.strerror or str(error),
    )
