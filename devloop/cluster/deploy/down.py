"""Finding and deleting what devloop itself created for a project, and nothing else.

An object is devloop's when it carries the project's created-by mark, which only an apply that
created it writes; the label merely finds candidates.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.kinds import Discovery, Resource
from devloop.cluster.api.pod_view import Json, controller_of, items, name_of, text, uid_of
from devloop.cluster.deploy.gitops_owners import tool_of
from devloop.cluster.deploy.objects import apply_order
from devloop.cluster.deploy.ownership import PROJECT, created_by, project_label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.cluster.api.connection import Connection


_PARALLEL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """An object that devloop created. `uid` makes sure that only that very one is deleted.
    `manager` is the GitOps tool that has it now: then it stays."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    manager: str = ""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.resource.kind} {self.name}{where}"

    @property
    def place(self) -> str:
        """The namespace that it is in, or is; "" for anything else of the whole cluster."""
        return self.name if self.resource.kind == "Namespace" else self.namespace


def find_created(connection: Connection, project: str) -> tuple[Created, ...]:
    """Everything the project created in the cluster, in the order in which to delete it.

    Kinds that may not be listed are passed over: what devloop could create it can list. A
    namespace that holds anything else is left out. Those that have a `manager` are to stay."""
    selector = urlencode({"labelSelector": f"{PROJECT}={project_label(project)}"})

    def listed(path: str) -> list[dict[str, Any]] | None:
        found = connection.find(path, absent={403, 404, 405})
        return items(found.get("items")) if found is not None else None

    def candidates(resource: Resource) -> list[tuple[Resource, dict[str, Any]]]:
        # Namespaced kinds are asked in all namespaces: manifests may name their own.
        found = listed(f"{resource.path()}?{selector}")
        if found is None:
            found = listed(f"{resource.path(connection.namespace)}?{selector}")
        return [(resource, item) for item in found or ()]

    resources = Discovery(connection).listable()
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="devloop-down") as pool:
        found = [pair for page in pool.map(candidates, resources) for pair in page]
        planned = plan_deletion(found, project)
        mine = {created.uid for created in planned if not created.manager}

        def foreign(created: Created) -> bool:
            """Whether a namespace holds what devloop did not create: deleting it would take that
            along."""
            if created.resource.kind != "Namespace":
                return False
            namespaced = [r for r in resources if r.namespaced]
            listings = (r.path(created.name) for r in namespaced)
            return any(
                not _comes_along(thing, resource) and uid_of(thing) not in mine
                for resource, page in zip(namespaced, pool.map(listed, listings), strict=True)
                for thing in page or ()
            )

        return tuple(created for created in planned if not foreign(created))


# What Kubernetes itself puts into a namespace, or what is only there because of something else.
_COMES_ALONG = {"Event", "Endpoints", "EndpointSlice", "Lease", "PodMetrics"}
_COMES_ALONG_BY_NAME = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}


def _comes_along(thing: Json, resource: Resource) -> bool:
    return (
        resource.kind in _COMES_ALONG
        or (resource.kind, name_of(thing)) in _COMES_ALONG_BY_NAME
        or controller_of(thing) is not None
    )


def plan_deletion(candidates: Iterable[tuple[Resource, Json]], project: str) -> tuple[Created, ...]:
    """What of `candidates` to delete, first to last: the reverse of the order of applying.

    The same object may be listed under several API groups; what a controller made goes with its
    owner; what is being deleted already is left alone."""
    found: dict[str, Created] = {}
    for resource, thing in candidates:
        meta = thing.get("metadata") or {}
        if created_by(thing) != project or controller_of(thing) or meta.get("deletionTimestamp"):
            continue
        where, uid = text(meta.get("namespace")), text(meta.get("uid"))
        created = Created(
            resource=resource,
            namespace=where,
            name=name_of(thing),
            uid=uid,
            manager=tool_of({"kind": resource.kind, **thing}),
        )
        found.setdefault(uid, created)

    def order(created: Created) -> tuple[int, str, str, str]:
        kind = created.resource.kind
        return -apply_order(kind), kind, created.namespace, created.name

    return tuple(sorted(found.values(), key=order))


def delete(connection: Connection, created: Created) -> bool:
    """Delete one object in the background; False when it was gone already.

    Raises cluster/forbidden and the like; never touches another object of the same name."""
    body = {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "propagationPolicy": "Background",
        "preconditions": {"uid": created.uid},
    }
    path = created.resource.path(created.namespace, created.name)
    try:
        connection.request("DELETE", path, body)
    except ApiError as error:
        if error.status in {404, 409}:
            return False
        raise
    return True
