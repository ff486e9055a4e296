""".env files, in the syntax of Docker Compose; no command is ever run.

The rules: docs.docker.com/compose/how-tos/environment-variables/variable-interpolation
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devloop.config.variables import expand
from devloop.errors import Code, Location

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.config.problems import Problems


_KEY = re.compile(
    r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?P<sign>[=:]?)[ \t]*"
)
_SINGLE = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_AFTER = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$$"}


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
