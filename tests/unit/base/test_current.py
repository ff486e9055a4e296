"""A mapping that is replaced while others read it."""

from __future__ import annotations

from devloop.base.current import Current


def test_who_goes_through_it_sees_what_was_there_when_that_began() -> None:
    mapping = Current({"a": 1, "b": 2})
    seen = []
    for name, value in mapping.items():
        mapping.replace({"c": 3})
        seen.append((name, value))
    assert seen == [("a", 1), ("b", 2)]
    assert (dict(mapping), list(mapping), list(mapping.values())) == ({"c": 3}, ["c"], [3])
    assert (len(mapping), mapping.get("a"), list(mapping.keys())) == (1, None, ["c"])
