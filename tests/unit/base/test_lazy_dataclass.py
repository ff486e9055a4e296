"""A lazy dataclass behaves as the standard library's with the same arguments."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import KW_ONLY, field
from typing import Any, ClassVar

import pytest

from devloop.base import lazy_dataclass

FORMS: list[dict[str, bool]] = [
    {"frozen": True, "slots": True, "kw_only": True},
    {"frozen": True, "slots": True},
    {"slots": True},
    {"slots": True, "kw_only": True},
    {"eq": False},
    {"slots": True, "eq": False},
    {"kw_only": True, "eq": False},
    {},
]


def _both(**how: bool) -> list[Any]:
    return [_made(dataclasses.dataclass, how), _made(lazy_dataclass.dataclass, how)]


def _made(decorator: Any, how: dict[str, bool]) -> Any:
    @decorator(**how)
    class Point:
        shared: ClassVar[int] = 3
        x: int
        y: int = 2
        tags: list[str] = field(default_factory=list, hash=False, compare=False)
        kept: list[int] = field(default_factory=lambda: [1], init=False, compare=False)
        hidden: str = field(default="z", init=False, repr=False)

    return Point


def _outcome(call: Any) -> Any:
    """What `call` gives, or how it fails, in words."""
    try:
        return call()
    except (TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("how", FORMS, ids=str)
def test_it_does_what_the_standard_librarys_does(how: dict[str, bool]) -> None:
    outcomes = []
    for point in _both(**how):
        one = point(x=1)
        same = point(x=1)
        other = dataclasses.replace(one, y=5)
        outcomes.append(
            [
                dataclasses.asdict(one),
                [f.name for f in dataclasses.fields(point)],
                point.__match_args__,
                one == same,
                one == other,
                one != "x",
                _outcome(lambda same=same: hash(same) == hash((1, 2, "z")) or "by identity"),
                _outcome(lambda one=one: setattr(one, "x", 7)),
                _outcome(lambda other=other: delattr(other, "y")),
                _outcome(lambda one=one: hasattr(one, "__dict__")),
                _outcome(lambda point=point: point()),
                _outcome(lambda point=point: point(x=1, z=2)),
                _outcome(lambda point=point: point(1).x),
                one.tags is not same.tags,
                dataclasses.asdict(copy.deepcopy(one)),
                repr(same),
            ]
        )
    assert outcomes[1] == outcomes[0]


@lazy_dataclass.dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    a: int
    seen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.a < 0:
            raise ValueError(self.a)


@lazy_dataclass.dataclass(frozen=True, slots=True, kw_only=True)
class Derived(Base):
    b: int = 0


@lazy_dataclass.dataclass(eq=False)
class Marked:
    first: int
    _: KW_ONLY
    second: int = 2


@lazy_dataclass.dataclass(frozen=True, slots=True)
class Written:  # noqa: PLW1641 - the decorator makes the hash
    a: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Written)

    def __repr__(self) -> str:
        return "written"


def test_fields_and_the_check_after_them_are_inherited() -> None:
    assert Derived(a=1, b=2) == Derived(b=2, a=1) != Derived(a=1)
    assert Derived(a=1) != Base(a=1)
    assert repr(Derived(a=1)) == "Derived(a=1, seen=(), b=0)"
    with pytest.raises(ValueError, match="-1"):
        Derived(a=-1)


def test_the_fields_after_the_mark_are_given_by_name() -> None:
    assert Marked(1, second=3).second == 3
    with pytest.raises(TypeError, match="positional"):
        Marked(1, 3)  # type: ignore[call-arg]


def test_what_the_class_body_defines_stays() -> None:
    assert Written(1) == Written(2)
    assert repr(Written(1)) == "written"
    assert hash(Written(1)) == hash((1,))


def test_a_frozen_one_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Derived(a=1, b=2))) == Derived(a=1, b=2)


def test_a_class_without_words_of_its_own_is_called_by_its_name() -> None:
    assert Base.__doc__ == "Base"


def test_nothing_is_compiled_before_the_first_object() -> None:
    point = _both(frozen=True, slots=True, kw_only=True)[1]
    before = point.__init__
    point(x=1)
    compiled = point.__init__
    assert compiled is not before
    assert point(x=2).y == 2
    assert point.__init__ is compiled
