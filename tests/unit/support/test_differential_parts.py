"""The parts of the differential test that could make it blind: unpacking, comparing, reducing."""

from __future__ import annotations

import io
import random
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.support.differential import edits
from tests.support.differential.campaign import Finding
from tests.support.differential.candidate import Built
from tests.support.differential.cases import Case, Step, arrange, perform
from tests.support.differential.compare import differences
from tests.support.differential.edits import Edit, Tree, random_edit, random_tree
from tests.support.differential.images import Broken, Image, Node, flatten, members
from tests.support.differential.recipes import Recipe
from tests.support.differential.shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Line = tuple[str, str, int, str]
FOLDER, FILE, LINK, HARD = "folder", "file", "link", "hard"


def layer(*lines: Line) -> bytes:
    """A layer of (kind, path, mode, content or target)."""
    buffer = io.BytesIO()
    kinds = {FOLDER: tarfile.DIRTYPE, LINK: tarfile.SYMTYPE, HARD: tarfile.LNKTYPE}
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for kind, path, mode, rest in lines:
            member = tarfile.TarInfo(path)
            member.mode = mode
            data = b""
            if kind in kinds:
                member.type = kinds[kind]
                member.linkname = rest
            else:
                data = rest.encode()
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def unpacked(*layers: bytes) -> dict[str, str]:
    """path -> type, mode and where it leads."""
    nodes = flatten(members(data) for data in layers)
    return {p: f"{n.type} {n.mode:o}" + (f" {n.link}" if n.link else "") for p, n in nodes.items()}


def test_layers_are_unpacked_as_a_runtime_does_it() -> None:
    base = layer(
        (FOLDER, "app/", 0o700, ""),
        (FILE, "app/x", 0o600, "x"),
        (FILE, "app/y", 0o644, "y"),
        (FOLDER, "old/", 0o755, ""),
        (FILE, "old/a", 0o644, "a"),
        (LINK, "link", 0o777, "old"),
    )
    assert unpacked(base, layer((FOLDER, "app", 0o755, "")))["app"] == "dir 755"
    assert unpacked(base, layer((FILE, "app/x", 0o640, "new")))["app"] == "dir 700"
    assert "app/x" not in unpacked(base, layer((FILE, "app/.wh.x", 0, "")))
    assert "old/a" not in unpacked(base, layer((FILE, "old", 0o644, "now a file")))
    # Into the folder that the link leads to, as the link is in the image.
    assert unpacked(base, layer((FILE, "link/b", 0o644, "b")))["old/b"] == "file 644"
    # But a folder of that name replaces it.
    assert unpacked(base, layer((FOLDER, "link", 0o755, "")))["link"] == "dir 755"
    opaque = layer((FILE, "app/new", 0o644, ""), (FILE, "app/.wh..wh..opq", 0, ""))
    assert {p for p in unpacked(base, opaque) if p.startswith("app/")} == {"app/new"}
    hard = unpacked(layer((FILE, "a", 0o4755, "text"), (HARD, "deep/b", 0, "a")))
    assert hard == {"a": "file 4755", "deep": "dir 755", "deep/b": "file 4755"}


def test_what_cannot_be_unpacked_is_said() -> None:
    with pytest.raises(Broken, match="not there"):
        unpacked(layer((HARD, "b", 0, "nowhere")))
    with pytest.raises(Broken, match="no directory"):
        unpacked(layer((FILE, "a", 0o644, ""), (FILE, "a/b", 0o644, "")))
    with pytest.raises(Broken, match="loop"):
        unpacked(layer((LINK, "a", 0, "b"), (LINK, "b", 0, "a"), (FILE, "a/x", 0o644, "")))


@pytest.mark.parametrize(
    "other",
    [
        Node("file", 0o600, 0, 0, digest="1"),
        Node("file", 0o644, 1, 0, digest="1"),
        Node("file", 0o644, 0, 1, digest="1"),
        Node("file", 0o644, 0, 0, digest="2"),
        Node("dir", 0o644, 0, 0, digest="1"),
        None,
    ],
)
def test_every_difference_of_a_path_counts(other: Node | None) -> None:
    node = Node("file", 0o644, 0, 0, digest="1")
    one = Image(digest="", files={"a": node}, config={"User": "x"}, layers=1)
    two = Image(digest="", files={"a": other} if other else {}, config={"User": "x"}, layers=2)
    assert differences(one, one) == ()
    assert len(differences(one, two)) == len(differences(two, one)) == 1
    assert (
        "config User" in differences(one, Image(digest="", files=one.files, config={}, layers=1))[0]
    )


def test_edits_stay_in_the_context_and_can_be_done_again(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    results = []
    for attempt in ("one", "two"):
        rng = random.Random("edits")
        root = tmp_path / attempt
        case = Case(recipe=Recipe(lines=("FROM scratch",)), tree=random_tree(rng))
        arrange(root, case)
        leaving = Edit(kind="symlink", path="way-out", other=str(outside))
        perform(root, Step(edits=(leaving,)))
        for _ in range(150):
            edits_now = random_edit(rng, Tree.of(root / "context"))
            perform(root, Step(edits=edits_now))
            assert edits_now == tuple(edits.from_json(edits.to_json(e)) for e in edits_now)
        edits.apply(root / "context", Edit(kind="write", path="way-out/kept", text="lost"))
        edits.apply(root / "context", Edit(kind="remove", path="way-out/kept"))
        results.append(Tree.of(root / "context"))
    assert results[0] == results[1]
    assert len(results[0].all) > 5
    assert [p.name for p in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "kept"


def test_a_case_is_reduced_to_what_makes_the_difference() -> None:
    rng = random.Random("shrink")
    guilty = Edit(kind="chmod", path="guilty", mode=0o4755)
    steps = [Step(edits=(Edit(kind="write", path=f"f{n}", text="x"),)) for n in range(12)]
    steps[7] = Step(edits=(*steps[7].edits, guilty, Edit(kind="remove", path="g")))
    lines = ("FROM scratch", "ENV A=1", "COPY --link --chown=1:1 app x.py /dest/", "USER 1")
    case = Case(recipe=Recipe(lines=lines), tree=random_tree(rng), steps=tuple(steps))

    def run(cases: Sequence[Case]) -> list[Finding | None]:
        return [
            Finding(case=case, lines=("/'guilty': expected 1, got 2",), built=Built())
            if any(guilty in step.edits for step in case.steps)
            and any("--chown=1:1" in line for line in case.recipe.lines)
            else None
            for case in cases
        ]

    first = run([case])[0]
    assert first is not None
    tries = iter(range(200))
    found = shrink(first, run, lambda: next(tries, None) is not None).case
    assert found.steps == (Step(edits=(guilty,)),)
    assert found.tree == ()
    assert found.recipe.lines[0] == "FROM scratch"
    assert len(found.recipe.lines) == 2
    assert found.recipe.lines[1] == "COPY --chown=1:1 /dest/"
    assert Case.from_json(found.to_json()) == found
