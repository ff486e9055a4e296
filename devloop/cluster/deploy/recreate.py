"""Pods that have new ones made in their place, because what is in them is not known."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import alive, uid_of
from devloop.cluster.api.writes import delete_pod

if TYPE_CHECKING:
    from collections.abc import Collection

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView


_GONE_SECONDS = 10.0


def recreate(
    connection: Connection,
    view: ClusterView,
    namespace: str,
    names: Collection[str],
    cancel: Cancel,
) -> None:
    """Delete the pods of these names; their controllers make others. Returns once the watch has
    seen them go, at the latest after some seconds: what is there then, the rollout is judged by."""
    pods = view.view("pods", namespace)
    going = [pod for name in names if (pod := pods.get(name)) is not None]
    uids = set(map(uid_of, going))
    changed = threading.Event()
    deadline = time.monotonic() + _GONE_SECONDS
    with pods.subscribe(lambda _: changed.set()), cancel.closing(changed.set):
        for pod in going:
            delete_pod(connection, pod)
        while uids & set(map(uid_of, alive(pods.items()))) and time.monotonic() < deadline:
            changed.wait(max(0.0, deadline - time.monotonic()))
            cancel.check()
            changed.clear()
