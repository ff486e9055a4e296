"""`devloop dev`: the loop."""

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


@click.command("dev")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=service_names)
@click.option("--output", type=click.Choice(OUTPUTS), default="auto", show_default=True)
@click.option(
    "--web",
    is_flag=False,
    flag_value="",
    metavar="[PORT]",
    help="Serve the session's page to your browser; without PORT at any port that is free.",
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
    web: str | None,
    pull: bool,
    takeover: bool,
    trust: bool,
    suspend_gitops: bool,
) -> int:
    """Deploy, then rebuild and replace the pods at every save, until Ctrl-C.

    Nothing is committed, and nothing is deleted at the end: the pods keep running.
    """
    if web and not web.isdecimal():
        # What stands behind an option whose value can be left out is taken for that.
        services, web = (web, *services), ""
    return run_session(
        options,
        mode="dev",
        services=services,
        output=output,
        takeover=takeover,
        trust=trust,
        suspend_gitops=suspend_gitops,
        pull=pull,
        page=None if web is None else _port(web),
    )


def _port(text: str) -> int:
    port = int(text or 0)
    if port > 65535:
        raise click.BadParameter("a port is at most 65535", param_hint="--web")
    return port
