"""What a Dockerfile's patterns may read of a context."""

from __future__ import annotations

import pytest

from devloop.base.read_patterns import ReadPatterns


@pytest.mark.parametrize(
    "patterns", [(".",), ("src", "/"), ("**/a",), ("a[b]",), ("$DIR",), ('"a b"',), ("../..",)]
)
def test_what_may_name_anything_is_not_plain(patterns: tuple[str, ...]) -> None:
    assert ReadPatterns.plain(patterns) is None


def test_what_is_named_and_what_is_in_and_above_it_may_be_read() -> None:
    reads = ReadPatterns.plain(["src/*.py", "./lib/x/", "Pack?ge.json"])
    assert reads is not None
    for path in ("src", "src/a.py", "src/a.py/b", "lib", "lib/x", "lib/x/y/z", "Package.json"):
        assert reads.may_read(path), path
    for path in ("node_modules", "src/a.js", "lib/y", "package.json", "srcs"):
        assert not reads.may_read(path), path


def test_only_what_lies_in_something_named_is_covered() -> None:
    reads = ReadPatterns.plain(["src/app", "web*"])
    assert reads is not None
    assert [d for d in ("src", "src/app", "src/app/x", "web", "lib") if reads.covers(d)] == [
        "src/app",
        "src/app/x",
        "web",
    ]


def test_a_link_leads_on_where_it_is_named_or_above_what_is() -> None:
    reads = ReadPatterns.plain(["src/app"])
    assert reads is not None
    assert [p for p in ("src", "src/app", "src/app/x", "lib") if reads.lead_through(p)] == [
        "src",
        "src/app",
    ]


def test_no_patterns_read_nothing() -> None:
    reads = ReadPatterns.plain([])
    assert reads is not None
    assert not reads.may_read("a")
