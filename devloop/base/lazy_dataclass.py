"""`dataclass` as the standard library's, without the compiler at each definition.

The standard library writes the text of six methods for a frozen dataclass and compiles each, which
costs 0.7 ms: for two hundred classes half of the time until a session starts. Here only `__init__`
is compiled, when the first object is made; the other methods are closures. What is a field, and
what the field is like, is still the standard library's to say, and type checkers see nothing else.

Must not be used for code that runs in containers, where there is no devloop to import.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, eq=True, frozen=False, slots=False, kw_only=False):
        """The arguments that devloop uses of `dataclasses.dataclass`, with the same meaning.

        One that is frozen cannot inherit from one of the standard library's, nor be inherited by
        such a one. A field without a default after one with a default is found when the first
        object is made."""

        def wrap(plain):
            own = {name for name, value in plain.__dict__.items() if value is not None}
            # Without, the standard library works out a signature for it.
            plain.__doc__ = plain.__doc__ or plain.__name__
            made = dataclasses.dataclass(
                init=False, repr=False, eq=False, slots=slots, kw_only=kw_only
            )(plain)
            for name, method in _methods(made, eq, frozen, slots).items():
                if name not in own:
                    setattr(made, name, method)
            return made

        return wrap if cls is None else wrap(cls)


def _methods(cls: Any, eq: bool, frozen: bool, slots: bool) -> dict[str, Any]:
    fields = dataclasses.fields(cls)
    methods: dict[str, Any] = {
        "__init__": _init_at_first_call(cls, fields, frozen),
        "__repr__": _repr([field.name for field in fields if field.repr]),
    }
    if eq:
        methods["__eq__"] = _eq(_values([field.name for field in fields if field.compare]))
        hashed = [f.name for f in fields if (f.compare if f.hash is None else f.hash)]
        methods["__hash__"] = _hash(_values(hashed)) if frozen else None
    if frozen:
        methods |= {"__setattr__": _refuse_set, "__delattr__": _refuse_delete}
    if frozen and slots:
        methods |= {"__getstate__": _state, "__setstate__": _restore}
    return methods


def _init_at_first_call(cls: Any, fields: tuple[Any, ...], frozen: bool) -> Any:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it stands for it
        compiled = _compiled_init(cls, fields, frozen)
        # Of two threads that come here at once, both have the same.
        cls.__init__ = compiled
        compiled(self, *args, **kwargs)

    return __init__


def _compiled_init(cls: Any, fields: tuple[Any, ...], frozen: bool) -> Any:
    """A function that takes the fields' values and assigns them."""
    names: dict[str, Any] = {"_assign": object.__setattr__, "_MISSING": dataclasses.MISSING}
    by_place: list[str] = []
    by_name: list[str] = []
    body: list[str] = []
    for field in fields:
        name, value = field.name, field.name
        parameter = name
        if field.default is not dataclasses.MISSING:
            names[f"_default_{name}"] = field.default
            parameter += f"=_default_{name}"
            value = name if field.init else f"_default_{name}"
        elif field.default_factory is not dataclasses.MISSING:
            names[f"_factory_{name}"] = field.default_factory
            parameter += "=_MISSING"
            value = f"_factory_{name}()"
            if field.init:
                value += f" if {name} is _MISSING else {name}"
        elif not field.init:
            continue
        if field.init:
            (by_name if field.kw_only else by_place).append(parameter)
        body.append(f"_assign(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *by_place, *(["*", *by_name] if by_name else ())])
    exec(f"def __init__({parameters}):\n " + "\n ".join(body or ["pass"]), names)  # noqa: S102
    init = names["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _values(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What gives an object's values of these fields, as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda this: tuple(getattr(this, name) for name in names)


def _repr(names: list[str]) -> Callable[[Any], str]:
    @recursive_repr("...")
    def __repr__(self: Any) -> str:  # noqa: N807 - it is one
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({shown})"

    return __repr__


def _eq(values: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any, object], bool]:
    def __eq__(self: Any, other: object) -> bool:  # noqa: N807 - it is one
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    return __eq__


def _hash(values: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], int]:
    def __hash__(self: Any) -> int:  # noqa: N807 - it is one
        return hash(values(self))

    return __hash__


def _refuse_set(_self: object, name: str, _value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[object]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _restore(self: Any, state: list[object]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
