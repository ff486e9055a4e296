"""What a tool renders is rendered once for each content of its inputs: the start, every look at the
disk and every deploy ask for the same objects, and a tool takes a tenth of a second or more.

Goes by the bytes of the files, for a file's times may stay the same over a save.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import FilePatterns
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import Rendering
    from devloop.errors import Diagnosis
    from devloop.model import ManifestObject, RenderingInputs


_POLL = 0.05
# Seconds for which a failure that waiting may cure is said again without another try: a start asks
# several times, and each try may take long.
_AGAIN = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rendered:
    digest: str
    objects: tuple[ManifestObject, ...] = ()
    notes: tuple[Diagnosis, ...] = ()
    error: Diagnosis | None = None
    until: float = math.inf


class OncePerContent:
    """The `Rendering` `inner`, which reads nothing but its inputs. Thread-safe: who asks while it
    renders waits for what comes of it."""

    def __init__(self, inner: Rendering, clock: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._clock = clock
        self._lock = threading.Lock()
        self._last: _Rendered | None = None

    def __eq__(self, other: object) -> bool:
        """Whether both have the same objects."""
        return isinstance(other, OncePerContent) and self._inner == other._inner

    def __hash__(self) -> int:
        return hash(OncePerContent)

    def inputs(self) -> RenderingInputs:
        return self._inner.inputs()

    def objects(
        self, cancel: Cancel, notify: Callable[[Diagnosis], None] = lambda _: None
    ) -> tuple[ManifestObject, ...]:
        """As `inner` has them; what is wrong with the files themselves is said again without
        another try while they stay as they are."""
        cancel.check()
        while not self._lock.acquire(timeout=_POLL):
            cancel.check()
        try:
            last = self._rendered(cancel)
        finally:
            self._lock.release()
        for note in last.notes:
            notify(note)
        if last.error is not None:
            raise DevloopError(last.error)
        return last.objects

    def _rendered(self, cancel: Cancel) -> _Rendered:
        digest = _digest(self.inputs())
        last = self._last
        if last is not None and last.digest == digest and self._clock() < last.until:
            return last
        notes: list[Diagnosis] = []
        try:
            objects = self._inner.objects(cancel, notes.append)
        except DevloopError as error:
            final = error.code in (Code.MANIFESTS_RENDER_FAILED, Code.CONFIG_MANIFEST)
            made = _Rendered(
                digest=digest,
                notes=tuple(notes),
                error=error.diagnosis,
                until=math.inf if final else self._clock() + _AGAIN,
            )
        else:
            made = _Rendered(digest=digest, objects=objects, notes=tuple(notes))
        # Of files that were written meanwhile nobody knows which content the tool saw. What it
        # writes itself, as a chart's lock file, is as it left it.
        self._last = made if _digest(self.inputs()) == digest else None
        return made


def _digest(inputs: RenderingInputs) -> str:
    found = hashlib.sha256(repr(inputs).encode())
    for path in FilePatterns(inputs.patterns).files():
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            content = str(error.errno).encode()
        found.update(f"\0{path}\0{len(content)}\0".encode())
        found.update(content)
    return found.hexdigest()
