"""`devloop down`: delete what devloop created."""

from __future__ import annotations

import contextlib
from itertools import chain

import click

from devloop.cli.options import CommonOptions, ask, load, project_options
from devloop.errors import ExitStatus


@click.command("down")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@project_options
def command(options: CommonOptions, yes: bool, dry_run: bool) -> int:
    """Delete what devloop itself created for this project in its namespace, and in those that its
    manifests name; nothing else.

    What existed before devloop, and what others created, stays as it is. Refused while a session of
    the project runs, which would create it all again.
    """
    project = load(options).project
    # Imported late, see main.py: help must stay quick.
    from devloop.app import connect, only_session  # noqa: PLC0415
    from devloop.app.workloads import (  # noqa: PLC0415 - as above
        installed_releases,
        namespaces_of,
        renderings_for,
        workloads_of,
    )
    from devloop.cluster.deploy.down import delete, find_created  # noqa: PLC0415 - as above
    from devloop.cluster.deploy.gitops import resume_left  # noqa: PLC0415 - as above
    from devloop.cluster.deploy.recovery import (  # noqa: PLC0415 - as above
        recover,
        recover_abandoned,
        remove_abandoned_leases,
    )
    from devloop.cluster.replace.recovery_log import RecoveryLog  # noqa: PLC0415 - as above

    lock = contextlib.nullcontext() if dry_run else only_session(project)
    with lock, connect(project) as connection:
        renderings = renderings_for(project.services.values(), namespace=connection.namespace)
        if not dry_run:
            # What stays must not stay as a killed session left it.
            workloads = workloads_of(project, project.services, renderings, connection)
            refs = tuple(dict.fromkeys(chain(*workloads.values())))
            found = recover(connection, RecoveryLog(project.state_dir))
            left = resume_left(connection, project.state_dir)
            for diagnosis in (*left, *found, *recover_abandoned(connection, refs)):
                click.echo(diagnosis.message)
            remove_abandoned_leases(connection, [ref for ref in refs if ref.serves])
        found_all = find_created(connection, project.name)
        # Somebody else may work on the same project in a namespace of their own.
        here = {"", *namespaces_of(renderings.values(), connection.namespace)}
        created = tuple(each for each in found_all if not each.manager and each.place in here)
        for each in found_all:
            if each.manager:
                click.echo(f"left     {each}: {each.manager} manages it")
        for place in sorted({each.place for each in found_all} - here):
            count = sum(each.place == place for each in found_all)
            click.echo(
                f"left     {count} in {place}: `devloop down -n {place}` is for that namespace"
            )
        releases = installed_releases(project, connection)
        if not created and not releases:
            click.echo(f"nothing to delete: devloop created nothing for {project.name} here")
            return ExitStatus.DONE
        for line in (*created, *(f"release {each.name}" for each in releases)):
            click.echo(f"  {line}")
        count = len(created) + len(releases)
        where = f"{connection.context}, project {project.name}"
        if dry_run:
            click.echo(f"would delete {count} objects from {where}")
            return ExitStatus.DONE
        if not yes:
            refusal = "devloop down asks before it deletes"
            ask(f"delete these {count} objects from {where}?", refusal=refusal)
        for release in releases:
            click.echo(f"deleted  {release.remove()}")
        for each in created:
            gone = "deleted" if delete(connection, each) else "was gone already"
            click.echo(f"{gone:<8} {each}")
    return ExitStatus.DONE
