"""`devloop test`: the images, and the services' tests in them."""

from __future__ import annotations

import click

from devloop.cli.options import CommonOptions, project_options
from devloop.cli.session import Output, events_option, pull_option, run_build, trust_option
from devloop.cli.suggestions import service_names


@click.command("test")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=service_names)
@click.option(
    "--push", is_flag=True, help="Push the images; otherwise they are in the local Docker."
)
@events_option
@pull_option
@trust_option
@project_options
def command(
    options: CommonOptions,
    services: tuple[str, ...],
    *,
    push: bool,
    output: Output,
    pull: bool,
    trust: bool,
) -> int:
    """Build the image of each SERVICE and run its `test` in it; deploy nothing.

    Without SERVICE all of them; those without a `test` are built. Ends with 1 if one fails. What is
    built already is not built again.
    """
    return run_build(
        options, services=services, output=output, pull=pull, trust=trust, push=push, tests=True
    )
