"""`devloop postrender`, which only Helm calls: see manifests/post_render.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from devloop.errors import ExitStatus

if TYPE_CHECKING:
    from typing import BinaryIO


@click.command("postrender", hidden=True)
@click.argument("pins", type=click.File("rb"))
def command(pins: BinaryIO) -> int:
    """Write PINS into the manifests on standard input."""
    from devloop.manifests.post_render import post_rendered  # noqa: PLC0415 - see main.py

    text = sys.stdin.buffer.read().decode("utf-8", "replace")
    click.echo(post_rendered(text, pins.read()), nl=False)
    return ExitStatus.DONE
