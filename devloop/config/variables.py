"""`${VARIABLES}` in text and the .env files that set them, as Docker Compose has them; nothing is
ever executed.

`${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`, `${NAME?message}`,
`${NAME:+other}`, `${NAME+other}` and `$$` for a dollar; with `:` an empty value counts as unset.
Defaults may hold variables; values are never looked at again. A `$` before anything but `{`, `$`
or a name stays what it is.

The rules: docs.docker.com/compose/how-tos/environment-variables/variable-interpolation
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.config.problems import Fault, nearest
from devloop.errors import Code, Location

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.config.problems import Problems


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEEPEST = 20

# A line of a .env file, its quoted values, and what may come after one.
_KEY = re.compile(
    r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?P<sign>[=:]?)[ \t]*"
)
_SINGLE = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_AFTER = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$$"}


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
    reader = _VariableReader(text, values, bare)
    result = reader.read(None, 0)
    return Expanded(text=result, used=reader.used, troubles=tuple(reader.troubles))


@dataclass(slots=True)
class _VariableReader:
    """A recursive-descent reader; `at` is where it stands. Text that will not be used is read,
    `muted`, for its end only."""

    text: str
    values: Mapping[str, str]
    bare: str
    at: int = 0
    used: bool = False
    troubles: list[Trouble] = field(default_factory=list)
    muted: bool = False

    def read(self, end: str | None, depth: int) -> str:
        """Reads until `end` (which is left unread) or the end of the text."""
        parts: list[str] = []
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
            return self._value(start, name[0])
        if self.bare == "refuse":
            self._trouble(
                start,
                f"${name[0]} is neither a variable nor text",
                f"${{{name[0]}}} for the variable",
                f"$${name[0]} for the text",
                cause="a variable stands in braces; a dollar sign is written twice",
            )
        return f"${name[0]}"

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
        value = self.values.get(name[0])
        is_set = bool(value) if sign.startswith(":") else value is not None
        wanted = is_set if sign.endswith("+") else not is_set
        muted, self.muted = self.muted, self.muted or not wanted
        argument = self.read("}", depth + 1) if sign else ""
        self.muted = muted
        if self.text[self.at : self.at + 1] != "}":
            hints = f"write ${{{name[0]}}}", "write $$ for a dollar sign"
            self._trouble(start, f"${{{name[0]} is not closed", *hints)
            self.at = len(self.text)
            return ""
        self.at += 1
        self.used = True
        match sign[-1:]:
            case "-" if not is_set:
                return argument
            case "+":
                return argument if is_set else ""
            case "?" if not is_set:
                why = f": {argument}" if argument else ""
                self._trouble(start, f"the variable {name[0]} is not set{why}", f"set {name[0]}")
                return ""
        return self._value(start, name[0])

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


def parse_dotenv(
    text: str, shown: str, environment: Mapping[str, str], problems: Problems
) -> dict[str, str]:
    """The variables of a .env file; `environment` wins over the file within `${...}`.

    Unquoted and double-quoted values may hold variables (unset ones are empty), single-quoted ones
    are literal; a name without `=` takes its value from `environment`. Problems carry the line."""
    found: dict[str, str] = {}
    text = text.replace("\r\n", "\n")
    at = 0
    while at < len(text):
        begin, end = at, _line_end(text, at)
        at = end + 1
        line = text[begin:end]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = Location(shown, text.count("\n", 0, begin) + 1, len(line) - len(line.lstrip()) + 1)
        key = _KEY.match(text, begin, end)
        if key is None or (not key["sign"] and text[key.end() : end].strip()):
            message, hint = "not a line of the form NAME=value", "begin a comment with #"
            problems.add(Code.CONFIG_PARSE, message, place, hint)
        elif key["sign"]:
            values = {**found, **environment}
            found[key["name"]], at = _value(text, key.end(), place, values, problems)
        elif key["name"] in environment:
            found[key["name"]] = environment[key["name"]]
    return found


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _value(
    text: str, at: int, place: Location, values: Mapping[str, str], problems: Problems
) -> tuple[str, int]:
    """The value that begins at `at`, and where the next line begins."""
    end = _line_end(text, at)
    quote = text[at : at + 1]
    if quote not in ("'", '"'):
        plain = re.split(r"(?:^|[ \t]+)#", text[at:end], maxsplit=1)[0].strip()
        return _replace(plain, place, values, problems), end + 1
    quoted = (_SINGLE if quote == "'" else _DOUBLE).match(text, at)
    if quoted is None:
        message = f"the value's {quote} is not closed"
        problems.add(Code.CONFIG_PARSE, message, place, f"add {quote}")
        return "", end + 1
    after = _AFTER.match(text, quoted.end())
    if after is None:
        hint = "put the whole value in quotes, or # before a comment"
        problems.add(Code.CONFIG_PARSE, "text after the closing quote", place, hint)
        return "", _line_end(text, quoted.end()) + 1
    if quote == "'":
        return quoted[1].replace("\\'", "'"), after.end()
    inner = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), quoted[1], flags=re.DOTALL)
    return _replace(inner, place, values, problems), after.end()


def _replace(text: str, place: Location, values: Mapping[str, str], problems: Problems) -> str:
    expanded = expand(text, values, bare="replace")
    for each in expanded.troubles:
        problems.add_fault(Code.CONFIG_VARIABLE, each, place)
    return expanded.text
