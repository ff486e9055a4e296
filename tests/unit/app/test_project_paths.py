"""Container paths as the project's files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.app.project_paths import may_read, project_paths
from devloop.base.cancel import Cancel
from devloop.watch.source import ServiceSource
from tests.support.cluster_objects import service_config

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_paths_are_shown_as_the_user_would_type_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    service = service_config(tmp_path / "web")
    root = service.build.context
    root.mkdir(exist_ok=True)
    service.build.dockerfile.write_text("FROM python\nWORKDIR /app\nCOPY . .\n")
    (root / "app.py").write_text("")
    source = ServiceSource(service, tmp_path)
    find = project_paths(service.build, source.last_snapshot)
    wanted = ["/app/app.py", "/app/gone.py"]
    assert find(wanted) == {}
    source.scan(None, Cancel())
    assert find(wanted) == {"/app/app.py": "web/app.py"}
    service.build.dockerfile.unlink()
    assert find(wanted) == {"/app/app.py": "web/app.py"}


def test_what_a_build_may_read_is_what_its_instructions_name(tmp_path: Path) -> None:
    build = service_config(tmp_path).build
    text = "FROM x\nCOPY --from=y pgdata /\nRUN --mount=type=bind,source=lib,target=/l make\n"
    build.dockerfile.write_text(f"{text}COPY src/*.py a* .\n")
    for path in ("src", "src/a.py", "lib/x", "app"):
        assert may_read(build, path)
    for path in ("pgdata", "pgdata/base", "src/a.js"):
        assert not may_read(build, path)
        assert may_read(replace(build, builder="classic"), path)
    build.dockerfile.write_text(f"{text}COPY . .\n")
    assert may_read(build, "pgdata")
    build.dockerfile.write_text("RUBBISH")
    assert may_read(build, "pgdata")
