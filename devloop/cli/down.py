"""`devloop down`: delete what devloop created."""

from __future__ import annotations

import contextlib
import sys

import click

from devloop.cli.options import CommonOptions, load, project_options
from devloop.errors import Code, DevloopError, ExitStatus


@click.command("down")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@project_options
def command(options: CommonOptions, yes: bool, dry_run: bool) -> int:
    """Delete what devloop itself created for this project, nothing else.

    What existed before devloop, and what others created, stays as it is. Refused while a session of
    the project runs, which would create it all again.
    """
    project = load(options).project
    from devloop.app import connect  # noqa: PLC0415 - see main.py: help must stay quick
    from devloop.app.lock import only_session  # noqa: PLC0415 - as above
    from devloop.cluster.deploy.down import delete, find_created  # noqa: PLC0415 - as above

    lock = contextlib.nullcontext() if dry_run else only_session(project)
    with lock, connect(project) as connection:
        created = find_created(connection, project.name)
        if not created:
            click.echo(f"nothing to delete: devloop created nothing for {project.name} here")
            return ExitStatus.DONE
        for each in created:
            click.echo(f"  {each}")
        where = f"{connection.context}, project {project.name}"
        if dry_run:
            click.echo(f"would delete {len(created)} objects from {where}")
            return ExitStatus.DONE
        if not yes:
            _ask(len(created), where)
        for each in created:
            gone = "deleted" if delete(connection, each) else "was gone already"
            click.echo(f"{gone:<8} {each}")
    return ExitStatus.DONE


def _ask(count: int, where: str) -> None:
    if not sys.stdin.isatty():
        raise DevloopError.of(
            Code.USAGE_ARGUMENTS,
            "devloop down asks before it deletes, and there is no terminal to ask on",
            suggestions=("add --yes",),
        )
    click.confirm(f"delete these {count} objects from {where}?", abort=True)
