from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devloop.builders.delta.analysis import is_plain_build

if TYPE_CHECKING:
    from pathlib import Path

PUSH = "docker push $DEVLOOP_IMAGE"


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


@pytest.mark.parametrize(
    "argv",
    [
        ("docker", "buildx", "build", "--push", "-t", "$DEVLOOP_IMAGE", "app"),
        ("/usr/bin/podman", "build", "-t", "x", "./app/"),
        sh(f"docker build -q -t $DEVLOOP_IMAGE app && {PUSH}"),
        ("/bin/bash", "-ec", f"set -x\ndocker build -t $DEVLOOP_IMAGE app\n{PUSH}\n"),
        sh(f'docker build -t "$DEVLOOP_IMAGE" app; {PUSH}'),
        sh("buildah bud -t $DEVLOOP_IMAGE app && buildah push $DEVLOOP_IMAGE"),
    ],
)
def test_plainly_a_build(argv: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    assert is_plain_build(argv, tmp_path, tmp_path / "app")


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("make", "image"),
        ("docker", "push", "x"),
        ("docker", "run", "build", "app"),
        ("docker", "build", "-f", "Other", "app"),
        ("docker", "build", "--file=Other", "app"),
        ("docker", "build", "--target", "dev", "app"),
        ("docker", "build", "--build-arg=A=b", "app"),
        ("docker", "build", "other"),
        ("docker", "build", "-"),
        ("docker", "build", "https://example.com/x.git"),
        sh(f"npm run build && docker build -t x app && {PUSH}"),
        sh("docker build -t x app | tee log"),
        sh("docker build -t x app > log"),
        sh("docker build -t $(make tag) app"),
        sh("docker build -t `make tag` app"),
        sh("cd app && docker build -t x ."),
        sh("docker build -t x app &"),
        sh("docker build -t 'x app"),
        sh("TAG=1 docker build -t x app"),
        sh(""),
        ("sh", "build.sh"),
        ("sh", "-c", "docker build app", "more"),
    ],
)
def test_perhaps_more_than_a_build(argv: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("app", "other"):
        (tmp_path / name).mkdir()
    assert not is_plain_build(argv, tmp_path, tmp_path / "app")
