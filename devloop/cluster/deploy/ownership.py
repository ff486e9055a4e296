"""Who wrote what: devloop's marks on objects, and what to do about other field managers. Pure."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.cluster.api.pod_view import (
    Json,
    annotation,
    dig,
    images_of,
    items,
    labels,
    metadata,
    text,
)
from devloop.cluster.api.writes import MANAGER
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.model import CREATED_BY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


# sha256 of what was applied, so that a warm start knows without writing that nothing is to do.
APPLIED = "devloop.dev/applied"
# The same project as a label, only to find the objects: annotations cannot be selected.
PROJECT = "devloop.dev/project"

_SERVER_FIELDS = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
)


def project_label(project: str) -> str:
    """A label value for a project's name: the name itself where that is valid."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", project):
        return project
    slug = re.sub(r"[^A-Za-z0-9]+", "-", project).strip("-")[:40]
    digest = hashlib.sha256(project.encode()).hexdigest()[:12]
    return f"{slug}-{digest}".lstrip("-")


def created_by(live: Json | None) -> str:
    """The project that created the object; "" when devloop did not."""
    return annotation(live, CREATED_BY) if live is not None else ""


def desired(manifest: Json, live: Json | None, project: str) -> dict[str, Any]:
    """The body to apply: the manifest without what the server fills in and without keys that have
    no value, with devloop's marks.

    `live` is the object as it is, None when it does not exist: only then, or when this project
    created it before, does it carry the created-by mark. Replicas that somebody else set are not in
    it: see `scaled_by`."""
    body: dict[str, Any] = _without_nulls(dict(manifest))
    body.pop("status", None)
    if live is not None and "replicas" in (dig(body, "spec") or {}) and scaled_by(live):
        del body["spec"]["replicas"]
    meta = body["metadata"] = {
        k: v for k, v in metadata(body).items() if k not in _SERVER_FIELDS and v is not None
    }
    if body.get("kind") == "Secret" and isinstance(body.get("stringData"), dict):
        # The server stores it as `data` and forgets who owns it; so say `data` right away.
        body["data"] = stored_data(body)["data"]
        del body["stringData"]
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), default=str)
    marks = {APPLIED: hashlib.sha256(canonical.encode()).hexdigest()[:32]}
    if live is None or created_by(live) == project:
        marks[CREATED_BY] = project
        meta["labels"] = {**(meta.get("labels") or {}), PROJECT: project_label(project)}
    meta["annotations"] = {**(meta.get("annotations") or {}), **marks}
    return body


def stored_data(thing: Json) -> dict[str, Any]:
    """What a ConfigMap or Secret holds, as the server stores it: `data` and `binaryData`."""
    data = thing.get("data") or {}
    plain = thing.get("stringData")
    if thing.get("kind") == "Secret" and isinstance(plain, dict):
        encoded = {k: base64.b64encode(str(v).encode()).decode() for k, v in plain.items()}
        data = {**data, **encoded}
    return {"data": data, "binaryData": thing.get("binaryData") or {}}


# Mappings whose values are the user's own text, where nothing is not the same as no key.
_FREE = frozenset({"data", "stringData", "binaryData", "labels", "annotations", "matchLabels"})


def _without_nulls(value: Any) -> Any:
    """A copy without the keys that have no value (`resources:`), which to the API server is as if
    they were not given."""
    if isinstance(value, dict):
        return {
            key: copy.deepcopy(each) if key in _FREE else _without_nulls(each)
            for key, each in value.items()
            if each is not None
        }
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def scaled_by(live: Json) -> str:
    """Who set the replicas by hand or by an autoscaler: they stay theirs, whatever the manifest
    says. "" for nobody: they are the manifest's."""
    for entry in items(metadata(live).get("managedFields")):
        if dig(entry, "fieldsV1", "f:spec", "f:replicas") is not None:
            manager = text(entry.get("manager"))
            if _scales(manager, text(entry.get("subresource"))):
                return manager
    return ""


def scale_note(what: str, manager: str) -> Diagnosis:
    """What to report, once, of replicas that stay another's."""
    who = "an autoscaler" if manager in _SCALERS else manager
    return Diagnosis(
        code=Code.CLUSTER_CONFLICT,
        severity="info",
        message=f"left the replicas of {what} as {who} set them",
        suggestions=("remove spec.replicas from the manifest: it does not decide them",),
    )


def same_but_images(wanted: Json, live: Json, containers: Collection[str], project: str) -> bool:
    """Whether `wanted` (a Deployment to apply) is what was applied last but for the image of
    `containers`, and the live pod template still says all of it."""
    had = images_of(live)
    before = copy.deepcopy(dict(wanted))
    for container in items(dig(before, "spec", "template", "spec", "containers")):
        if text(container.get("name")) in containers:
            container["image"] = had.get(text(container.get("name")), "")
    body = desired(before, live, project)
    mark = metadata(body)["annotations"][APPLIED]
    template = dig(body, "spec", "template")
    return annotation(live, APPLIED) == mark and covers(dig(live, "spec", "template"), template)


def covers(live: object, wanted: object) -> bool:
    """Whether the live object already says everything that `wanted` says.

    Errs towards False where the server writes a value in another form than it was given; an apply
    too many changes nothing."""
    if wanted is None:
        return live is None
    if isinstance(wanted, dict):
        if not isinstance(live, dict):
            return not wanted and live is None
        return all(covers(live.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(live, list):
            return not wanted and live is None
        return _covers_list(live, wanted)
    if live is None:
        return wanted in ("", 0, False)  # the server leaves out what is the zero value
    return live == wanted or _quantity(live) == _quantity(wanted) is not None


def _covers_list(live: list[Any], wanted: list[Any]) -> bool:
    names = [w.get("name") if isinstance(w, dict) else None for w in wanted]
    if names and all(isinstance(n, str) for n in names):
        by_name = {text(e.get("name")): e for e in live if isinstance(e, dict)}
        return all(
            text(n) in by_name and covers(by_name[text(n)], w)
            for n, w in zip(names, wanted, strict=True)
        )
    return len(live) == len(wanted) and all(map(covers, live, wanted))


_UNITS = {
    "": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "E": 1e18, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
    "Ei": 2.0**60,
}  # fmt: skip


def _quantity(value: object) -> float | None:
    """A resource quantity's value (`500m`, `0.5`, `1Gi`); None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    found = re.fullmatch(r"([+-]?[0-9.]+)([a-zA-Z]*)", str(value))
    if not found or found[2] not in _UNITS:
        return None
    try:
        return float(found[1]) * _UNITS[found[2]]
    except ValueError:
        return None


# Controllers that put back what they own within seconds or minutes: writing there is a fight.
_GITOPS = {
    "argocd": "Argo CD",
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
    "flux": "Flux",
    "helm": "Helm",
    "rancher": "Rancher Fleet",
    "fleetagent": "Rancher Fleet",
}
_GITOPS_MARKS = {
    "argocd.argoproj.io/": "Argo CD",
    "kustomize.toolkit.fluxcd.io/": "Flux",
    "helm.toolkit.fluxcd.io/": "Flux",
    "objectset.rio.cattle.io/": "Rancher Fleet",
}
_BY_HAND = {"kubectl-edit", "kubectl-patch"}
_SCALERS = {"kube-controller-manager", "horizontal-pod-autoscaler", "keda", "keda-operator"}
_CAUSE = re.compile(r'conflict with "(?P<manager>[^"]+)"(?: with subresource "(?P<sub>[^"]+)")?')


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictDecision:
    """What to do about a conflict: `error` to raise, or take over, after leaving out the replicas
    where `scaled_by` set them, and what to report."""

    error: DevloopError | None = None
    scaled_by: str = ""
    info: Diagnosis | None = None


def judge_conflict(causes: Iterable[Json], what: str) -> ConflictDecision:
    """Decide on the causes of a 409 to a server-side apply (Status.details.causes).

    GitOps controllers are not fought: cluster/conflict names them and the fields. Replicas that an
    autoscaler or a person set stay theirs. Everybody else (`kubectl apply`, `kubectl edit`, other
    tools) is taken over from, and named."""
    owners: dict[str, list[str]] = {}
    scaled = ""
    for cause in causes:
        found = _CAUSE.search(text(cause.get("message")))
        field = text(cause.get("field"))
        manager = found["manager"] if found else "another manager"
        subresource = text(found["sub"]) if found is not None else ""
        if field == ".spec.replicas" and _scales(manager, subresource):
            scaled = manager
        elif manager != MANAGER:
            owners.setdefault(manager, []).append(field or "?")
    refused = {manager: fields for manager, fields in owners.items() if manager in _GITOPS}
    if refused:
        return ConflictDecision(error=_refuse(refused, what))
    return ConflictDecision(scaled_by=scaled, info=_report(owners, what))


def _scales(manager: str, subresource: str) -> bool:
    theirs = subresource == "scale" or manager in _SCALERS or manager in _BY_HAND
    return theirs and manager != MANAGER and manager not in _GITOPS


def _refuse(refused: Mapping[str, list[str]], what: str) -> DevloopError:
    manager, fields = next(iter(refused.items()))
    return DevloopError.of(
        Code.CLUSTER_CONFLICT,
        f"{_GITOPS[manager]} ({manager}) owns what devloop would change in {what}",
        cause="fields: " + ", ".join(fields[:6]) + (" ..." if len(fields) > 6 else ""),
        suggestions=(
            f"pause {_GITOPS[manager]} for {what}, or take the object out of deploy.manifests",
        ),
        detail=tuple(f"{m}: {f}" for m, all_ in refused.items() for f in all_),
    )


def _report(owners: Mapping[str, list[str]], what: str) -> Diagnosis | None:
    if not owners:
        return None
    count = sum(map(len, owners.values()))
    fields = f"{count} field{'s' if count > 1 else ''}"
    message = f"took over {fields} of {what} from {', '.join(owners)}"
    return Diagnosis(code=Code.CLUSTER_CONFLICT, severity="info", message=message)


def gitops_manager(live: Json) -> str | None:
    """Who would put back what devloop patches, by the marks that GitOps tools leave; or None."""
    marks = {**labels(live), **(metadata(live).get("annotations") or {})}
    for prefix, name in _GITOPS_MARKS.items():
        if any(mark.startswith(prefix) for mark in marks):
            return name
    managers = (text(e.get("manager")) for e in items(metadata(live).get("managedFields")))
    names = (_GITOPS.get(manager) for manager in managers)
    return next((name for name in names if name not in {None, "Helm"}), None)
