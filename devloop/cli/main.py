"""The command line: a table of lazily loaded commands and the one place where errors are shown.

`devloop --help` must answer at once, so this module imports click and nothing heavier; a command's
module is imported when it is called.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from devloop import __version__
from devloop.cli.installation import foreign
from devloop.errors import Code, DevloopError, ExitStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.shell_completion import CompletionItem


# name, which is its module's in devloop.cli -> one line of help; in the order of `devloop --help`.
COMMANDS = {
    "dev": "Deploy, then rebuild and replace the pods at every save.",
    "run": "Build, push and deploy once; the exit status tells the result.",
    "build": "Build the images, push them with --push; deploy nothing.",
    "test": "Build the images and run the services' tests in them.",
    "render": "Print the manifests pinned by digest, or push them as an artifact.",
    "deploy": "Deploy images that are built already, and wait for the rollout.",
    "status": "Show what runs, and the session if there is one.",
    "logs": "Print what the containers wrote, and follow it.",
    "why": "Explain the last decision about each service.",
    "trigger": "Have the session build and deploy a service again.",
    "rollback": "Serve the last good image again, until the next save.",
    "restore": "Put workloads back as they were before devloop.",
    "pause": "Have the session build and deploy nothing for now.",
    "resume": "Have a paused session go on.",
    "events": "Print the session's events, one JSON object a line.",
    "down": "Delete what devloop itself created, nothing else.",
    "bench": "Time saves until they are served, against the cluster's baseline.",
    "clean": "Remove images and files that devloop left behind.",
    "init": "Write a devloop.yaml for what is here.",
    "check": "Validate devloop.yaml and the files it names.",
    "doctor": "Try the whole path of a save, and name the hop that fails.",
    "trust": "Let the commands of devloop.yaml run on this computer.",
    "config": "Show the configuration as it holds, and where each value is from.",
    "editor": "Set an editor up: tasks, and its list of problems.",
    "schema": "Print the JSON Schema of devloop.yaml or of the event stream.",
    "completion": "Print the completion script of a shell.",
    "cluster": "Make, show or remove a local cluster with a registry.",
}


# What other programs call, and nobody types.
_HIDDEN = frozenset({"postrender"})


class _LazyGroup(click.Group):
    """A group whose commands are imported when called, and whose help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS and cmd_name not in _HIDDEN:
            return None
        module = importlib.import_module(f"devloop.cli.{cmd_name}")
        found: click.Command = module.command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            meant = f" Did you mean '{close[0]}'?" if close else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - for shells only

        names = (each for each in COMMANDS.items() if each[0].startswith(incomplete))
        items = [CompletionItem(name, help=text) for name, text in names]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    click.echo(f"devloop {__version__}")
    if warning := foreign():
        click.echo(f"warning: {warning}", err=True)
    context.exit()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `devloop cluster up`, then `devloop init` and `devloop dev`. Every error "
    "has a code; the exit status is 0 done, 1 build or rollout failed, 2 usage or configuration, "
    "3 environment, "
    "4 refused for safety, 70 a bug, 130 Ctrl-C, 143 TERM.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
def command() -> None:
    """Save a file, see it served by a real pod."""


def main(argv: Sequence[str]) -> int:
    """Run `devloop argv...`; returns the exit status and never raises."""
    try:
        status = command.main(list(argv), prog_name="devloop", standalone_mode=False)
        sys.stdout.flush()
        return int(status) if isinstance(status, int) else 0
    except DevloopError as error:
        return _show(error)
    except click.ClickException as error:
        is_help = isinstance(error, click.exceptions.NoArgsIsHelpError)
        if isinstance(error, click.UsageError) and not is_help:
            return _show_usage(error)
        error.show()
        return ExitStatus.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except BrokenPipeError:
        # The reader went away (`| head`); keep the interpreter from failing once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.DONE
    except Exception as error:  # noqa: BLE001 - the last net: a bug gets a report, not a traceback
        return _show_bug(error)


def _show(error: DevloopError) -> int:
    from devloop.ui import wants_color  # noqa: PLC0415 - only when needed
    from devloop.ui.text import format_diagnosis  # noqa: PLC0415 - as above

    color = wants_color(sys.stderr, "auto", os.environ)
    for diagnosis in error.diagnoses:
        click.echo(format_diagnosis(diagnosis, color=color, width=_width()), err=True)
    return error.exit_status


def _show_usage(error: click.UsageError) -> int:
    where = error.ctx.command_path if error.ctx else "devloop"
    tip = f"`{where} --help` shows what it takes"
    return _show(DevloopError.of(Code.USAGE_ARGUMENTS, error.format_message(), suggestions=(tip,)))


def _show_bug(error: Exception) -> int:
    import tempfile  # noqa: PLC0415 - only when needed
    import traceback  # noqa: PLC0415 - only when needed

    with tempfile.NamedTemporaryFile(
        "w", prefix="devloop-bug-", suffix=".txt", delete=False, encoding="utf-8"
    ) as report:
        report.write(f"devloop {__version__}, Python {sys.version}\n{foreign()}\n")
        report.writelines(traceback.format_exception(error))
    tip, what = f"please report it with {report.name}", f"{type(error).__name__}: {error}"
    return _show(DevloopError.of(Code.INTERNAL_BUG, what, suggestions=(tip,)))


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 100
