"""Reading from the cluster what is not an object: container logs and the registry's announcement.

One request a call; resuming, ordering and showing are others' business.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from devloop.cluster.failures import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cluster.connection import Connection
    from devloop.engine.cancel import Cancel

__all__ = ["node_platforms", "open_log", "registry_hosting", "server_time"]

_HOSTING = "/api/v1/namespaces/kube-public/configmaps/local-registry-hosting"


def open_log(
    connection: Connection,
    namespace: str,
    pod: str,
    container: str,
    *,
    since_time: str | None = None,
    previous: bool = False,
    follow: bool = True,
    timestamps: bool = True,
    tail_lines: int | None = None,
    cancel: Cancel | None = None,
) -> Iterator[bytes]:
    """A container's log in chunks of bytes, to its end.

    `since_time` is RFC 3339; the kubelet looks at whole seconds only. A follower may stay silent
    for hours, so silence is no error; TCP keepalive finds a dead peer. Raises `ApiError` (400 while
    the container is not started yet), cluster/unreachable when the stream breaks, `Cancelled`."""
    query = {
        "container": container,
        "follow": "true" if follow else "false",
        "timestamps": "true" if timestamps else "false",
    }
    if previous:
        query["previous"] = "true"
    if since_time:
        query["sinceTime"] = since_time
    if tail_lines is not None:
        query["tailLines"] = str(tail_lines)
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
    idle = None if follow else 30.0
    with connection.stream(path, query, cancel=cancel, idle=idle) as stream:
        yield from stream


def registry_hosting(connection: Connection) -> str | None:
    """The text of KEP-1755's `localRegistryHosting.v1`, None when the cluster announces none.

    A cluster that does not let us read kube-public announces nothing to us."""
    try:
        config = connection.request("GET", _HOSTING, timeout=5.0)
    except ApiError as error:
        if error.status in {403, 404}:
            return None
        raise
    text = (config.get("data") or {}).get("localRegistryHosting.v1")
    return text if isinstance(text, str) else None


def node_platforms(connection: Connection) -> frozenset[str]:
    """What the nodes can run, as `linux/amd64`; empty when we may not know."""
    try:
        nodes = connection.request("GET", "/api/v1/nodes", timeout=5.0).get("items") or ()
    except ApiError:
        return frozenset()
    infos = [(node.get("status") or {}).get("nodeInfo") or {} for node in nodes]
    return frozenset(
        f"{info.get('operatingSystem', 'linux')}/{info['architecture']}"
        for info in infos
        if info.get("architecture")
    )


def server_time(connection: Connection) -> str:
    """The API server's clock in RFC 3339; "" when it does not tell.

    The only clock to compare a pod's age or a log's timestamps with: this computer's may differ."""
    with connection.stream("/version", idle=5.0) as answer:
        for _ in answer:
            pass
        date = answer.date
    try:
        return parsedate_to_datetime(date).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return ""
