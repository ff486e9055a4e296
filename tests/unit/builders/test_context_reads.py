"""What a build may read of its context, and what is known of it when."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from devloop.builders.context_reads import ContextReads
from devloop.model import ContextEntry, Fingerprint, Scan, Snapshot


def snapshot(**entries: str) -> Snapshot:
    """Files by their content; one that begins with -> is a symlink."""
    made = {
        name.replace("__", "/"): ContextEntry("symlink", 0o777, link=text[2:])
        if text.startswith("->")
        else ContextEntry("file", 0o644, len(text), text)
        for name, text in entries.items()
    }
    return Snapshot(entries=MappingProxyType(made), digest=repr(made), stamp="")


def scan(recipe: str = "r", **entries: str) -> Scan:
    found = snapshot(**entries)
    return Scan(fingerprint=Fingerprint(found.digest, ""), snapshot=found, recipe=recipe)


def test_what_differs_between_two_snapshots() -> None:
    before = snapshot(a="1", d__b="1", d__c="1")
    after = snapshot(a="2", d__b="1", d__c="1", n="1")
    assert after.changed_since(before) == {"a", "n"}
    assert before.changed_since(after) == {"a", "n"}
    assert snapshot(a="1").changed_since(before) == {"d/b", "d/c"}
    assert snapshot(a="1", x="1").changed_since(before) == {"d/b", "d/c", "x"}
    assert before.changed_since(before) == frozenset()


def test_nothing_is_known_before_an_image_was_looked_at() -> None:
    reads = ContextReads()
    assert reads.may_differ(scan(log="1"), scan(log="2"))
    reads.learn("r", ("src",))
    assert not reads.may_differ(scan(log="1"), scan(log="2"))
    assert reads.may_differ(scan("other", log="1"), scan("other", log="2"))
    assert reads.may_differ(scan("r", log="1"), scan("other", log="1"))


@pytest.mark.parametrize(
    ("patterns", "differs"),
    [(("src",), True), (("src/a*",), True), (("src/b",), False), ((".",), True), ((), False)],
)
def test_a_path_that_no_instruction_names_makes_no_difference(
    patterns: tuple[str, ...], differs: bool
) -> None:
    reads = ContextReads()
    reads.learn("r", patterns)
    assert reads.may_differ(scan(src__a="1", log="1"), scan(src__a="2", log="1")) is differs


def test_behind_a_symlink_anything_may_be_read() -> None:
    reads = ContextReads()
    reads.learn("r", ("src/a",))
    assert not reads.may_differ(scan(log="1", x="->y"), scan(log="2", x="->y"))
    assert reads.may_differ(scan(log="1", src="->y"), scan(log="2", src="->y"))
    # A link that is gone was one while the other scan's image was made.
    assert reads.may_differ(scan(log="1", src="->y"), scan(log="2", src="1"))
