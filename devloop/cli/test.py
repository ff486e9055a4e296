"""`devloop test`: the images, and the services' tests in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from devloop.cli.options import CommonOptions, project_options
from devloop.cli.session import (
    Output,
    events_option,
    images_option,
    pull_option,
    run_build,
    trust_option,
)
from devloop.cli.suggestions import service_names

if TYPE_CHECKING:
    from pathlib import Path


@click.command("test")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=service_names)
@click.option(
    "--push", is_flag=True, help="Push the images; otherwise they are in the local Docker."
)
@images_option
@events_option
@pull_option
@trust_option
@project_options
def command(
    options: CommonOptions,
    services: tuple[str, ...],
    *,
    push: bool,
    images: Path | None,
    output: Output,
    pull: bool,
    trust: bool,
) -> int:
    """Build the image of each SERVICE and run its `test` in it; deploy nothing.

    Without SERVICE all of them; those without a `test` are built. Ends with 1 if one fails. What is
    built already is not built again, and with --images nothing is. Needs a Docker, and no cluster.
    """
    if push and images is not None:
        raise click.UsageError("--push is for images that are built, and --images are there")
    return run_build(
        options,
        services=services,
        output=output,
        pull=pull,
        trust=trust,
        push=push,
        tests=True,
        images=images,
    )
