"""How numbers, places, images and diagnoses are worded, the same in every kind of output.

Pure, and free of imports that cost time: every command can fail, also `--help`.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from devloop.ui.sanitize import coloured, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devloop.errors import Diagnosis
    from devloop.events import (
        ConfigReloaded,
        PodChanged,
        ServiceChanges,
        Serving,
        SessionStarted,
        StepProgress,
        Trigger,
    )


# What the kubelet gives as a reason while all is well.
_HARMLESS = frozenset({"", "ContainerCreating", "PodInitializing", "Completed"})

# What editors take for a problem.
_PROBLEM = re.compile(r"(:[0-9]+:[0-9]+: (?:error|warning|info))\[(?=[a-z/-]+\]: )")

_SEVERITY_COLOUR = {"error": "1;31", "warning": "1;33", "info": "1;36"}


def count(n: int, noun: str) -> str:
    """`1 file`, `12 files`, `12,300 lines`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def ordinal(n: int) -> str:
    """`1st`, `2nd`, `11th`."""
    suffix = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def duration(ms: float, *, space: str = "") -> str:
    """`0.02s`, `0.9s`, `3.1s`, `2m05s`, `2h14m`; `space` goes between number and unit."""
    if ms < 95:
        return f"{ms / 1000:.2f}{space}s"
    if ms < 59_950:
        return f"{ms / 1000:.1f}{space}s"
    seconds = round(ms / 1000)
    if seconds < 3600:
        return f"{seconds // 60}{space}m{space}{seconds % 60:02}{space}s"
    minutes = round(ms / 60_000)
    return f"{minutes // 60}{space}h{space}{minutes % 60:02}{space}m"


def path_from(root: str, path: str) -> str:
    """`path` as seen from the project's directory `root`, if it lies in there."""
    inside = root.rstrip("/") + "/"
    return plain(path.removeprefix(inside) if root else path)


def serving_name(serving: Serving) -> str:
    """`#6 9f2c41`: the iteration and the start of its image's digest, or its tag."""
    name = serving.digest.removeprefix("sha256:")[:6]
    return f"#{serving.iter} {name or plain(serving.image.rpartition(':')[2])}"


def session_facts(event: SessionStarted, between: str = ", ") -> str:
    """Where a session works: `context kind-dev, namespace default, registry localhost:5001`."""
    about = {
        "context": event.context,
        "namespace": event.namespace,
        "registry": event.registry,
        "platform": event.platform,
    }
    return between.join(f"{what} {value}" for what, value in about.items() if value)


def trigger_text(trigger: Trigger) -> str:
    """`start`, `1 file`, `12 files`, `retry`, `recovered`, `image of base`, `config ports`,
    `back to #8`."""
    if trigger.kind == "rollback":
        return "back" if trigger.to is None else f"back to #{trigger.to}"
    if trigger.kind == "config":
        return f"config {keys_text(trigger.paths, trigger.count)}"
    if trigger.kind == "image":
        return f"image of {', '.join(trigger.paths)}"
    return count(trigger.count, "file") if trigger.kind == "files" else trigger.kind


def keys_text(keys: Sequence[str], count: int) -> str:
    """`services.web.build.args.PYTHON`, `services.web.ports and 3 more`."""
    named = ", ".join(keys[:3])
    return f"{named} and {count - 3} more" if count > 3 else named


def reload_text(event: ConfigReloaded) -> str:
    """What of an edit of devloop.yaml a session has taken over, in a line; "" for nothing that is
    not said elsewhere."""
    services = event.services
    whole = [
        *(f"service {name} added" for name in services.added),
        *(f"service {name} removed" for name in services.removed),
    ]
    keys = [key for key in event.changed if key.count(".") > 1]
    parts = [*whole, *([keys_text(keys, len(keys))] if keys else [])]
    if not parts:
        return "devloop.yaml needs no new start" if not event.restart else ""
    return f"devloop.yaml taken over: {', '.join(parts)}"


def with_changes(services: Sequence[str], changes: ServiceChanges) -> tuple[str, ...]:
    """The session's services from then on."""
    kept = (name for name in services if name not in changes.removed)
    return tuple(dict.fromkeys((*kept, *changes.added)))


def pod_trouble(event: PodChanged) -> str:
    """`CrashLoopBackOff, 2 restarts`; empty for a pod that is well, young or on its way out."""
    if event.ready or event.deleting or event.reason in _HARMLESS:
        return ""
    restarts = f", {count(event.restarts, 'restart')}" if event.restarts else ""
    return f"{event.reason}{restarts}"


def progress(event: StepProgress) -> str:
    """`4/12 RUN pip install`, `40% pushing layer 5f70bf18a086`; a message that counts for itself
    is left alone, but for brackets around that."""
    if event.current is None or not (event.current or event.total):
        return event.message
    where = f"{event.current}/{event.total}" if event.total else f"{event.current}"
    if event.step == "push" and event.total:
        # Bytes; compressed they may be more than what was announced.
        where = f"{min(100, 100 * event.current // event.total)}%"
    message = event.message.removeprefix(f"[{where}] ")
    return message if message.startswith(where) else f"{where} {message}"


# --- diagnoses ----------------------------------------------------------------------------------


def problem_line(diagnosis: Diagnosis, *, root: str = "") -> str:
    """`path:line:col: error[code]: message`, the path relative to `root` if it lies in there.

    Without a place: `devloop: error[code]: message`. Always one line of plain text."""
    head = f"{diagnosis.severity}[{diagnosis.code}]"
    message = plain(diagnosis.message)
    place = diagnosis.location
    if place is None:
        return not_a_problem(f"devloop: {head}: {message}")
    path = path_from(root, place.path)
    return f"{path}:{place.line or 1}:{place.column or 1}: {head}: {not_a_problem(message)}"


def not_a_problem(text: str) -> str:
    """`text` such that no editor takes it for a problem of ours: a space is put in if need be."""
    return _PROBLEM.sub(r"\1 [", text)


def explanation(diagnosis: Diagnosis) -> list[str]:
    """The lines below a problem line: evidence, cause and what to try, indented, never a problem
    to an editor themselves."""
    lines = [f"    {plain(line)}" for line in diagnosis.detail]
    if diagnosis.cause:
        lines.append(f"  cause  {plain(diagnosis.cause)}")
    lines += _tries(diagnosis.suggestions)
    return [not_a_problem(line).rstrip() for line in lines]


def format_diagnosis(diagnosis: Diagnosis, *, color: bool = False, width: int = 80) -> str:
    """The block that a command prints on stderr before it ends; no newline at the end.

    Long lines are broken at `width` columns, 0 leaves them whole; evidence is never broken."""

    def paint(text: str, sgr: str) -> str:
        return f"\x1b[{sgr}m{text}\x1b[0m" if color else text

    head = paint(f"{diagnosis.severity}[{diagnosis.code}]", _SEVERITY_COLOUR[diagnosis.severity])
    lines = [f"{head}: {paint(plain(diagnosis.message), '1')}"]
    if diagnosis.location is not None:
        lines.append(f"  at {paint(plain(str(diagnosis.location)), '36')}")
    show = coloured if color else plain
    lines += [f"    {show(line)}".rstrip() for line in diagnosis.detail]
    words = [f"  cause  {plain(diagnosis.cause)}"] if diagnosis.cause else []
    for line in [*words, *_tries(diagnosis.suggestions)]:
        lines += _wrapped(line, width)
    return "\n".join(lines)


def _tries(suggestions: tuple[str, ...]) -> list[str]:
    labels = ["  try    ", *["         "] * len(suggestions)]
    return [label + plain(text) for label, text in zip(labels, suggestions, strict=False)]


def _wrapped(line: str, width: int) -> list[str]:
    if not width or len(line) <= width:
        return [line]
    # A command to copy must stay whole, so words are never cut.
    return textwrap.wrap(
        line,
        max(width, 40),
        subsequent_indent=" " * 9,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
    )
