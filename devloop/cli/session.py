"""Running a session from the command line: its project, its output, its exit status."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING, Literal

import click

from devloop import __version__
from devloop.cli.signals import Signals
from devloop.ui import report_early
from devloop.ui.sanitize import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.cli.options import CommonOptions


takeover_option = click.option(
    "--takeover",
    is_flag=True,
    help="Take the workloads over from another devloop session, which ends.",
)

pull_option = click.option(
    "--pull",
    is_flag=True,
    help="Take base images from their registry, whatever the local Docker has.",
)

Output = Literal["auto", "live", "lines", "json", "quiet"]
OUTPUTS = ("auto", "live", "lines", "json", "quiet")

# From the first Ctrl-C to being gone, whatever a library is stuck in.
_LIMIT = 1.9

# Seconds that a busy thread may keep the interpreter from the others.
_TURN = 0.001


def run_session(
    options: CommonOptions,
    *,
    mode: Literal["dev", "run"],
    services: tuple[str, ...],
    output: Output,
    tail: bool = False,
    takeover: bool = False,
    pull: bool = False,
    page: int | None = None,
) -> int:
    """Run a session to its end; returns the exit status. Errors before it could start raise."""
    with Signals(limit=_LIMIT) as signals, _uncollected():
        # Before anything is imported that takes as long as a person notices.
        text = f"{__version__} {mode}: reading {plain(str(options.file or 'devloop.yaml'))}"
        report_early(text, output, color=options.color, env=os.environ)
        from devloop.app.session import Session  # noqa: PLC0415 - see main.py: help must stay quick
        from devloop.cli.options import load_or_assume  # noqa: PLC0415 - as above

        told = AssumedNotice()
        # A thread that wakes for a save must not wait 5 ms for each that reads or prints logs.
        sys.setswitchinterval(_TURN)
        session = Session(
            lambda: load_or_assume(options, told.tell),
            mode=mode,
            only=services,
            output=output,
            tail=tail,
            takeover=takeover,
            pull=pull,
            page=page,
            color=options.color,
        )
        signals.stop = session.stop
        signals.before_leaving = session.release_terminal
        return session.run()


class AssumedNotice:
    """Shows once what was assumed where there is no devloop.yaml: a session reads its configuration
    more than once."""

    def __init__(self) -> None:
        self._told = False

    def tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            head = "devloop: no devloop.yaml here; this is assumed (`devloop init` writes it):"
            click.echo(f"{head}\n\n{text}", err=True)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Imports leave no garbage, but looking for it is a tenth of their time. A session has it
    collected from the moment when it has imported everything."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
