"""Go templates as far as skaffold.yaml needs them: variables and the functions that make a text of
texts. Pure; nothing is ever run, and no file is read.

`{{.NAME}}`, `{{ default "x" .NAME }}`, `{{ .NAME | lower }}`, parentheses, trim markers. Control
flow (`if`, `range`), variables (`$x`) and functions that are not here are said to be missing.
The language: pkg.go.dev/text/template; the functions: masterminds.github.io/sprig.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """`missing` are variables without a value, which are empty; `wrong` says why a template cannot
    be read, "" where it can."""

    text: str
    missing: tuple[str, ...] = ()
    wrong: str = ""


_ACTION = re.compile(
    r"(?P<before>\s*)\{\{(?P<left>-(?=\s))?(?P<body>.*?)(?P<right>(?<=\s)-)?\}\}", re.DOTALL
)
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<raw>`[^`]*`)
      | (?P<field>\.[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>-?[0-9]+(?:\.[0-9]+)?)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>[()|])
    )""",
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def has_template(text: str) -> bool:
    return "{{" in text


def render(text: str, values: Mapping[str, str]) -> Rendered:
    """`text` with its actions replaced."""
    if "{{" not in text:
        return Rendered(text=text)
    missing: dict[str, None] = {}
    parts: list[str] = []
    end, trim = 0, False
    try:
        for action in _ACTION.finditer(text):
            before = text[end : action.end("before")]
            before = before.lstrip() if trim else before
            parts.append(before.rstrip() if action["left"] else before)
            parts.append(_Action(action["body"], values, missing).result())
            end, trim = action.end(), bool(action["right"])
    except _Unknown as unknown:
        return Rendered(text=text, wrong=str(unknown))
    rest = text[end:]
    if "{{" in rest:
        return Rendered(text=text, wrong="a {{ is not closed")
    parts.append(rest.lstrip() if trim else rest)
    return Rendered(text="".join(parts), missing=tuple(missing))


class _Unknown(Exception):  # noqa: N818 - not an error: ends one template
    """What is in the template and not known here."""


_Function: TypeAlias = "Callable[..., str]"


def _go_format(form: str, *values: str) -> str:
    left = list(values)
    return re.sub(
        r"%([svdq%])",
        lambda m: "%" if m[1] == "%" else _quoted(left.pop(0), m[1]) if left else m[0],
        form,
    )


def _quoted(text: str, verb: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if verb == "q" else text


_FUNCTIONS: dict[str, _Function] = {
    "default": lambda other, given="": given or other,
    "coalesce": lambda *found: next(filter(None, found), ""),
    "ternary": lambda yes, no, which: yes if which == "true" else no,
    "eq": lambda first, *others: "true" if first in others else "false",
    "ne": lambda first, other: "true" if first != other else "false",
    "empty": lambda text: "false" if text else "true",
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": lambda text: text.title(),
    "trim": lambda text: text.strip(),
    "trimAll": lambda cut, text: text.strip(cut),
    "trimPrefix": lambda prefix, text: text.removeprefix(prefix),
    "trimSuffix": lambda suffix, text: text.removesuffix(suffix),
    "replace": lambda old, new, text: text.replace(old, new),
    "quote": lambda *texts: " ".join(_quoted(text, "q") for text in texts),
    "squote": lambda *texts: " ".join(f"'{text}'" for text in texts),
    "cat": lambda *texts: " ".join(texts),
    "print": lambda *texts: "".join(texts),
    "printf": _go_format,
    "repeat": lambda count, text: text * min(int(count), 1000),
    "trunc": lambda count, text: text[int(count) :] if int(count) < 0 else text[: int(count)],
    "substr": lambda start, end, text: text[int(start) : int(end) if int(end) >= 0 else None],
    "toString": lambda text: text,
}
_CONTROL = frozenset(
    {"if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"}
)


class _Action:
    """What stands between `{{` and `}}`."""

    def __init__(self, body: str, values: Mapping[str, str], missing: dict[str, None]) -> None:
        self._values = values
        self._missing = missing
        self._tokens = list(self._split(body))
        self._at = 0

    def result(self) -> str:
        if not self._tokens:
            return ""
        text = self._pipeline()
        if self._at < len(self._tokens):
            raise _Unknown(f"`{self._tokens[self._at][1]}` is not expected there")
        return text

    def _split(self, body: str) -> list[tuple[str, str]]:
        body = body.strip()
        if body.startswith("/*"):
            return []
        found: list[tuple[str, str]] = []
        at = 0
        while at < len(body.rstrip()):
            token = _TOKEN.match(body, at)
            if token is None:
                raise _Unknown(f"`{body[at:].strip()[:20]}` is not understood")
            kind = token.lastgroup or ""
            found.append((kind, token[kind]))
            at = token.end()
        return found

    def _pipeline(self) -> str:
        value = self._command(())
        while self._peek() == ("sign", "|"):
            self._at += 1
            value = self._command((value,))
        return value

    def _command(self, piped: tuple[str, ...]) -> str:
        kind, text = self._peek()
        if kind != "word":
            value = self._operand()
            if piped:
                raise _Unknown(f"a value cannot be piped into {text}")
            return value
        self._at += 1
        if text in ("true", "false"):
            return text
        if text in _CONTROL:
            raise _Unknown(f"`{text}` is not supported; only values are")
        arguments: list[str] = []
        if text == "env":
            arguments = [self._variable(self._operand())]
            return arguments[0]
        while self._peek()[0] not in ("", "sign") or self._peek() == ("sign", "("):
            arguments.append(self._operand(quiet=text in ("default", "coalesce", "empty")))
        function = _FUNCTIONS.get(text)
        if function is None:
            hint = " (it runs a program)" if text == "cmd" else ""
            raise _Unknown(f"the function `{text}` is not supported{hint}")
        try:
            return function(*arguments, *piped)
        except (TypeError, ValueError) as error:
            raise _Unknown(f"`{text}` has other arguments") from error

    def _operand(self, *, quiet: bool = False) -> str:
        kind, text = self._peek()
        self._at += 1
        match kind:
            case "string":
                return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), text[1:-1])
            case "raw":
                return text[1:-1]
            case "field":
                piped = self._tokens[self._at : self._at + 2]
                quiet = quiet or piped == [("sign", "|"), ("word", "default")]
                return self._variable(text[1:], quiet=quiet)
            case "number":
                return text
            case "word" if text in ("true", "false"):
                return text
            case "sign" if text == "(":
                value = self._pipeline()
                if self._peek() != ("sign", ")"):
                    raise _Unknown("a ( is not closed")
                self._at += 1
                return value
        raise _Unknown(f"`{text or 'the end'}` is not expected there")

    def _variable(self, name: str, *, quiet: bool = False) -> str:
        value = self._values.get(name)
        if value is None and not quiet:
            self._missing[name] = None
        return value or ""

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
