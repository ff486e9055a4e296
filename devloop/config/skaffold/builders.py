"""Artifacts that no Dockerfile builds: a command line for `builder: command`, in which the other
tool builds and pushes `$DEVLOOP_IMAGE`. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from devloop.config.skaffold.tree import (
    at,
    entries,
    entry,
    entry_at,
    given,
    is_true,
    items,
    listed,
    text_at,
    text_of,
)
from devloop.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.base.yaml_tree import Keys, MappingEntry, Node
    from devloop.config.skaffold.notes import Module, Translating


_REPO = '"${DEVLOOP_IMAGE%:*}"'
_TAG = '"${DEVLOOP_IMAGE##*:}"'


def build_command(
    artifact: Keys, module: Module, use: Translating
) -> tuple[MappingEntry, ...] | None:
    """`builder`, `command` and `ignore`; None for an artifact that a Dockerfile builds."""
    for kind, make in _KINDS.items():
        found = entry_at(artifact, kind)
        if found is None:
            continue
        lines = make(found.value, artifact, module, use)
        directory = module.path(text_at(artifact, "context") or ".")
        place = found.location
        script = " && ".join(lines)
        if directory != ".":
            script = f"cd {shlex.quote(directory)} || exit 1\n{script}"
        words = [given(word, place) for word in ("sh", "-c", script)]
        ignored = tuple(_ignored(found.value))
        return (
            entry("builder", given("command", place)),
            entry("command", listed(place, words)),
            *([entry("ignore", listed(place, ignored))] if ignored else ()),
        )
    return None


def _ignored(options: Node) -> Iterator[Node]:
    """`dependencies` as patterns of what does not count: all but `paths`, and `ignore`."""
    paths = items(at(options, "dependencies", "paths"))
    texts = [text_of(each) for each in paths]
    if paths and not any(text in (".", "**", "**/*", "./") for text in texts):
        yield given("**", paths[0].location)
        for each in paths:
            yield given(f"!{text_of(each).removeprefix('./')}", each.location)
    for each in items(at(options, "dependencies", "ignore")):
        yield given(text_of(each).removeprefix("./"), each.location)


def _texts(options: Node, name: str, use: Translating) -> list[str]:
    return [use.templated(each, text_of(each)) for each in items(at(options, name))]


def _custom(options: Node, artifact: Keys, module: Module, use: Translating) -> list[str]:
    del module
    found = at(options, "buildCommand")
    command = use.templated(found, text_of(found)).strip()
    if not command:
        use.problems.add(
            Code.CONFIG_VALUE, "a custom artifact needs a `buildCommand`", options.location
        )
    platforms = ",".join(text_of(each) for each in items(at(artifact, "platforms")))
    # The command may have several lines, whose exit statuses are its own business.
    names = (
        f'export IMAGE="$DEVLOOP_IMAGE" IMAGE_REPO={_REPO} IMAGE_TAG={_TAG} PUSH_IMAGE=true'
        f' BUILD_CONTEXT="$PWD" PLATFORMS={shlex.quote(platforms)}'
    )
    return [f"{names}\n{command}"]


def _buildpacks(options: Node, artifact: Keys, module: Module, use: Translating) -> list[str]:
    del artifact, module
    words = ["--builder", text_at(options, "builder") or "gcr.io/buildpacks/builder:v1"]
    if run_image := text_at(options, "runImage"):
        words += ["--run-image", run_image]
    for name, flag in (("env", "--env"), ("buildpacks", "--buildpack")):
        for text in _texts(options, name, use):
            words += [flag, text]
    for each in items(at(options, "volumes")):
        volume = (text_at(each, "host"), text_at(each, "target"), text_at(each, "options"))
        words += ["--volume", ":".join(filter(None, volume))]
    if descriptor := text_at(options, "projectDescriptor"):
        words += ["--descriptor", descriptor]
    if network := text_at(options, "network"):
        words += ["--network", network]
    for name, flag in (("trustBuilder", "--trust-builder"), ("clearCache", "--clear-cache")):
        words += [flag] if is_true(at(options, name)) else []
    words += _texts(options, "buildArgs", use)
    return [f'pack build "$DEVLOOP_IMAGE" --path . {_line(words)}', 'docker push "$DEVLOOP_IMAGE"']


def _jib(options: Node, artifact: Keys, module: Module, use: Translating) -> list[str]:
    args = _texts(options, "args", use)
    project = text_at(options, "project")
    context = module.path(text_at(artifact, "context") or ".")
    base = text_at(options, "fromImage")
    more = [f"-Djib.from.image={base}"] if base else []
    more += ["-Djib.allowInsecureRegistries=true"]
    gradle = any(
        use.files.is_file(f"{context}/{name}")
        for name in ("build.gradle", "build.gradle.kts", "settings.gradle")
    )
    if text_at(options, "type").lower() == "gradle" or (not text_at(options, "type") and gradle):
        program = "./gradlew" if use.files.is_file(f"{context}/gradlew") else "gradle"
        task = f":{project.strip(':')}:jib" if project else "jib"
        return [f'{program} {_line([task, *more, *args])} --image="$DEVLOOP_IMAGE"']
    program = "./mvnw" if use.files.is_file(f"{context}/mvnw") else "mvn"
    words = ["-q", *(["--projects", project, "--also-make"] if project else [])]
    words += ["-DskipTests=true", *args]
    # The modules that it needs are built with it, but are no images.
    words += [f"-Djib.containerize={project}", "package"] if project else ["prepare-package"]
    words.append("jib:build")
    return [f'{program} {_line([*words, *more])} -Djib.to.image="$DEVLOOP_IMAGE"']


def _ko(options: Node, artifact: Keys, module: Module, use: Translating) -> list[str]:
    del artifact, module
    lines = []
    if directory := text_at(options, "dir"):
        lines.append(f"cd {shlex.quote(directory)}")
    names = [text.partition("=") for text in _texts(options, "env", use)]
    env = [f"{name}={shlex.quote(value)}" for name, _, value in names]
    if base := text_at(options, "fromImage"):
        env.append(f"KO_DEFAULTBASEIMAGE={shlex.quote(base)}")
    flags = [*_texts(options, "flags", use)]
    if ldflags := _texts(options, "ldflags", use):
        flags.append(f"-ldflags={' '.join(ldflags)}")
    if flags:
        env.append(f"GOFLAGS={shlex.quote(' '.join(shlex.quote(flag) for flag in flags))}")
    labels = [
        f"--image-label={each.key}={use.templated(each.value, text_of(each.value))}"
        for each in entries(at(options, "labels"))
    ]
    main = text_at(options, "main") or "."
    main = main if main.startswith((".", "/")) else f"./{main}"
    words = [*labels, "--bare", "--insecure-registry"]
    env.insert(0, f"KO_DOCKER_REPO={_REPO}")
    return [*lines, f"{' '.join(env)} ko build {_line(words)} --tags={_TAG} {_line([main])}"]


def _line(words: list[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


_KINDS = {"custom": _custom, "buildpacks": _buildpacks, "jib": _jib, "ko": _ko}
