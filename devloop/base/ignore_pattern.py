"""One line of a .dockerignore file as a matcher, exactly as Docker reads it.

Docker turns each pattern into one of four matchers; the last is a regular expression in Go's syntax
in which some characters of the pattern mean more than its documentation says (`[` and `]` are
copied, `*` inside brackets is not). So this module first makes the same Go expression and then says
the same in Python's syntax, instead of guessing what a pattern was meant to mean. It knows nothing
of files and of the order of patterns: see ignore_rules.py.

Source of the rules: github.com/moby/patternmatcher v0.6 and Go's path/filepath.Match and
regexp/syntax (flags Perl), on a Unix client.
"""

from __future__ import annotations

import posixpath
import re
from typing import Literal

from devloop.base.lazy_dataclass import dataclass

Kind = Literal["exact", "prefix", "suffix", "regex"]

# What Go's unicode.IsSpace takes for a space; Python's strip() takes the separators 1C-1F as well.
_GO_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_PERL_CLASS = {
    "d": r"0-9",
    "D": r"\D",
    "w": r"0-9A-Za-z_",
    "W": r"\W",
    "s": r"\t\n\f\r ",
    "S": r"\S\v",
}
_POSIX_CLASS = {
    "alnum": r"0-9A-Za-z",
    "alpha": r"A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": r"0-9",
    "graph": r"!-~",
    "lower": r"a-z",
    "print": r" -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": r"A-Z",
    "word": r"0-9A-Za-z_",
    "xdigit": r"0-9A-Fa-f",
}
_POSIX_NAME = re.compile(r"\[:(.*?):\]", re.DOTALL)
# Single characters that do not stand for themselves in the expression that moby builds.
_AS_GO = {"*": "[^/]*", "?": "[^/]", "[": "[", "]": "]"} | {c: "\\" + c for c in ".+()|{}$"}
_NUMBER = re.compile(r"x(?P<hex>[0-9A-Fa-f]{2})|0[0-7]{0,2}|[1-7][0-7]{1,2}")
_CONTROL = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
# What stands for itself in Python, too, or nearly.
_ANCHOR = {"A": r"\A", "z": r"\Z", "b": r"\b", "B": r"\B"}
_ANY = {"(.*/)?": "(?:.*/)?", ".*": ".*", "*": "*", "^": "^"}


class PatternError(ValueError):
    """A pattern that Docker refuses (or, rarely, one whose Go expression has no Python twin)."""


def trim(text: str) -> str:
    """`text` without the spaces around it, as Go sees spaces."""
    return text.strip(_GO_SPACE)


def clean(path: str) -> str:
    """The shortest equal path, by its words alone, as Go's filepath.Clean."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A compiled pattern. `text` is cleaned and has no `!`; `exception` says that it had one.

    `regex` is a Python expression for the whole path, equal to the matcher for every `kind`."""

    text: str
    exception: bool
    kind: Kind
    regex: re.Pattern[str]

    @classmethod
    def compile(cls, line: str) -> Pattern | None:
        """A pattern from one entry as ignore_rules.py's reader leaves it; None for a blank one.

        Raises `PatternError`."""
        text = trim(line)
        if not text:
            return None
        text = clean(text)
        exception, text = text.startswith("!"), text.removeprefix("!")
        if not text:
            raise PatternError('"!" alone excludes nothing')
        _check_brackets(text)
        kind, go = _go_expression(text)
        match kind:
            case "exact":
                python = re.escape(text)
            case "prefix":
                python = re.escape(text[:-2]) + r"[\s\S]*"
            case "suffix":
                rest = text[2:]
                python = r"[\s\S]*" + re.escape(rest)
                if rest.startswith("/"):
                    python += "|" + re.escape(rest[1:])
            case _:
                python = _Translator(go).python()
        regex = re.compile(rf"(?:{python})\Z", re.ASCII)
        return cls(text=text, exception=exception, kind=kind, regex=regex)

    def matches(self, path: str) -> bool:
        return self.regex.match(path) is not None

    def may_match_beneath(self, directory: str) -> bool:
        """False only when no path under `directory` can match this pattern."""
        inside = directory + "/"
        literal = re.split(r"[*?\[\\]", self.text, maxsplit=1)[0]
        if self.kind in {"exact", "suffix"} and not literal:
            return True
        if self.kind == "exact":
            return self.text.startswith(inside)
        if not (literal.startswith(inside) or inside.startswith(literal)):
            return False
        # Without **, brackets and escapes (which may match a slash) a pattern matches as many names
        # as it has itself, so what lies deeper is out of its reach.
        if self.kind == "regex" and not re.search(r"\*\*|[\[\\]", self.text):
            return self.text.count("/") > directory.count("/")
        return True


def _check_brackets(text: str) -> None:
    """Raise `PatternError` where filepath.Match(text, ".") does: Docker asks it about the syntax,
    and it looks no further than the first star that follows something else."""
    i = len(text) - len(text.lstrip("*"))
    while i < len(text) and text[i] != "*":
        if text[i] == "\\":
            if i + 1 == len(text):
                raise PatternError("it ends with a backslash")
            i += 2
        elif text[i] == "[":
            i = _check_class(text, i + 1)
        else:
            i += 1


def _check_class(text: str, i: int) -> int:
    def char(i: int) -> int:
        if i < len(text) and text[i] == "\\":
            i += 1
        elif i < len(text) and text[i] in "-]":
            raise PatternError("an empty or open range in brackets")
        if i + 1 >= len(text):
            raise PatternError("a bracket is not closed")
        return i + 1

    if text[i : i + 1] == "^":
        i += 1
    ranges = 0
    while not (ranges and text[i : i + 1] == "]"):
        i = char(i)
        if text[i : i + 1] == "-":
            i = char(i + 1)
        ranges += 1
    return i + 1


def _go_expression(text: str) -> tuple[Kind, str]:
    """The kind of matcher and, for kind "regex", the expression that moby builds from `text`."""
    kind: Kind = "exact"
    out: list[str] = []
    i = step = 0
    while i < len(text):
        c = text[i]
        i += 1
        if c == "*" and text[i : i + 1] == "*":
            i += 1
            if text[i : i + 1] == "/":
                i += 1
            if i < len(text):
                out.append("(.*/)?")
                kind = "regex"
            elif kind == "exact":
                kind = "prefix"
            else:
                out.append(".*")
                kind = "regex"
            if step == 0:
                kind = "suffix"
        elif c in _AS_GO:
            out.append(_AS_GO[c])
            if c in "*?[]":
                kind = "regex"
        elif c == "\\":
            if i == len(text):
                raise PatternError("it ends with a backslash")
            out.append(c + text[i])
            i += 1
            kind = "regex"
        else:
            out.append(c)
        step += 1
    return kind, "".join(out)


class _Translator:
    """Reads the small part of Go's regular expressions that `_go_expression` can produce."""

    def __init__(self, go: str) -> None:
        self._go = go
        self._at = 0

    def python(self) -> str:
        out: list[str] = []
        while self._at < len(self._go):
            # Of single characters: an anchor, or the star that follows a class.
            whole = next((each for each in _ANY if self._go.startswith(each, self._at)), "")
            if whole:
                out.append(_ANY[whole])
                self._at += len(whole)
            elif self._peek() == "[":
                out.append(self._class())
            elif self._peek() == "\\":
                out.append(self._escape())
            else:
                out.append(re.escape(self._next()))
        return "".join(out)

    def _peek(self) -> str:
        return self._go[self._at : self._at + 1]

    def _next(self) -> str:
        c = self._peek()
        self._at += 1
        return c

    def _escape(self) -> str:
        anchor = _ANCHOR.get(self._go[self._at + 1])
        if anchor is not None:
            self._at += 2
            return anchor
        perl = self._perl_class()
        return f"[{perl}]" if perl else re.escape(self._char())

    def _class(self) -> str:
        self._at += 1
        out = ["["]
        if self._peek() == "^":
            out.append(self._next())
        first = True
        while first or self._peek() != "]":
            first = False
            out.append(self._posix_class() or self._perl_class() or self._range())
        self._at += 1
        return "".join(out) + "]"

    def _posix_class(self) -> str:
        found = _POSIX_NAME.match(self._go, self._at)
        if found is None:
            return ""
        if found[1] not in _POSIX_CLASS:
            raise PatternError(f"{found[0]} is not a class of characters that devloop knows")
        self._at = found.end()
        return _POSIX_CLASS[found[1]]

    def _perl_class(self) -> str:
        following = self._go[self._at + 1 : self._at + 2]
        found = _PERL_CLASS.get(following, "") if self._peek() == "\\" else ""
        self._at += 2 if found else 0
        return found

    def _range(self) -> str:
        low = high = self._char()
        if self._peek() == "-" and self._go[self._at + 1 : self._at + 2] not in {"]", ""}:
            self._at += 1
            high = self._char()
        if high < low:
            raise PatternError(f"the range {low}-{high} runs backwards")
        return f"{_in_class(low)}-{_in_class(high)}" if low != high else _in_class(low)

    def _char(self) -> str:
        """One character, written as itself or with a backslash."""
        c = self._next()
        if not c:
            raise PatternError("a bracket is not closed")
        if c != "\\":
            return c
        c = self._next()
        if c in _CONTROL:
            return _CONTROL[c]
        if c and not (c.isascii() and not c.isalnum()):
            number = _NUMBER.match(self._go, self._at - 1)
            if number is None:
                raise PatternError(f"\\{c} means nothing here")
            self._at = number.end()
            return chr(int(number["hex"], 16) if number["hex"] else int(number[0], 8))
        if not c:
            raise PatternError("a backslash at the end of brackets")
        return c


def _in_class(c: str) -> str:
    return c if c.isalnum() or not c.isascii() else f"\\x{ord(c):02x}"
