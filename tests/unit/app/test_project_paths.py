"""Container paths as the project's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.app.project_paths import project_paths
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
