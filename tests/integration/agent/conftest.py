"""The agent runs in Linux containers, and on Linux hosts for some of these tests. Images with it,
and containers that are gone after the test."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.agent import program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LINUX = platform.system() == "Linux"
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _LINUX:
        return
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="the agent is a program for Linux"))


@pytest.fixture(scope="session", autouse=True)
def _program_is_built() -> None:
    """Before the first test, which would be blamed for what the compiler leaves running."""
    if _LINUX:
        program()


AGENT = "/.devloop/agent"
GATE = "/gate"
"""A named pipe in the base image: a command that reads it goes on when somebody writes there."""


def docker(*arguments: str) -> bytes:
    return subprocess.run(
        ["docker", *arguments], check=True, stdin=subprocess.DEVNULL, capture_output=True
    ).stdout


@pytest.fixture(scope="session")
def images() -> Iterator[dict[str, str]]:
    """The base image with the agent in it, and a `scratch` image with nothing else."""
    made = {}
    sources = {
        "base": f"FROM {os.environ['DEVLOOP_TEST_BASE_IMAGE']}\nRUN mkfifo -m 666 {GATE}\n",
        "scratch": "FROM scratch\n",
    }
    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory)
        shutil.copy(program(), context / "agent")
        for name, source in sources.items():
            tag = f"devloop-agent-test:{name}-{uuid.uuid4().hex[:8]}"
            (context / "Dockerfile").write_text(f"{source}COPY --chmod=755 agent {AGENT}\n")
            docker("build", "-q", "-t", tag, directory)
            made[name] = tag
    yield made
    docker("rmi", "-f", *made.values())


@contextlib.contextmanager
def container(
    image: str,
    argv: Sequence[str],
    *options: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.STDOUT,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """One that runs `argv`: its name and the client that is attached to it."""
    name = f"devloop-agent-{uuid.uuid4().hex[:12]}"
    run = ["docker", "run", "--name", name, "--entrypoint", "", "--network", "none", *options]
    process = subprocess.Popen(
        [*run, image, *argv], bufsize=0, stdin=stdin, stdout=stdout, stderr=stderr
    )
    try:
        yield name, process
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)
        process.kill()
        process.wait(20)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
