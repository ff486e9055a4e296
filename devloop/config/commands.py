"""The keys of devloop.yaml that hold commands of the user's: `test` and `hooks`.

A command is a list of words, which are run as they stand, or one text, which a shell runs. Part of
schema.py, where all else is described.
"""
# Annotations are read when this module is imported, so they cannot be put off (PEP 563).

import re
from dataclasses import field, replace
from typing import Annotated, Any, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.base.location import Location
from devloop.config import resolve, rules
from devloop.config.grammar import Choice, Key, List, Text, block

PICKED = "true"
"""As a hook's `container`: the one that runs the service's image."""

# A single word that means the same to a shell, so that none is needed (an image may have none).
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,-]+")

_COMMAND = List(Text(rules.ANY_TEXT, for_shell=True), least=1, single=True)


def argv_of(words: tuple[str, ...]) -> tuple[str, ...]:
    """What is run for a command as it stands in the file; one text is for a shell."""
    if len(words) == 1 and not _PLAIN.fullmatch(words[0]):
        return ("sh", "-c", words[0])
    return words


def shown_command(argv: tuple[str, ...]) -> str:
    """The command as its writer knows it, in one line: without a shell that only begins it."""
    if argv[:2] == ("sh", "-c") and len(argv) == 3:
        return " ".join(argv[2].splitlines())
    if argv[:2] == ("sh", "-c") and len(argv) > 4 and argv[2].endswith('exec "$@"'):
        return " ".join(argv[4:])
    return " ".join(argv)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTest:
    """What has to succeed in a fresh image before it is deployed. No `command`: nothing has.
    `timeout` is in seconds."""

    command: Annotated[
        tuple[str, ...],
        Key(
            _COMMAND,
            "The command, a list of words or a text for a shell, in place of the image's own.",
            required=True,
            read=lambda items, _: argv_of(resolve.texts(items)),
        ),
    ] = ()
    on: Annotated[
        Literal["auto", "docker", "pod"],
        Key(
            Choice(("auto", "docker", "pod")),
            "Where it runs: on this machine's Docker, or as a pod of the namespace.",
            default="auto: docker, a pod where there is no Docker",
        ),
    ] = "auto"
    timeout: Annotated[
        float,
        Key(
            Text(rules.DURATION, number=True),
            "How long it may take.",
            default="10m",
            read=lambda text, _: rules.seconds(text),
        ),
    ] = 600.0
    location: Location = field(default_factory=lambda: Location("devloop.yaml"), compare=False)


def _finish_test(found: dict[str, Any], _values: Any, scope: resolve.ServiceScope) -> None:
    found["location"] = scope.locations.key(scope.where)


TEST = block(
    ImageTest,
    about="A command that has to succeed in the fresh image before it is deployed; a bare command "
    "is short for `command`. In `devloop dev` every save waits for it.",
    short="command",
    finish=_finish_test,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HookCommand:
    """A command that runs before or after a step. `container` is "" on this computer, `PICKED` or a
    container's name in the pods that run the service. `timeout` is in seconds."""

    command: Annotated[
        tuple[str, ...],
        Key(
            _COMMAND,
            "The command, a list of words or a text for a shell.",
            required=True,
            read=lambda items, _: argv_of(resolve.texts(items)),
        ),
    ]
    container: Annotated[
        str,
        Key(
            Text(rules.CONTAINER, scalar=True),
            "Run it in the running containers instead: of this name, or `true` for those that run "
            "the service's image.",
            default="false: it runs on this computer, in the directory of devloop.yaml",
            read=lambda text, _: "" if text == "false" else text,
        ),
    ] = ""
    timeout: Annotated[
        float,
        Key(
            Text(rules.DURATION, number=True),
            "How long it may take.",
            default="5m",
            read=lambda text, _: rules.seconds(text),
        ),
    ] = 300.0
    location: Location = field(default_factory=lambda: Location("devloop.yaml"), compare=False)


def _finish_hook(
    found: dict[str, Any], values: dict[str, Any], scope: resolve.ServiceScope
) -> None:
    found["location"] = scope.locations.value(scope.where)
    words: list[tuple[int, str]] = values.get("command") or []
    if len(words) == 1 and (text := words[0][1]).startswith("-") and "command" in found:
        *where, position = scope.where
        replace(scope, where=tuple(where)).refuse(
            position,
            f"`{text}` is not a command",
            "write one that is a list of words as [[sh, -c, ...]], or as one text",
            "each item of a hook is a command of its own",
        )


HOOK = block(
    HookCommand,
    about="A command: a list of words, or a text for a shell.",
    short="command",
    finish=_finish_hook,
)
_HOOKS = List(HOOK, single=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class HookCommands:
    """Commands before and after the steps of a service, in the order in which they run."""

    before_build: Annotated[
        tuple[HookCommand, ...],
        Key(_HOOKS, "Before an image is built. What they write into the context is built."),
    ] = ()
    after_build: Annotated[
        tuple[HookCommand, ...],
        Key(_HOOKS, "After an image was built and pushed, before its test."),
    ] = ()
    before_sync: Annotated[
        tuple[HookCommand, ...], Key(_HOOKS, "Before files are written into running containers.")
    ] = ()
    after_sync: Annotated[
        tuple[HookCommand, ...],
        Key(_HOOKS, "After that, once the process that starts anew is ready."),
    ] = ()
    before_deploy: Annotated[
        tuple[HookCommand, ...], Key(_HOOKS, "Before the cluster is written to for a new image.")
    ] = ()
    after_deploy: Annotated[
        tuple[HookCommand, ...], Key(_HOOKS, "After a rollout, once its pods are ready.")
    ] = ()


HOOKS = block(
    HookCommands,
    about="Commands before and after the steps, on this computer or in the containers. They get "
    "DEVLOOP_SERVICE, DEVLOOP_IMAGE, DEVLOOP_CHANGED_FILES and more; one that fails ends the step. "
    "They run only in a checkout that is trusted, see `devloop trust`.",
)
