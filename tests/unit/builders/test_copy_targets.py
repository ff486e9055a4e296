"""Where a Dockerfile puts the files of its context, for those who write into containers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devloop.base.cancel import Cancel
from devloop.builders.delta.copy_targets import UNKNOWN, ShownCopies, Targets
from devloop.builders.image.copies import StageState
from devloop.builders.image.full_build import HasTriggers, NeedsFullBuild
from devloop.config.builds import Build
from devloop.config.schema import Deploy, Service
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.model import Scan


def project(
    root: Path, dockerfile: str, *files: str, shown: ShownCopies | None = None
) -> tuple[Targets, Scan]:
    (root / "Dockerfile").write_text(dockerfile)
    (root / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(0o640)
    build = Build(context=root, dockerfile=root / "Dockerfile")
    service = Service(name="web", image="web", build=build, deploy=Deploy(workload_name="web"))
    return Targets(build, lambda _: shown), ServiceSource(service, root).scan(None, Cancel())


def test_what_nothing_runs_on_is_where_the_last_copy_puts_it(tmp_path: Path) -> None:
    targets, scan = project(
        tmp_path,
        "FROM base\nWORKDIR /app\nCOPY deps.txt .\nRUN pip install -r deps.txt\n"
        "COPY . .\nCOPY --chown=7:8 --chmod=600 static/ /srv/www/\n",
        "app.py",
        "deps.txt",
        "static/a.css",
    )
    found = targets.of(scan)
    where = {
        path: [(p.path, p.mode, p.uid, p.gid) for p in placed if p.type == "file"]
        for path, placed in found.items()
    }
    assert where["app.py"] == [("app/app.py", 0o640, 0, 0)]
    assert where["static/a.css"] == [
        ("app/static/a.css", 0o640, 0, 0),
        ("srv/www/a.css", 0o600, 7, 8),
    ]
    # Something runs on it: writing it into a container would be half of what an image does.
    assert "deps.txt" not in where
    assert targets.of(scan) is found


def test_a_user_by_name_is_left_open(tmp_path: Path) -> None:
    targets, scan = project(tmp_path, "FROM base\nCOPY --chown=node . /app\n", "app.py")
    [placed] = targets.of(scan)["app.py"]
    assert (placed.path, placed.uid, placed.gid) == ("app/app.py", UNKNOWN, UNKNOWN)


def test_nothing_is_worked_out_again_where_only_contents_differ(tmp_path: Path) -> None:
    targets, scan = project(tmp_path, "FROM base\nCOPY . /app\n", "app.py", "b.py")
    first = targets.of(scan)
    entries = dict(scan.snapshot.entries)
    entries["b.py"] = replace(entries["b.py"], digest="0" * 64, size=7)
    other = replace(scan, snapshot=replace(scan.snapshot, entries=entries))
    assert targets.of(other) is first
    entries = {**entries, "b.py": replace(entries["b.py"], mode=0o600)}
    moved = replace(scan, snapshot=replace(scan.snapshot, entries=entries))
    assert targets.of(moved)["b.py"][0].mode == 0o600
    entries = {path: entry for path, entry in entries.items() if path != "b.py"}
    gone = replace(scan, snapshot=replace(scan.snapshot, entries=entries))
    assert "b.py" not in targets.of(gone)


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("FROM base\nCOPY . app\n", "WORKDIR"),
    ],
)
def test_what_only_the_image_knows_is_said(tmp_path: Path, dockerfile: str, words: str) -> None:
    targets, scan = project(tmp_path, dockerfile, "app.py")
    with pytest.raises(NeedsFullBuild) as caught:
        targets.of(scan)
    assert words in caught.value.reason


def shown(*above: str, **known: Any) -> ShownCopies:
    base = StageState(env={"DEST": "/srv/it"}, workdir="/var/www/html")
    return ShownCopies(**{"base": base, "owners": {}, "above": frozenset(above), **known})


def test_what_an_image_has_shown_is_known(tmp_path: Path) -> None:
    """The base's WORKDIR, as of php, and its variables; the number of a user, as of node."""
    dockerfile = "FROM base\nCOPY . .\nCOPY --chown=node:node a $DEST/\n"
    targets, scan = project(tmp_path, dockerfile, "a", shown=shown(owners={3: (1000, 1001)}))
    assert [(p.path, p.uid, p.gid) for p in targets.of(scan)["a"]] == [
        ("var/www/html/a", 0, 0),
        ("srv/it/a", 1000, 1001),
    ]


def test_what_an_image_shows_only_later_is_asked_for_again(tmp_path: Path) -> None:
    known: list[ShownCopies | None] = [None, shown()]
    targets, scan = project(tmp_path, "FROM base\nCOPY . .\n", "a")
    targets = Targets(targets._build, lambda _: known.pop(0))
    with pytest.raises(NeedsFullBuild):
        targets.of(scan)
    assert targets.of(scan)["a"][0].path == "var/www/html/a"


def test_nothing_is_known_where_the_base_image_copies_by_itself(tmp_path: Path) -> None:
    def triggers(_: str) -> ShownCopies | None:
        raise HasTriggers("ONBUILD")

    targets, scan = project(tmp_path, "FROM base\nCOPY . /app\n", "a")
    targets = Targets(targets._build, triggers)
    with pytest.raises(HasTriggers):
        targets.of(scan)


@pytest.mark.parametrize(
    ("later", "of_an_image", "left_out"),
    [
        ("COPY --from=build /made /app/dist", None, {"dist", "dist/x"}),
        ("COPY --from=build /made/tool /app/dist/x", None, {"dist/x"}),
        ("COPY --from=build /made dist/", None, {"dist", "dist/x"}),
        ("COPY --from=build /made /elsewhere/", None, set()),
        ("COPY --from=build /made/tool .", None, {"a", "dist", "dist/x"}),
        ("COPY --from=build /made/tool .", shown("app", "app/tool"), set()),
        ("COPY --from=build /made .", shown("app", "app/a"), {"a"}),
        # Not known where it goes.
        ("COPY --from=build /made $DEST", None, {"a", "dist", "dist/x"}),
        ("COPY --from=build /made $DEST", shown("app", "app/a"), set()),
    ],
)
def test_what_a_later_copy_from_elsewhere_may_hide_is_left_out(
    tmp_path: Path, later: str, of_an_image: ShownCopies | None, left_out: set[str]
) -> None:
    dockerfile = f"FROM x AS build\nFROM base\nWORKDIR /app\nCOPY . /app/\n{later}\n"
    targets, scan = project(tmp_path, dockerfile, "a", "dist/x", shown=of_an_image)
    assert scan.snapshot.entries.keys() - targets.of(scan).keys() == left_out


def test_a_local_copy_lies_over_an_earlier_one_from_elsewhere(tmp_path: Path) -> None:
    dockerfile = "FROM x AS build\nFROM base\nCOPY --from=build /made /app\nCOPY . /app/\n"
    targets, scan = project(tmp_path, dockerfile, "a")
    assert targets.of(scan).keys() == {"a"}


def test_what_the_build_does_not_read_goes_nowhere(tmp_path: Path) -> None:
    dockerfile = "FROM base AS b\nCOPY lib /lib\nRUN true\nFROM base\nCOPY app* /app/\n"
    known = shown(reads=("app*", "lib"))
    files = ("app.py", "lib/x", "README.md", "docs/a")
    targets, scan = project(tmp_path, dockerfile, *files, shown=known)
    found = targets.of(scan)
    assert {path for path, placed in found.items() if not placed} == {"README.md", "docs", "docs/a"}
    assert found.keys() == {"app.py", "README.md", "docs", "docs/a"}
    targets, scan = project(tmp_path, dockerfile, *files, shown=replace(known, reads=None))
    assert targets.of(scan).keys() == {"app.py"}
