"""What is kept of contents from one session to the next, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from devloop.model import ContextEntry, Fingerprint, ImageRef, Scan, Snapshot
from devloop.sync.contents import RememberedContents

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.sync.contents import RememberedImage


def scan(mark: str, files: dict[str, str], *, recipe: str = "r") -> Scan:
    entries = {path: ContextEntry("file", 0o644, 1, digest) for path, digest in files.items()}
    entries["bin"] = ContextEntry("symlink", 0o777, link="caf\udce9")
    snapshot = Snapshot(
        entries=MappingProxyType(dict(sorted(entries.items()))), digest=f"d{mark}", stamp=mark
    )
    return Scan(fingerprint=Fingerprint(mark, "d"), snapshot=snapshot, recipe=recipe)


def image(n: int) -> ImageRef:
    digest = f"sha256:{n:064x}"
    return ImageRef(repository="r/web", tag=str(n), digest=digest, supervisor=("/agent", "--"))


NOW = scan("ff", {"now.py": "n", "kept.py": "1"})


def test_another_session_finds_what_this_one_left(tmp_path: Path) -> None:
    many = {f"{n}.py": str(n) for n in range(100)}
    scans = [
        scan("a1", {"app.py": "1", "kept.py": "1"}),
        scan("a2", {"app.py": "2", "caf\udce9.py": "3"}),
        scan("a3", {**many, "app.py": "2"}),
        scan("a4", {**many}),
    ]
    kept = RememberedContents(tmp_path, "web")
    for n, each in enumerate(scans):
        kept.add(each, image(n) if n % 2 else None)
    for found in (kept, RememberedContents(tmp_path, "web")):
        for each in scans:
            known = found.scan(each.fingerprint.build, NOW)
            assert known is not None
            assert known.snapshot.entries == each.snapshot.entries
            assert list(known.snapshot.entries) == sorted(each.snapshot.entries)
            assert known.snapshot.digest == each.snapshot.digest
            assert known.recipe == "r"
        assert {i.image: i.mark for i in found.images().values()} == {
            image(1): "a2",
            image(3): "a4",
        }
    assert RememberedContents(tmp_path, "other").images() == {}
    assert RememberedContents(tmp_path, "other").scan("a1", NOW) is None


def test_what_is_the_same_is_the_very_same(tmp_path: Path) -> None:
    RememberedContents(tmp_path, "web").add(scan("a1", {"kept.py": "1", "app.py": "1"}))
    found = RememberedContents(tmp_path, "web").scan("a1", NOW)
    assert found is not None
    assert found.snapshot.entries["kept.py"] is NOW.snapshot.entries["kept.py"]
    assert found.snapshot.changed_since(NOW.snapshot) == {"app.py", "now.py"}


def test_what_is_on_disk_needs_no_memory(tmp_path: Path) -> None:
    assert RememberedContents(tmp_path, "web").scan("ff", NOW) is NOW


def test_another_recipe_is_another_image(tmp_path: Path) -> None:
    kept = RememberedContents(tmp_path, "web")
    kept.add(scan("a1", {"app.py": "1"}, recipe="old"))
    assert kept.scan("a1", NOW) is None


def test_the_oldest_are_forgotten_but_not_what_runs(tmp_path: Path) -> None:
    kept = RememberedContents(tmp_path, "web")
    for n in range(1, 60):
        files = {f"{n}-{m}.py": "1" for m in range(60)}
        kept.add(scan(f"{n:x}", files), image(n), running={image(1).digest})
    assert kept.scan("1", NOW) is not None
    assert kept.scan("2", NOW) is None
    marks = [remembered(kept, n) for n in (1, 2, 58, 59)]
    assert [mark is not None for mark in marks] == [True, False, True, True]
    assert len(list((tmp_path / "web").iterdir())) < 30


def remembered(kept: RememberedContents, n: int) -> RememberedImage | None:
    return kept.images().get(image(n).digest)


@pytest.mark.parametrize("damage", ["gone", "cut", "[]", '{"v": 1, "contents": [], "images": 3}'])
@pytest.mark.parametrize("whole", [True, False])
def test_files_that_are_damaged_count_as_not_there(
    tmp_path: Path, damage: str, whole: bool
) -> None:
    kept = RememberedContents(tmp_path, "web")
    kept.add(scan("a1", {"app.py": "1"}), image(1))
    for path in (tmp_path / "web").iterdir():
        if (path.name == "index.json") == whole:
            continue
        if damage == "gone":
            path.unlink()
        else:
            path.write_text(path.read_text()[:20] if damage == "cut" else damage)
    again = RememberedContents(tmp_path, "web")
    assert again.scan("a1", NOW) is None
    again.add(scan("a2", {"app.py": "2"}), image(2))
    assert RememberedContents(tmp_path, "web").scan("a2", NOW) is not None


def test_an_image_counts_with_the_manifests_of_its_last_deploy(tmp_path: Path) -> None:
    kept = RememberedContents(tmp_path, "web")
    first = scan("a1", {"app.py": "1"})
    kept.add(first, image(1))
    kept.add(replace(first, fingerprint=Fingerprint("a1", "other")), image(1))
    [found] = kept.images().values()
    assert found.deploy == "other"


def test_names_that_are_no_file_names(tmp_path: Path) -> None:
    for name in ("a/b", "a%2fb", ".."):
        kept = RememberedContents(tmp_path / "contents", name)
        kept.add(scan("a1", {name.replace("/", "_"): "1"}))
        assert RememberedContents(tmp_path / "contents", name).scan("a1", NOW) is not None
    assert {path.name for path in tmp_path.iterdir()} == {"contents"}


def test_an_image_of_the_same_recipe_is_found_by_what_was_built_and_what_was_deployed(
    tmp_path: Path,
) -> None:
    def found(recipe: str = "r", repository: str = "r/web") -> tuple[str, str] | None:
        last = RememberedContents(tmp_path, "web").last_built(
            replace(NOW, recipe=recipe), repository
        )
        return (last[0].fingerprint.build, last[1]) if last is not None else None

    assert found() is None
    for n in range(1, 30):
        session = RememberedContents(tmp_path, "web")
        session.last_built(NOW, "r/web")
        session.built(scan(f"a{n}", {"app.py": str(n), "kept.py": "1"}), image(n))
    assert found() == ("a29", image(29).digest)
    kept = RememberedContents(tmp_path, "web")
    kept.built(scan("b1", {"app.py": "b"}, recipe="other"), image(40))
    assert found() == ("a29", image(29).digest)
    assert found("other") == ("b1", image(40).digest)
    assert found(repository="elsewhere/web") is None
    # What was deployed with a supervisor is an image over that which was built.
    kept.add(scan("c1", {"app.py": "c"}), replace(image(50), plain=image(51).digest))
    assert found() == ("c1", image(51).digest)
    assert set(kept.images()) == {image(50).digest}
