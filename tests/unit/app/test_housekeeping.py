"""What may be removed, and that nothing else is."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from devloop.app import housekeeping
from devloop.app.housekeeping import Housekeeper, Leftovers, find_leftovers, remove, surplus
from devloop.base.cancel import Cancel
from devloop.builders.built_images import BuiltImage, BuiltImages
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def made(number: int, service: str = "web", *, host: str = "localhost:5001") -> BuiltImage:
    return BuiltImage(
        service=service,
        repository=f"{host}/{service}",
        tag=f"devloop-{number:04}",
        digest=f"sha256:{number:064}",
    )


images = st.builds(made, st.integers(0, 20), st.sampled_from(["web", "api"]))


@given(st.lists(images, max_size=40), st.integers(0, 12), st.sets(st.integers(0, 20)))
def test_what_is_used_or_new_stays(all_made: list[BuiltImage], keep: int, used: set[int]) -> None:
    listed = tuple(dict.fromkeys(reversed(all_made)))[::-1]  # as they are listed
    in_use = {made(number).digest for number in used}
    gone = surplus(listed, keep=keep, in_use=in_use)
    assert not {m.digest for m in gone} & in_use
    for service in ("web", "api"):
        mine = [m for m in listed if m.service == service]
        newest = mine[max(0, len(mine) - keep) :]
        assert not {m.digest for m in gone} & {m.digest for m in newest}
        if not used and service == "web" and all(m.service == "web" for m in listed):
            assert len([m for m in mine if m not in gone]) == min(keep, len(mine))


def test_the_list_of_built_images_is_in_the_order_of_their_last_use(tmp_path: Path) -> None:
    built = BuiltImages(tmp_path)
    for number in (1, 2, 1, 3):
        built.add(made(number))
    assert BuiltImages(tmp_path).all() == (made(2), made(1), made(3))
    built.forget([made(2), made(3)])
    assert BuiltImages(tmp_path).all() == (made(1),)
    assert [path.name for path in tmp_path.iterdir()] == ["built-images.json"]


def test_the_image_that_was_used_last_is_not_written_down_again(tmp_path: Path) -> None:
    built = BuiltImages(tmp_path)
    built.add(made(1))
    file = tmp_path / "built-images.json"
    before = file.stat()
    built.add(made(1))
    # To read it is no change.
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_images_that_an_earlier_devloop_listed_are_known(tmp_path: Path) -> None:
    lines = [json.dumps(asdict(made(number))) for number in (1, 2, 1)]
    cut = '{"service": "web", "repos'
    (tmp_path / "made.jsonl").write_text("\n".join([*lines, "[1]", "{}", cut]))
    built = BuiltImages(tmp_path)
    assert built.all() == (made(2), made(1))
    built.add(made(3))
    built.forget([made(1), made(2)])
    assert BuiltImages(tmp_path).all() == (made(3),)
    built.forget([made(3)])
    assert BuiltImages(tmp_path).all() == ()


def test_what_was_pushed_for_others_is_nobodys_to_remove(tmp_path: Path) -> None:
    built = BuiltImages(tmp_path)
    for number in (1, 2):
        built.add(made(number))
    built.release([(made(1).repository, made(1).digest)])
    assert built.all() == (made(2),)
    built.add(made(1))  # a session makes the same image again
    assert BuiltImages(tmp_path).all() == (made(2),)


class FakeRegistry:
    """As much of a registry as deleting needs."""

    host = "localhost:5001"

    def __init__(self, *, refuses: bool = False) -> None:
        self.deleted: list[tuple[str, str]] = []
        self._refuses = refuses

    def name(self, repository: str) -> str:
        return repository.removeprefix(f"{self.host}/")

    def delete_manifest(self, name: str, digest: str, cancel: Cancel | None = None) -> bool:
        if self._refuses:
            raise DevloopError.of(Code.REGISTRY_DELETE_REFUSED, "it does not delete anything")
        self.deleted.append((name, digest))
        return True


def test_only_this_registrys_surplus_and_old_halves_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = BuiltImages(tmp_path)
    for number in range(4):
        built.add(made(number))
    built.add(made(9, host="registry.example.com"))
    old, new = tmp_path / ".images-abc", tmp_path / ".images-def"
    for path in (old, new):
        path.write_text("{")
    os.utime(old, (time.time() - 7200,) * 2)
    monkeypatch.setattr(
        housekeeping,
        "local_images",
        lambda repositories, _cancel: (
            *(f"{r}:devloop-0003" for r in repositories),
            *(f"{r}:devloop-0001" for r in repositories),
        ),
    )
    found = find_leftovers(
        built,
        tmp_path,
        host="localhost:5001",
        keep=1,
        in_use={made(0).digest},
        cancel=Cancel(),
    )
    assert found == Leftovers(
        manifests=(made(1), made(2)),
        local=("localhost:5001/web:devloop-0001",),
        files=(old,),
        used=1,
    )


def test_a_registry_that_keeps_everything_is_a_problem_to_tell(tmp_path: Path) -> None:
    built = BuiltImages(tmp_path)
    built.add(made(1))
    registry = FakeRegistry(refuses=True)
    removed = remove(Leftovers(manifests=(made(1),)), built, registry, Cancel())  # type: ignore[arg-type]
    assert removed.manifests == 0
    assert len(removed.problems) == 1
    assert built.all() == (made(1),)


def test_what_was_removed_is_struck_out(tmp_path: Path) -> None:
    built = BuiltImages(tmp_path)
    for number in (1, 2):
        built.add(made(number))
    registry = FakeRegistry()
    removed = remove(Leftovers(manifests=(made(1),)), built, registry, Cancel())  # type: ignore[arg-type]
    assert removed.manifests == 1
    assert registry.deleted == [("web", made(1).digest)]
    assert built.all() == (made(2),)


def test_a_session_tidies_when_there_is_enough(tmp_path: Path) -> None:
    built = BuiltImages(tmp_path)
    tidied: list[int] = []
    housekeeper = Housekeeper(built, lambda _cancel: tidied.append(len(built.all())))
    for number in range(21):
        built.add(made(number))
        housekeeper.tidy_if_due()
    assert tidied == [21]


def test_a_session_tidies_by_itself_once_it_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_QUIET", 0.0)
    built = BuiltImages(tmp_path)
    for number in range(21):
        built.add(made(number))
    tidied = threading.Event()
    housekeeper = Housekeeper(built, lambda _cancel: tidied.set())
    housekeeper.start()
    try:
        with housekeeper.building():
            pass
        assert tidied.wait(60)
    finally:
        housekeeper.close()


def test_a_session_never_tidies_beside_a_build(tmp_path: Path) -> None:
    built = BuiltImages(tmp_path)
    for number in range(21):
        built.add(made(number))
    seen: list[bool] = []

    def tidy(cancel: Cancel) -> None:
        with housekeeper.building():  # begins in the middle of it
            seen.append(cancel.is_set())

    housekeeper = Housekeeper(built, tidy)
    with housekeeper.building():
        housekeeper.tidy_if_due()
    assert seen == []
    housekeeper.tidy_if_due()
    assert seen == [True]


def test_what_nobody_has_recorded_may_be_on_its_way_to_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = BuiltImages(tmp_path)
    for number in (1, 2):
        built.add(made(number))
    repository = made(1).repository
    tags = [f"{repository}:devloop-{name}" for name in ("0001", "0002", "new", "old", "unsaid")]
    now = time.time()
    asked: list[str] = []

    def tagged(references: list[str], _cancel: Cancel) -> dict[str, float]:
        asked.extend(references)
        return {tags[2]: now - 3590, tags[3]: now - 3610}

    monkeypatch.setattr(housekeeping, "local_images", lambda *_: tuple(tags))
    monkeypatch.setattr(housekeeping, "last_tagged", tagged)
    place = {"host": "localhost:5001", "in_use": (), "cancel": Cancel()}
    in_session = find_leftovers(built, tmp_path, keep=1, unknown_since=3600, **place)  # type: ignore[arg-type]
    assert in_session.local == (tags[0], tags[3])
    assert asked == tags[2:]
    asked_for = find_leftovers(built, tmp_path, keep=1, **place)  # type: ignore[arg-type]
    assert asked_for.local == (tags[0], *tags[2:])
