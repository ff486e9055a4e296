"""The ignore rules against what BuildKit's own code answers, and against themselves.

`buildkit_corpus.json` holds random rules and trees with what BuildKit sends of each: the output of
fsutil's FilterFS (a72de9dcf763) over moby/patternmatcher 0.6.1, recorded once. `sent` is null where
these refuse the rules. The same is asked of a real daemon in integration/watch.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devloop.base.ignore_rules import IgnoreFileError, IgnoreRules
from devloop.watch.rules import ContextRules

CORPUS = json.loads(Path(__file__).with_name("buildkit_corpus.json").read_text())


def sent(rules: IgnoreRules, paths: list[str]) -> set[str]:
    """What a walk keeps: what is not ignored, and the directories above that."""
    found: set[str] = set()
    for path in (p.rstrip("/") for p in paths):
        if not rules.ignored(path):
            parts = path.split("/")
            found.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return found


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: repr(case["rules"]))
def test_sends_what_buildkit_sends(case: dict[str, Any]) -> None:
    if case["sent"] is None:
        with pytest.raises(IgnoreFileError):
            IgnoreRules.parse(case["rules"])
    else:
        assert sent(IgnoreRules.parse(case["rules"]), case["paths"]) == set(case["sent"])


@pytest.mark.parametrize(
    ("text", "ignored", "kept"),
    [
        ("", "", "a d/b"),
        ("a", "a a/b a/b/c", "b d/a ab"),
        ("/a/", "a a/b", "d/a"),
        ("*", "a d/b .x", ""),
        ("*.md", "a.md .md", "d/a.md a.mdx"),
        ("**/*.md", "a.md d/a.md d/e/a.md", "a.mdx"),
        ("**/a", "a d/a d/e/a a/b", "ba d/ba"),
        ("**", "a d/b", ""),
        ("a/**", "a/b a/b/c", "a b"),
        ("a/*", "a/b a/b/c", "a b"),
        ("a/*/c", "a/b/c a/b/c/d", "a/b a/b/b/c"),
        ("a?", "ab", "a a/b abc"),
        ("[a-c]x", "ax bx", "dx x"),
        ("[^a-c]x", "dx", "ax bx"),
        (r"a\*", "a*", "ab"),
        ("a.b", "a.b", "axb"),
        ("a+(b)|{c}$", "a+(b)|{c}$", "aab"),
        ("# a\na", "a", "# a"),
        (" # a", "# a", "a"),
        ("\ufeffa\r\n b \r\n\n\t\n", "a b", "c"),
        ("./x/../a", "a", "x"),
        ("..\n.\n../a", "", "a b"),
        ("*\n!a", "b", "a a/b"),
        ("!a\n*", "a b", ""),
        ("a\n!a/b\na/b/c", "a a/x a/b/c", "a/b a/b/d"),
        # A pattern that could not change the answer for a directory is not remembered for what is
        # in it: the exception says nothing about `a`, which was in already.
        ("a/b\n!a", "a/b", "a a/c"),
        ("! a\n !b\n*", "a b", ""),
        ("é*", "élan", "elan"),
        # Not what the pattern language's documentation says, but what moby's translation does.
        (r"d\d", "d1 d2", "dd da"),
        (r"\x61", "a", "x61"),
        ("[[:digit:]]", "1", "a :"),
        ("[!a]", "! a", "b"),
        ("z^*", "", "z^ z"),
        ("z^", "z^", "z"),
        ("a[^b]c", "a/c axc", "abc"),
        ("[a&&b]", "a & b", "c"),
        ("[a||b-c]", "a | b c", "-"),
        (r"[\]x]", "] x", "\\"),
        (r"\s\S\w\W\D", "", "s"),
    ],
)
def test_table(text: str, ignored: str, kept: str) -> None:
    rules = IgnoreRules.parse(text)
    assert [p for p in _paths(ignored) if not rules.ignored(p)] == []
    assert [p for p in _paths(kept) if rules.ignored(p)] == []


def _paths(words: str) -> list[str]:
    return ["# a"] if words == "# a" else words.split(" ") if words else []


@pytest.mark.parametrize(
    ("text", "place", "pattern"),
    [
        ("a\n  [b", (2, 3), "[b"),
        ("!", (1, 1), "!"),
        ("\n\n!/", (3, 1), "!/"),
        ("# x\n\\", (2, 1), "\\"),
        ("[]a]", (1, 1), "[]a]"),
        ("[b-a]", (1, 1), "[b-a]"),
        ("[[:nope:]]", (1, 1), "[[:nope:]]"),
        (r"a\e", (1, 1), r"a\e"),
        ("a*[b", (1, 1), "a*[b"),
    ],
)
def test_a_bad_pattern_is_an_error_with_its_place(
    text: str, place: tuple[int, int], pattern: str
) -> None:
    with pytest.raises(IgnoreFileError, match=re.escape(f'"{pattern}"')) as raised:
        IgnoreRules.parse(text)
    assert (raised.value.line, raised.value.column) == place


def test_extra_patterns_come_last() -> None:
    rules = IgnoreRules.parse("!*.md\nsrc", ["*.md", "!src/keep"])
    assert rules.ignored("a.md")
    assert rules.ignored("src/lost")
    assert not rules.ignored("src/keep")
    with pytest.raises(IgnoreFileError) as raised:
        IgnoreRules.parse("a", ["[x"])
    assert raised.value.line is None


@pytest.mark.parametrize(
    ("text", "directory", "may"),
    [
        ("node_modules", "node_modules", False),
        ("node_modules", "src", True),
        ("node_modules\n!*.md", "node_modules", False),
        ("node_modules\n!src/*.md", "node_modules", False),
        ("node_modules\n!**/keep", "node_modules", True),
        ("node_modules\n!node_modules/a/b", "node_modules", True),
        ("node_modules\n!node_modules/a/b", "node_modules/a", True),
        ("node_modules\n!node_modules/a/b", "node_modules/c", False),
        ("node_modules\n!node_modules/*/b", "node_modules/a", True),
        ("node_modules\n!node_modules/*/b", "node_modules/a/c", False),
        ("!**/keep\nnode_modules", "node_modules", False),
        ("*\n!src", "src", True),
        ("*\n!src", "src/deep/er", True),
        ("*\n!src", "docs", False),
        ("a\n!a[^b]c", "a", True),
        ("a\n!a\\Db", "a", True),
    ],
)
def test_what_need_not_be_walked(text: str, directory: str, may: bool) -> None:
    assert IgnoreRules.parse(text).may_contain(directory) is may


PART = st.sampled_from(
    ["a", "b", "*", "**", "?", "a*", "*b", "[ab]", "[^a]", "l?b", "\\a", "\\D", "..", "**a", "a**"]
)
PATTERN = st.builds(
    lambda sign, parts: sign + "/".join(parts),
    st.sampled_from(["", "", "!"]),
    st.lists(PART, min_size=1, max_size=4),
)
PATH = st.lists(st.sampled_from(["a", "b", "ab", "lib", "ba"]), min_size=1, max_size=5)


@given(st.lists(PATTERN, max_size=6), PATH)
def test_pruning_never_loses_a_path(patterns: list[str], parts: list[str]) -> None:
    rules = IgnoreRules.parse("\n".join(patterns))
    if not rules.ignored("/".join(parts)):
        for depth in range(1, len(parts)):
            assert rules.may_contain("/".join(parts[:depth]))


@given(st.lists(PATTERN, max_size=6), st.lists(PATH, min_size=1, max_size=8))
def test_the_answer_does_not_depend_on_what_was_asked_before(
    patterns: list[str], paths: list[list[str]]
) -> None:
    text = "\n".join(patterns)
    rules = IgnoreRules.parse(text)
    for parts in paths:
        path = "/".join(parts)
        assert rules.ignored(path) == IgnoreRules.parse(text).ignored(path)


@given(st.lists(PATTERN, max_size=6), PATH)
def test_walking_down_is_the_same_as_asking(patterns: list[str], parts: list[str]) -> None:
    rules = ContextRules(IgnoreRules.parse("\n".join(patterns)))
    inherited = 0
    for depth in range(1, len(parts)):
        directory = "/".join(parts[:depth])
        included, _, inherited = rules.directory(inherited, directory, parts[depth - 1])
        assert included is not rules.ignore.ignored(directory)
    path = "/".join(parts)
    kept = not rules.ignore.ignored(path)
    assert rules.file(inherited, path, parts[-1]) is kept
    assert rules.files_in(inherited)(path, parts[-1]) is kept


@given(st.text(max_size=30))
def test_any_text_is_rules_or_an_error_with_a_place(text: str) -> None:
    refused = None
    try:
        rules = IgnoreRules.parse(text)
        rules.ignored("a/b")
        rules.may_contain("a")
    except IgnoreFileError as error:
        refused = error
    assert refused is None or (refused.line is not None and refused.column is not None)


@pytest.mark.parametrize(
    ("text", "path", "counts"),
    [
        ("", ".git/HEAD", False),
        ("", "sub/.git", False),
        ("!.git", ".git/HEAD", True),
        (".git\n!.git/HEAD", ".git/HEAD", True),
        (".git\n!.git/HEAD", ".git/index", False),
        ("!.git", ".devloop/x", False),
        ("!.devloop", ".devloop/x", False),
        ("", "src/.app.py.swp", False),
        ("!**/*.swp", "src/.app.py.swp", False),
        ("", ".gitignore", True),
        ("*", "a", False),
        ("d\n!d/a", "d", True),
        ("d", "d", False),
        ("d", "d/a", False),
    ],
)
def test_what_devloop_adds_to_dockers_rules(text: str, path: str, counts: bool) -> None:
    assert ContextRules(IgnoreRules.parse(text)).concerns(path) is counts
