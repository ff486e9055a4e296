"""`build.artifacts[]` as services: how an image is built, and what is synced. Pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import TYPE_CHECKING

from devloop.base import platforms
from devloop.base.image_reference import split_registry
from devloop.base.patterns import is_magic, match_parts
from devloop.base.yaml_tree import Keys, Scalar
from devloop.config.rules import label_from
from devloop.config.skaffold.builders import build_command
from devloop.config.skaffold.dockerfile import files_of
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
    from collections.abc import Iterable, Iterator

    from devloop.base.yaml_tree import MappingEntry, Node
    from devloop.config.skaffold.dockerfile import Placed, StageFiles
    from devloop.config.skaffold.notes import Module, Translating
    from devloop.errors import Location


def image_name(text: str) -> str:
    """The image's name as devloop has it: without registry, tag and digest, in lower case."""
    name = split_registry(text.partition("@")[0])[1]
    return re.sub(r":[^/:]*$", "", name).lower()


def service_names(images: Iterable[str]) -> tuple[str, ...]:
    """A service's name for each image: the last part of the image's, or as many of the last parts
    as tell it from the others."""
    images = list(images)
    found: list[str] = []
    for image in images:
        parts = image_name(image).split("/")
        size = 1
        while size < len(parts) and any(
            other != image and image_name(other).split("/")[-size:] == parts[-size:]
            for other in images
        ):
            size += 1
        name = label_from("-".join(parts[-size:])) or "app"
        taken = name
        for number in range(2, 100):
            if taken not in found:
                break
            taken = f"{name[:58]}-{number}"
        found.append(taken)
    return tuple(found)


def build_of(
    artifact: Keys, module: Module, platforms_above: Node | None, use: Translating
) -> MappingEntry:
    """The `build` of a service."""
    context = text_at(artifact, "context") or "."
    place = entry_at(artifact, "context")
    where = place.location if place else artifact.location
    command = build_command(artifact, module, use)
    docker = entry_at(artifact, "docker") or entry_at(artifact, "kaniko")
    options = docker.value if docker else None
    directory = module.path(context)
    found = mapped(
        docker.location if docker else where,
        entry("context", given(directory, place.value.location if place else where), where),
        *(_docker(options, directory, use) if command is None else command),
        _contexts(options, module, use) if command is None else None,
        _platform(artifact, platforms_above, use),
    )
    return entry("build", found)


def _docker(options: Node | None, context: str, use: Translating) -> Iterator[MappingEntry | None]:
    dockerfile = entry_at(options, "dockerfile")
    if dockerfile is not None and (
        text := use.templated(dockerfile.value, text_of(dockerfile.value))
    ):
        beside = posixpath.join(context, text)
        if not use.files.is_file(beside) and use.files.is_file(text):
            # Skaffold looks in its own directory after that.
            text = posixpath.relpath(text, context)
        if text != "Dockerfile":
            yield entry("dockerfile", given(text, dockerfile.value.location), dockerfile.location)
    yield _renamed(options, "target", "target", use)
    args = entry_at(options, "buildArgs")
    if args is not None and (found := entries(args.value)):
        new = mapped(args.value.location, *(_argument(each, use) for each in found))
        yield entry("args", new, args.location)
    secrets = entry_at(options, "secrets")
    if secrets is not None:
        new_secrets = [
            _secret(each, use) for each in items(secrets.value) if isinstance(each, Keys)
        ]
        yield entry("secrets", listed(secrets.value.location, new_secrets), secrets.location)
    ssh = entry_at(options, "ssh")
    if ssh is not None and text_of(ssh.value):
        agents = [given(text_of(ssh.value), ssh.value.location)]
        yield entry("ssh", listed(ssh.value.location, agents), ssh.location)
    for old, new_name in (("network", "network"), ("pullParent", "pull"), ("noCache", "no_cache")):
        if use.supports(f"build.{new_name}"):
            yield _renamed(options, old, new_name, use)
    for old, new_name in (("addHost", "add_host"), ("cacheFrom", "cache_from")):
        several = entry_at(options, old)
        if several is not None and use.supports(f"build.{new_name}"):
            texts = [use.value(each) for each in items(several.value) if isinstance(each, Scalar)]
            yield entry(new_name, listed(several.value.location, texts), several.location)


def _contexts(options: Node | None, module: Module, use: Translating) -> MappingEntry | None:
    """The named contexts among the flags for docker; the other flags are reported. Skaffold runs
    docker where its file is."""
    flags = entry_at(options, "cliFlags")
    if flags is None:
        return None
    found: list[MappingEntry | None] = []
    others: list[str] = []
    words = iter(items(flags.value))
    for word in words:
        each, text = word, text_of(word)
        if text == "--build-context":
            each = next(words, word)
            text = f"{text}={text_of(each)}"
        name, equals, source = text.removeprefix("--build-context=").partition("=")
        if not text.startswith("--build-context=") or not equals:
            others.append(text)
            continue
        source = use.templated(each, source)
        remote = "://" in source or source.startswith("git@")
        source = source if remote else module.path(source)
        found.append(entry(name, given(source, each.location), each.location))
    if others:
        why = f"a `build.command` may call docker with them: {' '.join(others)}"
        use.warn("`build.artifacts[].docker.cliFlags` is not used", flags.location, cause=why)
    return entry("contexts", mapped(flags.location, *found), flags.location) if found else None


def _renamed(options: Node | None, old: str, new: str, use: Translating) -> MappingEntry | None:
    found = entry_at(options, old)
    if found is None or not isinstance(found.value, Scalar) or not text_of(found.value):
        return None
    return entry(new, use.value(found.value), found.location)


def _argument(argument: MappingEntry, use: Translating) -> MappingEntry:
    value = argument.value
    if isinstance(value, Scalar) and value.value is not None:
        value = use.value(value)
    return entry(argument.key, value, argument.location)


def _secret(secret: Keys, use: Translating) -> Node:
    parts = [f"id={text_at(secret, 'id')}"]
    given_by = ((name, text_at(secret, name)) for name in ("src", "env"))
    parts += [f"{name}={use.templated(secret, text)}" for name, text in given_by if text]
    return given(",".join(parts), secret.location)


def _platform(artifact: Keys, above: Node | None, use: Translating) -> MappingEntry | None:
    own = entry_at(artifact, "platforms")
    found = items(own.value) if own else items(above)
    texts = list(dict.fromkeys(_full_platform(text_of(each)) for each in found if text_of(each)))
    if len(texts) == 1 and texts[0] != "all":
        where = own.location if own else found[0].location
        return entry("platform", given(texts[0], found[0].location), where)
    if texts:
        cause = "a pod runs on one node; the image is built for the platform of the nodes"
        use.inform("several platforms make no difference here", found[0].location, cause)
    return None


def _full_platform(text: str) -> str:
    system, slash, processor = text.partition("/")
    if slash:
        return f"{system}/{platforms.architecture(processor)}"
    known = platforms.architecture(system)
    return f"linux/{known}" if known in platforms.ARCHITECTURES else text


# Sync


def sync_of(artifact: Keys, module: Module, use: Translating) -> MappingEntry | None:
    """The `sync` of a service; None where a save is to become an image, or goes hot."""
    found = entry_at(artifact, "sync")
    if found is None or not isinstance(found.value, Keys):
        return None
    place = found.value.location
    manual, infer = at(found.value, "manual"), at(found.value, "infer")
    auto = at(found.value, "auto")
    if is_false(auto):
        return None
    if items(manual):
        rules = [r for each in items(manual) for r in _manual(each, artifact, module, use)]
    elif not items(infer) or any(text_of(each) in ("**/*", "**", "*/**") for each in items(infer)):
        if is_true(auto) or (at(artifact, "docker") is None and _other_builder(artifact)):
            use.inform(
                "`sync.auto` makes no difference here",
                found.location,
                "files of jib and buildpacks come with a new image",
            )
            return None
        return entry("sync", given("auto", place), found.location)
    else:
        rules = [r for each in items(infer) for r in _inferred(each, artifact, module, use)]
    return entry("sync", listed(place, rules), found.location) if rules else None


def _other_builder(artifact: Keys) -> bool:
    return any(at(artifact, name) is not None for name in ("jib", "buildpacks", "ko", "custom"))


def _stage(artifact: Keys, module: Module, use: Translating) -> StageFiles:
    options = at(artifact, "docker") or at(artifact, "kaniko")
    context = module.path(text_at(artifact, "context") or ".")
    name = text_at(options, "dockerfile") or text_at(
        artifact, "custom", "dependencies", "dockerfile", "path"
    )
    path = posixpath.normpath(posixpath.join(context, name or "Dockerfile"))
    return files_of(use.files.text(path), text_at(options, "target"))


def _rule(src: str, dest: str, place: Location) -> Keys:
    return mapped(place, entry("src", given(src, place)), entry("dest", given(dest, place)))


def fixed_part(pattern: str) -> tuple[str, ...]:
    """The directories before the first wildcard; of a pattern without any, those of the file."""
    parts = tuple(part for part in pattern.split("/") if part not in ("", "."))
    size = next((i for i, part in enumerate(parts) if is_magic(part)), len(parts) - 1)
    return parts[:size]


def _manual(node: Node, artifact: Keys, module: Module, use: Translating) -> Iterator[Keys]:
    """Skaffold appends a file's whole path, less `strip`, to `dest`; devloop what comes after the
    part of `src` without wildcards."""
    src, dest = text_at(node, "src"), text_at(node, "dest")
    place = node.location
    if not src or not dest:
        use.warn("a rule of `sync` needs `src` and `dest`", place)
        return
    if not dest.startswith("/"):
        workdir = _stage(artifact, module, use).workdir
        if not workdir:
            use.warn(
                f"files of {src!r} are not synced: where {dest!r} is, only the base image says",
                place,
                "name a WORKDIR in the Dockerfile, or write `dest` as an absolute path",
                cause="a save goes hot or becomes an image, as any other",
            )
            return
        dest = posixpath.join(workdir, dest)
    strip = tuple(part for part in text_at(node, "strip").split("/") if part not in ("", "."))
    parts = tuple(part for part in src.split("/") if part not in ("", "."))
    fixed = fixed_part(src)
    size = len(strip)
    if strip[: len(fixed)] == fixed and len(strip) > len(fixed) and parts[len(fixed)] == "**":
        # Only what is below `strip` is stripped: that comes first, the rest after it.
        inner = "/".join((*strip, *parts[len(fixed) :]))
        yield _rule(inner, posixpath.normpath(dest), place)
        size = 0
    elif fixed[:size] != strip:
        size = 0
    yield _rule("/".join(parts), posixpath.normpath(posixpath.join(dest, *fixed[size:])), place)


def _inferred(node: Node, artifact: Keys, module: Module, use: Translating) -> Iterator[Keys]:
    """Files of a pattern go where the Dockerfile's COPY lines put them."""
    pattern = "/".join(part for part in text_of(node).split("/") if part not in ("", "."))
    found = False
    context = module.path(text_at(artifact, "context") or ".")
    for placed in _stage(artifact, module, use).placed:
        alone = use.files.is_file(posixpath.join(context, placed.source))
        rule = _placed_rule(pattern, placed, node.location, alone=alone)
        if rule is not None:
            found = True
            yield rule
    if not found:
        use.warn(
            f"files of {pattern!r} are not synced: no COPY of the Dockerfile says where they go",
            node.location,
            cause="a save goes hot or becomes an image, as any other",
        )


def _placed_rule(pattern: str, placed: Placed, place: Location, *, alone: bool) -> Keys | None:
    """The rule for what of a COPY's source a pattern matches; `alone`: the source is a file."""
    parts = tuple(pattern.split("/"))
    fixed = fixed_part(pattern)
    source = tuple(filter(None, placed.source.split("/")))
    if any(map(is_magic, source)):
        return _globbed_rule(parts, source, placed.dest, place)
    if not alone and fixed[: len(source)] == source:
        return _rule(pattern, posixpath.join(placed.dest, *fixed[len(source) :]), place)
    if parts == source:
        return _rule(pattern, placed.dest, place)
    if alone:
        matches = match_parts(source, parts, hidden=True)
        return _rule(placed.source, placed.dest, place) if matches else None
    if source[: len(fixed)] == fixed and parts[len(fixed)] == "**":
        return _rule("/".join((*source, *parts[len(fixed) :])), placed.dest, place)
    return None


def _globbed_rule(
    parts: tuple[str, ...], source: tuple[str, ...], dest: str, place: Location
) -> Keys | None:
    """The rule for a COPY of files by a pattern, `COPY *.rb ./`, which puts them beside each other;
    None where both together are no pattern of a rule."""
    *above, last = source
    *within, tail = parts
    if any(map(is_magic, above)):
        return None
    anywhere = within[-1:] == ["**"] and within[:-1] == above[: len(within) - 1]
    if not anywhere and within != above:
        return None
    if tail in ("*", "**", last):
        tail = last
    elif last != "*" and (is_magic(tail) or not match_parts((tail,), (last,), hidden=True)):
        return None
    return _rule("/".join((*above, tail)), dest, place)


def quoted(words: Iterable[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
