"""Which URL an object lives under, and whether its kind has namespaces.

What every cluster has is a table, so that usual manifests cost no discovery; anything else is asked
of the cluster once per group and remembered for the session.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.pod_view import Json, dig
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cluster.api.connection import Connection
    from devloop.model import WorkloadRef


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API serves it: `plural` is its name in URLs."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "") -> str:
        """The URL path of the collection, or of the object called `name`."""
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        end = f"/{name}" if name else ""
        return f"{_root(self.api_version)}{middle}/{self.plural}{end}"


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _plural(kind: str) -> str:
    """apimachinery's rule (meta.UnsafeGuessKindToResource)."""
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("y"):
        return name.removesuffix("y") + "ies"
    return name + ("es" if name.endswith("s") else "s")


_NAMESPACED = {
    "v1": "ConfigMap Secret Service ServiceAccount Pod PersistentVolumeClaim LimitRange "
    "ResourceQuota Endpoints Event",
    "apps/v1": "Deployment StatefulSet DaemonSet ReplicaSet",
    "batch/v1": "Job CronJob",
    "networking.k8s.io/v1": "Ingress NetworkPolicy",
    "policy/v1": "PodDisruptionBudget",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "rbac.authorization.k8s.io/v1": "Role RoleBinding",
}
_CLUSTER_WIDE = {
    "v1": "Namespace Node PersistentVolume",
    "networking.k8s.io/v1": "IngressClass",
    "rbac.authorization.k8s.io/v1": "ClusterRole ClusterRoleBinding",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition",
    "storage.k8s.io/v1": "StorageClass",
    "scheduling.k8s.io/v1": "PriorityClass",
}
_KNOWN = {
    (version, kind): Resource(version, kind, _plural(kind), table is _NAMESPACED)
    for table in (_NAMESPACED, _CLUSTER_WIDE)
    for version, kinds in table.items()
    for kind in kinds.split()
}
# More of them that every cluster has; a deploy asks, as a cluster may be older than they are.
_ALSO_CLUSTER_WIDE = frozenset(
    f"{group}/{kind}"
    for group, kinds in {
        "admissionregistration.k8s.io": "MutatingWebhookConfiguration ValidatingAdmissionPolicy "
        "ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration",
        "apiregistration.k8s.io": "APIService",
        "certificates.k8s.io": "CertificateSigningRequest",
        "flowcontrol.apiserver.k8s.io": "FlowSchema PriorityLevelConfiguration",
        "node.k8s.io": "RuntimeClass",
        "storage.k8s.io": "CSIDriver CSINode VolumeAttachment VolumeAttributesClass",
    }.items()
    for kind in kinds.split()
)


def assumed_resource(api_version: str, kind: str) -> Resource:
    """The resource that a kind is, without asking a cluster: one that is nobody's own counts as one
    that has namespaces, as `kustomize build` takes it."""
    known = _KNOWN.get((api_version, kind))
    group = api_version.rpartition("/")[0]
    wide = f"{group}/{kind}" in _ALSO_CLUSTER_WIDE
    return known or Resource(api_version, kind, _plural(kind), namespaced=not wide)


WORKLOAD_KINDS = {
    "deployment": "Deployment",
    "statefulset": "StatefulSet",
    "daemonset": "DaemonSet",
}
"""What rolls its pods out, by its kind in lower case."""

# What runs pods, by its kind in lower case.
WORKLOADS = {
    kind.lower(): _KNOWN[version, kind]
    for version, kind in (
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("v1", "Pod"),
        ("batch/v1", "Job"),
        ("batch/v1", "CronJob"),
    )
}


def workload_path(ref: WorkloadRef) -> str:
    if ref.api:
        version, _, plural = ref.api.rpartition("/")
        return Resource(version, ref.kind, plural).path(ref.namespace, ref.name)
    return WORKLOADS[ref.kind].path(ref.namespace, ref.name)


def name_of(manifest: Json) -> str:
    """`Deployment web`, for messages."""
    return f"{manifest.get('kind')} {dig(manifest, 'metadata', 'name')}"


class Discovery:
    """Answers which resource a kind is. Remembers groups; forgets one that lacked the kind, since
    a CustomResourceDefinition may have come meanwhile."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._groups: dict[str, dict[str, Resource]] = {}

    def resource(self, api_version: str, kind: str, location: Location) -> Resource:
        """Raises cluster/rejected when the cluster does not have the kind."""
        if (api_version, kind) in _KNOWN:
            return _KNOWN[api_version, kind]
        with self._lock:
            found = self._groups.get(api_version, {}).get(kind)
        if found is None:
            # 503: an aggregated API whose server is away
            answer = self._connection.find(_root(api_version), absent={404, 503}) or {}
            group = {resource.kind: resource for resource, _ in _served(api_version, answer)}
            found = group.get(kind)
            with self._lock:
                self._groups[api_version] = group
        if found is None:
            raise DevloopError.of(
                Code.CLUSTER_REJECTED,
                f"the cluster has no kind {kind} in {api_version}",
                location=location,
                cause="its CustomResourceDefinition is missing, or the apiVersion is wrong",
                suggestions=(f"install what defines {kind}, or correct apiVersion and kind",),
            )
        return found

    def listable(self) -> list[Resource]:
        """Every kind of the preferred versions that can be listed and deleted."""
        versions = ["v1"]
        answer = self._connection.request("GET", "/apis")
        for group in answer.get("groups") or ():
            preferred = (group.get("preferredVersion") or {}).get("groupVersion")
            if preferred:
                versions.append(str(preferred))
        found: list[Resource] = []
        for version in versions:
            # An aggregated API that is down hides nothing that devloop made.
            with contextlib.suppress(ApiError):
                answer = self._connection.request("GET", _root(version))
                served = _served(version, answer)
                found += [r for r, verbs in served if {"list", "delete"} <= verbs]
        return found


def _served(api_version: str, answer: Json) -> Iterator[tuple[Resource, set[str]]]:
    """What the cluster serves under `apps/v1`, `v1` ..., each with its verbs."""
    for item in answer.get("resources") or ():
        kind, plural = str(item.get("kind")), str(item.get("name"))
        if "/" not in plural:
            resource = Resource(api_version, kind, plural, bool(item["namespaced"]))
            yield resource, set(item.get("verbs") or ())
