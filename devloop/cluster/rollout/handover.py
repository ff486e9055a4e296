"""The last moment of `devloop run`: after it, whoever calls a Service reaches new pods only.

A pod is ready before the old one is gone, and the nodes' proxies hear of both a little later: until
then a new connection may go to a pod that has just ended, and hang. EndpointSlices are asked for
and not watched: it is a matter of a second, once a session.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.pod_view import dig, items, name_of, text
from devloop.cluster.api.view import workload_of
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.view import ClusterView
    from devloop.model import WorkloadRef


_LIMIT = 2.0
# kube-proxy collects changes for so long before it writes its rules (minSyncPeriod).
_PROXY = 1.0
_PAUSE = 0.1

# Pods by namespace and name.
_Pods = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodsReplaced:
    """What a service got: its `workloads`, and the `pods` that serve for them now."""

    service: str
    workloads: frozenset[WorkloadRef]
    pods: frozenset[str]


def wait_for_handover(
    connection: Connection,
    view: ClusterView,
    replaced: Collection[PodsReplaced],
    report: Callable[[str, str], None],
    cancel: Cancel,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait, two seconds at most, until no EndpointSlice names an old pod and the old pods have
    ended. `report` gets a service and what is waited for, once. No old pods or no Service, no wait;
    raises nothing."""
    namespaces = {ref.namespace for one in replaced for ref in one.workloads}
    began = clock()
    gone: _Pods = frozenset()
    left: float | None = None  # since when nothing is left of an old pod
    told = False
    while True:
        old = {one.service: _old(view, one) for one in replaced}
        every: _Pods = frozenset().union(*old.values())
        try:
            serving = _serving(connection, namespaces)
        except DevloopError:
            return
        now = clock()
        gone |= every
        if not told:
            told = True
            if not every or not serving & (every | _new(replaced)):
                return
            for service, pods in old.items():
                if pods:
                    report(service, _words(pods))
        if every or serving & gone:
            left = None
        elif left is None:
            left = now
        over = left is not None and now - left >= _PROXY
        if over or now - began >= _LIMIT or cancel.wait(_PAUSE):
            return


def _old(view: ClusterView, one: PodsReplaced) -> _Pods:
    refs = {(ref.kind, ref.name, ref.namespace) for ref in one.workloads}
    return frozenset(
        (namespace, name_of(pod))
        for namespace in {ref.namespace for ref in one.workloads}
        for pod in view.view("pods", namespace).items()
        if (owner := workload_of(pod)) is not None
        and (*owner, namespace) in refs
        and name_of(pod) not in one.pods
    )


def _new(replaced: Iterable[PodsReplaced]) -> _Pods:
    return frozenset(
        (ref.namespace, pod) for one in replaced for ref in one.workloads for pod in one.pods
    )


def _serving(connection: Connection, namespaces: Iterable[str]) -> _Pods:
    """The pods that the EndpointSlices call serving, be they about to stop. Raises cluster/*."""
    found: set[tuple[str, str]] = set()
    for namespace in namespaces:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        for each in items(connection.request("GET", path, timeout=_LIMIT).get("items")):
            found.update(
                (namespace, text(dig(endpoint, "targetRef", "name")))
                for endpoint in items(each.get("endpoints"))
                if dig(endpoint, "conditions", "serving") is not False
            )
    return frozenset(found)


def _words(pods: _Pods) -> str:
    names = " ".join(sorted(name for _, name in pods))
    return f"waits until no Service leads to the old pods any more: {names}"
