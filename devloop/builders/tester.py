"""A fresh image run once for its `test`, on this machine's Docker.

The container has the image's files and nothing of this computer: no mounts, no variables but those
that say what is tested. Nothing of it stays, not even after a kill: what an earlier session of the
project left is removed before the first test.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import deque
from typing import TYPE_CHECKING

from devloop.base import process
from devloop.base.cancel import Cancel, Cancelled
from devloop.builders.docker_cli import ask_docker, cannot_run
from devloop.builders.docker_errors import docker_unreachable, pull_failed
from devloop.errors import DevloopError
from devloop.model import EndedTest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.config.commands import ImageTest
    from devloop.model import ImageRef


LABEL = "devloop.dev/test-of"
"""Of every container of a test: the project's directory, and the service."""

_REMOVAL = 10.0  # seconds

# What `docker run` ends with when the container could not be begun: Docker's fault, a command that
# cannot be run, one that is not there.
_NOT_RUN, _CANNOT_RUN, _NO_COMMAND = 125, 126, 127


class DockerTests:
    """Where the tests of one service run."""

    def __init__(self, service: str, root: Path) -> None:
        self._service = service
        self._label = f"{LABEL}={root}#{service}"
        self._tidied = False

    def run(
        self, image: ImageRef, test: ImageTest, on_line: Callable[[str], None], cancel: Cancel
    ) -> EndedTest:
        """See hooks.tester.PlaceForTests. Raises env/tool-missing, env/docker-unreachable,
        registry/* for an image that is not here and cannot be pulled."""
        self._tidy(cancel)
        name = f"{image.repository}:{image.tag}"
        name = f"{image.repository}@{image.digest}" if image.digest else name
        last: deque[str] = deque(maxlen=5)

        def take(line: str) -> None:
            last.append(line)
            on_line(line)

        status = self._run(name, test, take, cancel)
        text = " ".join(last)
        if status == _NOT_RUN:
            known = docker_unreachable(text) or pull_failed("\n".join(last), name)
            if known is not None:
                raise DevloopError(known)
        if status in (_NOT_RUN, _CANNOT_RUN, _NO_COMMAND):
            return EndedTest(status=status, not_run=text or f"docker run ended with {status}")
        return EndedTest(status=status)

    def _run(
        self, image: str, test: ImageTest, on_line: Callable[[str], None], cancel: Cancel
    ) -> int:
        container = f"devloop-test-{self._service}-{secrets.token_hex(4)}"
        program, *words = test.command
        argv = ["docker", "run", "--rm", "--name", container, "--label", self._label]
        argv += ["--env", f"DEVLOOP_SERVICE={self._service}", "--env", f"DEVLOOP_IMAGE={image}"]
        argv += ["--entrypoint", program, image, *words]
        try:
            return process.run(argv, on_line=on_line, cancel=cancel, limit=test.timeout)
        except process.CannotRun as error:
            raise cannot_run(error) from error
        except (Cancelled, process.Overran) as error:
            # What the program leaves behind that is ended: the container is Docker's, not its own.
            with contextlib.suppress(DevloopError):
                ask_docker("rm", "--force", container, cancel=Cancel(), limit=_REMOVAL)
            if isinstance(error, process.Overran):
                raise TimeoutError from None
            raise

    def _tidy(self, cancel: Cancel) -> None:
        if self._tidied:
            return
        self._tidied = True
        own = ("--filter", f"label={self._label}")
        found = ask_docker("ps", "--all", "--quiet", *own, cancel=cancel, limit=_REMOVAL)
        if found is not None and found.status == 0 and (left := found.out.split()):
            ask_docker("rm", "--force", *left, cancel=cancel, limit=_REMOVAL)
