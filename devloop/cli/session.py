"""Running a session from the command line: its project, its output, its exit status."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from devloop import __version__
from devloop.cli.signals import Signals
from devloop.config.places import FILE_NAME, SKAFFOLD_NAMES
from devloop.ui import report_early
from devloop.ui.sanitize import plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from devloop.cli.options import CommonOptions
    from devloop.config.loader import LoadedProject


takeover_option = click.option(
    "--takeover",
    is_flag=True,
    help="Take the workloads over from another devloop session, which ends.",
)

suspend_gitops_option = click.option(
    "--suspend-gitops",
    is_flag=True,
    help="Suspend what of Flux or Argo CD owns the workloads until the session ends.",
)

pull_option = click.option(
    "--pull",
    is_flag=True,
    help="Take base images from their registry, whatever the local Docker has.",
)

trust_option = click.option(
    "--trust",
    is_flag=True,
    envvar="DEVLOOP_TRUST",
    help="Run the commands of devloop.yaml on this computer for once, trusted or not.",
)

Output = Literal["auto", "live", "lines", "json", "quiet"]
OUTPUTS = ("auto", "live", "lines", "json", "quiet")

events_option = click.option(
    "-o",
    "--output",
    type=click.Choice(OUTPUTS),
    default="auto",
    show_default=True,
    help="How to report what is done; `json` is the event stream.",
)

images_option = click.option(
    "--images",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The images, as `devloop build --file-output FILE` wrote them.",
)

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
    suspend_gitops: bool = False,
    pull: bool = False,
    trust: bool = False,
    page: int | None = None,
    builds: bool = True,
    images: Path | None = None,
) -> int:
    """Run a session to its end; returns the exit status. Errors before it could start raise."""
    with Signals(limit=_LIMIT) as signals, _uncollected():
        # Before anything is imported that takes as long as a person notices.
        what = mode if builds else "deploy"
        text = f"{__version__} {what}: reading {plain(_shown(options))}"
        report_early(text, output, color=options.color, env=os.environ)
        from devloop.app.session import Session  # noqa: PLC0415 - see main.py: help must stay quick

        # A thread that wakes for a save must not wait 5 ms for each that reads or prints logs.
        sys.setswitchinterval(_TURN)
        session = Session(
            SessionProject(options).load,
            mode=mode,
            only=services,
            output=output,
            tail=tail,
            takeover=takeover,
            suspend_gitops=suspend_gitops,
            pull=pull,
            trust=trust,
            page=page,
            builds=builds,
            images=images,
            color=options.color,
        )
        signals.stop = session.stop
        signals.before_leaving = session.release_terminal
        return session.run()


def _shown(options: CommonOptions) -> str:
    """The file that is read first, as far as one look tells."""
    names = (FILE_NAME, *SKAFFOLD_NAMES)
    return str(options.file or next(filter(os.path.exists, names), FILE_NAME))


def run_build(
    options: CommonOptions,
    *,
    services: tuple[str, ...],
    output: Output,
    pull: bool = False,
    trust: bool = False,
    stream: TextIO | None = None,
    project: SessionProject | None = None,
    **how: Any,
) -> int:
    """As `run_session`, for a session that builds only; `how` are the settings of `BuildSession`.
    Reports go to `stream`, by default standard output."""
    with Signals(limit=_LIMIT) as signals, _uncollected():
        from devloop.app.build_session import BuildSession  # noqa: PLC0415 - as above

        session = BuildSession(
            (project or SessionProject(options)).load,
            mode="run",
            only=services,
            output=output,
            pull=pull,
            trust=trust,
            stream=stream,
            color=options.color,
            **how,
        )
        signals.stop = session.stop
        signals.before_leaving = session.release_terminal
        return session.run()


class SessionProject:
    """The project of one session, which reads it more than once: what is assumed without a
    devloop.yaml is worked out and shown once, and holds until there is one."""

    def __init__(self, options: CommonOptions) -> None:
        self._options = options
        self._assumed: LoadedProject | None = None

    def load(self) -> LoadedProject:
        """Errors: as `load_or_assume`."""
        from devloop.cli.options import load_or_assume  # noqa: PLC0415 - see main.py

        if self._assumed is not None and not self._assumed.project.file.exists():
            return self._assumed
        told: list[str] = []
        loaded = load_or_assume(self._options, told.append)
        for text in told:
            tell_assumed(text)
            self._assumed = loaded
        return loaded


def tell_assumed(text: str) -> None:
    """Show what is gone on with where there is no devloop.yaml."""
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
