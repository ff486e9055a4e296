"""`devloop check`: what is wrong with devloop.yaml and the files it names.

Writes nothing, but where there is no devloop.yaml, what is assumed, into devloop's own directory.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, Literal

import click

from devloop.cli.options import CommonOptions, load_or_assume, output_option, project_options
from devloop.cli.session import tell_assumed
from devloop.errors import DevloopError, Diagnosis, ExitStatus
from devloop.ui.text import explanation, problem_line

if TYPE_CHECKING:
    from devloop.config.loader import LoadedProject


@click.command("check")
@output_option
@project_options
def command(options: CommonOptions, output: Literal["text", "json"]) -> int:
    """Validate devloop.yaml and the files it names.

    Looks into Dockerfiles and manifests as `run` would. Prints one line a problem, as
    path:line:column: error[code]: message, and ends with 2 if there is any, whatever it hints at.
    Touches neither Docker nor a cluster, but where there is no devloop.yaml: what is checked then
    is what `run` would assume, a running Deployment included.
    """
    from devloop.app.project_check import check_project  # noqa: PLC0415 - only for this command

    loaded: LoadedProject | None = None
    try:
        loaded = load_or_assume(options, tell_assumed)
    except DevloopError as error:
        found = error.diagnoses
    else:
        found = (*loaded.notes, *check_project(loaded))
    wrong = [diagnosis for diagnosis in found if diagnosis.severity == "error"]
    if output == "json":
        click.echo(json.dumps(_as_json(loaded, found), indent=2))
    elif loaded is not None and not wrong:
        services = len(loaded.project.services)
        shown = loaded.locations.file.path
        ok = f"ok, {services} service{'s' if services != 1 else ''}"
        click.echo(", ".join([f"{shown}: {ok}", *(f"profile {p}" for p in loaded.profiles)]))
    for diagnosis in found if output == "text" else ():
        click.echo("\n".join((problem_line(diagnosis), *explanation(diagnosis))))
    if not wrong:
        return ExitStatus.DONE
    return max(ExitStatus.USAGE, *(diagnosis.code.exit_status for diagnosis in wrong))


def _as_json(loaded: LoadedProject | None, found: tuple[Diagnosis, ...]) -> dict[str, Any]:
    """The same with the keys that `diagnostic` events have."""
    return {
        "v": 1,
        "ok": all(each.severity != "error" for each in found),
        "file": loaded.locations.file.path if loaded else None,
        "services": list(loaded.project.services) if loaded else [],
        "profiles": [each.name for each in loaded.profiles] if loaded else [],
        "diagnostics": [dataclasses.asdict(each) for each in found],
    }
