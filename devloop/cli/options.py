"""The options that every command on a project takes, and loading the project from them."""

from __future__ import annotations

import functools
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from devloop.base.lazy_dataclass import dataclass
from devloop.cli.suggestions import context_names, profile_names
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.app.starter.start import Flags
    from devloop.config.loader import LoadedProject


def _current_context() -> str | None:
    """The kubeconfig's current context, None where it has none or cannot be read."""
    from devloop.cluster.api.kubeconfig import read  # noqa: PLC0415 - few profiles ask for it

    try:
        return read(os.environ).resolve(None).name
    except DevloopError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonOptions:
    """What is given on the command line; `command` is the one that runs, and `current_context` asks
    for that of the kubeconfig."""

    file: Path | None = None
    context: str | None = None
    namespace: str | None = None
    registry: str | None = None
    sets: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    color: Literal["auto", "always", "never"] = "auto"
    verbose: int = 0
    command: str = ""
    current_context: Callable[[], str | None] = _current_context


_OPTIONS = (
    click.option(
        "-f",
        "--file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The devloop.yaml to use; default: the nearest one, upwards from here.",
    ),
    click.option(
        "--context",
        metavar="NAME",
        help="The kubeconfig context; default: the current.",
        shell_complete=context_names,
    ),
    click.option("-n", "--namespace", metavar="NAME", help="The namespace to deploy to."),
    click.option("--registry", metavar="HOST", help="Push here; default: found in the cluster."),
    click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a key of devloop.yaml."
    ),
    click.option(
        "--profile",
        "profiles",
        multiple=True,
        metavar="NAME",
        help="Merge a profile of devloop.yaml over it; -NAME leaves one out.",
        shell_complete=profile_names,
    ),
    click.option(
        "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True
    ),
    click.option("-v", "--verbose", count=True, help="Say more on stderr; twice for everything."),
)


_NAMES = ("file", "context", "namespace", "registry", "sets", "profiles", "color", "verbose")

output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)


def project_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options to a click command; it gets them as `options: CommonOptions`."""

    @functools.wraps(function)
    def wrapper(**kwargs: Any) -> Any:
        given = {name: kwargs.pop(name) for name in _NAMES}
        options = CommonOptions(
            **given,
            command=click.get_current_context().info_name or "",
            # As it is first: a session stays with the cluster that it began with.
            current_context=functools.cache(_current_context),
        )
        level = {0: logging.ERROR, 1: logging.INFO}.get(options.verbose, logging.DEBUG)
        logging.basicConfig(level=level, format="devloop: %(levelname)s %(name)s: %(message)s")
        return function(options=options, **kwargs)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


def options_but_f(function: Callable[..., Any]) -> Callable[..., Any]:
    """`project_options` for a command to which `-f` means something else."""
    wrapper = project_options(function)
    for option in vars(wrapper)["__click_params__"]:
        if option.name == "file":
            option.opts.remove("-f")
    return wrapper


def ask(question: str, *, refusal: str, cause: str | None = None, err: bool = False) -> None:
    """Go on if a person agrees, else abort. Errors: usage/arguments without a terminal, whose
    message begins with `refusal`."""
    if not sys.stdin.isatty():
        raise DevloopError.of(
            Code.USAGE_ARGUMENTS,
            f"{refusal}, and there is no terminal to ask on",
            cause=cause,
            suggestions=("add --yes",),
        )
    click.confirm(question, abort=True, err=err)


def load(options: CommonOptions) -> LoadedProject:
    """The project that the options name; without a devloop.yaml what a `dev` or `run` here assumed.
    Errors: config/*, env/file-unreadable."""
    # The grammar is built at import, which `devloop dev --help` need not wait for.
    from devloop.config.loader import load_project  # noqa: PLC0415
    from devloop.config.places import user_config_path  # noqa: PLC0415 - as above

    try:
        return load_project(
            cwd=Path.cwd(),
            file=options.file,
            env=os.environ,
            sets=options.sets,
            user_config=user_config_path(os.environ),
            context=options.context,
            namespace=options.namespace,
            registry=options.registry,
            profiles=options.profiles,
            command=options.command,
            current_context=options.current_context,
            report=lambda text: click.echo(text, err=True),
        )
    except DevloopError as error:
        if _is_named(options) or error.code != Code.CONFIG_NOT_FOUND:
            raise
        from devloop.app.starter.start import assumed_before  # noqa: PLC0415 - few need it

        before = assumed_before(Path.cwd(), os.environ, flags_of(options))
        if before is None:
            raise
        return before


def load_or_assume(options: CommonOptions, tell: Callable[[str], None]) -> LoadedProject:
    """As `load`, but without a devloop.yaml the project is worked out from what is here; `tell`
    gets what was assumed, as the text of a file. Errors: as `load`."""
    from devloop.config.places import find_project  # noqa: PLC0415 - see `load`

    try:
        find_project(cwd=Path.cwd(), file=options.file, env=os.environ)
    except DevloopError:
        if _is_named(options):
            raise
    else:
        return load(options)
    from devloop.app.starter.start import assumed  # noqa: PLC0415 - few need it

    start = assumed(Path.cwd(), os.environ, flags_of(options))
    tell(start.text)
    return start.loaded


def flags_of(options: CommonOptions) -> Flags:
    """The options for a project whose file is not read."""
    from devloop.app.starter.start import Flags  # noqa: PLC0415 - few need it
    from devloop.config.places import user_config_path  # noqa: PLC0415 - as above

    return Flags(
        sets=options.sets,
        context=options.context,
        namespace=options.namespace,
        registry=options.registry,
        profiles=options.profiles,
        user_config=user_config_path(os.environ),
    )


def _is_named(options: CommonOptions) -> bool:
    return options.file is not None or bool(os.environ.get("DEVLOOP_FILE"))
