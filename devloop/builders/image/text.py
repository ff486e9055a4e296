"""Words of a Dockerfile: quotes and escapes taken away, variables replaced, lines split.

The rules are those of BuildKit's shell lexer (frontend/dockerfile/shell/lex.go) and of its line
parser (parseWords in parser/line_parsers.go). What BuildKit refuses, or what only some of its
releases know, is `NeedsFullBuild`; no shell is asked, and nothing is known here of what words mean.
"""

from __future__ import annotations

import json
import posixpath
from typing import TYPE_CHECKING

from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.builders.dockerfile import Instruction


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What BuildKit sets PATH to where an image does not."""

_SPECIAL = "@*#?-$!"


def expand(word: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """`word` as BuildKit takes it: quotes and escapes are gone, $X, ${X}, ${X:-d}, ${X:+d}, ${X-d},
    ${X+d}, ${X:?m} and ${X?m} are replaced; a variable that is not set is empty.

    `escape` is the file's escape character. Raises `NeedsFullBuild` for an open quote or brace, for
    a variable that has to be set and is not, and for the forms that replace parts of a value."""
    if "$" not in word and escape not in word and '"' not in word and "'" not in word:
        return word
    return _Lexer(word, variables, escape).until("")


class _Lexer:
    def __init__(self, word: str, variables: Mapping[str, str], escape: str) -> None:
        self._word = word
        self._variables = variables
        self._escape = escape
        self._at = 0

    def _peek(self) -> str:
        return self._word[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _refused(self, why: str) -> NeedsFullBuild:
        return NeedsFullBuild(f"the word {self._word} {why}")

    def until(self, stop: str) -> str:
        """Up to `stop`, which is taken too; "" stands for the end."""
        quoted = stop == '"'
        found: list[str] = []
        while char := self._peek():
            if char == stop:
                self._next()
                return "".join(found)
            if char == "'" and not quoted:
                found.append(self._single())
                continue
            if char == "$":
                found.append(self._dollar())
                continue
            self._next()
            if char == '"':
                char = self.until('"')
            # Inside double quotes the escape character stands for itself before anything else.
            elif char == self._escape and (not quoted or self._peek() in ('"', "$", char)):
                char = self._next()
            found.append(char)
        if stop:
            raise self._refused("has an open quote" if quoted else f"has no closing {stop}")
        return "".join(found)

    def _single(self) -> str:
        end = self._word.find("'", self._at + 1)
        if end < 0:
            raise self._refused("has an open quote")
        found = self._word[self._at + 1 : end]
        self._at = end + 1
        return found

    def _dollar(self) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            return self._variables.get(name, "") if name else "$"
        self._next()
        if self._peek() in ("", "{", "}", ":"):
            raise self._refused("is no substitution")
        name = self._name()
        kind = self._next()
        if kind == "}":
            return self._variables.get(name, "")
        null_is_unset = kind == ":"
        if null_is_unset:
            kind = self._next()
        if kind not in ("-", "+", "?"):
            raise self._refused("has a substitution that is not known here")
        other = self.until("}")
        value = self._variables.get(name)
        unset = value is None or (null_is_unset and not value)
        if kind == "+":
            return "" if unset else other
        if unset and kind == "?":
            raise self._refused(f"needs {name}")
        return other if value is None or unset else value

    def _name(self) -> str:
        first = self._peek()
        if first and first in _SPECIAL:
            return self._next()
        start = self._at
        if first.isdecimal():
            while self._peek().isdecimal():
                self._next()
        else:
            while (char := self._peek()) and (char == "_" or char.isalpha() or char.isdecimal()):
                self._next()
        return self._word[start : self._at]


def json_form(instruction: Instruction) -> list[str] | None:
    """The strings of an instruction's JSON form, None when it is not that. Raises
    `NeedsFullBuild`."""
    value = instruction.value
    if not value.startswith("["):
        return None
    try:
        found, end = json.JSONDecoder().raw_decode(value)
    except ValueError:
        return None
    if value[end:].strip():
        raise NeedsFullBuild(f"{instruction} is not understood: there is more after its JSON list")
    if not all(isinstance(item, str) for item in found):
        raise NeedsFullBuild(f"{instruction} is not understood: its list has more than strings")
    return list(found)


def split(text: str, escape: str = "\\") -> list[str]:
    """The words of an ENV, LABEL or ARG, with their quotes and escapes still in them."""
    found: list[str] = []
    word, quote, inside, at = "", "", False, 0
    while at < len(text):
        char = text[at]
        at += 1
        if not quote and char.isspace():
            if inside:
                found.append(word)
                word, inside = "", False
            continue
        inside = True
        if char == escape and quote != "'":
            if at == len(text):
                # An escape that is the last thing of all is dropped.
                continue
            word += char + text[at]
            at += 1
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        word += char
    return [*found, word] if inside and word else found


def joined(*parts: str) -> str:
    """An absolute, clean path. POSIX lets two slashes at the start stand; Go does not."""
    return "/" + posixpath.normpath(posixpath.join(*parts)).lstrip("/")
