"""One JSON object that outlives a session, such as the files in `.devloop`.

No fault of such a file may stop a session: what cannot be read counts as not there and is set
aside under another name, what cannot be written is reported. The object carries the version of its
format under the key `v`; a file without one is of version 1. Knows nothing of what is in the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import tempfile
from dataclasses import KW_ONLY, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


_LOG = logging.getLogger(__name__)

# Of any other fault (too many open files, a disk that fails) the file itself may be sound.
_SET_ASIDE = {errno.EACCES, errno.EPERM, errno.EISDIR}


def replace_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Write `data` under another name beside `path` and then give it that name, so that nobody
    ever reads half of it.

    Directories are made. `durable` waits for the disk, against a power failure; a process that is
    killed loses nothing either way. What a kill leaves is named `.new-*`. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


@dataclass(slots=True)
class StateFile:
    """The file at `path`; safe to use from several threads and processes.

    `version` is the newest format that the caller understands. `durable` waits for the disk at
    every write. `report` gets one sentence for the first fault of reading and of writing each."""

    path: Path
    _: KW_ONLY
    version: int = 1
    durable: bool = False
    report: Callable[[str], None] = _LOG.error
    _reported: set[str] = field(default_factory=set, init=False)

    def read(self, *, set_aside: bool = True) -> dict[str, Any] | None:
        """The object without its version; None when there is none that can be read.

        `set_aside=False` is for a process that only looks at another one's file."""
        try:
            loaded = json.loads(self.path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            why, damaged = error.strerror or str(error), error.errno in _SET_ASIDE
        except (ValueError, RecursionError):
            why, damaged = "it is damaged", True
        else:
            value: dict[str, Any] = loaded if isinstance(loaded, dict) else {"v": None}
            version = value.pop("v", 1)
            newer = isinstance(version, int) and version > self.version
            if isinstance(version, int) and not newer:
                return value
            why, damaged = "a newer devloop wrote it" if newer else "it is damaged", True
        self._unreadable(why, set_aside=set_aside and damaged)
        return None

    def write(self, value: Mapping[str, Any]) -> None:
        """Replace the file, whole and at once; directories are made. Raises OSError."""
        data = json.dumps({"v": self.version, **value}, indent=1).encode()
        replace_file(self.path, data, durable=self.durable)

    def save(self, value: Mapping[str, Any]) -> None:
        """`write` for what a session can do without: a fault of the disk is only reported."""
        try:
            self.write(value)
        except OSError as error:
            self._once("write", f"{self.path} cannot be written: {error.strerror or error}")

    @contextlib.contextmanager
    def updating(self) -> Iterator[dict[str, Any]]:
        """The object, empty when there is none, to be changed inside the block and saved after it.
        Nobody else updates a file of the directory meanwhile."""
        with self._locked():
            value = self.read() or {}
            yield value
            self.save(value)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # The directory, since the file itself is replaced. Each open has a lock of its own, also
        # within one process. Where there are no locks (some network file systems), the last wins.
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                directory = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, directory)
                fcntl.flock(directory, fcntl.LOCK_EX)
            yield

    def _unreadable(self, why: str, *, set_aside: bool) -> None:
        outcome = "it counts as not there"
        if set_aside:
            aside = self.path.with_name(f"{self.path.name}.aside")
            with contextlib.suppress(OSError):
                self.path.replace(aside)
                outcome = f"it is set aside as {aside.name}"
        self._once("read", f"{self.path} cannot be read ({why}); {outcome}")

    def _once(self, doing: str, text: str) -> None:
        if doing not in self._reported:
            self._reported.add(doing)
            self.report(text)
