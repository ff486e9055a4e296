"""A kubelet's logs as the API serves them, with every way to break off."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.errors import Code, DevloopError
from devloop.model import ContainerView, PodView

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devloop.base.cancel import Cancel

__all__ = ["Kubelet", "Request"]


@dataclass(slots=True)
class _Instance:
    id: str
    lines: list[tuple[str, bytes]] = field(default_factory=list)  # timestamp, bytes with newline
    over: bool = False
    rotated: list[list[tuple[str, bytes]]] = field(default_factory=list)
    silent: bool = False  # what is open stays with the old file


@dataclass(slots=True, kw_only=True)
class Request:
    container: str
    since_time: str | None
    previous: bool


class Kubelet:
    """One pod with one container. `view` is what the API says, which can lag behind."""

    def __init__(self, *, chunk: int = 7, created: str = "2026-11-23T14:00:00Z") -> None:
        self.requests: list[Request] = []
        self.refuse: DevloopError | None = None
        self.refuse_files: DevloopError | None = None
        self.kept_from = ""  # older lines were rotated away
        self._created = created
        self._chunk = chunk
        self._changed = threading.Condition()
        self._instances = [_Instance("c0")]
        self._breaks = 0
        self._cut = False
        self._fault: Exception | None = None
        self._gone = False

    # --- what happens on the node --------------------------------------------------------------

    def write(self, ts: str, text: bytes, *, newline: bytes = b"\n") -> None:
        with self._changed:
            self._instances[-1].lines.append((ts, ts.encode() + b" " + text + newline))
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._instances[-1].over = True
            self._changed.notify_all()

    def rotate(self, *, left: Sequence[tuple[str, bytes]] = (), silent: bool = False) -> None:
        """Begin a new file; what is `left` in the old one no stream ever sends."""
        with self._changed:
            instance = self._instances[-1]
            rest = [(ts, ts.encode() + b" " + text + b"\n") for ts, text in left]
            instance.rotated.append(instance.lines + rest)
            instance.lines = []
            instance.silent = silent
            self._changed.notify_all()

    def restart(self) -> None:
        with self._changed:
            self._instances[-1].over = True
            self._instances.append(_Instance(f"c{len(self._instances)}"))
            self._changed.notify_all()

    def delete(self) -> None:
        with self._changed:
            self._instances[-1].over = True
            self._gone = True
            self._changed.notify_all()

    def break_off(self, fault: Exception | None, *, inside_a_line: bool = False) -> None:
        """End all open streams: with `fault`, or in order as after a rotation."""
        with self._changed:
            self._breaks += 1
            self._fault = fault
            self._cut = inside_a_line
            self._changed.notify_all()

    # --- the files -----------------------------------------------------------------------------

    def first_line(self, pod: PodView, container: str, *, cancel: Cancel) -> bytes:
        with self._changed:
            return b"".join(line for _, line in self._instances[-1].lines[:1])

    def rotated(
        self, pod: PodView, container: str, *, restarts: int, since: str, cancel: Cancel
    ) -> Iterator[bytes]:
        if self.refuse_files is not None:
            raise self.refuse_files
        with self._changed:
            found = self._instances[restarts].rotated if restarts >= 0 else []
            yield from [b"".join(line for _, line in file) for file in found]

    # --- what the API says ---------------------------------------------------------------------

    def view(self, *, waiting: bool = False) -> PodView:
        with self._changed:
            instance = self._instances[-1]
            container = ContainerView(
                name="web",
                image="web",
                container_id=instance.id,
                state="waiting" if waiting else "terminated" if instance.over else "running",
                restarts=len(self._instances) - 1,
            )
        return PodView(
            name="web-6c9d-x2x7",
            uid="u1",
            namespace="default",
            created=self._created,
            containers=(container,),
        )

    def open_log(
        self,
        pod: PodView,
        container: str,
        *,
        since_time: str | None,
        previous: bool,
        cancel: Cancel,
    ) -> Iterator[bytes]:
        self.requests.append(Request(container=container, since_time=since_time, previous=previous))
        with self._changed:
            if self.refuse is not None:
                raise self.refuse
            if self._gone:
                raise DevloopError.of(Code.CLUSTER_NOT_FOUND, "no such pod")
            if previous and len(self._instances) < 2:
                raise DevloopError.of(Code.CLUSTER_REJECTED, "previous container not found")
            instance = self._instances[-2 if previous else -1]
            breaks = self._breaks
        return self._serve(instance, since_time, breaks, cancel)

    def _serve(
        self, instance: _Instance, since: str | None, breaks: int, cancel: Cancel
    ) -> Iterator[bytes]:
        def wake() -> None:
            with self._changed:
                self._changed.notify_all()

        since = max(since or "", self.kept_from).removesuffix("Z")
        at = 0
        file = instance.lines
        with cancel.closing(wake):
            while True:
                with self._changed:
                    while not (
                        cancel.is_set()
                        or self._breaks != breaks
                        or at < len(file)
                        or (instance.lines is not file and not instance.silent)
                        or instance.over
                    ):
                        self._changed.wait()
                    if cancel.is_set():
                        raise Cancelled
                    broken = self._breaks != breaks
                    fault, cut = self._fault, self._cut
                    if at == len(file) and instance.lines is not file and not instance.silent:
                        at, file = 0, instance.lines
                    lines = file[at:]
                    over = instance.over
                data = b"".join(line for ts, line in lines if ts >= since)
                at += len(lines)
                if broken:
                    if cut and data:
                        yield data[: len(data) - 3]
                    if fault is not None:
                        raise fault
                    return
                for start in range(0, len(data), self._chunk):
                    yield data[start : start + self._chunk]
                if over and not lines:
                    return
