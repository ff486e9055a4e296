"""`devloop why`: the last decision about each service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from devloop.cli.options import CommonOptions, output_option, project_options
from devloop.cli.reach import recorded, state_dir
from devloop.cli.suggestions import service_names
from devloop.errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devloop.control.decisions import Decision


@click.command("why")
@click.argument(
    "service", required=False, default="", metavar="[SERVICE]", shell_complete=service_names
)
@output_option
@project_options
def command(options: CommonOptions, service: str, output: str) -> int:
    """Explain the last decision about each service, or about SERVICE alone.

    What changed, which way it went and why not a faster one, how it ended and what is waited for.
    Without a session it is told from what the last one wrote down.
    """
    from devloop.control.decisions import decisions  # noqa: PLC0415 - see main.py
    from devloop.control.protocol import EventsRequest  # noqa: PLC0415 - as above

    records = recorded(state_dir(options), EventsRequest(quiet=True, service=service), None)
    found = decisions(record for _, record in records)
    chosen = [each for name, each in found.items() if service in ("", name)]
    if output == "json":
        click.echo(json.dumps([each.as_json() for each in chosen]))
        return ExitStatus.DONE
    from devloop.ui.sanitize import plain  # noqa: PLC0415 - see main.py

    if not chosen:
        click.echo("nothing was decided: the session has not begun, or ended before it did")
    for number, each in enumerate(chosen):
        if number:
            click.echo()
        for line in explained(each):
            click.echo(plain(line))
    return ExitStatus.DONE


def explained(decision: Decision) -> Iterator[str]:
    """A decision in lines of text."""
    from devloop.ui.text import count, duration  # noqa: PLC0415 - see main.py

    if decision.iter is None:
        yield f"{decision.service}   nothing has been decided yet"
    else:
        yield f"{decision.service}   #{decision.iter} {_state(decision)}"
        yield _line("because", decision.because)
        if decision.before:
            superseded = count(decision.before, "iteration")
            yield _line("", f"{superseded} before it ended for a newer change")
    for step in decision.steps:
        detail = f"   {step['detail']}" if step["detail"] else ""
        outcome = "" if step["outcome"] == "done" else f" {step['outcome']}"
        yield _line(step["step"], f"{duration(step['ms'])}{outcome}{detail}")
    for reason in decision.why_not:
        yield _line("why not", reason)
    for problem in decision.problems:
        yield _line(problem["severity"], f"{problem['message']}   [{problem['code']}]")
        if problem["cause"]:
            yield _line("", problem["cause"])
    if decision.step:
        yield _line("now", decision.step)
    if decision.waits:
        yield _line("waits", decision.waits)


def _line(label: str, text: str) -> str:
    return f"  {label:<8} {text}"


def _state(decision: Decision) -> str:
    from devloop.ui.text import duration  # noqa: PLC0415 - see main.py

    ended: dict[str, Any] | None = decision.finished
    if ended is None:
        return "goes on"
    word = "stopped" if ended["stopped"] else ended["outcome"]
    said = {str(each["message"]) for each in decision.problems}
    why = f": {ended['why']}" if ended["why"] and ended["why"] not in said else ""
    return f"{word} in {duration(ended['ms'])}{why}"
