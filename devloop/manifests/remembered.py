"""Objects that were read are not read again while nobody touched their files: the start, each look
at the disk and each deploy want the same ones.

Believes what the file system says of a file only where it cannot have been written at the very
moment of the look (as git does of its index).
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import FilePatterns

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import Rendering
    from devloop.errors import Diagnosis
    from devloop.model import ManifestObject, RenderingInputs


# Two writes that are closer may leave the same times: file systems count in steps of some ms.
_STEP_NS = 100_000_000

_Stamp = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Read:
    inputs: RenderingInputs
    stamp: _Stamp
    objects: tuple[ManifestObject, ...]
    notes: tuple[Diagnosis, ...]


class RememberedRendering:
    """The `Rendering` `inner`, which reads nothing but its inputs. Thread-safe."""

    def __init__(self, inner: Rendering) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._last: _Read | None = None

    def __eq__(self, other: object) -> bool:
        """Whether both have the same objects."""
        return isinstance(other, RememberedRendering) and self._inner == other._inner

    def __hash__(self) -> int:
        return hash(RememberedRendering)

    def inputs(self) -> RenderingInputs:
        return self._inner.inputs()

    def objects(
        self, cancel: Cancel, notify: Callable[[Diagnosis], None] = lambda _: None
    ) -> tuple[ManifestObject, ...]:
        """As `inner` has them. Errors: its own, each time anew."""
        cancel.check()
        began = time.time_ns()
        inputs = self.inputs()
        stamp = _stamp(inputs)
        with self._lock:
            last = self._last
        if last is None or stamp is None or (last.inputs, last.stamp) != (inputs, stamp):
            notes: list[Diagnosis] = []
            objects = self._inner.objects(cancel, notes.append)
            last = _Read(inputs, stamp or (), objects, tuple(notes))
            settled = stamp is not None and all(began - changed > _STEP_NS for *_, changed in stamp)
            with self._lock:
                self._last = last if settled and _stamp(inputs) == stamp else None
        for note in last.notes:
            notify(note)
        return last.objects


def _stamp(inputs: RenderingInputs) -> _Stamp | None:
    """(path, inode, size, mtime, ctime) of each file; None where one cannot be looked at."""
    found = []
    for path in FilePatterns(inputs.patterns).files():
        try:
            seen = Path(path).stat()
        except OSError:
            return None
        found.append((path, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))
    return tuple(found)
