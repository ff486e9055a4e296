"""`devloop check` and `devloop schema`, as a shell and an editor see them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from devloop.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "version: 1\nservices: {web: {build: .}}\n"
# The pattern of the editor tasks that devloop's line output is made for.
MATCHER = re.compile(r"^(.+):([0-9]+):([0-9]+): (error|warning|info)\[([a-z/-]+)\]: (.*)$")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def test_success_is_one_line(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "devloop.yaml").write_text(GOOD)
    before = sorted(directory.iterdir())
    assert main(["check"]) == 0
    assert capsys.readouterr() == ("devloop.yaml: ok, 1 service\n", "")
    assert sorted(directory.iterdir()) == before


def test_problems_are_lines_that_editors_read(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "devloop.yaml").write_text("version: 1\nservices: {web: {biuld: ., ports: [0]}}\n")
    assert main(["check"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "devloop.yaml:2:18: error[config/unknown-key]: unknown key `biuld` in `services.web`",
        (
            "  cause  the keys here are image, build, needs, test, deploy, sync, ports, debug, "
            "logs, hooks"
        ),
        "  try    did you mean `build`?",
        "devloop.yaml:2:36: error[config/value]: '0': a port is a number from 1 to 65535",
    ]


def test_files_are_checked_too(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "Dockerfile").unlink()
    (directory / "devloop.yaml").write_text(GOOD)
    assert main(["check"]) == 2
    found = MATCHER.match(capsys.readouterr().out.splitlines()[0])
    assert found is not None
    assert found.groups() == (
        "devloop.yaml",
        "2",
        "18",
        "error",
        "config/dockerfile-missing",
        "Dockerfile does not exist",
    )


def test_a_missing_cache_is_a_hint_and_no_failure(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "devloop.yaml").write_text(GOOD)
    (directory / "Dockerfile").write_text("FROM node\nRUN npm ci\nRUN npm run build\n")
    assert main(["check"]) == 0
    mount = "--mount=type=cache,target=/root/.npm/_cacache"
    assert capsys.readouterr().out.splitlines() == [
        "devloop.yaml: ok, 1 service",
        "Dockerfile:2:1: info[build/no-cache-mount]: RUN npm ci: no cache is kept between builds",
        f"  try    RUN {mount} npm ci",
        "         or `build: {cache: auto}` in devloop.yaml",
    ]
    assert main(["check", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    cached = GOOD.replace("build: .", "build: {cache: auto}")
    (directory / "devloop.yaml").write_text(cached)
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "devloop.yaml: ok, 1 service\n"


def test_a_syntax_error_shows_its_line(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "devloop.yaml").write_text("version: 1\nservices:\n\tweb: 1\n")
    assert main(["check"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("devloop.yaml:3:1: error[config/parse]: not valid YAML: a tab")
    assert lines[1] == "    3 | \tweb: 1"


def test_no_file(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "Dockerfile").unlink()
    assert main(["check"]) == 2
    assert "error[config/not-found]: no devloop.yaml in" in capsys.readouterr().out


def test_json(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "devloop.yaml").write_text(GOOD)
    assert main(["check", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "v": 1,
        "ok": True,
        "file": "devloop.yaml",
        "services": ["web"],
        "profiles": [],
        "diagnostics": [],
    }
    (directory / "other.yaml").write_text("version: 9\n")
    assert main(["check", "-o", "json", "-f", "other.yaml"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    (found,) = answer["diagnostics"]
    assert found["code"] == "config/version"
    assert found["location"] == {"path": "other.yaml", "line": 1, "column": 10}


def test_flags_are_checked(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "devloop.yaml").write_text(GOOD)
    assert main(["check", "--set", "services.web.imag=x", "--namespace", "No"]) == 2
    out = capsys.readouterr().out
    assert "--set:1:1: error[usage/arguments]: --set services.web.imag: there is no `imag`" in out
    assert "--namespace:1:1: error[config/value]" in out


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["version", "services"]
    assert main(["schema", "events"]) == 0
    assert "iteration.finished" in json.loads(capsys.readouterr().out)["$defs"]
    assert main(["schema", "event"]) == 2


DEPLOYMENT = (
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"
    "spec: {template: {spec: {containers: [{name: web, image: IMAGE}]}}}\n"
)


@pytest.mark.parametrize(
    ("dockerfile", "manifest", "line"),
    [
        ("", "web", "Dockerfile:1:1: error[build/dockerfile-parse]: the file has no instructions"),
        (
            "FROM x\nRUM y\n",
            "web",
            "Dockerfile:2:1: error[build/dockerfile-parse]: unknown instruction: RUM",
        ),
        ("FROM x\n", "[", "k8s.yaml:4:59: error[config/manifest]: not valid YAML"),
        ("FROM x\n", "nginx", "k8s.yaml:4:58: error[config/image-not-used]: no container"),
    ],
)
def test_files_that_are_not_what_they_are_named_for_are_found(
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    dockerfile: str,
    manifest: str,
    line: str,
) -> None:
    (directory / "devloop.yaml").write_text(
        "version: 1\nservices: {web: {build: ., deploy: {manifests: [k8s.yaml]}}}\n"
    )
    (directory / "Dockerfile").write_text(dockerfile)
    (directory / "k8s.yaml").write_text(DEPLOYMENT.replace("IMAGE", manifest))
    assert main(["check"]) == 2
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(line)
    assert MATCHER.match(first)


def test_a_note_on_a_manifest_is_no_failure(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "devloop.yaml").write_text(
        "version: 1\nservices: {web: {build: ., deploy: {manifests: [k8s]}}}\n"
    )
    (directory / "k8s").mkdir()
    (directory / "k8s/web.yaml").write_text(DEPLOYMENT.replace("IMAGE", "web"))
    (directory / "k8s/kustomization.yaml").write_text("resources: [web.yaml]\n")
    assert main(["check"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "devloop.yaml: ok, 1 service"
    assert out[1].startswith("k8s/kustomization.yaml:1:1: warning[config/manifest]: ")
