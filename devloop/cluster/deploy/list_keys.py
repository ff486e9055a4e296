"""Lists whose entries have a key, as in a pod's `env`: a key that stands twice.

Server-side apply refuses them; `kubectl apply` has always taken them, and the kubelet lets the last
one count. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cluster.api.pod_view import Json
    from devloop.model import ManifestObject


# The lists of containers and of pods for which the API server takes a key twice, with what it fills
# in where a part of the key is not given (k8s.io/api/core/v1, `+listMapKey`).
_OF_CONTAINERS: dict[str, tuple[str, ...]] = {
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
}
_OF_PODS: dict[str, tuple[str, ...]] = {"imagePullSecrets": ("name",), "hostAliases": ("ip",)}
_DEFAULTS = {"protocol": "TCP"}
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def without_doubles(thing: dict[str, Any], manifest: ManifestObject) -> list[Diagnosis]:
    """Take out of `thing` what a later entry of the same key makes void; a warning for each, with
    its place in `manifest`, of which it is a copy."""
    found: list[Diagnosis] = []
    for path, spec in _pod_specs(thing, ()):
        for key, names in _OF_PODS.items():
            found += _last_of_each(spec, key, names, (*path, key), manifest)
        for kind in _CONTAINERS:
            containers = spec.get(kind)
            for index, container in enumerate(containers if isinstance(containers, list) else ()):
                if isinstance(container, dict):
                    for key, names in _OF_CONTAINERS.items():
                        where = (*path, kind, index, key)
                        found += _last_of_each(container, key, names, where, manifest)
    return found


def _pod_specs(
    thing: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Whatever holds containers, however deep: CronJobs and custom resources have it elsewhere."""
    if isinstance(thing, dict):
        if isinstance(thing.get("containers"), list):
            yield path, thing
        for key, value in thing.items():
            yield from _pod_specs(value, (*path, key))
    elif isinstance(thing, list):
        for index, value in enumerate(thing):
            yield from _pod_specs(value, (*path, index))


def _last_of_each(
    holder: dict[str, Any],
    key: str,
    names: tuple[str, ...],
    path: tuple[str | int, ...],
    manifest: ManifestObject,
) -> Iterator[Diagnosis]:
    entries = holder.get(key)
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        return
    last = {_key(entry, names): index for index, entry in enumerate(entries)}
    if len(last) == len(entries):
        return
    for index, entry in enumerate(entries):
        kept = last[_key(entry, names)]
        if kept != index:
            shown = " ".join(str(part) for part in _key(entry, names) if part != "TCP")
            yield Diagnosis(
                code=Code.CONFIG_MANIFEST,
                severity="warning",
                message=f"{shown} stands twice in `{key}`: the last one counts",
                location=manifest.at(*path, index),
                cause=f"the other is at {manifest.at(*path, kept)}",
                suggestions=("keep one of the two",),
            )
    holder[key] = [entries[index] for index in sorted(last.values())]


def _key(entry: Json, names: tuple[str, ...]) -> tuple[object, ...]:
    return tuple(str(entry.get(name) or _DEFAULTS.get(name, "")) for name in names)
