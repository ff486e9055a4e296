"""Writes down every image that devloop made, so that those can be removed again and nothing else.

One JSON line an image in `.devloop/made.jsonl`, newest last. Losing the file costs nothing but the
knowledge of what to remove, so every fault of the disk is survived in silence. Removing is not done
here: see app/housekeeping.py.
"""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from devloop.base.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import Builder, Reporter
    from devloop.model import ImageRef, Scan

__all__ = ["BuiltImage", "BuiltImages", "RecordingBuilder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """One image. `repository` is host/path as it was pushed to; `digest` is `sha256:...`."""

    service: str
    repository: str
    tag: str
    digest: str


class BuiltImages:
    """The images made for one project. Thread-safe; one process writes at a time (the session's
    lock sees to that)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def add(self, made: BuiltImage) -> None:
        line = json.dumps(asdict(made)) + "\n"
        with self._lock, contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)

    def all(self) -> tuple[BuiltImage, ...]:
        """Every image once, the one that was last made or used last."""
        with self._lock:
            return self._read()

    def forget(self, gone: Collection[BuiltImage]) -> None:
        """Strike out what was removed."""
        with self._lock, contextlib.suppress(OSError):
            left = [made for made in self._read() if made not in gone]
            lines = "".join(json.dumps(asdict(made)) + "\n" for made in left)
            replace_file(self._path, lines.encode())

    def _read(self) -> tuple[BuiltImage, ...]:
        try:
            lines = self._path.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ()
        found: dict[BuiltImage, None] = {}
        for line in lines:
            # A line may be cut off by a full disk or a kill.
            with contextlib.suppress(ValueError, TypeError):
                made = BuiltImage(**json.loads(line))
                found.pop(made, None)
                found[made] = None
        return tuple(found)


class RecordingBuilder:
    """A builder whose images are written down, when made and when used again; `on_made` is told
    afterwards."""

    def __init__(
        self, service: str, inner: Builder, ledger: BuiltImages, on_made: Callable[[], None]
    ) -> None:
        self._service = service
        self._inner = inner
        self._ledger = ledger
        self._on_made = on_made

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        image = self._inner.build(scan, reporter, cancel)
        if image.digest:
            self._ledger.add(
                BuiltImage(
                    service=self._service,
                    repository=image.repository,
                    tag=image.tag,
                    digest=image.digest,
                )
            )
            self._on_made()
        return image
