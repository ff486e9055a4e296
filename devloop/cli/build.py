"""`devloop build`: the images alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from devloop.cli.options import CommonOptions, project_options
from devloop.cli.session import Output, events_option, pull_option, run_build, trust_option
from devloop.cli.suggestions import service_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.config.loader import LoadedProject
    from devloop.model import ImageRef


@click.command("build")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=service_names)
@click.option("--push", is_flag=True, help="Push them; otherwise they are in the local Docker.")
@click.option(
    "--file-output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write what was built there, for `render` and `deploy --images FILE`.",
)
@click.option("--tag", metavar="TAG", default="", help="One more tag for each image.")
@events_option
@pull_option
@trust_option
@project_options
def command(
    options: CommonOptions,
    services: tuple[str, ...],
    *,
    push: bool,
    file_output: Path | None,
    tag: str,
    output: Output,
    pull: bool,
    trust: bool,
) -> int:
    """Build the image of each SERVICE, of all where none is named, and deploy nothing.

    Needs no cluster where devloop.yaml or --registry says where to push. Images are for
    `build.platform`, else for this computer's; where the cluster is asked for its registry, for the
    platform of its nodes. What is built already is not built again.
    """
    from devloop.app.image_file import write_images  # noqa: PLC0415 - see main.py

    def finish(_loaded: LoadedProject, images: Mapping[str, ImageRef]) -> None:
        if file_output is not None:
            write_images(file_output, images)

    return run_build(
        options,
        services=services,
        output=output,
        pull=pull,
        trust=trust,
        push=push,
        tag=tag,
        writes=file_output,
        finish=finish,
    )
