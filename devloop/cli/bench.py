"""`devloop bench`: how long a save takes to be served here, stage by stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from devloop.cli.options import CommonOptions, load, project_options
from devloop.cli.signals import interruptible
from devloop.cli.suggestions import service_names
from devloop.errors import Code, DevloopError, ExitStatus

if TYPE_CHECKING:
    from devloop.config.schema import Project


@click.command("bench")
@click.argument("service", required=False, shell_complete=service_names)
@click.option(
    "-N", "--edits", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N"
)
@click.option(
    "--edit",
    "edited",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="PATH",
    help="The file to edit; default: the text file of the service that was written last.",
)
@click.option(
    "--pause",
    type=click.FloatRange(0, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait between an edit that is served and the next.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@project_options
def command(
    options: CommonOptions,
    *,
    service: str | None,
    edits: int,
    edited: Path | None,
    pause: float,
    output: str,
) -> int:
    """Time `devloop dev` from the save of a file to a ready pod, against a baseline.

    A session is started and ended; one file gets empty lines at its end and is put back as it was.
    The baseline is what it takes to replace the image, in the same way, by one that is pushed
    already.
    """
    project = load(options).project
    from devloop.app.bench import BenchPlan, bench, pick_file  # noqa: PLC0415 - see main.py
    from devloop.app.bench_report import as_json, as_table  # noqa: PLC0415 - as above
    from devloop.app.session import chosen  # noqa: PLC0415 - as above

    if service is None and len(project.services) > 1:
        names = "services: " + ", ".join(project.services)
        raise DevloopError.of(Code.USAGE_ARGUMENTS, "which service?", cause=names)
    (only,) = chosen(project, (service,) if service else ()).values()
    file = edited.resolve() if edited else pick_file(only, project)
    plan = BenchPlan(
        service=only, file=file, edits=edits, pause=pause, arguments=_arguments(options, project)
    )
    report = interruptible(
        lambda cancel: bench(project, plan, lambda line: click.echo(line, err=True), cancel)
    )
    click.echo(json.dumps(as_json(report)) if output == "json" else as_table(report))
    return ExitStatus.DONE


def _arguments(options: CommonOptions, project: Project) -> tuple[str, ...]:
    """The options for a session on the same project in the same place."""
    given = {name: getattr(options, name) for name in ("context", "namespace", "registry")}
    pairs = [("--file", str(project.file)), *(("--set", each) for each in options.sets)]
    pairs += [(f"--{name}", value) for name, value in given.items() if value is not None]
    return tuple(word for pair in pairs for word in pair)
