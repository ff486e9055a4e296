"""The keys of `build`: how a service's image is made; see schema.py for the rest."""
# Annotations are read when this module is imported, so they cannot be put off (PEP 563).

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.config import resolve, rules
from devloop.config.grammar import Choice, Flag, Key, List, Map, Text, block

_TEXT = Text(rules.ANY_TEXT)
_TEXTS = List(_TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How a service's image is made. `secrets` are in buildx's form (id=pip,src=/abs/pip.conf),
    `ssh` likewise (default, id=/path/to/sock). `command` is given only with `builder: command`.
    `contexts` are in buildx's form, a directory with its whole path. `needs` are the service's, and
    `images` the images of those that the Dockerfile names, by that name; see builders.needs. With
    several `platforms`, `platform` is that of the nodes, if it is known."""

    context: Annotated[
        Path,
        Key(
            _TEXT,
            "The directory that is sent to the build, relative to devloop.yaml.",
            default="the directory of devloop.yaml",
            read=lambda text, scope: scope.path(text),
        ),
    ]
    dockerfile: Annotated[
        Path, Key(_TEXT, "The Dockerfile, relative to the context.", default="Dockerfile")
    ]
    target: Annotated[str | None, Key(_TEXT, "The stage to build.", default="the last stage")] = (
        None
    )
    args: Annotated[
        dict[str, str],
        Key(
            Map(
                key=rules.VARIABLE_NAME,
                value=Text(rules.ARGUMENT, scalar=True),
                noun="build argument",
                null=True,
            ),
            "Build arguments. One without a value takes it from the environment, if set.",
            read=resolve.args,
        ),
    ] = field(default_factory=dict)
    secrets: Annotated[
        tuple[str, ...],
        Key(
            _TEXTS,
            "Build secrets as buildx has them: id=NAME,src=FILE or id=NAME,env=VARIABLE. "
            "FILE is relative to devloop.yaml.",
            read=resolve.secrets,
        ),
    ] = ()
    ssh: Annotated[
        tuple[str, ...],
        Key(
            _TEXTS,
            "SSH agents for the build as buildx has them: default, or NAME=SOCKET_OR_KEY.",
            read=resolve.ssh,
        ),
    ] = ()
    platform: Annotated[
        str | None,
        Key(
            Text(rules.PLATFORM),
            "The platform to build for, as OS/ARCH.",
            default="that of the cluster's nodes",
        ),
    ] = None
    platforms: Annotated[
        tuple[str, ...],
        Key(
            List(Text(rules.PLATFORM), least=1),
            "In place of `platform`: several at once, by buildx. The image is then an index of one "
            "image a platform, of which a node takes its own; each full build makes all of them.",
        ),
    ] = ()
    contexts: Annotated[
        dict[str, str],
        Key(
            Map(key=rules.CONTEXT_NAME, value=_TEXT, noun="named context"),
            "What FROM, COPY --from and the mounts of RUN find under a name, as `docker buildx "
            "build --build-context` has it: a directory, relative to devloop.yaml and watched like "
            "the context, docker-image://IMAGE, or the URL of a Git repository or of a file.",
            read=resolve.contexts,
        ),
    ] = field(default_factory=dict)
    ignore: Annotated[
        tuple[str, ...],
        Key(_TEXTS, "Patterns of files to leave out, on top of .dockerignore and in its syntax."),
    ] = ()
    builder: Annotated[
        Literal["auto", "buildx", "classic", "command"],
        Key(
            Choice(("auto", "buildx", "classic", "command")),
            "What builds the image: docker buildx, Docker's classic builder or `command`.",
            default="auto: buildx where it is installed, else classic",
        ),
    ] = "auto"
    command: Annotated[
        tuple[str, ...] | None,
        Key(
            List(Text(rules.ANY_TEXT, for_shell=True), least=1),
            "The program and its arguments, run in devloop.yaml's directory, for `builder: "
            "command`. It gets DEVLOOP_IMAGE and must leave that image in the registry.",
            read=lambda items, _: resolve.texts(items) or None,
        ),
    ] = None
    cache: Annotated[
        tuple[str, ...] | Literal["auto"],
        Key(
            List(Text(rules.CACHE_DIRECTORY), word="auto"),
            "Directories of the build that every RUN finds as the build before left them (cache "
            "mounts), in `devloop dev` with buildx. `auto` takes those of compilers and package "
            "managers that are documented never to change what is built.",
            default="none: the Dockerfile is built as it stands",
        ),
    ] = ()
    network: Annotated[
        str | None,
        Key(
            Text(rules.NETWORK),
            "The network of RUN instructions: host, none or default; with the classic builder also "
            "one of Docker's networks by its name.",
            default="the builder's",
        ),
    ] = None
    add_host: Annotated[
        tuple[str, ...],
        Key(
            List(Text(rules.ADDED_HOST)),
            "Names that RUN instructions find, as NAME:ADDRESS; host-gateway is this computer.",
        ),
    ] = ()
    shm_size: Annotated[
        str | None,
        Key(
            Text(rules.SIZE, scalar=True),
            "The size of /dev/shm for RUN instructions, as 64m or 1g.",
            default="the builder's, 64m",
        ),
    ] = None
    labels: Annotated[
        dict[str, str],
        Key(
            Map(key=rules.ANY_TEXT, value=Text(rules.ARGUMENT, scalar=True), noun="label"),
            "Labels of the image, beside those of the Dockerfile.",
        ),
    ] = field(default_factory=dict)
    cache_from: Annotated[
        tuple[str, ...],
        Key(
            _TEXTS,
            "Where a build may take layers from besides the builder's own cache: images, or "
            "sources as buildx has them (type=registry,ref=...).",
            read=resolve.buildx_specs,
        ),
    ] = ()
    cache_to: Annotated[
        tuple[str, ...],
        Key(
            _TEXTS,
            "Where buildx keeps what a build made, for `cache_from` of other builders "
            "(type=registry,ref=...,mode=max).",
            read=resolve.buildx_specs,
        ),
    ] = ()
    no_cache: Annotated[
        bool,
        Key(
            Flag(),
            "Run every instruction of each full build again. A save that only changes copied "
            "files still needs none.",
        ),
    ] = False
    pull: Annotated[
        bool,
        Key(Flag(), "Ask the registries for newer base images at each full build."),
    ] = False
    needs: tuple[str, ...] = ()
    images: dict[str, str] = field(default_factory=dict)

    @property
    def directories(self) -> dict[str, Path]:
        """The named contexts that are directories here."""
        return {n: Path(text) for n, text in self.contexts.items() if text.startswith("/")}

    @property
    def all_platforms(self) -> tuple[str, ...]:
        """What is asked for by name; nothing for the builder's own."""
        return self.platforms or ((self.platform,) if self.platform else ())


BUILD = block(
    Build,
    about="How the service's image is made. A bare path is short for `context`.",
    short="context",
    finish=resolve.finish_build,
    extra={
        "allOf": [
            {
                "if": {"required": ["builder"], "properties": {"builder": {"const": "command"}}},
                "then": {"required": ["command"]},
            },
            {
                "if": {"properties": {"builder": {"enum": ["auto", "buildx", "classic"]}}},
                "then": {"properties": {"command": False}},
            },
            {
                "if": {"required": ["builder"], "properties": {"builder": {"const": "command"}}},
                "then": {"properties": {"contexts": False, "platforms": False}},
            },
            {"not": {"required": ["platform", "platforms"]}},
        ]
    },
)
