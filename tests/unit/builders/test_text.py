"""Words and patterns of a Dockerfile, as BuildKit reads them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.builders.image.copy_sources import Filter, source_pattern
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.text import expand, split

VARIABLES = {"A": "1", "LONG_name2": "two words", "EMPTY": "", "Q": '"$A"', "ä": "umlaut"}


# After BuildKit's frontend/dockerfile/shell/lex_test.go and envVarTest.
@pytest.mark.parametrize(
    ("word", "result"),
    [
        ("plain", "plain"),
        ("$A", "1"),
        ("x${A}y", "x1y"),
        ("$A.$A", "1.1"),
        ("$LONG_name2", "two words"),
        ("$LONG_name2.x", "two words.x"),
        ("${LONG_name2}x", "two wordsx"),
        ("$NONE", ""),
        ("x${NONE}y", "xy"),
        ("$ä!", "umlaut!"),
        ("$Q", '"$A"'),
        ("'$A'", "$A"),
        ('"$A"', "1"),
        ("\"'$A'\"", "'1'"),
        ("'\"'", '"'),
        (r"\$A", "$A"),
        (r"\\$A", r"\1"),
        (r"'\$A'", r"\$A"),
        (r'"\$A"', "$A"),
        (r'"\n\"\\"', r"\n" + '"\\'),
        (r"\'x", "'x"),
        ("x\\", "x"),
        ("$", "$"),
        ("a$", "a$"),
        ("$/", "$/"),
        ("$$A", "A"),
        ("$1x", "x"),
        ("${A:-d}", "1"),
        ("${NONE:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NONE-d}", "d"),
        ("${A:+d}", "d"),
        ("${EMPTY:+d}", ""),
        ("${EMPTY+d}", "d"),
        ("${NONE+d}", ""),
        ("${NONE:-$A}", "1"),
        ("${NONE:-${NONE:-${A}}}", "1"),
        ('${NONE:-"a}b"}', "a}b"),
        (r"${NONE:-a\}b}", "a}b"),
        ("${A:?m}", "1"),
        ("${EMPTY?m}", ""),
    ],
)
def test_expand(word: str, result: str) -> None:
    assert expand(word, VARIABLES) == result


@pytest.mark.parametrize(
    "word",
    [
        *("'open", '"open', "${A", "${", "${}", "${:-x}", "${{A}}", "${NONE:?m}", "${EMPTY:?}"),
        *("${A#x}", "${A##x}", "${A%x}", "${A/x/y}", "${A//x/y}", "${A:x}", "${A!}", "${NONE:-x"),
    ],
)
def test_what_is_not_expanded(word: str) -> None:
    with pytest.raises(NeedsFullBuild):
        expand(word, VARIABLES)


def test_another_escape_character() -> None:
    assert expand(r"C:\x\$A`$A", VARIABLES, "`") == r"C:\x\1$A"


@given(st.text())
def test_single_quotes_keep_everything(text: str) -> None:
    word = text.replace("'", "")
    assert expand(f"'{word}'", VARIABLES) == word


@given(st.text(alphabet="ab $'\"\\{}:-"))
def test_any_word_ends(text: str) -> None:
    with contextlib.suppress(NeedsFullBuild):
        expand(text, VARIABLES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=1 B=2", ["A=1", "B=2"]),
        ("  A=1\t B=2 ", ["A=1", "B=2"]),
        ('A="x y" B', ['A="x y"', "B"]),
        (r"A=x\ y B", [r"A=x\ y", "B"]),
        (r"A='x\' B", [r"A='x\'", "B"]),
        (r'A="x\" y" B', [r'A="x\" y"', "B"]),
        ("A=x\\", ["A=x"]),
        ('""', ['""']),
        ("", []),
    ],
)
def test_split(text: str, words: list[str]) -> None:
    assert split(text) == words


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.py", ["a.py", ".py"], ["a.pyc", "d/a.py"]),
        ("?", ["a", "é"], ["ab", "/", ""]),
        ("a/*", ["a/b"], ["a", "a/b/c", "b/a"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "x"]),
        ("[^a-c]", ["d", "-"], ["a", "b"]),
        ("[!a]", ["!", "a"], ["b"]),
        ("[.+$]", [".", "+", "$"], ["a"]),
        ("a.b", ["a.b"], ["axb"]),
        ("*\n*", ["a\nb"], ["ab"]),
    ],
)
def test_patterns_of_sources(pattern: str, yes: list[str], no: list[str]) -> None:
    matches = source_pattern(pattern)
    assert [path for path in yes + no if matches(path)] == yes


@pytest.mark.parametrize("pattern", ["[", "[]", "[a", "[]a]", "[a-]", "[-a]", "[b-a]", "[^]"])
def test_patterns_that_go_refuses(pattern: str) -> None:
    with pytest.raises(NeedsFullBuild):
        source_pattern(pattern)


TREE = ["a", "a/b", "a/b/c.py", "a/d.py", "e.md", "x", "x/a", "x/a/f.md"]


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        (["a"], ["a", "a/b", "a/b/c.py", "a/d.py"]),
        (["*.md"], ["e.md"]),
        (["**/*.md"], ["e.md", "x/a/f.md"]),
        (["**/a"], ["a", "a/b", "a/b/c.py", "a/d.py", "x/a", "x/a/f.md"]),
        (["**.md"], ["e.md", "x/a/f.md"]),
        (["a/**"], ["a/b", "a/b/c.py", "a/d.py"]),
        (["a/**/c.py"], ["a/b/c.py"]),
        (["**"], TREE),
        (["**", "!a"], ["e.md", "x", "x/a", "x/a/f.md"]),
        (["a", "!a/b"], ["a", "a/d.py"]),
        (["a", "!a/b", "a/b/c.py"], ["a", "a/b/c.py", "a/d.py"]),
        (["./a/", "  ", "?"], ["a", "a/b", "a/b/c.py", "a/d.py", "x", "x/a", "x/a/f.md"]),
        (["a?b"], []),
        ([], []),
    ],
)
def test_filters(patterns: list[str], selected: list[str]) -> None:
    chosen = Filter(patterns)
    assert [path for path in TREE if chosen.selects(path)] == selected


@pytest.mark.parametrize("pattern", ["[ab]", "a\\b", "!"])
def test_filters_that_are_not_understood(pattern: str) -> None:
    with pytest.raises(NeedsFullBuild):
        Filter([pattern])
