"""Lifecycle hooks and tests as the `hooks` of services. Pure.

Skaffold's hooks of builds and syncs belong to an artifact, those of deployments and renderings to
a document: they go to its first service. Its tests are commands of this computer, given an image:
here that is what `after_build` is.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import TYPE_CHECKING

from devloop.base.patterns import is_magic
from devloop.base.yaml_tree import Keys
from devloop.config.skaffold.tree import (
    at,
    entry,
    entry_at,
    given,
    is_true,
    items,
    listed,
    mapped,
    text_at,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devloop.base.yaml_tree import MappingEntry, Node
    from devloop.config.skaffold.notes import Module, Translating
    from devloop.errors import Location


_ORDER = (
    "before_build",
    "after_build",
    "before_sync",
    "after_sync",
    "before_deploy",
    "after_deploy",
)
# What Skaffold's hooks may read, by what devloop has of it.
_VARIABLES = {
    "SKAFFOLD_IMAGE": '"$DEVLOOP_IMAGE"',
    "SKAFFOLD_IMAGE_REPO": "$(printf %s \"$DEVLOOP_IMAGE\" | sed 's/@.*//; s/:[^/:]*$//')",
    "SKAFFOLD_IMAGE_TAG": "$(printf %s \"$DEVLOOP_IMAGE\" | sed 's/.*[@:]//')",
    "SKAFFOLD_PUSH_IMAGE": "true",
    "SKAFFOLD_KUBE_CONTEXT": '"$DEVLOOP_CONTEXT"',
    "SKAFFOLD_NAMESPACES": '"$DEVLOOP_NAMESPACE"',
    "SKAFFOLD_FILES_ADDED_OR_MODIFIED": '"$DEVLOOP_CHANGED_FILES"',
    "SKAFFOLD_WORK_DIR": '"$PWD"',
}
_NAMED = re.compile(r"SKAFFOLD_[A-Z_]+")


def hooks_of(
    modules: Sequence[Module], services: Mapping[str, str], use: Translating
) -> dict[str, MappingEntry]:
    """The `hooks` of each service by its name; `services` are the services' names by image."""
    if not use.supports("hooks"):
        return {}
    found: dict[str, dict[str, list[Node]]] = {}

    def add(service: str, step: str, hooks: Iterator[Node]) -> None:
        for hook in hooks:
            found.setdefault(service, {}).setdefault(step, []).append(hook)

    for module in modules:
        document = module.document
        artifacts = list(items(at(document, "build", "artifacts")))
        names = [services.get(_image(each, use), "") for each in artifacts]
        first = next(iter([*filter(None, names), *services.values()]), "")
        for when, step in (("before", "before_build"), ("after", "after_build")):
            add(first, step, _host_hooks(at(document, "build", "hooks", when), module, use))
        for artifact, name in zip(artifacts, names, strict=True):
            directory = module.path(text_at(artifact, "context") or ".")
            for when in ("before", "after"):
                build = at(artifact, "hooks", when)
                add(name, f"{when}_build", _host_hooks(build, module, use, directory))
                add(name, f"{when}_sync", _hooks(at(artifact, "sync", "hooks", when), module, use))
        for where in (
            ("manifests",),
            ("manifests", "helm"),
            ("deploy", "kubectl"),
            ("deploy", "helm"),
        ):
            for when in ("before", "after"):
                # What is rendered is deployed at once.
                step = "before_deploy" if where[0] == "manifests" else f"{when}_deploy"
                add(first, step, _hooks(at(document, *where, "hooks", when), module, use))
        for test in items(at(document, "test")):
            add(services.get(_image(test, use), first), "after_build", _tests(test, module, use))
    return {name: _entry(steps) for name, steps in found.items() if name}


def _image(node: Node, use: Translating) -> str:
    return use.templated(node, text_at(node, "image"))


def _entry(steps: Mapping[str, list[Node]]) -> MappingEntry:
    place = next(iter(steps.values()))[0].location
    known = (
        entry(step, listed(steps[step][0].location, steps[step]))
        for step in _ORDER
        if step in steps
    )
    return entry("hooks", mapped(place, *known))


def _hooks(node: Node | None, module: Module, use: Translating) -> Iterator[Node]:
    for each in items(node):
        host, container = entry_at(each, "host"), entry_at(each, "container")
        if host is not None:
            if is_true(at(host.value, "withChange")):
                use.warn(
                    "what the hook makes of the manifests is not applied",
                    host.location,
                    "write what it makes into a file that `rawYaml` names",
                )
            yield from _host(host.value, module, use, "")
        elif container is not None:
            yield _container(container.value, use)


def _host_hooks(
    node: Node | None, module: Module, use: Translating, context: str = ""
) -> Iterator[Node]:
    for each in items(node):
        yield from _host(each, module, use, context)


def _host(node: Node, module: Module, use: Translating, context: str) -> Iterator[Node]:
    systems = [text_of(each) for each in items(at(node, "os"))]
    if not isinstance(node, Keys) or (systems and use.system not in systems):
        return
    words = [use.templated(each, text_of(each)) for each in items(at(node, "command"))]
    if not words:
        return
    directory = module.path(text_at(node, "dir") or ".")
    # Those that the command names, or a script that it runs.
    scripts = (use.files.text(posixpath.join(directory, word)) for word in words)
    named = {name for text in (*words, *scripts) for name in _NAMED.findall(text)}
    lines = [f"export {name}={value}" for name, value in _VARIABLES.items() if name in named]
    if context and "SKAFFOLD_BUILD_CONTEXT" in named:
        below = "" if context == "." else f"/{shlex.quote(context)}"
        lines.append(f'export SKAFFOLD_BUILD_CONTEXT="$PWD"{below}')
    if directory != ".":
        lines.append(f"cd {shlex.quote(directory)} || exit 1")
    if lines:
        words = ["sh", "-c", "\n".join([*lines, 'exec "$@"']), "sh", *words]
    yield _hook(words, node.location)


def _hook(words: Sequence[str], place: Location, **more: str) -> Keys:
    return mapped(
        place,
        entry("command", listed(place, (given(word, place) for word in words))),
        *(entry(name, given(text, place)) for name, text in more.items() if text),
    )


def _container(node: Node, use: Translating) -> Node:
    words = [use.templated(each, text_of(each)) for each in items(at(node, "command"))]
    name = text_at(node, "containerName")
    pod = entry_at(node, "podName")
    if pod is not None:
        use.inform(
            "`podName` makes no difference here",
            pod.location,
            "the hook runs in a pod of its service that has the new image",
        )
    # A pattern is for the names that a workload's pods get; it is the service's container.
    return _hook(words, node.location, container="true" if not name or is_magic(name) else name)


def _tests(node: Node, module: Module, use: Translating) -> Iterator[Node]:
    directory = module.path(text_at(node, "context") or ".")
    begin = [f"cd {shlex.quote(directory)} || exit 1"] if directory != "." else []
    for each in items(at(node, "custom")):
        command = use.templated(each, text_at(each, "command"))
        lines = [*begin, 'export IMAGE="$DEVLOOP_IMAGE" TEST_CONTEXT="$PWD"', command]
        seconds = text_at(each, "timeoutSeconds")
        limit = f"{seconds}s" if seconds and seconds != "0" else ""
        yield _hook(["sh", "-c", "\n".join(lines)], each.location, timeout=limit)
    found = items(at(node, "structureTests"))
    if found:
        # Patterns are the shell's to find files by.
        patterns = " ".join(posixpath.join(module.directory, text_of(each)) for each in found)
        words = shlex.join(text_of(each) for each in items(at(node, "structureTestsArgs")))
        script = (
            f'for file in {patterns}; do set -- "$@" --config "$file"; done\n'
            f'exec container-structure-test test --image "$DEVLOOP_IMAGE" --pull {words} "$@"'
        )
        yield _hook(["sh", "-c", script, "sh"], found[0].location)
