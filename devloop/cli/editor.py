"""`devloop editor`: tasks and problem lists for editors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

import click

from devloop.cli.main import COMMANDS
from devloop.errors import ExitStatus

# What a diff's lines begin with, and their colours.
_COLOURS = {"--- ": "1", "+++ ": "1", "@@ ": "36", "-": "31", "+": "32"}


@click.command("editor")
@click.argument("editor", type=click.Choice(["vscode", "jetbrains", "zed", "nvim"]))
@click.option("--write", is_flag=True, help="Write the files instead of showing the diff.")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="The directory that the editor opens; default: the git repository's.",
)
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="The devloop.yaml to use; default: the nearest one, upwards from here.",
)
@click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True
)
def command(
    editor: str,
    *,
    write: bool,
    workspace: Path | None,
    file: Path | None,
    color: Literal["auto", "always", "never"],
) -> int:
    """Set an editor up to run devloop, to list its problems and to attach debuggers.

    Shows as a diff what would change; only entries and files of devloop's do. Several projects in
    one workspace are set up one by one, each from its directory.
    """
    # Imported late, see main.py: help must stay quick.
    from devloop.app.editors import editor_files  # noqa: PLC0415
    from devloop.editor.diff import unified  # noqa: PLC0415 - as above
    from devloop.ui import wants_color  # noqa: PLC0415 - as above

    files = editor_files(
        editor,
        file=file,
        workspace=workspace,
        cwd=Path.cwd(),
        commands=frozenset(COMMANDS),
        report=lambda text: click.echo(text, err=True),
    )
    if not files:
        click.echo("nothing to change", err=True)
    coloured = wants_color(sys.stdout, color, os.environ)
    for each in files:
        if write:
            each.write()
            click.echo(f"wrote {each.name}")
        else:
            for line in unified(each.name, each.old, each.new):
                click.echo(_painted(line) if coloured else line, color=coloured)
    if files and not write:
        click.echo(f"`devloop editor {editor} --write` writes this", err=True)
    return ExitStatus.DONE


def _painted(line: str) -> str:
    from devloop.ui.sanitize import plain  # noqa: PLC0415 - see above

    sgr = next((sgr for begin, sgr in _COLOURS.items() if line.startswith(begin)), "0")
    return f"\x1b[{sgr}m{plain(line)}\x1b[0m"
