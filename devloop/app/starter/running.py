"""What runs in the cluster already, for projects whose manifests are elsewhere.

A cluster that does not answer soon, or with which devloop may not work, runs nothing as far as this
is concerned: it is a look, and no command fails by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.app.starter.workloads import FoundWorkload
from devloop.base.cancel import Cancel, Cancelled
from devloop.base.threads import Background
from devloop.cluster.api.connection import Connection
from devloop.cluster.api.pod_view import dig, items, metadata
from devloop.cluster.deploy.guard import check_context, check_namespace
from devloop.errors import DevloopError
from devloop.model import CREATED_BY

if TYPE_CHECKING:
    from collections.abc import Iterable


_PATIENCE = 2.0  # seconds


def running_workloads(
    context: str | None, namespace: str | None, allowed: Iterable[str]
) -> tuple[FoundWorkload, ...]:
    """The Deployments of the namespace that devloop did not create."""

    def look(cancel: Cancel) -> tuple[FoundWorkload, ...]:
        return _look(context, namespace, tuple(allowed), cancel)

    asked = Background("running workloads", look, expected=(DevloopError, Cancelled))
    try:
        never = Cancel()
        return asked.result(never) if asked.wait(_PATIENCE, never) else ()
    except (DevloopError, Cancelled, OSError):
        return ()
    finally:
        asked.close()


def _look(
    context: str | None, namespace: str | None, allowed: tuple[str, ...], cancel: Cancel
) -> tuple[FoundWorkload, ...]:
    connection = Connection.open(context, namespace)
    try:
        check_context(connection.context, connection.server, allowed, lambda: connection.local_tool)
        check_namespace(connection.namespace)
        path = f"/apis/apps/v1/namespaces/{connection.namespace}/deployments"
        answer = connection.request("GET", path, timeout=_PATIENCE, cancel=cancel)
    finally:
        connection.close()
    found = []
    for each in items(answer.get("items")):
        about = metadata(each)
        if CREATED_BY in (about.get("annotations") or {}):
            continue
        containers = items(dig(each, "spec", "template", "spec", "containers"))
        images = tuple((str(c.get("name")), str(c.get("image") or "")) for c in containers)
        ports = tuple(
            (str(c.get("name")), port["containerPort"])
            for c in containers
            for port in items(c.get("ports"))
            if port.get("protocol", "TCP") == "TCP"
        )
        found.append(
            FoundWorkload(
                kind="deployment", name=str(about.get("name")), file="", images=images, ports=ports
            )
        )
    return tuple(found)
