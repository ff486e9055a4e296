"""What no build reads is left alone, and never where that is not sure."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from devloop.app.project_paths import DockerfileReads
from devloop.base.cancel import Cancel, Cancelled
from devloop.base.read_patterns import ReadPatterns
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Service
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from devloop.model import Scan


class Triggers:
    """Base images of which it is known whether they have ONBUILD triggers."""

    def __init__(self, *, none: bool = True) -> None:
        self.none = none
        self.asked: list[tuple[str, ...]] = []

    def none_in(self, images: Iterable[str], cancel: Cancel) -> bool:
        del cancel
        self.asked.append(tuple(images))
        return self.none


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "Dockerfile", "FROM python\nCOPY app.py src/lib ./\n")
    for path in ("app.py", "src/lib/a.py", "src/lib/b/c.py", "src/other.py"):
        write(tmp_path / path)
    for index in range(5):
        write(tmp_path / f"data/d{index}/file", "much")
    return tmp_path


READ = ["app.py", "src", "src/lib", "src/lib/a.py", "src/lib/b", "src/lib/b/c.py"]


def source(
    root: Path, triggers: Triggers | None = None, moved: dict[str, str] | None = None, **build: Any
) -> ServiceSource:
    made = Build(context=root, dockerfile=root / "Dockerfile", **build)
    reads = DockerfileReads(made, triggers or Triggers(), lambda _: moved or {})  # type: ignore[arg-type]
    service = Service(name="web", image="web", build=made, deploy=Deploy(workload_name="web"))
    return ServiceSource(service, root, reads=reads)


def look(source: ServiceSource, *hints: Path) -> Scan:
    return source.scan(frozenset(hints) if hints else None, Cancel())


def seen(source: ServiceSource, *hints: Path) -> list[str]:
    return list(look(source, *hints).snapshot.entries)


def test_what_no_instruction_names_is_neither_read_nor_watched(root: Path) -> None:
    made = source(root)
    assert seen(made) == READ
    assert made.directories() == {
        str(root),
        *(f"{root}/{d}" for d in ("src", "src/lib/b", "src/lib")),
    }
    assert not made.concerns(root / "data/d1/file")
    assert not made.concerns(root / "src/other.py")
    assert made.concerns(root / "src/lib/new.py")
    before = look(made)
    write(root / "data/d1/file", "other")
    assert look(made).fingerprint == before.fingerprint


def test_where_all_is_read_nobody_is_asked(root: Path) -> None:
    triggers = Triggers()
    (root / "Dockerfile").write_text("FROM python\nCOPY . .\n")
    assert "data/d0/file" in seen(source(root, triggers))
    assert triggers.asked == []


def test_a_file_that_no_instruction_names_starts_nothing(root: Path) -> None:
    made = source(root)
    before = look(made)
    log = write(root / "debug.log")
    assert not made.concerns(log)
    assert look(made, log).fingerprint == before.fingerprint
    assert made.written_since(before) == frozenset()


def test_where_base_images_may_read_more_everything_counts(root: Path) -> None:
    triggers = Triggers(none=False)
    made = source(root, triggers)
    assert "data/d1/file" in seen(made)
    look(made)
    assert triggers.asked == [("python",)]


@pytest.mark.parametrize(
    "text",
    [
        "FROM python\nCOPY . .\n",
        "FROM python\nARG D\nCOPY $D .\n",
        "# syntax=acme/own\nFROM python\nCOPY app.py .\n",
        "FROM python AS a\nONBUILD COPY data /\nFROM a\nCOPY app.py .\n",
        "ARG BASE\nFROM $BASE\nCOPY app.py .\n",
        "RUBBISH",
    ],
)
def test_where_the_dockerfile_does_not_tell_everything_counts(root: Path, text: str) -> None:
    (root / "Dockerfile").write_text(text)
    assert "data/d1/file" in seen(source(root))


def test_a_build_command_may_read_everything(root: Path) -> None:
    assert "data/d1/file" in seen(source(root, builder="command", command=("make",)))


def test_a_new_copy_finds_everything(root: Path) -> None:
    made = source(root)
    before = look(made)
    dockerfile = write(root / "Dockerfile", "FROM python\nCOPY app.py src/lib data ./\n")
    assert made.concerns(dockerfile)
    assert made.reshapes(dockerfile)
    assert f"{root}/data/d1" in made.directories()
    after = look(made, dockerfile)
    assert "data/d1/file" in after.snapshot.entries
    assert after.fingerprint.build != before.fingerprint.build
    assert made.concerns(root / "data/d1/file")


def test_other_base_images_are_asked_about_anew(root: Path) -> None:
    moved: dict[str, str] = {}
    triggers = Triggers()
    made = source(root, triggers, moved)
    assert seen(made) == READ
    moved["python"] = "sha256:1"
    triggers.none = False
    assert "data/d1/file" in seen(made)
    assert len(triggers.asked) == 2


@pytest.mark.parametrize("late", [False, True])
def test_behind_a_link_on_the_way_everything_may_be_read(root: Path, *, late: bool) -> None:
    dockerfile = root / "Dockerfile"
    dockerfile.write_text("FROM python\nCOPY app.py link/d1 ./\n")
    link = root / "link"
    made = source(root)
    before = look(made) if late else None
    link.symlink_to("data")
    after = look(made, link) if late else look(made)
    assert "data/d1/file" in after.snapshot.entries
    if before is not None:
        assert {"link", "data/d1/file"} <= set(after.changed)
    assert "data/d1/file" in seen(made)
    assert made.concerns(root / "data/d1/file")


def test_a_link_that_is_copied_with_its_directory_leads_nowhere(root: Path) -> None:
    (root / "src/lib/link").symlink_to("../../data")
    assert seen(source(root)) == sorted([*READ, "src/lib/link"])


def test_what_comes_later_is_left_alone_from_the_next_full_look_on(root: Path) -> None:
    write(root / ".dockerignore", "Dockerfile\n.dockerignore\nsrc/other.py\ndata/d*\n")
    triggers = Triggers()
    made = source(root, triggers)
    assert seen(made) == sorted([*READ, "data"])
    assert triggers.asked == []
    write(root / "data/file")
    assert seen(made) == READ
    assert triggers.asked == [("python",)]


def test_an_ignore_file_counts_as_before(root: Path) -> None:
    write(root / ".dockerignore", "src/lib/b\n**/*.py\n!app.py\n")
    assert seen(source(root)) == ["app.py", "src", "src/lib"]


def test_a_cancelled_look_ends_before_it_weighs(root: Path) -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Cancelled):
        source(root).scan(None, cancel)


@pytest.mark.parametrize("seed", range(30))
def test_the_narrow_scan_sees_just_what_may_be_read(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    names = ["a", "b", "c.py", "d.py"]
    for _ in range(25):
        path = tmp_path.joinpath(*random_.choices(names, k=random_.randint(1, 3)))
        if not path.exists() and not any(p.is_file() for p in path.parents):
            write(path)
    patterns = [
        "/".join(random_.choices([*names, "*", "*.py", "?"], k=random_.randint(1, 3)))
        for _ in range(random_.randint(1, 2))
    ]
    ignored = random_.choice(["", "a\n", "**/b\n!a/b\n", "*\n!a\n"])
    write(tmp_path / ".dockerignore", f"Dockerfile\n.dockerignore\n{ignored}")
    write(tmp_path / "Dockerfile", f"FROM x\nCOPY {' '.join(patterns)} /\n")
    wide = look(source(tmp_path, Triggers(none=False))).snapshot.entries
    found = look(source(tmp_path)).snapshot.entries
    reads = ReadPatterns.plain(patterns)
    assert reads is not None
    files = {p for p, entry in wide.items() if entry.type == "file" and reads.may_read(p)}
    assert {p for p, entry in found.items() if entry.type == "file"} == files
    assert all(wide[path] == entry for path, entry in found.items())
