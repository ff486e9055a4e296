"""Where a Dockerfile puts the files of its context, for those who write into containers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.builders.delta.copy_targets import UNKNOWN, Targets
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.config.schema import Build, Deploy, Service
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.model import Scan


def project(root: Path, dockerfile: str, *files: str) -> tuple[Targets, Scan]:
    (root / "Dockerfile").write_text(dockerfile)
    (root / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(0o640)
    build = Build(context=root, dockerfile=root / "Dockerfile")
    service = Service(name="web", image="web", build=build, deploy=Deploy(workload_name="web"))
    return Targets(build), ServiceSource(service, root).scan(None, Cancel())


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
