"""Reads what the classic builder and `push` stream back: JSON objects with errors among them.

The daemon answers 200 before it begins, so an error is just another object of the stream; every
object is looked at. Pure.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any

from devloop.builders.rawjson import Note, NoteTaker, one_line, plain

if TYPE_CHECKING:
    from devloop.builders.dockerfile import Dockerfile, Instruction


_STEP = re.compile(r"^Step (\d+)/(\d+) : (.*)$")
_CACHED = " ---> Using cache"
_ARROW = re.compile(r"^ ---> (?:[0-9a-f]{12}|Running in \S+|Using cache)$|^Removing intermediate|"
                    r"^ ---> Removed intermediate")  # fmt: skip
_KEPT_LINES = 200


class BuildStream:
    """The state of one classic build, fed object by object. `error` is set when it failed."""

    def __init__(self) -> None:
        self.steps = 0
        self.cached = 0
        self.step = 0
        self.text = ""
        self.error = ""
        self.image = ""
        self.log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._partial = ""

    def feed(self, item: object) -> list[Note]:
        if not isinstance(item, dict):
            return []
        if error := error_of(item):
            self.error = error
        aux = item.get("aux")
        if isinstance(aux, dict) and isinstance(aux.get("ID"), str):
            self.image = aux["ID"]
        if isinstance(item.get("status"), str) and not item.get("progressDetail"):
            return [Note(kind="step", message=one_line(item["status"]))]
        if not isinstance(item.get("stream"), str):
            return []
        *whole, self._partial = (self._partial + item["stream"]).split("\n")
        return [note for line in whole if (note := self._line(plain(line))) is not None]

    def _line(self, line: str) -> Note | None:
        match = _STEP.match(line)
        if match is None:
            if line.startswith(_CACHED):
                self.cached += 1
            elif line.strip() and not _ARROW.match(line):
                self.log.append(line)
            return None
        self.step, self.steps = int(match[1]), int(match[2])
        self.text = match[3]
        self.log.clear()
        return Note(
            kind="step",
            message=one_line(f"[{self.step}/{self.steps}] {self.text}"),
            current=self.step,
            total=self.steps,
        )

    @property
    def summary(self) -> str:
        word = "step" if self.steps == 1 else "steps"
        return f"{self.steps} {word}, {self.cached} cached"

    def instruction(self, dockerfile: Dockerfile) -> Instruction | None:
        """The instruction of the step that ran last; the classic builder counts every one."""
        keyword = self.text.split(" ", 1)[0].upper()
        found = dockerfile.instructions[self.step - 1 : self.step] if self.step else ()
        if found and found[0].keyword == keyword:
            return found[0]
        wanted = " ".join(self.text.split())
        return next((i for i in dockerfile.instructions if str(i) == wanted), None)


class PushStream:
    """The state of one push. `digest` is set when it worked, `error` when it did not."""

    def __init__(self) -> None:
        self.digest = ""
        self.error = ""
        self._notes = NoteTaker()

    def feed(self, item: object) -> list[Note]:
        if not isinstance(item, dict):
            return []
        if error := error_of(item):
            self.error = error
        aux = item.get("aux")
        if isinstance(aux, dict) and isinstance(aux.get("Digest"), str):
            self.digest = aux["Digest"]
        status = item.get("status")
        if not isinstance(status, str):
            return []
        layer = item.get("id")
        message = f"{status} {layer}" if isinstance(layer, str) else status
        detail = item.get("progressDetail")
        amounts = detail if isinstance(detail, dict) else {}
        current, total = amounts.get("current"), amounts.get("total")
        return self._notes.note(
            "export",
            one_line(message),
            current=current if isinstance(current, int) else None,
            total=total if isinstance(total, int) and total > 0 else None,
        )


def error_of(item: dict[str, Any]) -> str:
    """The in-band error of an object, "" when it has none."""
    detail = item.get("errorDetail")
    message = detail.get("message") if isinstance(detail, dict) else None
    found = message or item.get("error") or ""
    return found if isinstance(found, str) else str(found)
