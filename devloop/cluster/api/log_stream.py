"""Raw container logs, and the two facts about a cluster that other packages need as text.

Hands out bytes as the kubelet sends them; splitting, decoding and following a container through its
restarts is the logs package's job.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.cluster.api.pod_view import dig, items, text
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.stream import ResponseStream


LOG_PATH = "/api/v1/namespaces/{}/pods/{}/log"
_TAIL_LINES = 200


def open_log(
    connection: Connection,
    namespace: str,
    pod: str,
    container: str,
    *,
    since_time: str | None = None,
    previous: bool = False,
    cancel: Cancel | None = None,
) -> Iterator[bytes]:
    """Follow a container's log: chunks of bytes as they come, with timestamps, not split into
    lines.

    `since_time` is RFC 3339 (whole seconds count for the kubelet). It ends when the container does;
    a silent log is waited for without limit. The request is sent before this returns, so refusals
    (400 while the container has not started, 404 for a pod that is gone) are raised here as
    `ApiError`; later cluster/unreachable, or `Cancelled`."""
    query = {"container": container, "follow": "true", "timestamps": "true"}
    if previous:
        query["previous"] = "true"
    if since_time:
        query["sinceTime"] = since_time
    path = LOG_PATH.format(namespace, pod)
    return _chunks(connection.stream(path, query, cancel=cancel, idle=None))


def _chunks(stream: ResponseStream) -> Iterator[bytes]:
    with stream:
        yield from stream


def tail_log(
    connection: Connection, namespace: str, pod: str, container: str, *, previous: bool = False
) -> tuple[str, ...]:
    """The last lines of a container's log, or of its predecessor's; empty when there are none or
    they cannot be had. For evidence: never raises `DevloopError`."""
    query = {"container": container, "tailLines": str(_TAIL_LINES)}
    if previous:
        query["previous"] = "true"
    found = b""
    with contextlib.suppress(DevloopError, Cancelled):
        found = b"".join(connection.stream(LOG_PATH.format(namespace, pod), query, idle=30.0))
    # The kubelet answers 200 with this sentence when the log file is gone already.
    if found.startswith(b"unable to retrieve container logs"):
        return ()
    return tuple(found.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:])


def registry_hosting(connection: Connection) -> str | None:
    """The text of KEP-1755's ConfigMap (key localRegistryHosting.v1); None when there is none or it
    may not be read."""
    path = "/api/v1/namespaces/kube-public/configmaps/local-registry-hosting"
    found = connection.find(path, absent={403, 404})
    return text(dig(found, "data", "localRegistryHosting.v1")) or None


def node_platforms(connection: Connection) -> tuple[str, ...]:
    """The nodes' platforms (`linux/amd64`), each once, the most frequent first; empty when nodes
    may not be listed."""
    counted: Counter[str] = Counter()
    for node in items(dig(connection.find("/api/v1/nodes", absent={403}), "items")):
        info = dig(node, "status", "nodeInfo")
        platform = f"{text(dig(info, 'operatingSystem'))}/{text(dig(info, 'architecture'))}"
        if len(platform) > 1 and not platform.startswith("/"):
            counted[platform] += 1
    return tuple(sorted(counted, key=lambda p: (-counted[p], p)))


def server_time(connection: Connection) -> str:
    """The API server's clock in RFC 3339, as of its last answer; "" when it does not tell.

    The only clock to compare a pod's age or a log's timestamps with: this computer's may differ."""
    try:
        return parsedate_to_datetime(connection.date).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return ""
