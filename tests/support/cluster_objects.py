"""Kubernetes objects as the API server and the kubelet write them, for tests."""

from __future__ import annotations

from typing import Any, cast

__all__ = [
    "DIGEST",
    "IMAGE",
    "deployment",
    "event",
    "pod",
    "replicaset",
    "running",
    "service_config",
    "terminated",
    "waiting",
]

DIGEST = "sha256:" + "a" * 64
IMAGE = f"localhost:5001/shop/web@{DIGEST}"


def deployment(
    image: str = IMAGE, *, name: str = "web", generation: int = 2, **spec: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": "dev",
            "uid": f"uid-{name}",
            "generation": generation,
            "resourceVersion": "1",
            "annotations": {"deployment.kubernetes.io/revision": "2"},
        },
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
        }
        | spec,
        "status": {"observedGeneration": generation},
    }


def owner(kind: str, name: str, uid: str) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": name, "uid": uid, "controller": True}]


def replicaset(
    image: str = IMAGE, *, hash_: str = "new", revision: str = "2", workload: str = "web"
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": f"{workload}-{hash_}",
            "uid": f"rs-{hash_}",
            "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": owner("Deployment", workload, f"uid-{workload}"),
        },
        "spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}},
    }


def running(
    image_id: str = IMAGE, *, ready: bool = True, restarts: int = 0, name: str = "web", **more: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "ready": ready,
        "started": True,
        "restartCount": restarts,
        "imageID": image_id,
        "containerID": "containerd://1",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    } | more


def waiting(
    reason: str, message: str = "", *, restarts: int = 0, last: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "name": "web",
        "ready": False,
        "restartCount": restarts,
        "imageID": "",
        "state": {"waiting": {"reason": reason, "message": message}},
        "lastState": {"terminated": last} if last else {},
    }


def terminated(
    code: int, reason: str = "Error", *, restarts: int = 0, message: str = ""
) -> dict[str, Any]:
    inside = {"exitCode": code, "reason": reason, "message": message}
    return {
        "name": "web",
        "ready": False,
        "restartCount": restarts,
        "imageID": IMAGE,
        "containerID": "containerd://1",
        "state": {"terminated": inside},
    }


def pod(
    *containers: dict[str, Any],
    name: str = "web-new-x",
    owner_uid: str = "rs-new",
    owner_kind: str = "ReplicaSet",
    image: str = IMAGE,
    ready: bool | None = None,
    labels: dict[str, str] | None = None,
    deleting: bool = False,
    status: dict[str, Any] | None = None,
    init: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """A pod of ReplicaSet web-new with the containers' statuses; ready when they all are."""
    if ready is None:
        ready = bool(containers) and all(c.get("ready") for c in containers)
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "dev",
        "uid": f"pod-{name}",
        "resourceVersion": "5",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"pod-template-hash": "new"} if labels is None else labels,
        "ownerReferences": owner(owner_kind, owner_uid.replace("rs-", "web-"), owner_uid),
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:09Z"
    spec: dict[str, Any] = {"nodeName": "n", "containers": [{"name": "web", "image": image}]}
    if init:
        spec["initContainers"] = [{"name": c["name"], "image": image} for c in init]
    return {
        "metadata": metadata,
        "spec": spec,
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": list(containers),
            "initContainerStatuses": init or [],
        }
        | (status or {}),
    }


def event(reason: str, message: str, *, count: int = 1, uid: str = "pod-web-new-x") -> Any:
    return {
        "metadata": {"name": f"e-{reason}", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "involvedObject": {"uid": uid, "kind": "Pod"},
        "reason": reason,
        "message": message,
        "count": count,
        "type": "Warning",
    }


def service_config(
    root: Any,
    *,
    name: str = "web",
    image: str = "shop/web",
    manifests: tuple[str, ...] = (),
    container: str | None = None,
    kind: str = "deployment",
    workload: str | None = None,
) -> Any:
    from devloop.config.builds import Build  # noqa: PLC0415 - only some need it
    from devloop.config.schema import Deploy, Service  # noqa: PLC0415 - only some need it

    return Service(
        name=name,
        image=image,
        build=Build(context=root, dockerfile=root / "Dockerfile"),
        deploy=Deploy(
            workload_kind=cast("Any", kind),
            workload_name=workload or name,
            container=container,
            manifests=manifests,
        ),
    )
