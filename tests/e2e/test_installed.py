"""devloop as somebody has it who has no checkout: built, installed by two installers into empty
environments, on the oldest and the newest Python there is, and used from there."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import free_port
from tests.e2e.session import APP
from tests.support import distribution
from tests.support.distribution import OLDEST, run

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

ROOT = Path(__file__).parents[2]


def _uv(*argv: str | Path, **env: str) -> str:
    return run(sys.executable, "-m", "uv", *argv, env=env)


def _newest() -> str:
    found = json.loads(_uv("python", "list", "--only-installed", "--output-format=json"))
    versions = [each["version_parts"] for each in found if each["implementation"] == "cpython"]
    newest = max((v["major"], v["minor"]) for v in versions)
    return ".".join(map(str, newest))


@pytest.fixture(scope="module")
def built() -> tuple[Path, Path]:
    return distribution.built()


def test_one_wheel_is_for_all_platforms_and_has_both_agents(built: tuple[Path, Path]) -> None:
    wheel, sdist = built
    assert wheel.name.startswith("devloop_k8s-")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert sdist.name.startswith("devloop_k8s-")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"devloop/agents/linux-amd64", "devloop/agents/linux-arm64"} <= set(names)
    page = {f"devloop/web/static/{each.name}" for each in (ROOT / "devloop/web/static").iterdir()}
    assert page <= set(names)
    assert not [name for name in names if not name.startswith(("devloop/", "devloop_k8s-"))]


@pytest.mark.timeout(600)
def test_installed_by_uv_it_deploys(
    built: tuple[Path, Path], tmp_path: Path, cluster: Cluster
) -> None:
    place = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    _uv("tool", "install", "--quiet", "--python", OLDEST, built[0], **place)
    program = tmp_path / "bin/devloop"
    assert run(program, "--version").startswith("devloop ")
    app = shutil.copytree(APP, tmp_path / "app")
    own = {
        "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
        "IMAGE": f"{cluster.namespace}/web",
        "PORT": str(free_port()),
    }
    run(program, "check", cwd=app, env=own)
    run(program, "run", "--namespace", cluster.namespace, "--output=lines", cwd=app, env=own)
    cluster.serves("v0")


@pytest.mark.timeout(600)
def test_installed_by_pipx_from_its_source(built: tuple[Path, Path], tmp_path: Path) -> None:
    newest = _uv("python", "find", _newest()).strip()
    place = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    run(
        *(sys.executable, "-m", "pipx", "install", "--quiet", "--python", newest, built[1]),
        env=place,
    )
    program = tmp_path / "bin/devloop"
    assert run(program, "--version").startswith("devloop ")
    assert run(program, "schema", "events").startswith("{")
