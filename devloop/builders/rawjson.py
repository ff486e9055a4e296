"""Reads buildx's `--progress=rawjson` stream into what a user wants to know of a build.

The schema is BuildKit's `client.SolveStatus`, one JSON object after the other. It belongs to
buildx: fields come and go, so nothing here relies on more than it needs and no line ever raises.
Lines that are no JSON object (buildx prints its final error as text) are kept as text.
"""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from dataclasses import field
from datetime import datetime
from typing import Any, Literal

from devloop.base.lazy_dataclass import dataclass

_NAME = re.compile(
    r"^\[(?:(?P<label>[^\]]*?) )?(?P<step>\d+)/(?P<total>\d+)\] (?P<text>.*)$", re.DOTALL
)
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_KEPT_LINES = 200
_LONGEST_OBJECT = 200_000

# A context below this is sent in no time.
_REPORTED_BYTES = 1_000_000


@dataclass(slots=True)
class Vertex:
    """One node of the build graph. `seconds` is how long it took, 0 while it runs and from the
    cache. `log` holds the end of its output, `partial` what each stream (1 stdout, 2 stderr) has
    written of a line that is not ended yet."""

    digest: str
    name: str = ""
    started: bool = False
    completed: bool = False
    cached: bool = False
    seconds: float = 0.0
    error: str = ""
    log: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    partial: dict[int, str] = field(default_factory=dict)

    @property
    def numbered(self) -> bool:
        return _NAME.match(self.name) is not None

    @property
    def exports(self) -> bool:
        """Whether this writes out or pushes the finished image."""
        return self.name.startswith(("exporting to ", "pushing ", "importing to docker"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something to report: a build step, the begin of the export, or progress of the export."""

    kind: Literal["step", "export"]
    message: str
    current: int | None = None
    total: int | None = None


class NoteTaker:
    """Makes notes, each of them once: statuses repeat several times a second with nothing but other
    byte counts."""

    def __init__(self) -> None:
        self._noted: set[str] = set()

    def note(
        self,
        kind: Literal["step", "export"],
        message: str,
        *,
        current: int | None = None,
        total: int | None = None,
    ) -> list[Note]:
        key = f"{kind} {message} {round(4 * current / total) if current and total else ''}"
        if key in self._noted:
            return []
        self._noted.add(key)
        return [Note(kind=kind, message=message, current=current, total=total)]


def split_name(name: str) -> tuple[str, int, int, str] | None:
    """`[label 2/5] text` -> (stage name or "", 2, 5, text); None for an internal vertex.

    With several platforms the label is `linux/amd64 stage`; the platform is left out."""
    match = _NAME.match(name)
    if match is None:
        return None
    label = (match["label"] or "").split(" ")[-1]
    if "/" in label:
        label = ""
    return label, int(match["step"]), int(match["total"]), match["text"]


class Solve:
    """The state of one build, fed line by line."""

    def __init__(self) -> None:
        self.vertices: dict[str, Vertex] = {}
        self.text: deque[str] = deque(maxlen=_KEPT_LINES)
        self._notes = NoteTaker()
        # buildx 0.13 spreads an object over many lines, later ones write one a line.
        self._object: list[str] = []

    def feed(self, line: str) -> list[Note]:
        """Take one line of output; returns what is new in it."""
        if self._object or line == "{":
            self._object.append(line)
            if line == "}" or len(self._object) > _LONGEST_OBJECT:
                whole, self._object = "\n".join(self._object), []
                return self._take(whole)
            return []
        if line.startswith("{"):
            return self._take(line)
        if line.strip():
            self.text.append(plain(line))
        return []

    def _take(self, text: str) -> list[Note]:
        try:
            status = json.loads(text)
        except ValueError:
            self.text.extend(text.split("\n"))
            return []
        notes: list[Note] = []
        for raw in _objects(status, "vertexes"):
            notes += self._vertex(raw)
        for raw in _objects(status, "statuses"):
            notes += self._status(raw)
        for raw in _objects(status, "logs"):
            self._log(raw)
        return notes

    @property
    def failed(self) -> Vertex | None:
        """The vertex that broke the build; those that were cancelled with it do not count."""
        failed = [v for v in self.vertices.values() if v.error]
        own = [v for v in failed if "context canceled" not in v.error]
        return next(iter(own or failed), None)

    @property
    def running(self) -> Vertex | None:
        """The step that works now, for "still running"; the one that began last."""
        open_ = [v for v in self.vertices.values() if v.started and not v.completed]
        numbered = [v for v in open_ if v.numbered]
        return next(reversed(numbered or open_), None)

    @property
    def summary(self) -> str:
        """For example "12 steps, 9 cached"."""
        steps = [v for v in self.vertices.values() if v.numbered]
        cached = sum(v.cached for v in steps)
        word = "step" if len(steps) == 1 else "steps"
        return f"{len(steps)} {word}, {cached} cached"

    def _vertex(self, raw: dict[str, Any]) -> list[Note]:
        digest = raw.get("digest")
        if not isinstance(digest, str):
            return []
        vertex = self.vertices.setdefault(digest, Vertex(digest))
        vertex.name = _string(raw.get("name")) or vertex.name
        begins = bool(raw.get("started")) and not vertex.started
        vertex.started = vertex.started or bool(raw.get("started"))
        vertex.completed = bool(raw.get("completed"))
        vertex.cached = vertex.cached or bool(raw.get("cached"))
        vertex.seconds = 0.0 if vertex.cached else _seconds(raw)
        vertex.error = _string(raw.get("error")) or vertex.error
        if not begins or vertex.cached:
            return []
        if vertex.exports:
            return self._notes.note("export", vertex.name)
        parts = split_name(vertex.name)
        if parts is None:
            return []
        return self._notes.note("step", one_line(vertex.name), current=parts[1], total=parts[2])

    def _status(self, raw: dict[str, Any]) -> list[Note]:
        vertex = self.vertices.get(_string(raw.get("vertex")))
        if vertex is None:
            return []
        current, total = _number(raw.get("current")), _number(raw.get("total"))
        what = _string(raw.get("id")) or _string(raw.get("name"))
        if vertex.exports and what:
            return self._notes.note("export", what, current=current or None, total=total or None)
        if current >= _REPORTED_BYTES and what.startswith("transferring context"):
            return self._notes.note("step", f"sending the context, {size(current)}")
        return []

    def _log(self, raw: dict[str, Any]) -> None:
        vertex = self.vertices.get(_string(raw.get("vertex")))
        if vertex is None:
            return
        stream = _number(raw.get("stream"))
        text = vertex.partial.get(stream, "") + _decoded(raw.get("data"))
        *whole, vertex.partial[stream] = text.split("\n")
        for line in whole:
            # A progress bar draws over itself: what it shows last counts.
            vertex.log.append(plain(line.rstrip("\r").rpartition("\r")[2]))

    def tail(self, vertex: Vertex, lines: int) -> tuple[str, ...]:
        """The end of a step's output, without empty lines at either end."""
        rest = [plain(text) for text in vertex.partial.values() if text]
        text = "\n".join([*vertex.log, *rest]).strip("\n").split("\n")
        return tuple(text[-lines:]) if text != [""] else ()


def plain(text: str) -> str:
    """`text` without terminal escapes and control characters; tabs stay."""
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def one_line(text: str, width: int = 100) -> str:
    text = " ".join(plain(text).split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


def size(count: int) -> str:
    """Bytes for people, in powers of ten as Docker shows them."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _objects(status: object, key: str) -> list[dict[str, Any]]:
    found = status.get(key) if isinstance(status, dict) else None
    return [raw for raw in found if isinstance(raw, dict)] if isinstance(found, list) else []


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _seconds(raw: dict[str, Any]) -> float:
    try:
        start, end = (datetime.fromisoformat(_string(raw.get(k))) for k in ("started", "completed"))
        return (end - start).total_seconds()
    except (TypeError, ValueError):  # not both, or one without a time zone
        return 0.0


def _decoded(value: object) -> str:
    """Go writes bytes as base64."""
    try:
        return base64.b64decode(_string(value), validate=True).decode("utf-8", "replace")
    except ValueError:
        return ""
