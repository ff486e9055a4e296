"""What a service's manifests had and have no more: deleted where devloop created it, else named.

What is applied is written down before it is, beside the project and by context and namespace, so
that a session that is killed forgets nothing. Whoever deletes looks at the manifests again first,
of all services: what cannot be read, or was left out with a note, deletes nothing. A service that
the config file has no more had them all; other config files beside it are left alone.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from devloop.base.lazy_dataclass import dataclass
from devloop.base.state_file import StateFile
from devloop.cluster.api.kinds import Resource
from devloop.cluster.api.pod_view import controller_of, dig, uid_of
from devloop.cluster.deploy.down import Created, delete
from devloop.cluster.deploy.gitops_owners import tool_of
from devloop.cluster.deploy.objects import apply_order
from devloop.cluster.deploy.ownership import created_by
from devloop.cluster.replace.recovery_log import object_file
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.deploy.objects import PlannedObject
    from devloop.config.schema import Project
    from devloop.engine.ports import Rendering
    from devloop.model import ManifestObject, WorkloadRef


_LOG = logging.getLogger(__name__)

# What takes other people's data or objects along is never deleted.
_NEVER = frozenset(
    {"Namespace", "PersistentVolume", "PersistentVolumeClaim", "CustomResourceDefinition"}
)

# Group and version are left out: an object that moves to another version is the same one.
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedObject:
    """An object that devloop applied. `file` is the manifest's, as the user would type it."""

    resource: Resource
    namespace: str
    name: str
    file: str = ""

    @property
    def key(self) -> _Key:
        return self.resource.kind, self.namespace, self.name

    @property
    def path(self) -> str:
        return self.resource.path(self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.resource.kind} {self.name}"

    @property
    def typed(self) -> str:
        """The command that deletes it."""
        group = self.resource.api_version.rpartition("/")[0]
        kind = self.resource.kind.lower()
        # A custom resource may share its kind's name with one that is built in.
        what = f"{self.resource.plural}.{group}" if "." in group else kind
        where = f"-n {self.namespace} " if self.namespace else ""
        return f"kubectl {where}delete {what} {self.name}"


class AppliedObjects:
    """What each service of a project applied in one context and namespace. `config` is the name of
    the file that has the services. Thread-safe."""

    def __init__(
        self, state_dir: Path, context: str, namespace: str, config: str = "devloop.yaml"
    ) -> None:
        self._place = (state_dir / "applied", context, namespace)
        self._config = config
        self._lock = threading.Lock()
        self._known: dict[str, dict[_Key, AppliedObject]] = {}
        self._current: dict[str, frozenset[_Key]] = {}

    def about_to_apply(self, service: str, planned: Iterable[PlannedObject]) -> None:
        """Remember what the service's manifests have, in addition to what they had. Writes only
        what is new."""
        new = [
            AppliedObject(
                resource=each.resource,
                namespace=each.namespace,
                name=each.name,
                file=each.location.path,
            )
            for each in planned
        ]
        with self._lock:
            known = self._of(service)
            self._current[service] = frozenset(each.key for each in new)
            if any(known.get(each.key) != each for each in new):
                known |= {each.key: each for each in new}
                self._save(service)

    def gone(self, service: str) -> tuple[AppliedObject, ...]:
        """What the service's manifests had before and have no more, in the order of deleting."""
        with self._lock:
            current = self._current.get(service)
            if current is None:
                return ()
            found = [each for key, each in self._of(service).items() if key not in current]
        return tuple(sorted(found, key=lambda each: (-apply_order(each.resource.kind), each.key)))

    def all(self, service: str) -> tuple[AppliedObject, ...]:
        with self._lock:
            return tuple(self._of(service).values())

    def former(self, services: Collection[str]) -> tuple[str, ...]:
        """The services that the config file had before and has no more."""
        directory = self._file("x").path.parent
        found = []
        for path in sorted(directory.glob("*.json")):
            service = unquote(path.name.removesuffix(".json"))
            value = StateFile(path).read() or {}
            if service not in services and value.get("config") == self._config:
                found.append(service)
        return tuple(found)

    def forget(self, service: str, gone: Collection[AppliedObject]) -> None:
        with self._lock:
            known = self._of(service)
            for each in gone:
                known.pop(each.key, None)
            self._save(service)

    def _of(self, service: str) -> dict[_Key, AppliedObject]:
        if service not in self._known:
            value = self._file(service).read() or {}
            entries = value.get("objects")
            read = [_read(each) for each in entries] if isinstance(entries, list) else []
            self._known[service] = {each.key: each for each in read if each is not None}
        return self._known[service]

    def _save(self, service: str) -> None:
        found = self._known[service].values()
        written = [_written(each) for each in found]
        self._file(service).save({"config": self._config, "objects": written})

    def _file(self, service: str) -> StateFile:
        return object_file(*self._place, service)


class LeftOvers:
    """Deletes and names what the manifests of a project's services have no more.

    `renderings` are those of all services of the project. `deleted` gets the URL path of what was
    deleted."""

    def __init__(
        self,
        project: Project,
        connection: Connection,
        applied: AppliedObjects,
        renderings: Mapping[str, Rendering],
        *,
        deleted: Callable[[str], None],
    ) -> None:
        self._project = project
        self._connection = connection
        self._applied = applied
        self._renderings = renderings
        self._deleted = deleted
        # What could not be deleted: not asked for again at every iteration.
        self._refused: set[AppliedObject] = set()
        self._lock = threading.Lock()
        self._former_removed = False
        # Services that this session took out keep what they had for as long as it runs.
        self._kept = frozenset(project.services)

    def use(self, project: Project) -> None:
        """From now on this is the project."""
        self._kept |= frozenset(project.services)
        self._project = project

    def remove(
        self,
        service: str,
        runs: Iterable[WorkloadRef],
        report: Callable[[Diagnosis], None],
        cancel: Cancel,
    ) -> None:
        """Called when what is there now is served. `runs` are the service's workloads, which stay
        whether a manifest has them or not. The first time, what services had that are no more in
        the config file goes, too. Nothing that goes wrong here is an error."""
        self._remove_all(service, self._applied.gone(service), runs, report, cancel)
        with self._lock:
            former, self._former_removed = not self._former_removed, True
        for each in self._applied.former(self._kept) if former else ():
            self._remove_all(each, self._applied.all(each), (), report, cancel)

    def _remove_all(
        self,
        service: str,
        objects: Iterable[AppliedObject],
        runs: Iterable[WorkloadRef],
        report: Callable[[Diagnosis], None],
        cancel: Cancel,
    ) -> None:
        gone = [each for each in objects if each not in self._refused]
        if not gone:
            return
        try:
            held, unsure = self._held(service, cancel)
        except DevloopError as error:
            _LOG.info("nothing is deleted while manifests cannot be read: %s", error)
            return
        for each in gone:
            cancel.check()
            if each.file in unsure:
                continue
            try:
                if each.key not in held and not self._stays(each, runs):
                    self._remove(each, report)
            except DevloopError as error:
                self._refused.add(each)
                report(_not_deleted(each, error))
                continue
            self._applied.forget(service, (each,))

    def _held(self, service: str, cancel: Cancel) -> tuple[set[_Key], set[str]]:
        """What any service's manifests have now, and the files that were left out of them. Raises
        config/* where one cannot be read."""
        held: set[_Key] = set()
        unsure: set[str] = set()
        for name in {*self._project.services, service}:
            rendering = self._renderings.get(name)
            if rendering is None:
                continue

            def left_out(note: Diagnosis) -> None:
                if note.location is not None:
                    unsure.add(note.location.path)

            for manifest in rendering.objects(cancel, left_out):
                held.update(self._keys(manifest))
        return held, unsure

    def _keys(self, manifest: ManifestObject) -> Iterable[_Key]:
        """Both as an object of a namespace and as one of none: which it is only the cluster
        knows."""
        _, kind, namespace, name = manifest.key
        return (kind, namespace or self._connection.namespace, name), (kind, "", name)

    def _stays(self, each: AppliedObject, runs: Iterable[WorkloadRef]) -> bool:
        patched = {
            (s.deploy.workload_kind, s.deploy.workload_name)
            for s in self._project.services.values()
            if s.deploy.patch_only
        }
        patched |= {(ref.kind, ref.name) for ref in runs}
        return (each.resource.kind.lower(), each.name) in patched

    def _remove(self, each: AppliedObject, report: Callable[[Diagnosis], None]) -> None:
        live = self._connection.find(each.path)
        if live is None or dig(live, "metadata", "deletionTimestamp") or controller_of(live):
            return
        if each.resource.kind in _NEVER:
            report(_named(each, f"a {each.resource.kind} is never deleted by devloop"))
        elif manager := tool_of(live):
            report(_named(each, f"{manager} manages it"))
        elif created_by(live) != self._project.name:
            report(_named(each, "devloop did not create it"))
        else:
            created = Created(
                resource=each.resource,
                namespace=each.namespace,
                name=each.name,
                uid=uid_of(live),
            )
            gone = delete(self._connection, created)
            self._deleted(each.path)
            if gone:
                report(_removed(each))


def _removed(each: AppliedObject) -> Diagnosis:
    return Diagnosis(
        code=Code.CLUSTER_LEFT_OVER,
        severity="info",
        message=f"{each} deleted: the manifests have it no more",
    )


def _named(each: AppliedObject, why: str) -> Diagnosis:
    return Diagnosis(
        code=Code.CLUSTER_LEFT_OVER,
        severity="warning",
        message=f"{each} stays in the cluster: the manifests have it no more",
        cause=why,
        suggestions=(each.typed,),
    )


def _not_deleted(each: AppliedObject, error: DevloopError) -> Diagnosis:
    return Diagnosis(
        code=Code.CLUSTER_LEFT_OVER,
        severity="warning",
        message=f"{each} cannot be deleted, and the manifests have it no more",
        cause=error.diagnosis.message,
        suggestions=(each.typed,),
    )


def _written(each: AppliedObject) -> dict[str, Any]:
    resource = each.resource
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "plural": resource.plural,
        "namespaced": resource.namespaced,
        "namespace": each.namespace,
        "name": each.name,
        "file": each.file,
    }


def _read(value: Any) -> AppliedObject | None:
    words = ("apiVersion", "kind", "plural", "namespace", "name", "file")
    if not isinstance(value, dict) or not all(isinstance(value.get(w), str) for w in words):
        return None
    version, kind, plural, namespace, name, file = (value[w] for w in words)
    namespaced = value.get("namespaced") is True
    if not (version and kind and plural and name) or (namespaced and not namespace):
        return None
    resource = Resource(version, kind, plural, namespaced)
    return AppliedObject(resource=resource, namespace=namespace, name=name, file=file)
