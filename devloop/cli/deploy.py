"""`devloop deploy`: what `run` does after the build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from devloop.cli.options import CommonOptions, project_options
from devloop.cli.session import (
    Output,
    events_option,
    images_option,
    run_session,
    takeover_option,
    trust_option,
)
from devloop.cli.suggestions import service_names

if TYPE_CHECKING:
    from pathlib import Path


@click.command("deploy")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=service_names)
@images_option
@events_option
@takeover_option
@trust_option
@project_options
def command(
    options: CommonOptions,
    services: tuple[str, ...],
    *,
    images: Path | None,
    output: Output,
    takeover: bool,
    trust: bool,
) -> int:
    """Deploy images that are built already, wait for the rollout, and end with the result.

    The images are those of --images, without it those that `devloop build --push` made of what is
    on disk. A rollout that fails is rolled back to the previous image, unless devloop.yaml says
    `on_failure: keep`.
    """
    return run_session(
        options,
        mode="run",
        services=services,
        output=output,
        takeover=takeover,
        trust=trust,
        builds=False,
        images=images,
    )
