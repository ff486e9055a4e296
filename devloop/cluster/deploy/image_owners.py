"""Which containers a manifest has, and whose image each of them uses. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devloop.base.image_reference import split_registry
from devloop.base.net_proxy import is_loopback
from devloop.cluster.api.pod_view import Json, dig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_TEMPLATE: dict[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
}


def containers_of(thing: Json) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """The containers and init containers of whatever holds a pod template, each with its path: in
    a custom resource wherever a list of that name is."""
    if is_custom(thing):
        yield from _anywhere(thing.get("spec"), ("spec",))
        return
    base = _TEMPLATE.get(str(thing.get("kind")), ("spec", "template", "spec"))
    yield from _listed_in(dig(thing, *base), base)


def _listed_in(
    spec: object, base: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    for key in ("initContainers", "containers"):
        entries = dig(spec, key)
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, dict):
                yield (*base, key, index), entry


def _anywhere(
    value: object, base: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    if isinstance(value, dict):
        yield from _listed_in(value, base)
        for key, each in value.items():
            if key not in {"initContainers", "containers"}:
                yield from _anywhere(each, (*base, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _anywhere(each, (*base, index))


def is_custom(thing: Json) -> bool:
    """Whether it is of a kind that is not Kubernetes' own."""
    group = str(thing.get("apiVersion")).rpartition("/")[0]
    return "." in group and not group.endswith(".k8s.io")


def repository_path(image: str) -> tuple[str, ...]:
    """The parts of an image's repository without registry, tag and digest; Docker Hub's `library/`
    is left out."""
    path = split_registry(image.strip().partition("@")[0])[1].removeprefix("library/")
    *parents, name = path.split("/")
    return tuple(part for part in (*parents, name.partition(":")[0]) if part)


def score(image: str, wanted: str) -> int:
    """How well `image` names the service image `wanted`: 0 not at all, 1000 exactly; in between,
    one ends in the other, and a longer common end counts more."""
    have, want = repository_path(image), repository_path(wanted)
    if not have or not want:
        return 0
    if have == want:
        return 1000
    shorter = min(len(have), len(want))
    return shorter if have[-shorter:] == want[-shorter:] else 0


def theirs(image: str, wanted: str) -> bool:
    """Whether `image` is another vendor's although its last name may be that of `wanted`: it names
    a registry elsewhere, or its digest, and not the whole of `wanted`'s name.

    `ghcr.io/acme/web` is the service image `acme/web` as it is released; to the service `web` it is
    a sidecar that happens to be called so."""
    registry = split_registry(image)[0]
    host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdigit() else registry
    elsewhere = bool(registry) and not is_loopback(host)
    return ("@" in image or elsewhere) and repository_path(image) != repository_path(wanted)


def owner(image: str, services: Mapping[str, str], *, prefer: str = "") -> str | None:
    """The service (of name -> image name) that `image` belongs to; None when it is nobody's or
    could be two services' alike, unless one of those is `prefer`.

    The rule, for users: an image of a manifest belongs to a service when their repository names
    agree, registry and tag left aside. `shop/web` is meant by `shop/web`, `shop/web:1`,
    `localhost:5001/shop/web:dev` and, if nothing fits better, by `web`; the service `web` is meant
    by `web` and `acme/web`. An exact name beats a shorter one, and an image that is exactly another
    service's is never taken. One of a registry that is not on this computer is somebody else's
    unless its name is exact, and so is one that is given by its digest: see `theirs`."""
    scores = {
        name: 0 if theirs(image, wanted) else score(image, wanted)
        for name, wanted in services.items()
    }
    best = max(scores.values(), default=0)
    names = [name for name, value in scores.items() if value == best]
    if best == 0:
        return None
    if prefer in names:
        return prefer
    return names[0] if len(names) == 1 else None
