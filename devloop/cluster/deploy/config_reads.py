"""Which ConfigMaps and Secrets a pod template reads, as an annotation of it: pods read them when
they start, so a changed one is a changed template, which the workload's controller rolls out, and
for which a Job is made again. Pure.

Whatever way they are read counts, by subPath or by a value of the environment, which a running pod
never sees change. Values do not leave this module but hashed.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.kinds import WORKLOAD_KINDS
from devloop.cluster.api.pod_view import Json, annotation, dig, items, text
from devloop.cluster.deploy.ownership import stored_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from devloop.cluster.deploy.objects import PlannedObject


READS = "devloop.dev/reads"
"""The annotation of a pod template: `KIND/NAME=HASH` of each that it reads, with blanks between
them."""

HAVE_TEMPLATES = frozenset({*WORKLOAD_KINDS.values(), "Job"})
"""What gets the annotation. A CronJob's next run reads anew anyway."""

_KINDS = ("ConfigMap", "Secret")
_KIND_OF = {kind.lower(): kind for kind in _KINDS}


def config_hashes(objects: Iterable[PlannedObject]) -> dict[tuple[str, str], dict[str, str]]:
    """Of the ConfigMaps and Secrets among `objects`: (kind, namespace) -> name -> hash of what they
    hold. Labels and the like are nothing that a pod reads."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for planned in objects:
        kind = planned.resource.kind
        if is_config(planned.resource.api_version, kind):
            digest = hash_of(kind, planned.name, planned.object)
            found.setdefault((kind, planned.namespace), {})[planned.name] = digest
    return found


def merged(
    under: Mapping[tuple[str, str], Mapping[str, str]],
    over: Mapping[tuple[str, str], Mapping[str, str]],
) -> dict[tuple[str, str], dict[str, str]]:
    """Both, and where both have the same object that of `over`."""
    return {key: {**under.get(key, {}), **over.get(key, {})} for key in {**under, **over}}


def is_config(api_version: str, kind: str) -> bool:
    return api_version == "v1" and kind in _KINDS


def hash_of(kind: str, name: str, thing: Json) -> str:
    held = [kind, name, stored_data(thing)]
    canonical = json.dumps(held, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def reads_more(
    objects: Iterable[PlannedObject], hashes: Mapping[tuple[str, str], Mapping[str, str]]
) -> bool:
    """Whether a pod template among `objects` reads what is not among `hashes`."""
    return any(
        name not in hashes.get((kind, planned.namespace), ())
        for planned in objects
        if planned.resource.kind in HAVE_TEMPLATES
        for kind, name in references(dig(planned.object, "spec", "template"))
    )


def reads_of(
    template: object, namespace: str, hashes: Mapping[tuple[str, str], Mapping[str, str]]
) -> str:
    """The annotation's value for a pod template; "" when it reads none of `hashes`."""
    found = {
        f"{kind.lower()}/{name}={hashes[kind, namespace][name]}"
        for kind, name in references(template)
        if name in hashes.get((kind, namespace), ())
    }
    return " ".join(sorted(found))


def mark_templates(
    objects: Iterable[PlannedObject], hashes: Mapping[tuple[str, str], Mapping[str, str]]
) -> None:
    """Write the annotation into the templates of the workloads among `objects`, which are the
    caller's own copies; nothing into one that reads none."""
    for planned in objects:
        if planned.resource.kind not in HAVE_TEMPLATES:
            continue
        template = dig(planned.object, "spec", "template")
        if value := reads_of(template, planned.namespace, hashes):
            meta = template["metadata"] = dict(template.get("metadata") or {})
            meta["annotations"] = {**(meta.get("annotations") or {}), READS: value}


def changed_reads(live: Json | None, wanted: object) -> str:
    """What changed between the template of `live` and `wanted` (the annotation's value) that both
    read: `ConfigMap web-config`, "" for nothing."""
    before = _parsed(annotation(dig(live, "spec", "template") or {}, READS))
    now = _parsed(text(wanted))
    names = [key for key, digest in now.items() if before.get(key, digest) != digest]
    return ", ".join(f"{_KIND_OF.get(kind, kind)} {name}" for kind, name in names)


def reads_in(workload: Json) -> str:
    """The annotation that its template has."""
    return annotation(dig(workload, "spec", "template") or {}, READS)


def _parsed(value: str) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for word in value.split():
        key, _, digest = word.partition("=")
        kind, _, name = key.partition("/")
        found[kind, name] = digest
    return found


def references(template: object) -> Iterator[tuple[str, str]]:
    """(kind, name) of each that a pod template names to be read by its containers."""
    spec = dig(template, "spec")
    for key in ("initContainers", "containers"):
        for container in items(dig(spec, key)):
            for source in items(container.get("envFrom")):
                yield from _named(source, configMapRef="name", secretRef="name")
            for variable in items(container.get("env")):
                value: Any = variable.get("valueFrom")
                yield from _named(value, configMapKeyRef="name", secretKeyRef="name")
    for volume in items(dig(spec, "volumes")):
        yield from _named(volume, configMap="name", secret="secretName")  # noqa: S106 - a key
        for source in items(dig(volume, "projected", "sources")):
            yield from _named(source, configMap="name", secret="name")  # noqa: S106 - a key


def _named(source: object, **keys: str) -> Iterator[tuple[str, str]]:
    for key, name_key in keys.items():
        if name := text(dig(source, key, name_key)):
            yield ("Secret" if key.startswith("secret") else "ConfigMap"), name
