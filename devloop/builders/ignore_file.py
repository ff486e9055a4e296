"""What a builder must leave out of the context beyond the user's ignore file, and how it learns so.

An image's tag is made from what the scan saw, so BuildKit has to be given the same files: the scan
leaves out `.git`, devloop's own state and editors' temporary files, and `build.ignore` adds
patterns. Docker takes an ignore file only from beside the Dockerfile or from the context's root,
so a merged one is written beside a copy of the Dockerfile. Matching patterns is not done here.

Which ignore file counts: https://docs.docker.com/build/concepts/context/#filename-and-location
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.editor_files import TEMPORARY, has_mark
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def ignore_file(context: Path, dockerfile: Path) -> Path | None:
    """The ignore file that Docker would use: `<Dockerfile>.dockerignore`, else the context's."""
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    return next((path for path in (own, context / ".dockerignore") if path.is_file()), None)


def extra_patterns(text: str, ignore: Iterable[str], directories: Iterable[str]) -> tuple[str, ...]:
    """The patterns to add at the end of an ignore file that reads `text`.

    `ignore` is the config's `build.ignore`, `directories` the paths of the context's directories. A
    pattern for temporary files that would also match one of those is left out: taking the directory
    back in with "!" would take in what the user's own patterns leave out below it."""
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
    return (*ignore, *git, "**/.devloop", "**/.devloop/**", *temporary)


def merged(text: str, extra: tuple[str, ...]) -> str:
    separator = "" if not text or text.endswith("\n") else "\n"
    return text + separator + "".join(f"{pattern}\n" for pattern in extra)


@contextlib.contextmanager
def arranged(
    context: Path, dockerfile: Path, ignore: tuple[str, ...], directories: Iterable[str]
) -> Iterator[Path]:
    """The Dockerfile to hand to BuildKit for as long as the block lasts: a copy with the merged
    ignore file beside it. Raises env/disk-full and env/file-unreadable."""
    with contextlib.ExitStack() as stack:
        try:
            own = ignore_file(context, dockerfile)
            text = own.read_bytes().decode("utf-8", "surrogateescape") if own else ""
            text = merged(text, extra_patterns(text, ignore, directories))
            directory = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="devloop-build-", ignore_cleanup_errors=True)
            )
            copy = Path(directory, dockerfile.name)
            shutil.copyfile(dockerfile, copy)
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
