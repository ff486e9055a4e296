"""What the API's logs leave out: the files on the node that a container's log was rotated into.

The API serves the newest file of a container and nothing else (kubernetes#59902). The files beside
it are in the kubelet's `/logs/`, which the API server hands on to whoever may `get nodes/proxy`: on
a cluster of one's own everybody, elsewhere few. Both are put into one form here; which lines of it
count is the logs package's business.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.log_stream import LOG_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.stream import ResponseStream
    from devloop.model import PodView


_IDLE = 10.0

# `0.log.20261130-141500`, compressed from the rotation after on; never the temporary ones.
_ROTATED = re.compile(r'href="((\d+)\.log\.\d{8}-\d{6}(?:\.gz)?)"')


@dataclass(frozen=True)
class NodeLogs:
    """The log files of a pod's containers on its node."""

    connection: Connection

    def first_line(self, pod: PodView, container: str, *, cancel: Cancel) -> bytes:
        """The beginning of the file that the API serves now, its timestamp first; empty when there
        is nothing in it. When that changes, the log was rotated or the container is another.

        Raises as `Connection.stream` does."""
        query = {"container": container, "timestamps": "true", "limitBytes": "64"}
        path = LOG_PATH.format(pod.namespace, pod.name)
        with self.connection.stream(path, query, cancel=cancel, idle=_IDLE) as stream:
            return b"".join(stream)

    def rotated(
        self, pod: PodView, container: str, *, restarts: int, since: str, cancel: Cancel
    ) -> Iterator[bytes]:
        """The files that the log of the instance after so many `restarts` was rotated into, the
        oldest first, in the form in which the API gives logs with timestamps. What lies before
        `since`, a timestamp as in the log, may be left out.

        Raises as `Connection.stream` does: cluster/forbidden without `nodes/proxy`,
        cluster/not-found where the kubelet keeps its logs elsewhere or the pod is gone."""
        directory = (
            f"/api/v1/nodes/{pod.node}/proxy/logs/pods/"
            f"{pod.namespace}_{pod.name}_{pod.uid}/{container}/"
        )
        listing = b"".join(self._open(directory, cancel))
        names = sorted(
            match[1]
            for match in _ROTATED.finditer(listing.decode("utf-8", "replace"))
            if int(match[2]) == restarts
        )
        wanted: list[str] = []
        for name in reversed(names):
            wanted.insert(0, directory + name)
            # Of the newest alone most gaps are filled: do not unpack the others for nothing.
            if next(self._lines(directory + name, cancel), b"") <= since.encode():
                break
        for path in wanted:
            yield from _as_served(self._lines(path, cancel), since.encode())

    def _open(self, path: str, cancel: Cancel) -> ResponseStream:
        # The kubelet has files and listings of them, no objects: asked for JSON it answers 406.
        return self.connection.stream(path, cancel=cancel, idle=_IDLE, accept="*/*")

    def _lines(self, path: str, cancel: Cancel) -> Iterator[bytes]:
        unpack = zlib.decompressobj(wbits=31) if path.endswith(".gz") else None
        rest = b""
        with self._open(path, cancel) as stream:
            for chunk in stream:
                data = chunk if unpack is None else unpack.decompress(chunk)
                *lines, rest = (rest + data).split(b"\n")
                yield from lines


def _as_served(lines: Iterator[bytes], since: bytes) -> Iterator[bytes]:
    """The kubelet's own work (cri-client, pkg/logs): `<time> <stream> <tags> <text>` becomes
    `<time> <text>`, and the parts of a long line, all but the last tagged P, become one."""
    plain = since.endswith(b"Z")
    inside = False
    batch: list[bytes] = []
    for line in lines:
        if plain and not inside and line < since:
            continue
        fields = line.split(b" ", 3)
        if len(fields) < 4:
            continue
        stamp, _, tags, text = fields
        if not inside:
            batch.append(stamp + b" ")
        inside = tags.split(b":", 1)[0] == b"P"
        batch.append(text if inside else text + b"\n")
        if len(batch) > 1000:
            yield b"".join(batch)
            batch.clear()
    yield b"".join(batch)
