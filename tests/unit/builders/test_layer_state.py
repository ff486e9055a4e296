"""What an image needs when its context changed: a delta layer, or layers made again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from devloop.builders.delta.layer_state import (
    BaseState,
    CopyLayer,
    LayerChange,
    LayerState,
)
from devloop.builders.dockerfile import parse
from devloop.builders.image.copies import FileEntry, StageState, stage_copies
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.model import ContextEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.builders.image.copies import Copy


def file(text: str, mode: int = 0o644) -> ContextEntry:
    return ContextEntry("file", mode, len(text), hashlib.sha256(text.encode()).hexdigest())


DIR = ContextEntry("dir", 0o755)


def snapshot(entries: Mapping[str, ContextEntry]) -> Snapshot:
    ordered = dict(sorted(entries.items()))
    return Snapshot(entries=ordered, digest=repr(ordered), stamp="")


def copies(text: str) -> tuple[Copy, ...]:
    return stage_copies(parse(text), None, {}, StageState())


def directory(path: str, mode: int = 0o755, uid: int = 0) -> FileEntry:
    return FileEntry(path=path, type="dir", mode=mode, uid=uid)


FILES = {"a": file("1"), "d": DIR, "d/b": file("2"), "d/c": file("3")}
APP = {"app": directory("app", 0o750, 7)}


def layer_state(
    text: str = "FROM x\nCOPY . /app/\n",
    files: Mapping[str, ContextEntry] = FILES,
    **base_state: object,
) -> LayerState:
    copy_layers = tuple(
        CopyLayer(copy=copy, index=number + 3, owner=(0, 0))
        for number, copy in enumerate(copies(text))
    )
    options = {"directories": APP} | base_state
    return LayerState(BaseState(copy_layers=copy_layers, snapshot=snapshot(files), **options))  # type: ignore[arg-type]


def moved(state: LayerState, files: Mapping[str, ContextEntry | None]) -> LayerChange:
    entries = {p: e for p, e in {**state.snapshot.entries, **files}.items() if e is not None}
    state.move(snapshot(entries))
    return state.change()


def paths(change: LayerChange) -> list[str]:
    return [entry.path for entry in change.delta]


def test_nothing_changed_nothing_to_do() -> None:
    assert layer_state().change() == LayerChange()
    assert moved(layer_state(), {}) == LayerChange()


def test_a_changed_file_comes_with_the_directories_above_as_they_are() -> None:
    change = moved(layer_state(), {"d/b": file("22")})
    assert paths(change) == ["app", "app/d", "app/d/b"]
    assert change.delta[0] == APP["app"]
    assert change.delta[2].digest == file("22").digest
    assert (change.files, change.size) == (1, 2)


def test_the_delta_is_of_all_changes_since_the_layers_were_made() -> None:
    state = layer_state()
    moved(state, {"a": file("11")})
    moved(state, {"new": file("n")})
    change = moved(state, {"d/b": file("22")})
    assert paths(change) == ["app", "app/a", "app/d", "app/d/b", "app/new"]
    assert paths(moved(state, {"d/b": file("2")})) == ["app", "app/a", "app/new"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a": file("1", 0o755)}, ["app", "app/a"]),
        ({"d": ContextEntry("dir", 0o700)}, ["app", "app/d"]),
        ({"n": DIR, "n/m": DIR, "n/m/f": file("f")}, ["app", "app/n", "app/n/m", "app/n/m/f"]),
        ({"l": ContextEntry("symlink", 0o777, link="a")}, ["app", "app/l"]),
    ],
)
def test_what_is_added_or_gets_another_mode(
    files: dict[str, ContextEntry], expected: list[str]
) -> None:
    change = moved(layer_state(), files)
    assert paths(change) == expected
    assert not change.layers


@pytest.mark.parametrize(
    "files",
    [
        {"a": None},
        {"d": None, "d/b": None, "d/c": None},
        {"a": ContextEntry("symlink", 0o777, link="d/b")},
        {"a": DIR, "a/x": file("x")},
        {"d": file("now a file"), "d/b": None, "d/c": None},
        {"a": None, "z": file("1")},
    ],
)
def test_what_goes_makes_the_layer_again(files: dict[str, ContextEntry | None]) -> None:
    state = layer_state()
    moved(state, {"d/c": file("33")})
    change = moved(state, files)
    assert not change.delta
    assert list(change.layers) == [3]
    left = {f"app/{path}" for path, entry in {**FILES, **files}.items() if entry is not None}
    assert {entry.path for entry in change.layers[3]} == left | {"app"}


def test_after_that_a_delta_begins_anew() -> None:
    state = layer_state()
    moved(state, {"a": None, "d/b": file("22")})
    state.settle(state.freeze())
    assert state.change() == LayerChange()
    assert paths(moved(state, {"d/c": file("33")})) == ["app", "app/d", "app/d/c"]


TWO = "FROM x\nCOPY a /one/\nCOPY d /two/\nCOPY a /two/again\n"


def test_only_the_layers_from_the_first_that_differs() -> None:
    directories = {name: directory(name) for name in ("one", "two")}
    change = moved(layer_state(TWO, directories=directories), {"d/b": None})
    assert list(change.layers) == [4, 5]
    assert [entry.path for entry in change.layers[5]] == ["two", "two/again"]


def test_one_source_in_two_places() -> None:
    directories = {name: directory(name) for name in ("one", "two")}
    change = moved(layer_state(TWO, directories=directories), {"a": file("11")})
    assert paths(change) == ["one", "one/a", "two", "two/again"]


def test_the_later_copy_of_a_path_counts() -> None:
    text = "FROM x\nCOPY d /app/\nCOPY a /app/b\n"
    state = layer_state(text)
    assert moved(state, {"d/b": file("22")}) == LayerChange()
    assert paths(moved(state, {"a": file("11"), "d/b": file("2")})) == ["app", "app/b"]


def test_another_layer_that_has_the_path_too_is_not_written_over() -> None:
    state = layer_state(above=frozenset({"app", "app/d", "app/d/b"}))
    assert paths(moved(state, {"a": file("11")})) == ["app", "app/a"]
    with pytest.raises(NeedsFullBuild, match="another layer has /app/d/b too"):
        moved(state, {"d/b": file("22")})
    state = layer_state(above=frozenset({"app", "app/d", "app/d/b"}))
    with pytest.raises(NeedsFullBuild, match="another layer has /app/d too"):
        moved(state, {"d": ContextEntry("dir", 0o700)})


def test_a_directory_that_the_image_does_not_show_proves_nothing() -> None:
    with pytest.raises(NeedsFullBuild, match="/app"):
        moved(layer_state(directories={}), {"a": file("11")})


def test_what_an_older_delta_held_is_in_every_new_one_until_layers_are_made_again() -> None:
    state = layer_state(loose=frozenset({"app/d/c"}))
    assert paths(state.change()) == ["app", "app/d", "app/d/c"]
    assert paths(moved(state, {"a": file("11")})) == ["app", "app/a", "app/d", "app/d/c"]
    change = moved(state, {"a": None})
    assert list(change.layers) == [3]
    state.settle(state.freeze())
    assert paths(moved(state, {"d/b": file("22")})) == ["app", "app/d", "app/d/b"]


def test_a_fold_takes_the_delta_into_the_layers() -> None:
    state = layer_state()
    moved(state, {"a": file("11")})
    frozen = state.freeze()
    change = state.change(fold=True)
    assert not change.delta
    assert {e.path: e.digest for e in change.layers[3]}["app/a"] == file("11").digest
    moved(state, {"d/b": file("22")})
    state.settle(frozen)
    assert paths(state.change()) == ["app", "app/d", "app/d/b"]
