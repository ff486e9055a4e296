"""A registry of their own for the build tests, and what they all do: build, look inside."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from devloop.errors import DevloopError
from devloop.registry.client import RegistryClient

if TYPE_CHECKING:
    from collections.abc import Iterator

LABEL = "devloop.test=build"


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    if check and done.returncode != 0:
        pytest.fail(f"docker {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


@pytest.fixture(scope="session")
def base_image() -> str:
    """A small image with a shell that is in the local Docker."""
    for name in ("busybox-base:dev", os.environ.get("DEVLOOP_TEST_BASE_IMAGE", "")):
        if name and docker("image", "ls", "-q", name, check=False):
            return name
    pytest.skip("no base image: run script/test")


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """`localhost:PORT` of a fresh registry."""
    image = os.environ.get("DEVLOOP_TEST_REGISTRY_IMAGE")
    if not image:
        pytest.skip("no registry image: run script/test")
    name = f"devloop-test-build-{uuid.uuid4().hex[:8]}"
    docker("run", "-d", "--rm", "--name", name, "--label", LABEL, "-p", "127.0.0.1:0:5000", image)
    try:
        host = f"localhost:{docker('port', name, '5000').rpartition(':')[2]}"
        _wait_for(host)
        yield host
    finally:
        docker("rm", "-f", "-v", name, check=False)


def _wait_for(host: str) -> None:
    deadline = time.monotonic() + 20
    with RegistryClient(host) as client:
        while True:
            try:
                client.ping()
            except DevloopError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return


@pytest.fixture(scope="session")
def client(registry: str) -> Iterator[RegistryClient]:
    with RegistryClient(registry) as client:
        yield client


@pytest.fixture(scope="session", autouse=True)
def _images_removed() -> Iterator[None]:
    """Take away the tags that the builds left in the local Docker."""
    yield
    form = "{{.Repository}} {{.Tag}} {{.Digest}}"
    listed = docker("image", "ls", "--digests", "--format", form, check=False)
    mine = []
    for repository, tag, digest in (line.split(" ") for line in listed.splitlines()):
        if "devloop-test/" in repository:
            # By name, never by id: an image may share its id with the base that it only renames.
            mine.append(f"{repository}@{digest}" if tag == "<none>" else f"{repository}:{tag}")
    for start in range(0, len(mine), 50):
        docker("image", "rm", "-f", *mine[start : start + 50], check=False)
