"""Which manifests of a folder run which service's image. Reads manifests; asks no cluster."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.pod_view import items
from devloop.cluster.deploy.image_owners import containers_of, repository_path
from devloop.config.rules import IMAGE, label_from
from devloop.errors import DevloopError
from devloop.manifests.files import read_manifests

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from devloop.errors import Diagnosis
    from devloop.model import ManifestObject


_SIGNS = (re.compile(r"^apiVersion:", re.MULTILINE), re.compile(r"^kind:", re.MULTILINE))
_LARGEST = 1024 * 1024
_MOST_FILES = 1_000
# What projects run beside their own images.
_OTHERS = frozenset(
    (
        *("postgres", "postgresql", "mysql", "mariadb", "mongo", "mongodb", "redis", "valkey"),
        *("memcached", "rabbitmq", "nats", "kafka", "zookeeper", "elasticsearch", "opensearch"),
        *("kibana", "grafana", "prometheus", "busybox", "alpine", "curl", "minio", "vault"),
        *("localstack", "mailhog", "mailpit", "traefik", "envoy", "haproxy", "etcd", "keycloak"),
        *("adminer", "pgadmin4", "jaeger", "all-in-one", "otel-collector", "cockroach", "consul"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWorkload:
    """Something that runs containers: in the manifest `file`, or, where that is "", in the cluster.
    `by` is the tool that renders it, `file` its folder then: kustomize, helm.
    `images` are pairs of container and image, `ports` of container and TCP port."""

    kind: str
    name: str
    file: str
    images: tuple[tuple[str, str], ...]
    namespace: str = ""
    ports: tuple[tuple[str, int], ...] = ()
    by: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundManifests:
    """`files` are the manifests; `objects` has the names of what is in each; `problems` are lines
    about files that look like manifests and cannot be read."""

    files: tuple[str, ...] = ()
    workloads: tuple[FoundWorkload, ...] = ()
    objects: dict[str, tuple[str, ...]]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A workload, and its image that a service makes: the `container`'s `image`."""

    workload: FoundWorkload
    container: str
    image: str
    score: int

    @property
    def service_image(self) -> str:
        """The name for `image:` in devloop.yaml; "" where the manifest has none that it takes."""
        name = "/".join(repository_path(self.image))
        return name if IMAGE.check(name) is None else ""


def read_workloads(root: Path, paths: Iterable[str]) -> FoundManifests:
    """What of `paths` (relative to `root`) are manifests, and what in them runs containers."""
    files: list[str] = []
    workloads: list[FoundWorkload] = []
    objects: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    for path in list(paths)[:_MOST_FILES]:
        try:
            data = (root / path).read_bytes()
        except OSError:
            continue
        text = data.decode("utf-8", "replace")
        if len(data) > _LARGEST or not all(sign.search(text) for sign in _SIGNS):
            continue
        strangers: list[Diagnosis] = []
        file = root / path
        try:
            found = read_manifests(
                [file],
                show=functools.partial(_shown, path),
                met=frozenset({file}),
                notify=strangers.append,
            )
        except DevloopError as error:
            problems.append(f"{error.diagnosis.location or path}: {error.diagnosis.message}")
            continue
        if strangers:
            continue
        files.append(path)
        objects[path] = tuple(each.key[3] for each in found)
        workloads += (made for each in found if (made := workload_in(each, path)) is not None)
    return FoundManifests(
        files=tuple(files), workloads=tuple(workloads), objects=objects, problems=tuple(problems)
    )


def _shown(path: str, _: Path) -> str:
    return path


def workload_in(manifest: ManifestObject, path: str, *, by: str = "") -> FoundWorkload | None:
    """The workload that an object is; None where it runs no container."""
    containers = [
        container
        for _, container in containers_of(manifest.object)
        if isinstance(container.get("image"), str) and container["image"]
    ]
    _, kind, namespace, name = manifest.key
    if not containers:
        return None
    return FoundWorkload(
        kind=kind.lower(),
        name=name,
        file=path,
        by=by,
        images=tuple((str(each.get("name") or ""), each["image"]) for each in containers),
        namespace=namespace,
        ports=tuple(
            (str(each.get("name") or ""), port["containerPort"])
            for each in containers
            for port in items(each.get("ports"))
            if port.get("protocol", "TCP") == "TCP" and isinstance(port.get("containerPort"), int)
        ),
    )


def is_others(image: str) -> bool:
    """Whether an image is one that everybody runs and nobody makes."""
    path = repository_path(image)
    return bool(path) and path[-1] in _OTHERS


def match(name: str, folder: str, workloads: Sequence[FoundWorkload]) -> list[Match]:
    """How well each workload's images fit a service called `name` whose Dockerfile is in `folder`
    ("" for the project's own): the best first, without those that do not at all."""
    found = []
    for workload in workloads:
        for container, image in workload.images:
            if points := _score(name, folder, workload, container, image):
                found.append(
                    Match(workload=workload, container=container, image=image, score=points)
                )
    serving = {"deployment": 3, "statefulset": 2, "daemonset": 1}
    found.sort(key=lambda each: (-each.score, -serving.get(each.workload.kind, 0)))
    return found


def own_images(workloads: Sequence[FoundWorkload]) -> dict[str, list[Match]]:
    """The images that somebody may make here, by their names without tag, and what runs each."""
    found: dict[str, list[Match]] = {}
    for workload in workloads:
        for container, image in workload.images:
            if not is_others(image):
                match = Match(workload=workload, container=container, image=image, score=1)
                found.setdefault("/".join(repository_path(image)), []).append(match)
    return found


def _score(name: str, folder: str, workload: FoundWorkload, container: str, image: str) -> int:
    if is_others(image):
        return 0
    path = repository_path(image)
    last = label_from(path[-1]) if path else ""
    points = 8 if last == name else 3 if _part_of(name, last) else 0
    points += 6 if workload.name == name else 2 if _part_of(name, workload.name) else 0
    points += 4 if container == name else 0
    within = bool(folder) and workload.file.startswith(f"{folder}/")
    return points + (5 if within else 0)


def _part_of(name: str, whole: str) -> bool:
    return f"-{name}-" in f"-{whole}-"
