"""The documents of a skaffold.yaml as one devloop.yaml: the pure core of the package."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.base.yaml_tree import Items, Keys
from devloop.config.rules import label_from
from devloop.config.skaffold.artifacts import build_of, image_name, service_names, sync_of
from devloop.config.skaffold.deploying import (
    forwards_of,
    kustomizations_of,
    manifests_of,
    mentions,
    releases_of,
)
from devloop.config.skaffold.hooks import hooks_of
from devloop.config.skaffold.keys import remarkable
from devloop.config.skaffold.tree import (
    at,
    entry,
    entry_at,
    given,
    items,
    listed,
    mapped,
    put,
    put_at,
    text_at,
    text_of,
)
from devloop.errors import Code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devloop.base.yaml_tree import MappingEntry, Node
    from devloop.config.skaffold.deploying import ChartRelease
    from devloop.config.skaffold.notes import Module, Translating
    from devloop.errors import Location


@dataclass(frozen=True, slots=True, kw_only=True)
class _Artifact:
    """An artifact on its way to the service `name`."""

    node: Keys
    module: Module
    image: str
    name: str


def translated(modules: Sequence[Module], use: Translating) -> Keys:
    """The tree of a devloop.yaml; the first module is the one that was asked for. What is wrong
    goes to `use.problems`, what is otherwise to its notes."""
    for module in modules:
        _remark(module, use)
    artifacts = _artifacts(modules, use)
    head = modules[-1]
    place = head.document.location
    if not artifacts and not use.problems:
        _nothing_built(head, use)
    namespace = _namespace(modules, use)
    shared = _shared(modules, artifacts, use)
    forwards = _forwards(modules, artifacts, text_of(namespace.value) if namespace else "", use)
    hooks = hooks_of(modules, {each.image: each.name for each in artifacts}, use)
    plan = _Plan(artifacts=artifacts, shared=shared, forwards=forwards, hooks=hooks)
    services = [entry(each.name, _service(each, plan, use), _place(each)) for each in artifacts]
    name = entry_at(head.document, "metadata", "name")
    label = label_from(text_of(name.value)) if name else ""
    where = entry_at(head.document, "build", "artifacts")
    return mapped(
        place,
        entry("version", given("1", place, plain=True)),
        entry("name", given(label, name.value.location), name.location) if name and label else None,
        namespace,
        entry(
            "services",
            mapped(where.location if where else place, *services),
            where.location if where else place,
        ),
    )


def _place(artifact: _Artifact) -> Location:
    image = entry_at(artifact.node, "image")
    return image.location if image else artifact.node.location


def _artifacts(modules: Sequence[Module], use: Translating) -> list[_Artifact]:
    found: dict[str, tuple[Keys, Module]] = {}
    for module in modules:
        for node in items(at(module.document, "build", "artifacts")):
            image = entry_at(node, "image")
            if not isinstance(node, Keys) or image is None or not text_of(image.value):
                use.problems.add(Code.CONFIG_VALUE, "an artifact needs an `image`", node.location)
                continue
            if at(node, "bazel") is not None:
                use.problems.add(
                    Code.CONFIG_NOT_SUPPORTED,
                    f"{text_of(image.value)} is built with bazel, which devloop does not call",
                    node.location,
                    "write it as `custom` with a `buildCommand` that pushes $IMAGE",
                )
                continue
            name = use.templated(image.value, text_of(image.value))
            # Two modules may require a third one that has it.
            found.setdefault(name, (node, module))
    names = service_names(found)
    return [
        _Artifact(node=node, module=module, image=image, name=name)
        for (image, (node, module)), name in zip(found.items(), names, strict=True)
    ]


def _nothing_built(head: Module, use: Translating) -> None:
    other = next(
        (e for n in ("docker", "cloudrun") if (e := entry_at(head.document, "deploy", n))), None
    )
    use.problems.add(
        Code.CONFIG_NOT_SUPPORTED,
        "no image is built here: devloop works for the images that a project builds",
        other.location if other else head.document.location,
        "name what it builds in `build.artifacts`",
    )


def _namespace(modules: Sequence[Module], use: Translating) -> MappingEntry | None:
    for module in reversed(modules):
        found = entry_at(module.document, "deploy", "kubectl", "defaultNamespace")
        if found is not None and text_of(found.value):
            text = use.templated(found.value, text_of(found.value))
            return entry("namespace", given(text, found.value.location), found.location)
    return None


# What the services of a document share


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployment:
    """What deploys the services of one module."""

    manifests: tuple[Node, ...]
    kustomize: tuple[Node, ...]
    releases: tuple[ChartRelease, ...]
    timeout: MappingEntry | None

    @property
    def deploys(self) -> bool:
        return bool(self.manifests or self.kustomize or self.releases)


def _shared(
    modules: Sequence[Module], artifacts: Sequence[_Artifact], use: Translating
) -> dict[str, _Deployment]:
    """What deploys each service, by its name: its own document's, and that of a document which runs
    its image though another one builds it. What runs nobody's image goes to the first service."""
    images = tuple(each.image for each in artifacts)
    needed = frozenset(
        text_at(need, "image") for each in artifacts for need in items(at(each.node, "requires"))
    )
    deployments = [
        _Deployment(
            manifests=manifests_of(module, use),
            kustomize=kustomizations_of(module, use),
            releases=releases_of(module, images, use),
            timeout=_timeout(module),
        )
        for module in modules
    ]
    found: dict[str, _Deployment] = {}
    spare: list[_Deployment] = []
    for module, made in zip(modules, deployments, strict=True):
        own = [each for each in artifacts if each.module is module]
        running = [each for each in own if each.image not in needed or _runs(made, each, use)]
        found |= {each.name: made for each in running if made.deploys or made.timeout}
        if made.deploys and not running:
            spare.append(made)
    for each in artifacts:
        if each.name in found and found[each.name].deploys:
            continue
        for made in deployments:
            if made.deploys and _runs(made, each, use):
                found[each.name] = _together(found.get(each.name), made)
                spare = [other for other in spare if other is not made]
    first = next(iter([*found, *(each.name for each in artifacts)]), "")
    for made in spare:
        found[first] = _together(found.get(first), made)
    return found


def _runs(made: _Deployment, artifact: _Artifact, use: Translating) -> bool:
    """Whether the image runs in what is deployed; of a kustomization only kustomize knows."""
    if made.kustomize or any(artifact.image in each.images for each in made.releases):
        return True
    texts = (
        use.files.text(path) for each in made.manifests for path in use.files.matches(text_of(each))
    )
    return any(mentions(text, artifact.image) for text in texts)


def _together(one: _Deployment | None, other: _Deployment) -> _Deployment:
    if one is None:
        return other
    return _Deployment(
        manifests=(*one.manifests, *other.manifests),
        kustomize=(*one.kustomize, *other.kustomize),
        releases=(*one.releases, *other.releases),
        timeout=one.timeout or other.timeout,
    )


def _timeout(module: Module) -> MappingEntry | None:
    found = entry_at(module.document, "deploy", "statusCheckDeadlineSeconds")
    if found is None or not text_of(found.value):
        return None
    return entry("timeout", given(f"{text_of(found.value)}s", found.value.location), found.location)


def _forwards(
    modules: Sequence[Module], artifacts: Sequence[_Artifact], namespace: str, use: Translating
) -> dict[str, list[Node]]:
    """The ports of each service: of the one that is called like the object, or of the first of its
    document."""
    found: dict[str, list[Node]] = {}
    taken: set[int] = set()
    for module in modules:
        own = [each.name for each in artifacts if each.module is module]
        names = [each.name for each in artifacts]
        for forward in forwards_of(module, namespace, use, taken):
            like = [name for name in (*own, *names) if name == forward.name]
            name = next(iter([*like, *own, *names]), "")
            found.setdefault(name, []).append(forward.port)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """All artifacts, and by a service's name what goes with it."""

    artifacts: Sequence[_Artifact]
    shared: Mapping[str, _Deployment]
    forwards: Mapping[str, list[Node]]
    hooks: Mapping[str, MappingEntry]


def _service(artifact: _Artifact, plan: _Plan, use: Translating) -> Keys:
    node, module = artifact.node, artifact.module
    image = entry_at(node, "image")
    place = image.value.location if image else node.location
    name = image_name(artifact.image)
    ports = plan.forwards.get(artifact.name, [])
    return mapped(
        node.location,
        entry("image", given(name, place), image.location if image else place)
        if name != artifact.name
        else None,
        _with_aliases(
            build_of(node, module, at(module.document, "build", "platforms"), use),
            artifact,
            plan.artifacts,
            use,
        ),
        _needs(artifact, plan.artifacts, use),
        _deploy(artifact, plan),
        sync_of(node, module, use),
        entry("ports", listed(ports[0].location, ports)) if ports else None,
        plan.hooks.get(artifact.name),
    )


def _needs(
    artifact: _Artifact, artifacts: Sequence[_Artifact], use: Translating
) -> MappingEntry | None:
    found = entry_at(artifact.node, "requires")
    if found is None or not use.supports("needs"):
        return None
    services = {each.image: each.name for each in artifacts}
    names: list[Node] = []
    for each in items(found.value):
        image = text_at(each, "image")
        if image not in services:
            use.problems.add(Code.CONFIG_VALUE, f"no artifact builds {image!r}", each.location)
            continue
        names.append(given(services[image], each.location))
    return entry("needs", listed(found.value.location, names), found.location) if names else None


def _with_aliases(
    build: MappingEntry, artifact: _Artifact, artifacts: Sequence[_Artifact], use: Translating
) -> MappingEntry:
    """The build, whose arguments have the images that it needs by the names that the Dockerfile has
    for them: the argument is the need's name, which stands for its image."""
    if not use.supports("needs") or not isinstance(build.value, Keys):
        return build
    services = {each.image: each.name for each in artifacts}
    value = build.value
    for each in items(at(artifact.node, "requires")):
        image, alias = text_at(each, "image"), text_at(each, "alias")
        name = services.get(image, "")
        own = f"{name.upper().replace('-', '_')}_IMAGE"
        if not alias and _declares(artifact, image, use):
            alias = image
        if not name or alias == own or not alias.isidentifier():
            continue
        command = at(value, "command")
        if isinstance(command, Items):
            *words, script = command.items
            line = f'export {alias}="${own}"\n{text_of(script)}'
            words.append(given(line, script.location))
            value = put(value, "command", replace(command, items=tuple(words)))
        else:
            value = put_at(value, ("args", alias), given(name, each.location), each.location)
    return replace(build, value=value)


def _declares(artifact: _Artifact, name: str, use: Translating) -> bool:
    """Whether the Dockerfile has an ARG of this name."""
    context = artifact.module.path(text_at(artifact.node, "context") or ".")
    file = text_at(artifact.node, "docker", "dockerfile") or "Dockerfile"
    text = use.files.text(f"{context}/{file}")
    return (
        re.search(rf"^\s*ARG\s+{re.escape(name)}\b", text, re.MULTILINE | re.IGNORECASE) is not None
    )


def _deploy(artifact: _Artifact, plan: _Plan) -> MappingEntry | None:
    made = plan.shared.get(artifact.name)
    if made is None:
        return None
    place = made.manifests[0].location if made.manifests else artifact.node.location
    charts = _own_releases(artifact, made, plan)
    found = mapped(
        place,
        entry("manifests", listed(place, made.manifests)) if made.manifests else None,
        entry("kustomize", listed(made.kustomize[0].location, made.kustomize))
        if made.kustomize
        else None,
        _charts(charts),
        made.timeout,
    )
    return entry("deploy", found) if found.entries else None


def _charts(releases: Sequence[ChartRelease]) -> MappingEntry | None:
    if not releases:
        return None
    first = releases[0]
    several = listed(first.location, (each.chart for each in releases))
    return entry("helm", several if len(releases) > 1 else first.chart, first.location)


def _own_releases(artifact: _Artifact, made: _Deployment, plan: _Plan) -> tuple[ChartRelease, ...]:
    """The releases that set the service's image. Those that set none of the services that they are
    shared by go to the ones without any, or to the first."""
    sharing = [
        each
        for each in plan.artifacts
        if (other := plan.shared.get(each.name)) and other.releases == made.releases
    ]
    images = {each.image for each in sharing}
    without = [
        each for each in sharing if not any(each.image in one.images for one in made.releases)
    ]
    takers = without or sharing[:1]
    return tuple(
        each
        for each in made.releases
        if artifact.image in each.images or (artifact in takers and not each.images & images)
    )


# Keys that are otherwise


def _remark(module: Module, use: Translating) -> None:
    for found in remarkable(module.document, use.supports):
        place = found.entry.location
        if found.fate is None:
            hint = f"did you mean `{found.meant}`?" if found.meant else ""
            use.warn(f"`{found.path}` is not known here, and not used", place, hint)
        elif found.fate.fate == "harmless":
            use.inform(f"`{found.path}` makes no difference here", place, found.fate.why)
        elif found.path == "deploy.kubeContext":
            context = text_of(found.entry.value)
            use.warn(
                f"`{found.path}` is not used", place, f"--context {context}", cause=found.fate.why
            )
        else:
            use.warn(f"`{found.path}` is not used", place, cause=found.fate.why)
