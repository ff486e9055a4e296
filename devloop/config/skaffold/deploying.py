"""`manifests`, `deploy` and `portForward` as keys of services. Pure.

devloop has no manifests of a project, only those of services, and the rule that several services
with the same manifests each deploy what runs their own image. So every service of a document gets
all of the document's manifests; of charts and kustomizations too, for which that rule is the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.yaml_tree import Items, Keys, Scalar
from devloop.config.skaffold.artifacts import image_name
from devloop.config.skaffold.tree import (
    at,
    entries,
    entry,
    entry_at,
    given,
    is_false,
    is_true,
    items,
    listed,
    mapped,
    text_at,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from devloop.base.yaml_tree import MappingEntry, Node
    from devloop.config.skaffold.notes import Module, Translating
    from devloop.errors import Location


_DEFAULT = "k8s/*.yaml"
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def manifests_of(module: Module, use: Translating) -> tuple[Node, ...]:
    """The patterns of raw manifests, relative to the project."""
    document = module.document
    named = at(document, "manifests", "rawYaml")
    found: list[Node] = []
    for each in items(named):
        text = use.templated(each, text_of(each))
        if _REMOTE.match(text):
            use.warn(
                f"{text} is not applied: only files of this computer are",
                each.location,
                "download it, and name the file in `rawYaml`",
            )
        elif text:
            found.append(given(module.path(text), each.location))
    if found or named is not None or _deploys_otherwise(document):
        return tuple(found)
    pattern = module.path(_DEFAULT)
    if use.files.matches(pattern):
        place = entry_at(document, "deploy") or entry_at(document, "build")
        found = [given(pattern, place.location if place else document.location)]
    return tuple(found)


def _deploys_otherwise(document: Keys) -> bool:
    others = (("manifests", "kustomize"), ("manifests", "helm"), ("manifests", "kpt"))
    return any(at(document, *where) is not None for where in (*others, ("deploy", "helm")))


def kustomizations_of(module: Module, use: Translating) -> tuple[Node, ...]:
    """The directories of kustomizations, relative to the project."""
    found = entry_at(module.document, "manifests", "kustomize")
    if found is None or not use.supports("deploy.kustomize"):
        return ()
    paths = items(at(found.value, "paths")) or (given(".", found.location),)
    return tuple(
        given(module.path(use.templated(each, text_of(each))), each.location) for each in paths
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartRelease:
    """A release of Helm as the value of `deploy.helm`, and whose images it sets, by name."""

    chart: Keys
    images: frozenset[str]
    name: str
    location: Location


def releases_of(
    module: Module, images: Iterable[str], use: Translating
) -> tuple[ChartRelease, ...]:
    """`images` are those of all artifacts, as Skaffold names them."""
    if not use.supports("deploy.helm"):
        return ()
    names = tuple(images)
    return tuple(
        _release(each, module, names, use)
        for where in ("manifests", "deploy")
        for each in items(at(module.document, where, "helm", "releases"))
        if isinstance(each, Keys)
    )


def _release(
    release: Keys, module: Module, images: tuple[str, ...], use: Translating
) -> ChartRelease:
    name = entry_at(release, "name")
    shown = use.templated(name.value, text_of(name.value)) if name else ""
    local, remote = entry_at(release, "chartPath"), entry_at(release, "remoteChart")
    chart: MappingEntry | None = None
    if local is not None:
        path = module.path(use.templated(local.value, text_of(local.value)))
        # `web` alone would be the name of a chart in a repository.
        path = path if path.startswith(("/", ".")) or "/" in path else f"./{path}"
        chart = entry("chart", given(path, local.value.location), local.location)
    elif remote is not None:
        chart = entry("chart", given(text_of(remote.value), remote.value.location), remote.location)
    values, used = _values(release, images, use)
    return ChartRelease(
        chart=mapped(
            release.location,
            chart,
            entry("release", given(shown, name.value.location), name.location) if name else None,
            _value_files(release, module, use),
            entry("set", values) if values.entries else None,
            *(_text(release, key, key, use) for key in ("version", "repo", "namespace")),
            _skips_tests(release),
        ),
        images=frozenset(used),
        name=shown,
        location=release.location,
    )


def _text(release: Keys, old: str, new: str, use: Translating) -> MappingEntry | None:
    found = entry_at(release, old)
    if found is None or not isinstance(found.value, Scalar) or not text_of(found.value):
        return None
    return entry(new, use.value(found.value), found.location)


def _skips_tests(release: Keys) -> MappingEntry | None:
    found = entry_at(release, "skipTests")
    if found is None or not (is_true(found.value) or is_false(found.value)):
        return None
    return entry("skip_tests", found.value, found.location)


def _value_files(release: Keys, module: Module, use: Translating) -> MappingEntry | None:
    found = entry_at(release, "valuesFiles")
    if found is None or not items(found.value):
        return None
    files = [
        given(module.path(use.templated(each, text_of(each))), each.location)
        for each in items(found.value)
    ]
    return entry("values", listed(found.value.location, files), found.location)


def _values(
    release: Keys, images: tuple[str, ...], use: Translating
) -> tuple[Keys, dict[str, None]]:
    """What is set, and the images among it. An image stands there by its name: devloop pins it in
    what the chart renders."""
    used: dict[str, None] = {}
    found: dict[str, MappingEntry] = {}
    for name in ("overrides", "setValues"):
        for key, node in _flat(at(release, name), ""):
            value = (
                use.value(node)
                if name == "setValues"
                else given(node.text, node.location, plain=node.plain)
            )
            found[key] = entry(key, value)
            used.update((each, None) for each in images if each in node.text)
    for key, node in _flat(at(release, "artifactOverrides"), ""):
        image = text_of(node)
        used[image] = None
        for path, text in _overridden(release, key, image):
            found[path] = entry(path, given(text, node.location))
    templates = _flat(at(release, "setValueTemplates"), "")
    alone = images[0] if len(images) == 1 else _meant(release, images, used)
    for key, node in templates:
        text = node.text
        names = _image_variables(images, alone)
        for image in images:
            marks = {_variable_name(image), _variable_name(image_name(image))}
            if any(f"IMAGE_{what}_{mark}" in text for what in _PARTS for mark in marks):
                used[image] = None
        if re.search(r"\.IMAGE_(REPO|TAG|NAME|DIGEST|FULLY_QUALIFIED)\b", text) and alone:
            used[alone] = None
        done = use.templated(node, text, names)
        found[key] = entry(key, given(done.removesuffix("@"), node.location))
    return mapped(release.location, *found.values()), used


_PARTS = ("REPO", "TAG", "NAME", "DIGEST", "FULLY_QUALIFIED", "DOMAIN")


def _meant(release: Keys, images: tuple[str, ...], used: Mapping[str, None]) -> str:
    """The image that IMAGE_REPO stands for where several are built: one that the release names, or
    is called like, or the first."""
    name, chart = text_at(release, "name"), text_at(release, "chartPath")
    own = {name, chart.rstrip("/").rpartition("/")[2]}
    called = [image for image in images if image_name(image).rpartition("/")[2] in own]
    return next(iter([*used, *called, *images[:1]]), "")


def _variable_name(image: str) -> str:
    """As in `IMAGE_REPO_my_app`: what is no letter, digit or _ becomes _."""
    return re.sub(r"[^A-Za-z0-9_]", "_", image)


def _image_variables(images: tuple[str, ...], alone: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for image in (*images, alone):
        name = image_name(image)
        path, _, last = name.rpartition("/")
        parts = {
            "REPO": name,
            "TAG": "dev",
            "NAME": last,
            "DIGEST": "",
            "FULLY_QUALIFIED": f"{name}:dev",
            "REPO_NO_DOMAIN": name,
            "DOMAIN": path,
        }
        for part, value in parts.items():
            if image == alone:
                found[f"IMAGE_{part}"] = value
            for mark in (_variable_name(image), _variable_name(name)):
                found[f"IMAGE_{part}_{mark}"] = value
    return found


def _overridden(release: Keys, key: str, image: str) -> Iterator[tuple[str, str]]:
    """`artifactOverrides: {image: acme/web}` by `imageStrategy`."""
    name = image_name(image)
    if entry_at(release, "imageStrategy", "helm") is not None:
        yield f"{key}.repository", name
        yield f"{key}.tag", "dev"
        return
    yield key, f"{name}:dev"


def _flat(node: Node | None, path: str) -> Iterator[tuple[str, Scalar]]:
    if isinstance(node, Scalar) and path:
        yield path, node
    elif isinstance(node, Items):
        for position, each in enumerate(node.items):
            yield from _flat(each, f"{path}[{position}]")
    elif isinstance(node, Keys):
        for entry in entries(node):
            yield from _flat(entry.value, f"{path}.{entry.key}" if path else entry.key)


# Ports

_TARGETS = ("service", "deployment", "statefulset", "daemonset", "pod")
_LOWEST = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A port as devloop writes it, and the object's name."""

    name: str
    port: Scalar


def forwards_of(
    module: Module, namespace: str, use: Translating, taken: set[int]
) -> Iterator[Forward]:
    """`portForward`; `taken` are the local ports so far."""
    for each in items(at(module.document, "portForward")):
        if not isinstance(each, Keys):
            continue
        kind = text_at(each, "resourceType").lower()
        name = use.templated(each, text_at(each, "resourceName"))
        port, local = text_at(each, "port"), text_at(each, "localPort")
        place = each.location
        shown = f"{kind}/{name}:{port}"
        if kind == "container":
            use.warn(f"{shown} is not forwarded: it is of Docker, not of Kubernetes", place)
            continue
        if kind not in _TARGETS or not name or not port:
            use.warn(f"{shown} is not forwarded", place, f"devloop knows {', '.join(_TARGETS)}")
            continue
        other = use.templated(each, text_at(each, "namespace"))
        if other and other != namespace:
            use.warn(
                f"{shown} is looked for in the project's namespace, not in {other}",
                place,
                f"devloop works in one namespace: --namespace {other}",
            )
        number = int(local) if local.isdecimal() else _free(port, taken)
        if number is None:
            use.warn(f"{shown} is not forwarded: it has no local port", place, "add `localPort`")
            continue
        taken.add(number)
        address = text_at(each, "address")
        before = f"{address}:" if address not in ("", "127.0.0.1", "localhost") else ""
        yield Forward(name=name, port=given(f"{before}{number}:{kind}/{name}:{port}", place))


def _free(port: str, taken: set[int]) -> int | None:
    """The local port for one that names none: the same, or above those that only root may open."""
    if not port.isdecimal():
        return None
    number = int(port)
    number = number if number >= _LOWEST else 8000 + number
    while number in taken:
        number += 1
    return number


def mentions(text: str, image: str) -> bool:
    """Whether a manifest's text runs `image`, with any registry and tag."""
    name = re.escape(image_name(image))
    return re.search(rf"image:\s*[\"']?(?:[^\s\"']*/)?{name}(?:[:@\"'\s]|$)", text) is not None
