"""Nothing that an app prints may reach the terminal as a command."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.ui.sanitize import coloured, plain

CORPUS = [
    # text, plain, coloured
    ("hello", "hello", "hello"),
    ("tab\tstays", "tab\tstays", "tab\tstays"),
    ("grün 漢字 🚀", "grün 漢字 🚀", "grün 漢字 🚀"),
    ("\x1b[31mred\x1b[0m", "red", "\x1b[31mred\x1b[0m\x1b[0m"),
    ("\x1b[38;2;1;2;3mrgb", "rgb", "\x1b[38;2;1;2;3mrgb\x1b[0m"),
    ("\x1b[38:5:3mcolons", "colons", "\x1b[38:5:3mcolons\x1b[0m"),
    ("\x1b[2Jcleared", "cleared", "cleared"),
    ("\x1b[10;10Hmoved\x1b[?25l", "moved", "moved"),
    ("\x1b[>4;2mkeys", "keys", "keys"),  # xterm's modifyOtherKeys ends in m and is no colour
    ("a\x1b]52;c;ZXZpbA==\x07b", "ab", "ab"),  # the clipboard
    ("a\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\b", "alinkb", "alinkb"),
    ("a\x1b]0;title\x9cb", "ab", "ab"),
    ('a\x1bP$q"p\x1b\\b', "ab", "ab"),
    ("a\x1b_G...\x1b\\b\x1b^x\x1b\\c\x1bXy\x1b\\d", "abcd", "abcd"),
    ("a\x9b31mb\x9dtitle\x07c", "abc", "abc"),  # 8-bit forms; 8-bit colour is not worth keeping
    ("a\x1bcb\x1b(0c\x1b#8d\x1b7", "abcd", "abcd"),
    ("open \x1b]52;c;never closed", "open 52;c;never closed", "open 52;c;never closed"),
    ("end \x1b", "end \\x1b", "end \\x1b"),
    ("end \x1b[", "end ", "end "),
    ("end \x1b[31", "end 31", "end 31"),
    ("bell\x07 back\x08 del\x7f nul\x00", *["bell\\x07 back\\x08 del\\x7f nul\\x00"] * 2),
    ("50%\r100%", "50%\\r100%", "50%\\r100%"),
    ("two\nlines\x0b\x0c\x85", *["two\\nlines\\x0b\\x0c\\x85"] * 2),
    ("x\u2028y\u2029", "x\\u2028y\\u2029", "x\\u2028y\\u2029"),
    ("ab\u202egpj.exe\u2066", "ab\\u202egpj.exe\\u2066", "ab\\u202egpj.exe\\u2066"),
    ("name\udcff \ud83d", "name\\xff \\ud83d", "name\\xff \\ud83d"),
    ("[bold]no markup[/bold]", "[bold]no markup[/bold]", "[bold]no markup[/bold]"),
]

SGR = re.compile(r"\x1b\[[0-9;:]*m")


@pytest.mark.parametrize(("text", "expected", "dressed"), CORPUS)
def test_corpus(text: str, expected: str, dressed: str) -> None:
    assert plain(text) == expected
    assert coloured(text) == dressed


HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\x1b[]P^_X\\;?:0189mHJKh\x07\x9b\x9c\x9d\x90\r\n\t \x08"), st.characters()
    )
)


@given(HOSTILE)
def test_nothing_but_colour_survives(text: str) -> None:
    for shown in (plain(text), SGR.sub("", coloured(text))):
        assert all(c.isprintable() or c == "\t" or c.isspace() or c > "\x9f" for c in shown)
        assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", shown)
        assert len(shown.splitlines()) <= 1
        shown.encode()


@given(HOSTILE)
def test_colour_never_leaks_to_the_next_line(text: str) -> None:
    shown = coloured(text)
    assert not SGR.search(shown) or shown.endswith("\x1b[0m")
    assert SGR.sub("", shown) == plain(text)


@pytest.mark.parametrize("piece", ["\x1b]", "\x9d", "\x1b[", "\x1b[1", "\x1b", "\x1b ", "\x1bP1"])
@pytest.mark.timeout(30)
def test_hostile_repetition_takes_linear_time(piece: str) -> None:
    """A pattern that backtracks takes minutes for these."""
    coloured(piece * ((1 << 17) // len(piece)))
    coloured(piece + "1;" * (1 << 16))
