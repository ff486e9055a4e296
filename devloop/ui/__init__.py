"""Showing the event stream to people and programs; reads events and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from devloop.ui.output import LineSink
    from devloop.ui.terminal import TerminalSink


OutputKind = Literal["auto", "live", "lines", "json", "quiet"]
Color = Literal["auto", "always", "never"]


def make_sink(
    output: OutputKind,
    stream: TextIO | None = None,
    *,
    color: Color = "auto",
    env: Mapping[str, str],
) -> LineSink | TerminalSink:
    """The reader for `--output`. `auto` is `live` on a terminal that can be written over, outside
    CI and editors, and `lines` everywhere else.

    To be called in one thread; `batch` takes several records at less than their cost one by one;
    `close` may be called from any other thread, once no more records come. Raises `OSError` when
    nobody reads what it writes."""
    stream = sys.stdout if stream is None else stream
    output = _kind(output, stream, env)
    # Imported late: only the live view needs rich, and every import delays the first line.
    if output == "live":
        from devloop.ui.terminal import TerminalSink  # noqa: PLC0415

        coloured = wants_color(stream, color, env)
        return TerminalSink(stream, color=coloured, animated=_attended(stream, env), env=env)
    from devloop.ui.output import LineSink  # noqa: PLC0415

    if output == "json":
        from devloop.events import to_json  # noqa: PLC0415

        return LineSink(lambda record: [to_json(record)], stream)
    from devloop.ui.lines import LineFormatter, QuietFormatter  # noqa: PLC0415

    formatter = QuietFormatter() if output == "quiet" else LineFormatter()
    return LineSink(formatter.format, stream)


def report_early(
    text: str,
    output: OutputKind,
    stream: TextIO | None = None,
    *,
    color: Color = "auto",
    env: Mapping[str, str],
) -> None:
    """Report to a person what is waited for before there is a session: one line, at once.

    Programs get nothing: the first word of their stream is the session's. Raises `OSError` when
    nobody reads."""
    stream = sys.stdout if stream is None else stream
    kind = _kind(output, stream, env)
    if kind not in ("live", "lines"):
        return
    line = f"devloop: {text}"
    if kind == "live" and wants_color(stream, color, env):
        line = f"\x1b[2m{line}\x1b[0m"
    stream.write(f"{line}\n")
    stream.flush()


def wants_color(stream: TextIO, color: Color, env: Mapping[str, str]) -> bool:
    """Whether to colour what goes to `stream`: the flag, then NO_COLOR (no-color.org), then
    FORCE_COLOR, then whether it is a terminal that can."""
    if color != "auto":
        return color == "always"
    if env.get("NO_COLOR"):
        return False
    if env.get("FORCE_COLOR"):
        return True
    return _attended(stream, env)


def _kind(output: OutputKind, stream: TextIO, env: Mapping[str, str]) -> OutputKind:
    if output != "auto":
        return output
    return "live" if _attended(stream, env) else "lines"


def _attended(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Somebody looks at it as it happens, on a terminal that can move its cursor."""
    if env.get("CI", "") not in ("", "0", "false") or env.get("TERM", "") in ("", "dumb"):
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
