"""Which object of Flux or Argo CD owns a workload, and whether it acts at the moment.

Only reads. What a session does about it is `gitops`'s, and `suspensions`'s.

Sources: https://fluxcd.io/flux/components/kustomize/kustomizations/ (labels of what is applied,
`reconcile`, `ssa`, `spec.suspend`), https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/
and .../auto_sync/ (`automated.enabled`, `selfHeal`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.pod_view import (
    Json,
    annotation,
    dig,
    items,
    labels,
    metadata,
    name_of,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.cluster.api.connection import Connection


_FLUX = {
    "kustomize.toolkit.fluxcd.io": ("Kustomization", "kustomizations"),
    "helm.toolkit.fluxcd.io": ("HelmRelease", "helmreleases"),
}
_ARGO = "argoproj.io"
_TRACKING, _INSTANCE = "argocd.argoproj.io/tracking-id", "app.kubernetes.io/instance"
_ARGO_NAMESPACE = "argocd"

# Helm charts have the label by which Argo CD may know its own, too: so long, in seconds, nobody
# asks again whether there are Applications at all.
_REMEMBERED = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GitopsOwner:
    """An object by which a GitOps tool has others. `namespace` is "" where it is not known. `by` is
    the mark that says so; `sure` is False for a mark that others write as well."""

    group: str
    kind: str
    namespace: str
    name: str
    by: str = ""
    sure: bool = True

    @property
    def tool(self) -> str:
        return "Argo CD" if self.group == _ARGO else "Flux"

    @property
    def plural(self) -> str:
        return "applications" if self.group == _ARGO else _FLUX[self.group][1]

    @property
    def suspend_command(self) -> str:
        if self.group == _ARGO:
            where = self.namespace or _ARGO_NAMESPACE
            return f"argocd app set {where}/{self.name} --sync-policy none"
        return f"flux suspend {self.kind.lower()} {self.name} -n {self.namespace}"

    @property
    def resume_command(self) -> str:
        if self.group == _ARGO:
            return f"argocd app set {self.namespace}/{self.name} --sync-policy automated"
        return f"flux resume {self.kind.lower()} {self.name} -n {self.namespace}"

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.tool}'s {self.kind} {where}{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerState:
    """An owner as it is: `live` is None for one that is gone. `quiet` says why it puts nothing
    back, "" for one that does."""

    owner: GitopsOwner
    path: str
    live: Json | None
    quiet: str = ""


def named_owners(thing: Json) -> tuple[GitopsOwner, ...]:
    """Who owns an object by its own labels and annotations. Pure."""
    found = []
    own = labels(thing)
    for group, (kind, _) in _FLUX.items():
        name, namespace = text(own.get(f"{group}/name")), text(own.get(f"{group}/namespace"))
        if name and namespace and not _left_alone(thing, group):
            found.append(
                GitopsOwner(
                    group=group, kind=kind, namespace=namespace, name=name, by=f"{group}/name"
                )
            )
    if (app := _tracked_by(thing)) is not None:
        found.append(app)
    elif instance := text(own.get(_INSTANCE)):
        found.append(_application(instance, by=_INSTANCE, sure=False))
    return tuple(found)


def tool_of(thing: Json) -> str:
    """The tool that an object itself says it belongs to; "" for none. Pure."""
    return next((owner.tool for owner in named_owners(thing) if owner.sure), "")


def _left_alone(thing: Json, group: str) -> bool:
    """Whether the object itself says that Flux does not change it."""
    marks = {**labels(thing), **(metadata(thing).get("annotations") or {})}
    return (
        marks.get(f"{group}/reconcile") == "disabled"
        or marks.get(f"{group}/ssa") in ("Ignore", "IfNotPresent")
    )  # fmt: skip


def _tracked_by(thing: Json) -> GitopsOwner | None:
    """By Argo CD's tracking id, `APP:GROUP/KIND:NAMESPACE/NAME`. One that was copied from another
    object (of a Deployment to its ReplicaSets, say) speaks of that one."""
    app, _, rest = annotation(thing, _TRACKING).partition(":")
    kind, _, name = rest.partition(":")
    meta = metadata(thing)
    if not app or kind.rpartition("/")[2] != text(thing.get("kind")):
        return None
    if name != f"{text(meta.get('namespace'))}/{name_of(thing)}":
        return None
    return _application(app, by=_TRACKING)


def _application(app: str, *, by: str, sure: bool = True) -> GitopsOwner:
    # One of another namespace than Argo CD's own is called NAMESPACE_NAME.
    namespace, _, name = app.rpartition("_")
    return GitopsOwner(
        group=_ARGO, kind="Application", namespace=namespace, name=name, by=by, sure=sure
    )


class GitopsOwners:
    """Finds owners in the cluster. Thread-safe: two that look at once only ask twice."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        # group -> its version, "" for one that the cluster does not have, and since when.
        self._versions: dict[str, tuple[str, float]] = {}
        # Where Applications are that were found by name.
        self._places: dict[str, str] = {}

    def of(self, thing: Json) -> tuple[OwnerState, ...]:
        """The owners of an object as they are now. What only others' marks could mean is left out.
        Errors: cluster/*."""
        found = (self._look(owner, thing) for owner in named_owners(thing))
        return tuple(state for state in found if state is not None)

    def _look(self, owner: GitopsOwner, thing: Json) -> OwnerState | None:
        version = self._version(owner.group)
        if not version:
            gone = f"the cluster has no {owner.plural}.{owner.group}"
            return _gone(owner, gone) if owner.sure else None
        base = f"/apis/{owner.group}/{version}"
        live: Json | None
        where = owner.namespace or self._places.get(owner.name, "")
        if where:
            path = f"{base}/namespaces/{where}/{owner.plural}/{owner.name}"
            live = self._connection.find(path)
        else:
            path, live = self._application(base, owner, thing)
        if live is None:
            return _gone(owner, "it does not exist") if owner.sure else None
        if not owner.sure and not _has(live, thing):
            return None
        where = _namespace_of(live) or owner.namespace
        if owner.group == _ARGO and owner.sure:
            self._places[owner.name] = where
        owner = GitopsOwner(
            group=owner.group, kind=owner.kind, namespace=where, name=owner.name, by=owner.by
        )
        return OwnerState(owner=owner, path=path, live=live, quiet=why_quiet(owner, live))

    def _application(self, base: str, owner: GitopsOwner, thing: Json) -> tuple[str, Json | None]:
        """The Application of this name, in Argo CD's usual namespace or any other."""
        listed = self._connection.find(f"{base}/applications", absent=(403, 404))
        if listed is None:
            path = f"{base}/namespaces/{_ARGO_NAMESPACE}/applications/{owner.name}"
            return path, self._connection.find(path)
        named = [app for app in items(listed.get("items")) if name_of(app) == owner.name]
        named.sort(key=lambda app: (not _has(app, thing), _namespace_of(app) != _ARGO_NAMESPACE))
        live = named[0] if named else None
        where = _namespace_of(live) if live is not None else _ARGO_NAMESPACE
        return f"{base}/namespaces/{where}/applications/{owner.name}", live

    def _version(self, group: str) -> str:
        known, since = self._versions.get(group, ("", 0.0))
        if known or (group in self._versions and self._clock() - since < _REMEMBERED):
            return known
        found = self._connection.find(f"/apis/{group}", absent=(403, 404))
        version = text(dig(found, "preferredVersion", "version"))
        self._versions[group] = (version, self._clock())
        return version


def _gone(owner: GitopsOwner, why: str) -> OwnerState:
    return OwnerState(owner=owner, path="", live=None, quiet=why)


def _namespace_of(thing: Json) -> str:
    return text(metadata(thing).get("namespace"))


def _has(app: Json, thing: Json) -> bool:
    """Whether an Application has the object, by its own list; where it has none yet, by where it
    deploys to."""
    resources = items(dig(app, "status", "resources"))
    if not resources:
        return bool(dig(app, "spec", "destination", "namespace") == _namespace_of(thing))
    wanted = (text(thing.get("kind")), _namespace_of(thing), name_of(thing))
    return any(
        (text(r.get("kind")), text(r.get("namespace")), text(r.get("name"))) == wanted
        for r in resources
    )


def why_quiet(owner: GitopsOwner, live: Json) -> str:
    """Why an owner puts nothing back now, "" for one that does. Pure."""
    if metadata(live).get("deletionTimestamp"):
        return "it is being deleted"
    if owner.group != _ARGO:
        return "it is suspended" if dig(live, "spec", "suspend") is True else ""
    automated: Any = dig(live, "spec", "syncPolicy", "automated")
    if not isinstance(automated, dict) or automated.get("enabled") is False:
        return "it is not synced automatically"
    # The next commit is synced all the same.
    return "" if automated.get("selfHeal") is True else "it heals nothing by itself (selfHeal)"


def put_back_by(owner: GitopsOwner, live: Json) -> str:
    """Who will undo a suspension, in words; "" for nobody that is known. Pure.

    Flux applies field by field, so that a parent takes `spec.suspend` back where its own manifest
    has the key, and leaves it alone where it does not; an ApplicationSet writes its Applications
    as a whole."""
    if owner.group == _ARGO:
        for each in items(metadata(live).get("ownerReferences")):
            if each.get("kind") == "ApplicationSet":
                return f"ApplicationSet {each.get('name')}, which writes its syncPolicy"
        return ""
    for entry in items(metadata(live).get("managedFields")):
        has = dig(entry, "fieldsV1", "f:spec", "f:suspend") is not None
        if has and entry.get("operation") == "Apply" and entry.get("manager") != "devloop":
            return f"{entry.get('manager')}, whose manifest has spec.suspend"
    return ""
