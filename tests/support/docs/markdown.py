"""Markdown as GitHub shows it: tables, anchors, links and code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GENERATED = (
    "<!-- Generated: `python -m tests.support.docs` writes this page anew, from {source}. -->\n"
)
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})[ ]*([A-Za-z]*)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *#*$")
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)


class Block(NamedTuple):
    """A fenced block: what it holds, `line` by line of the page, counted from 1."""

    language: str
    line: int
    text: str


def prose(text: str) -> str:
    """A text with what only looks like Markdown or HTML escaped, code spans aside."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*<>])", r"\\\1", part) for part in parts
    )


def row(*cells: str) -> str:
    """A line of a table."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a table."""
    yield row(*head)
    yield row(*("---" for _ in head))
    for cells in rows:
        yield row(*cells)


def anchor(heading: str) -> str:
    """What GitHub makes of a heading's text for links to it, the first time that it stands."""
    plain = _LINK.sub(lambda found: found[0][1 : found[0].index("](")], heading)
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def split(text: str) -> tuple[list[str], list[Block]]:
    """A page's lines, with those of fenced blocks empty, and the blocks."""
    lines: list[str] = []
    blocks: list[Block] = []
    fence, language, begin, held = "", "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        found = _FENCE.match(line)
        if not fence and found:
            fence, language, begin, held = found[2], found[3], number + 1, []
        elif fence and line.strip() == fence:
            blocks.append(Block(language, begin, "".join(f"{each}\n" for each in held)))
            fence = ""
        elif fence:
            held.append(line)
        else:
            lines.append(line)
            continue
        lines.append("")
    return lines, blocks


def anchors(text: str) -> set[str]:
    """All anchors of a page, those of headings with the same text included."""
    found: set[str] = set()
    for line in split(text)[0]:
        if heading := _HEADING.match(line):
            name, count = anchor(heading[1]), 0
            while (numbered := f"{name}-{count}" if count else name) in found:
                count += 1
            found.add(numbered)
    return found


def links(text: str) -> list[str]:
    """The targets of a page's links, as they are written."""
    return _LINK.findall(_CODE.sub("", "\n".join(split(text)[0])))


def code_spans(text: str) -> list[str]:
    """What stands between backticks in a page's prose, on one line each."""
    outside = "\n".join(split(text)[0])
    return [" ".join(found[1].replace(r"\|", "|").split()) for found in _CODE.findall(outside)]
