"""`devloop init`: a first devloop.yaml, from what is in the folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from devloop.cli.options import CommonOptions, flags_of
from devloop.cli.suggestions import context_names
from devloop.errors import ExitStatus

if TYPE_CHECKING:
    from devloop.app.starter.start import FirstFile


@click.command("init")
@click.argument("name", required=False, default="", metavar="[NAME]")
@click.option("--force", is_flag=True, help="Overwrite a devloop.yaml that is there.")
@click.option("--print", "only_print", is_flag=True, help="Write nothing, print the file.")
@click.option(
    "--from",
    "from_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The skaffold.yaml to write a devloop.yaml of, elsewhere or by another name.",
)
@click.option(
    "--context",
    metavar="NAME",
    help="Look for running Deployments here; default: the current kubeconfig context.",
    shell_complete=context_names,
)
@click.option("-n", "--namespace", metavar="NAME", help="Look for running Deployments here.")
def command(
    name: str,
    *,
    force: bool,
    only_print: bool,
    from_file: Path | None,
    context: str | None,
    namespace: str | None,
) -> int:
    """Write a short devloop.yaml for the Dockerfiles, manifests and Compose files found here.

    Where there is a skaffold.yaml, the devloop.yaml does the same as it does. Else NAME is the
    service's, where there is one. Without any manifests and without a Deployment of its
    name in a local cluster, the project gets a k8s.yaml with a Deployment and a Service as well.
    What was assumed is printed; nothing that is there is overwritten without --force.
    """
    # Imported late, see main.py: help must stay quick.
    from devloop.app.starter.start import first_file, schema_file, write  # noqa: PLC0415
    from devloop.config.places import FILE_NAME, SKAFFOLD_NAMES  # noqa: PLC0415 - as above

    options = CommonOptions(context=context, namespace=namespace)
    skaffold = next((Path(each) for each in SKAFFOLD_NAMES if Path(each).is_file()), None)
    if from_file is None and not name:
        from_file = skaffold
    if from_file is not None:
        return _convert(from_file, options, force=force, only_print=only_print)
    start = first_file(Path.cwd(), os.environ, flags_of(options), name=name)
    if only_print:
        click.echo(start.text, nl=False)
        for path, text in start.proposal.manifests.items():
            click.echo(f"---\n# {path}\n{text}", nl=False)
        return ExitStatus.DONE
    manifests = dict(start.proposal.manifests)
    write(Path.cwd(), {FILE_NAME: start.text}, force=force, beside=manifests)
    write(Path.cwd(), schema_file(), force=True)
    _tell(start, [FILE_NAME, *manifests])
    return ExitStatus.DONE


def _convert(file: Path, options: CommonOptions, *, force: bool, only_print: bool) -> int:
    from devloop.app.starter.convert import converted  # noqa: PLC0415 - as above
    from devloop.app.starter.start import schema_file, write  # noqa: PLC0415 - as above
    from devloop.config.places import FILE_NAME  # noqa: PLC0415 - as above

    found = converted(file, Path.cwd(), os.environ, flags_of(options))
    click.echo(found.text, nl=False)
    if only_print:
        return ExitStatus.DONE
    write(found.directory, {FILE_NAME: found.text}, force=force)
    write(found.directory, schema_file(), force=True)
    written = os.path.relpath(found.directory / FILE_NAME)
    click.echo(f"\nwrote {written}; from now on it is read, and {file} is not")
    click.echo("next: devloop dev")
    return ExitStatus.DONE


def _tell(start: FirstFile, written: list[str]) -> None:
    proposal = start.proposal
    _list("found", proposal.found)
    _list("assumed", proposal.assumed)
    _list("not used", proposal.unread)
    _list("unsure", proposal.doubts)
    click.echo(f"\n{start.text}")
    click.echo(f"wrote {', '.join(written)}")
    click.echo("next: devloop dev" if not proposal.doubts else "next: edit it, then devloop check")


def _list(head: str, lines: tuple[str, ...]) -> None:
    for position, line in enumerate(lines):
        click.echo(f"{head if position == 0 else '':<9} {line}")
