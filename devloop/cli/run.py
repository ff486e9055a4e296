"""`devloop run`: one pass."""

from __future__ import annotations

import click

from devloop.cli.options import CommonOptions, project_options
from devloop.cli.session import (
    OUTPUTS,
    Output,
    pull_option,
    run_session,
    suspend_gitops_option,
    takeover_option,
    trust_option,
)
from devloop.cli.suggestions import service_names


@click.command("run")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=service_names)
@click.option("--output", type=click.Choice(OUTPUTS), default="auto", show_default=True)
@click.option(
    "--tail", is_flag=True, help="Stay when it is ready: follow the logs, keep the ports open."
)
@pull_option
@takeover_option
@trust_option
@suspend_gitops_option
@project_options
def command(
    options: CommonOptions,
    services: tuple[str, ...],
    *,
    output: Output,
    tail: bool,
    pull: bool,
    takeover: bool,
    trust: bool,
    suspend_gitops: bool,
) -> int:
    """Build, push and deploy once, wait for the rollout, and end with the result.

    A rollout that fails is rolled back to the previous image, unless devloop.yaml says
    `on_failure: keep`.
    """
    return run_session(
        options,
        mode="run",
        services=services,
        output=output,
        tail=tail,
        takeover=takeover,
        trust=trust,
        suspend_gitops=suspend_gitops,
        pull=pull,
    )
