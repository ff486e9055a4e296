"""`devloop render`: what a deploy applies, for others to apply."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from devloop.cli.options import CommonOptions, project_options
from devloop.cli.session import SessionProject, images_option, pull_option, run_build, trust_option
from devloop.cli.suggestions import service_names
from devloop.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.cluster.deploy.objects import PlannedObject
    from devloop.config.loader import LoadedProject
    from devloop.errors import Diagnosis
    from devloop.model import ImageRef


@click.command("render")
@click.argument("services", nargs=-1, metavar="[SERVICE]...", shell_complete=service_names)
@click.option(
    "-o",
    "to",
    metavar="FILE|DIR",
    help="Write there: all in a file, or one file for each object in a directory.",
)
@images_option
@click.option(
    "--push",
    metavar="oci://REPO[:TAG]",
    help="Push them as an artifact that Flux and Argo CD take; prints its digest.",
)
@click.option("--source", default="", metavar="URL", help="Of the artifact: where it is from.")
@click.option("--revision", default="", metavar="REV", help="Of the artifact: what it is made of.")
@pull_option
@trust_option
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="`json`: a List, or with -o FILE|DIR and --push what was written where.",
)
@project_options
def command(
    options: CommonOptions,
    services: tuple[str, ...],
    *,
    to: str | None,
    images: Path | None,
    push: str | None,
    source: str,
    revision: str,
    pull: bool,
    trust: bool,
    output: str,
) -> int:
    """Print the manifests of each SERVICE, of all where none is named, pinned by digest.

    They are what `devloop run` applies, without what marks them as devloop's. No cluster is asked.
    With --images nothing is built; otherwise images are built and pushed first, as by `devloop
    build --push`. Objects without a namespace stay so unless `namespace` or -n gives one. A
    directory is one that is there, or a name that ends in a slash or has no dot; what an earlier
    rendering wrote there and this one does not is removed.
    """
    from devloop.app.artifact import annotations_of, parse_name  # noqa: PLC0415 - see main.py
    from devloop.app.render import rendered  # noqa: PLC0415 - as above

    target = parse_name(push) if push else None
    annotations = annotations_of(source, revision, os.environ)
    status, loaded, found = _images(options, services, images, pull=pull, trust=trust)
    if loaded is None:
        return status
    objects = rendered(loaded, found, _note)
    done: dict[str, Any] = {
        "images": {name: image.pinned for name, image in found.items()},
        "objects": [str(each) for each in objects],
    }
    if to is not None:
        _write(to, objects)
        done["written"] = to
    if target is not None:
        done["artifact"] = _push(target, objects, annotations)
    _print(done, objects, output)
    return ExitStatus.DONE


def _images(
    options: CommonOptions,
    services: tuple[str, ...],
    file: Path | None,
    *,
    pull: bool,
    trust: bool,
) -> tuple[int, LoadedProject | None, Mapping[str, ImageRef]]:
    """The images to render with: those of the file, or built now. No project where that failed,
    as was reported."""
    from devloop.app import render  # noqa: PLC0415 - see main.py
    from devloop.app.image_file import images_for  # noqa: PLC0415 - as above

    project = SessionProject(options)
    loaded = project.load()
    render.check_manifest_files(loaded)
    render.need_registry(loaded, file)
    if file is not None:
        wanted = render.services_to_render(loaded, services)
        return ExitStatus.DONE, loaded, images_for(file, wanted)
    built: dict[str, ImageRef] = {}

    def finish(_: LoadedProject, images: Mapping[str, ImageRef]) -> None:
        built.update(images)

    status = run_build(
        options,
        project=project,
        services=services,
        output="lines",
        pull=pull,
        trust=trust,
        push=True,
        stream=sys.stderr,
        more=render.used_as_well,
        finish=finish,
    )
    return status, loaded if built else None, built


def _write(to: str, objects: tuple[PlannedObject, ...]) -> None:
    from devloop.app import rendered as writing  # noqa: PLC0415 - see main.py

    path = Path(to)
    if to == "-":
        return
    if writing.is_directory(path, to):
        writing.write_directory(path, writing.files_of(objects), _note)
    else:
        writing.write_documents(path, objects)


def _push(target: Any, objects: tuple[PlannedObject, ...], annotations: Mapping[str, str]) -> str:
    from devloop.app.artifact import push_artifact  # noqa: PLC0415 - see main.py
    from devloop.app.rendered import files_of  # noqa: PLC0415 - as above
    from devloop.base.cancel import Cancel  # noqa: PLC0415 - as above

    return push_artifact(target, files_of(objects), annotations, Cancel())


def _print(done: Mapping[str, Any], objects: tuple[PlannedObject, ...], output: str) -> None:
    """The manifests, where they were not sent elsewhere; else where they are."""
    from devloop.app.rendered import documents  # noqa: PLC0415 - see main.py

    elsewhere = done.get("written", "-") != "-" or "artifact" in done
    if output == "json":
        listed = {"apiVersion": "v1", "kind": "List", "items": [each.object for each in objects]}
        click.echo(json.dumps(done if elsewhere else listed))
    elif not elsewhere:
        click.echo(documents(objects), nl=False)
    elif "artifact" in done:
        click.echo(done["artifact"])


def _note(diagnosis: Diagnosis) -> None:
    from devloop.ui.text import format_diagnosis  # noqa: PLC0415 - see main.py

    click.echo(format_diagnosis(diagnosis, color=False, width=100), err=True)
