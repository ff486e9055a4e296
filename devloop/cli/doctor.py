"""`devloop doctor`: the path of a save, hop by hop."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from devloop.cli.options import CommonOptions, flags_of, load, output_option, project_options
from devloop.cli.signals import interruptible
from devloop.errors import Code, DevloopError, ExitStatus

if TYPE_CHECKING:
    from devloop.app.doctor.hops import Examined, Hop
    from devloop.base.cancel import Cancel
    from devloop.config.schema import Project


_MARKS = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "-"}
_INDENT = 20
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "bright_black"}


def _hop_names(_: click.Context, __: click.Parameter, word: str) -> list[str]:
    from devloop.app.doctor.hops import HOPS  # noqa: PLC0415 - at a TAB only

    return [hop.name for hop in HOPS if hop.name.startswith(word)]


@click.command("doctor")
@click.argument("hops", nargs=-1, metavar="[HOP]...", shell_complete=_hop_names)
@output_option
@project_options
def command(options: CommonOptions, hops: tuple[str, ...], output: Literal["text", "json"]) -> int:
    """Try the whole path of a save, hop by hop, and say what is wrong with the one that fails.

    \b
    docker    Docker answers                builder   it has a builder
    watch     a change of a file is noticed cluster   it answers, and devloop may use it
    clock     it shows the same time        registry  it answers
    build     an image is built             push      and pushed
    deploy    a workload is written         pull      a node pulls the image and starts it
    log       a line of its log arrives     port      a port of it can be reached
    agent     a save goes into the running container

    A real session does so, with an image of its own in a namespace that is deleted in the end.
    Nothing is pulled from the internet, and no devloop.yaml is needed. With HOP only these, and
    what they need. The exit status is 0 where all of it works, else 3.
    """
    # Imported late, see main.py: help must stay quick.
    from devloop.app.doctor.hops import chosen  # noqa: PLC0415

    wanted = chosen(hops)
    project = _project(options)
    printer = _Printer(output, options.color)

    def work(cancel: Cancel) -> tuple[Examined, ...]:
        from devloop.app.doctor.checks import Examination  # noqa: PLC0415 - see above
        from devloop.app.doctor.hops import examine  # noqa: PLC0415 - as above

        with Examination(project, project.state_dir) as examination:
            return examine(
                wanted, examination.checks(), cancel, begun=printer.begun, ended=printer.ended
            )

    found = interruptible(work)
    printer.end(found)
    good = all(each.state in ("ok", "warning") for each in found)
    return ExitStatus.DONE if good else ExitStatus.ENVIRONMENT


def _project(options: CommonOptions) -> Project:
    """The project that is here, for its registry and its context; without a readable one the
    defaults."""
    try:
        return load(options).project
    except DevloopError as error:
        if options.file is not None or error.code == Code.USAGE_ARGUMENTS:
            raise
        least = "version: 1\nservices: {app: {build: .}}\n"
        return flags_of(options).load(Path.cwd(), os.environ, least, "devloop.yaml").project


class _Printer:
    def __init__(self, output: str, color: Literal["auto", "always", "never"]) -> None:
        from devloop.ui import wants_color  # noqa: PLC0415 - see above

        self._text = output == "text"
        self._colored = wants_color(sys.stdout, color, os.environ)
        # Where a line can be taken back.
        able = os.environ.get("TERM", "") not in ("", "dumb") and not os.environ.get("CI")
        self._live = self._text and able and sys.stdout.isatty()
        self._width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0

    def begun(self, hop: Hop) -> None:
        if self._live:
            click.echo(f"  {hop.name:<9} {hop.about} ...", nl=False)

    def ended(self, result: Examined) -> None:
        if not self._text:
            return
        from devloop.ui.text import duration, explanation  # noqa: PLC0415 - see above

        if self._live:
            click.echo("\r\x1b[K", nl=False)
        took = "" if result.state == "skipped" else duration(result.ms, space=" ")
        said = result.detail
        found = result.diagnosis
        if found is not None:
            said = f"{found.message}  [{found.code}]"
        mark = _MARKS[result.state]
        mark = click.style(mark, fg=_COLOURS[result.state]) if self._colored else mark
        head, *rest = self._lines(said, _INDENT)
        line = f"{mark} {result.hop:<9} {took:>6}  {head[_INDENT:]}".rstrip()
        click.echo("\n".join((line, *rest)), color=self._colored)
        if found is not None:
            # The evidence of most is what their cause says in one line.
            shown = dataclasses.replace(found, detail=()) if found.cause else found
            for each in explanation(shown):
                click.echo("\n".join(self._lines(each.strip(), _INDENT + 7)))

    def _lines(self, text: str, hang: int) -> list[str]:
        """`text` below what is found of a hop, its further lines at the column `hang`: as many as
        the terminal needs, one in a pipe."""
        first = " " * _INDENT
        if self._width < 2 * _INDENT:
            return [first + text]
        return textwrap.wrap(
            text,
            self._width,
            initial_indent=first,
            subsequent_indent=" " * hang,
            break_on_hyphens=False,
        ) or [first]

    def end(self, found: tuple[Examined, ...]) -> None:
        if not self._text:
            document: dict[str, Any] = {
                "v": 1,
                "ok": all(each.state in ("ok", "warning") for each in found),
                "hops": [dataclasses.asdict(each) for each in found],
            }
            click.echo(json.dumps(document, indent=2))
            return
        failed = [each.hop for each in found if each.state == "failed"]
        click.echo(f"not well: {', '.join(failed)}" if failed else "all is well")
