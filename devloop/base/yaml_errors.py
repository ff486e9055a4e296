"""PyYAML's complaints in words that a person who does not know its scanner can act on.

Keyed by the texts of PyYAML's scanner and parser; one that is not listed is shown as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import yaml


class YamlErrorText(NamedTuple):
    """`opened` is True where the beginning of what is broken tells more than where it broke."""

    message: str
    cause: str | None = None
    suggestions: tuple[str, ...] = ()
    opened: bool = False


_NOT_CLOSED = "a {} that is opened by `{}` is not closed"

# Part of PyYAML's problem or, after these, of its context; the first match counts.
_TABLE = {
    "found character '\\t'": YamlErrorText(
        "a tab where YAML wants spaces",
        "YAML does not allow tabs for indentation",
        ("use spaces",),
    ),
    "mapping values are not allowed": YamlErrorText(
        "a `:` where no key can stand",
        "this line is indented too far, or a value that holds `: ` has no quotes",
        ("line the key up with its neighbours", "put the value in quotes"),
    ),
    "could not find expected ':'": YamlErrorText(
        "a key without `:`", "a line must be a complete `key: value`", ("add the `:`",), True
    ),
    "found unexpected end of stream": YamlErrorText(
        "a quoted text is not closed", None, ("add the closing quote",), True
    ),
    "expected ',' or ']'": YamlErrorText(
        _NOT_CLOSED.format("list", "["), None, ("add `]`, or `,` between items",), True
    ),
    "expected ',' or '}'": YamlErrorText(
        _NOT_CLOSED.format("mapping", "{"), None, ("add `}`, or `,` between keys",), True
    ),
    "but found '<stream end>'": YamlErrorText(
        "the file ends too early", "a `[` or `{` is not closed", ("close it",)
    ),
    "expected the node content": YamlErrorText("a value is missing here", None, ("add it",)),
    "but found ']'": YamlErrorText("a `]` that closes nothing", None, ("remove it",)),
    "but found '}'": YamlErrorText("a `}` that closes nothing", None, ("remove it",)),
    "but found '<scalar>'": YamlErrorText(
        "text after a complete value",
        "a value that begins with a quote ends at the next one",
        ("put the whole value in quotes",),
    ),
    "sequence entries are not allowed": YamlErrorText(
        "a `-` where no list can start",
        "a list starts on a line of its own below its key",
        ("put the `-` on the next line",),
    ),
    "cannot start any token": YamlErrorText(
        "a character that a value cannot begin with",
        "@, ` and % have a meaning of their own in YAML",
        ("put the value in quotes",),
    ),
    "expected alphabetic or numeric character": YamlErrorText(
        "a name must follow * and &",
        "they mark aliases and anchors in YAML",
        ("put the value in quotes",),
    ),
    "found undefined alias": YamlErrorText(
        "an alias stands for an anchor that does not exist",
        "* before a word means: what is written at the anchor (&) of that name",
        ("define the anchor before it", "put the value in quotes"),
    ),
    "found duplicate anchor": YamlErrorText(
        "two anchors have one name", None, ("rename one of the two",)
    ),
    "unknown escape character": YamlErrorText(
        "an unknown escape in double quotes",
        r"in double quotes a backslash starts an escape (\n, \t, \\)",
        ("use single quotes", r"or write \\ for a backslash"),
    ),
    "special characters are not allowed": YamlErrorText(
        "a control character", None, ("remove it",)
    ),
    "while parsing a block mapping": YamlErrorText(
        "a line that does not belong to the mapping it stands in",
        "its indentation fits neither the keys before it nor a value",
        ("line it up with the keys before it",),
    ),
    "while parsing a block collection": YamlErrorText(
        "a line that does not belong to the list it stands in",
        "its indentation fits neither the items before it nor a value",
        ("line it up with the `-` before it",),
    ),
}


def explain(error: Exception) -> YamlErrorText:
    """What is wrong, why it is (if that helps) and what to do, for an error of PyYAML."""
    if not isinstance(error, yaml.YAMLError):
        return YamlErrorText("an escape or a version number out of range")
    problem = str(getattr(error, "problem", "") or getattr(error, "reason", "") or error)
    context = str(getattr(error, "context", "") or "")
    for text in (problem, context):
        for part, words in _TABLE.items():
            if part in text:
                return words
    return YamlErrorText(
        problem.strip().partition("\n")[0] or "it cannot be parsed", context or None
    )
