"""`devloop restore`: workloads as they were before devloop."""

from __future__ import annotations

import json

import click

from devloop.cli.options import CommonOptions, load, output_option, project_options
from devloop.cli.suggestions import service_names
from devloop.errors import ExitStatus


@click.command("restore")
@click.argument("services", nargs=-1, metavar="[SERVICE...]", shell_complete=service_names)
@click.option("--dry-run", is_flag=True, help="Only say what would be restored.")
@output_option
@project_options
def command(options: CommonOptions, services: tuple[str, ...], dry_run: bool, output: str) -> int:
    """Put the workloads of each SERVICE back as they were before devloop first changed them.

    Their spec is that of then, to the byte, whatever a session that was killed left; it is waited
    for their pods. What devloop itself created stays: `devloop down` deletes that. Without SERVICE
    all of them. Refused while a session runs, which would change them again.
    """
    from devloop.app.restore import restore_workloads  # noqa: PLC0415 - see main.py
    from devloop.ui.sanitize import plain  # noqa: PLC0415 - as above

    def say(text: str) -> None:
        click.echo(plain(text), err=output == "json")

    done = restore_workloads(load(options), services, say, dry_run=dry_run)
    if output == "json":
        workloads = [
            {
                "workload": str(each.workload),
                "namespace": each.workload.namespace,
                "outcome": each.what,
                "images": each.images,
                "ready": ready,
            }
            for each, ready in done
        ]
        click.echo(json.dumps({"workloads": workloads}))
    return ExitStatus.DONE
