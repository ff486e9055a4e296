"""`devloop trust`: let the commands of a checkout run on this computer."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

import click

from devloop.cli.options import CommonOptions, load, output_option, project_options
from devloop.errors import Code, DevloopError, ExitStatus
from devloop.ui.sanitize import plain

if TYPE_CHECKING:
    from devloop.app.trust import HostCommand


@click.command("trust")
@click.option("--list", "only_list", is_flag=True, help="Only show the commands, change nothing.")
@click.option("--revoke", is_flag=True, help="Trust nothing of this checkout any more.")
@output_option
@project_options
def command(options: CommonOptions, *, only_list: bool, revoke: bool, output: str) -> int:
    """Trust the commands that devloop.yaml has run on this computer.

    These are its `hooks`, but for those in containers, and the `command` of `builder: command`:
    `dev` and `run` refuse to start while one of them is not trusted. What is trusted are the
    commands as they stand, in this directory: one that is edited, or comes with a pull, is asked
    for again. What a script that they call does is not looked into.
    """
    from devloop.app.trust import host_commands, trusted  # noqa: PLC0415 - only for this command

    loaded = load(options)
    root = loaded.project.root
    store = trusted(os.environ)
    if revoke:
        had = store.remove(root)
        click.echo("nothing is trusted here any more" if had else "nothing was trusted here")
        return ExitStatus.DONE
    commands = host_commands(loaded)
    missing = {each.digest for each in store.missing(root, commands)}
    if not only_list and missing:
        store.add(root, commands)
        if store.missing(root, commands):
            raise DevloopError.of(
                Code.ENV_FILE_UNREADABLE,
                "what is trusted cannot be written down",
                suggestions=("`--trust` lets them run for once",),
            )
        # A session that waits for it looks again.
        with contextlib.suppress(OSError):
            os.utime(loaded.project.file)
    if output == "json":
        click.echo(json.dumps(_as_json(commands, missing, written=not only_list), indent=2))
        return ExitStatus.DONE
    if not commands:
        click.echo("devloop.yaml has nothing run on this computer: nothing is to be trusted")
    for each in commands:
        word = "trusted" if not only_list or each.digest not in missing else "not trusted"
        word = "trusted now" if not only_list and each.digest in missing else word
        click.echo(plain(f"{each.location}: {word}: {each.key}: {each.shown}"))
    return ExitStatus.DONE


def _as_json(
    commands: tuple[HostCommand, ...], missing: set[str], *, written: bool
) -> dict[str, object]:
    return {
        "v": 1,
        "commands": [
            {
                "key": each.key,
                "command": list(each.argv),
                "location": str(each.location),
                "trusted": written or each.digest not in missing,
            }
            for each in commands
        ],
    }
