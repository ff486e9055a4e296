"""The command lines for other programs' images, as the programs get them: scripted ones that write
down what they were called with. ko and jib are run for real by tests/bench/skaffold_shapes.py; pack
needs a builder image, which only a public registry has."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from devloop.config.loader import load_project

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """\
#!/bin/sh
{ printf '%s' "${0##*/}"; printf ' [%s]' "$@"; echo; } >> "$CALLS"
env | grep -E '^(KO_|GOFLAGS|CGO)' | sort >> "$CALLS"
echo "in ${PWD##*/}" >> "$CALLS"
"""
IMAGE = "localhost:5005/shop/web:devloop-1"


def called(project: Path, artifact: str) -> list[str]:
    """What the programs were called with by the artifact's build."""
    (project / "app/cmd").mkdir(parents=True)
    (project / "skaffold.yaml").write_text(
        "apiVersion: skaffold/v4beta13\nkind: Config\n"
        f"build: {{artifacts: [{{image: web, context: app, {artifact}}}]}}\n"
    )
    programs = project / "programs"
    programs.mkdir()
    for name in ("pack", "docker", "ko", "mvn", "gradle"):
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(0o755)
    build = load_project(cwd=project, env={"WHO": "me"}).project.services["web"].build
    assert build.command
    calls = project / "calls"
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "CALLS": str(calls), "DEVLOOP_IMAGE": IMAGE}
    subprocess.run(build.command, cwd=project, env=env, check=True, timeout=30)
    return calls.read_text().splitlines()


@pytest.mark.parametrize(
    ("artifact", "wanted"),
    [
        (
            (
                "buildpacks: {builder: acme/builder, runImage: acme/run, env: ['A={{.WHO}} x'],"
                " buildpacks: [one, two], trustBuilder: true, clearCache: true, network: host,"
                " projectDescriptor: p.toml, buildArgs: [--verbose],"
                " volumes: [{host: /h, target: /t, options: rw}]}"
            ),
            [
                (
                    f"pack [build] [{IMAGE}] [--path] [.] [--builder] [acme/builder]"
                    " [--run-image] [acme/run] [--env] [A=me x] [--buildpack] [one]"
                    " [--buildpack] [two] [--volume] [/h:/t:rw] [--descriptor] [p.toml]"
                    " [--network] [host] [--trust-builder] [--clear-cache] [--verbose]"
                ),
                "in app",
                f"docker [push] [{IMAGE}]",
                "in app",
            ],
        ),
        (
            (
                "ko: {fromImage: base, dir: cmd, main: x, env: [CGO_ENABLED=0],"
                " flags: [-v], ldflags: [-s, -w], labels: {by: ko}}"
            ),
            [
                (
                    "ko [build] [--image-label=by=ko] [--bare] [--insecure-registry]"
                    " [--tags=devloop-1] [./x]"
                ),
                "CGO_ENABLED=0",
                "GOFLAGS=-v '-ldflags=-s -w'",
                "KO_DEFAULTBASEIMAGE=base",
                "KO_DOCKER_REPO=localhost:5005/shop/web",
                "in cmd",
            ],
        ),
        (
            "jib: {project: part, args: [-Pdev], fromImage: base}",
            [
                (
                    "mvn [-q] [--projects] [part] [--also-make] [-DskipTests=true] [-Pdev]"
                    " [-Djib.containerize=part] [package] [jib:build] [-Djib.from.image=base]"
                    " [-Djib.allowInsecureRegistries=true]"
                    f" [-Djib.to.image={IMAGE}]"
                ),
                "in app",
            ],
        ),
        (
            "jib: {type: gradle, project: part}",
            [
                f"gradle [:part:jib] [-Djib.allowInsecureRegistries=true] [--image={IMAGE}]",
                "in app",
            ],
        ),
    ],
)
def test_a_program_is_called(artifact: str, wanted: list[str], tmp_path: Path) -> None:
    assert called(tmp_path / "shop", artifact) == wanted
