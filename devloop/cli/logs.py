"""`devloop logs`: what the containers wrote."""

from __future__ import annotations

import sys
from typing import Any

import click

from devloop.cli.options import CommonOptions, options_but_f, output_option
from devloop.cli.reach import recorded, since_option, state_dir
from devloop.cli.suggestions import service_names
from devloop.errors import ExitStatus


@click.command("logs")
@click.argument(
    "service", required=False, default="", metavar="[SERVICE]", shell_complete=service_names
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what they write from now on.")
@since_option
@output_option
@options_but_f
def command(
    options: CommonOptions, service: str, follow: bool, since: float | None, output: str
) -> int:
    """Print what the containers of all services wrote, or of SERVICE alone: `[SERVICE POD] text`.

    As much of it as the running session keeps; without one, what the last wrote down, with --since
    that of earlier ones too. `-f` is short for --follow here, not for --file.
    """
    from devloop.control.protocol import EventsRequest  # noqa: PLC0415 - see main.py

    request = EventsRequest(follow=follow, logs=True, service=service)
    written = _LogText()
    out = sys.stdout.buffer
    for line, record in recorded(state_dir(options), request, since):
        if record.get("type") not in ("log", "dropped"):
            continue
        text = line if output == "json" else f"{written.line(record)}\n".encode()
        out.write(text)
        if follow:
            out.flush()
    return ExitStatus.DONE


class _LogText:
    """Records as lines; the container is named once a service has shown several."""

    def __init__(self) -> None:
        self._containers: dict[str, set[str]] = {}

    def line(self, record: dict[str, Any]) -> str:
        from devloop.ui.sanitize import plain  # noqa: PLC0415 - see main.py

        if record["type"] == "dropped":
            return f"devloop: {record['count']} lines or events before this are not kept"
        service, container = record["service"], record["container"]
        known = self._containers.setdefault(service, set())
        known.add(container)
        named = f" {container}" if len(known) > 1 else ""
        head = f"[{service} {record['pod'].rpartition('-')[2]}{named}]"
        return f"{head} {plain(record['text'])}".rstrip()
