"""`devloop clean`: remove the images and files that devloop left behind."""

from __future__ import annotations

import functools
import json
from collections import Counter
from typing import TYPE_CHECKING

import click

from devloop.cli.options import CommonOptions, ask, load, output_option, project_options
from devloop.errors import ExitStatus

if TYPE_CHECKING:
    from devloop.app.clean import Cleaning


@click.command("clean")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Keep the last N images of each service.",
)
@output_option
@project_options
def command(options: CommonOptions, yes: bool, dry_run: bool, keep: int, output: str) -> int:
    """Remove what devloop made for this project and nothing needs any more.

    Images go from the registry and from the local Docker, half-written files from .devloop. What
    the cluster runs, or could go back to, stays. In a registry that `devloop cluster up` made, the
    space is freed as well; it stops for a second or two for that, which is confirmed first where
    other projects have images in it.
    """
    project = load(options).project
    from devloop.app.clean import clean  # noqa: PLC0415 - see main.py: help must stay quick

    confirm = functools.partial(_confirm, yes=yes)
    done = clean(project, keep=keep, dry_run=dry_run, confirm=confirm)
    click.echo(json.dumps(_as_json(done)) if output == "json" else _as_text(done))
    return ExitStatus.DONE


def _confirm(host: str, others: tuple[str, ...], *, yes: bool) -> None:
    if yes:
        return
    names = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    ask(
        f"{host} has images of {names} as well and stops for a moment; go on?",
        refusal=f"devloop clean asks before it stops the registry {host} for a moment, which others"
        " use as well",
        cause=f"it has images of {names}",
        err=True,
    )


def _as_json(done: Cleaning) -> dict[str, object]:
    return {
        "dry_run": done.dry_run,
        "registry": {
            "host": done.host,
            "manifests": [f"{m.repository}@{m.digest}" for m in done.found.manifests],
            "in_use": done.found.used,
        },
        "docker": list(done.found.local),
        "files": [str(path) for path in done.found.files],
        "removed": None
        if done.removed is None
        else {
            "manifests": done.removed.manifests,
            "images": done.removed.local,
            "files": done.removed.files,
            "blobs": done.blobs,
        },
        "problems": list(done.removed.problems) if done.removed else [],
    }


def _as_text(done: Cleaning) -> str:
    found, removed = done.found, done.removed
    used = f"; {_count(found.used, 'image')} in use stay" if found.used else ""
    if not found:
        return f"nothing to remove{used}"
    lines: list[str] = []
    verb = "would remove" if removed is None else "removed"
    per_repository = Counter(made.repository for made in found.manifests)
    if removed is None or removed.manifests:
        lines += [f"{verb} {_count(n, 'image')} of {r}" for r, n in per_repository.items()]
    local = len(found.local) if removed is None else removed.local
    if local:
        lines.append(f"{verb} {_count(local, 'image')} from the local Docker")
    files = len(found.files) if removed is None else removed.files
    if files:
        lines.append(f"{verb} {_count(files, 'half-written file')}")
    if done.blobs:
        lines.append(f"freed {_count(done.blobs, 'blob')} in the registry")
    lines += [f"left: {problem}" for problem in (removed.problems if removed else ())]
    return "\n".join(lines) + used


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
