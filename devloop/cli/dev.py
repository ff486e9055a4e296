"""`devloop dev`: the loop."""

from __future__ import annotations

import click

from devloop.cli.options import CommonOptions, project_options
from devloop.cli.session import OUTPUTS, Output, pull_option, run_session, takeover_option
from devloop.cli.suggestions import service_names


@click.command("dev")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=service_names)
@click.option("--output", type=click.Choice(OUTPUTS), default="auto", show_default=True)
@pull_option
@takeover_option
@project_options
def command(
    options: CommonOptions,
    services: tuple[str, ...],
    output: Output,
    pull: bool,
    takeover: bool,
) -> int:
    """Deploy, then rebuild and replace the pods at every save, until Ctrl-C.

    Nothing is committed, and nothing is deleted at the end: the pods keep running.
    """
    return run_session(
        options, mode="dev", services=services, output=output, takeover=takeover, pull=pull
    )
