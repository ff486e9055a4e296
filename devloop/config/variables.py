"""`${VARIABLES}` in text, as Docker Compose has them; nothing is ever executed.

`${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`, `${NAME?message}`,
`${NAME:+other}`, `${NAME+other}` and `$$` for a dollar; with `:` an empty value counts as unset.
Defaults may hold variables; values are never looked at again. A `$` before anything but `{`, `$`
or a name stays what it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.config.problems import Fault, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEEPEST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble(Fault):
    """A variable that cannot be replaced; `dollar` counts the `$` before it in the text."""

    dollar: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """`used` is True when a variable took part, so that the text may stand for a number."""

    text: str
    used: bool
    troubles: tuple[Trouble, ...]


def expand(text: str, values: Mapping[str, str], *, bare: str = "refuse") -> Expanded:
    """Replaces the variables in `text`.

    `bare` says what a `$NAME` without braces is: `refuse` (a mistake), `keep` (text, for a shell to
    read later) or `replace` (a variable, as in .env files)."""
    if "$" not in text:
        return Expanded(text=text, used=False, troubles=())
    reader = _VariableReader(text, values, bare)
    result = reader.read(0, None, 0)
    return Expanded(text=result, used=reader.used, troubles=tuple(reader.troubles))


class _VariableReader:
    """A recursive-descent reader; `self.at` is where it stands."""

    def __init__(self, text: str, values: Mapping[str, str], bare: str) -> None:
        self.text = text
        self.values = values
        self.bare = bare
        self.at = 0
        self.used = False
        self.troubles: list[Trouble] = []
        # Text that will not be used is read for its end only.
        self.muted = False

    def read(self, at: int, end: str | None, depth: int) -> str:
        """Reads until `end` (which is left unread) or the end of the text."""
        parts: list[str] = []
        self.at = at
        text = self.text
        while self.at < len(text) and text[self.at] != end:
            if text[self.at] != "$":
                stops = (text.find(mark, self.at) for mark in ("$", end) if mark)
                stop = min((i for i in stops if i >= 0), default=len(text))
                parts.append(text[self.at : stop])
                self.at = stop
            else:
                parts.append(self._dollar(depth))
        return "".join(parts)

    def _dollar(self, depth: int) -> str:
        start = self.at
        following = self.text[start + 1 : start + 2]
        if following == "$":
            self.at += 2
            return "$"
        if following == "{":
            return self._braces(start, depth)
        name = _NAME.match(self.text, start + 1)
        if name is None:
            self.at += 1
            return "$"
        self.at = name.end()
        if self.bare == "replace":
            return self._value(start, name.group())
        if self.bare == "refuse":
            self._trouble(
                start,
                f"${name.group()} is neither a variable nor text",
                f"${{{name.group()}}} for the variable",
                f"$${name.group()} for the text",
                cause="a variable stands in braces; a dollar sign is written twice",
            )
        return f"${name.group()}"

    def _braces(self, start: int, depth: int) -> str:
        name = _NAME.match(self.text, start + 2)
        if name is None or depth > _DEEPEST:
            self._trouble(start, "a name must follow ${", "write $$ for a dollar sign")
            self.at = len(self.text)
            return ""
        self.at = name.end()
        operator = re.compile(r":?[-?+]|").match(self.text, self.at)
        sign = operator.group() if operator else ""
        self.at += len(sign)
        value = self.values.get(name.group())
        is_set = bool(value) if sign.startswith(":") else value is not None
        wanted = is_set if sign.endswith("+") else not is_set
        muted, self.muted = self.muted, self.muted or not wanted
        argument = self.read(self.at, "}", depth + 1) if sign else ""
        self.muted = muted
        if self.text[self.at : self.at + 1] != "}":
            hints = f"write ${{{name.group()}}}", "write $$ for a dollar sign"
            self._trouble(start, f"${{{name.group()} is not closed", *hints)
            self.at = len(self.text)
            return ""
        self.at += 1
        self.used = True
        return self._choose(start, name.group(), sign, is_set, argument)

    def _choose(self, start: int, name: str, sign: str, is_set: bool, argument: str) -> str:
        match sign[-1:]:
            case "-":
                return self.values[name] if is_set else argument
            case "+":
                return argument if is_set else ""
            case "?" if not is_set:
                why = f": {argument}" if argument else ""
                self._trouble(start, f"the variable {name} is not set{why}", f"set {name}")
                return ""
            case _:
                return self._value(start, name)

    def _value(self, start: int, name: str) -> str:
        self.used = True
        value = self.values.get(name)
        if value is not None:
            return value
        if self.bare != "replace":
            meant = nearest(name, self.values)
            hints = [f"did you mean ${{{meant}}}?"] if meant else []
            hints.append(f"set {name}, or give a default: ${{{name}:-default}}")
            self._trouble(start, f"the variable {name} is not set", *hints)
        return ""

    def _trouble(self, start: int, message: str, *hints: str, cause: str | None = None) -> None:
        if not self.muted:
            dollar = self.text.count("$", 0, start)
            self.troubles.append(
                Trouble(dollar=dollar, message=message, cause=cause, suggestions=hints)
            )
