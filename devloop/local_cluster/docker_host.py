"""The Docker daemon as `devloop cluster` and `devloop clean` use it, through the docker SDK.

Every request ends when it is cancelled and has a time limit, whatever the daemon does. Faults are
told apart by the SDK's classes and the daemon's status codes, never by texts. Must not decide which
daemon it is (the caller opens the client), and knows nothing about clusters or registries.
"""

from __future__ import annotations

import contextlib
import io
import posixpath
import sys
import tarfile
import time
from typing import TYPE_CHECKING, Any, TypeVar

import docker.errors
import docker.utils
import urllib3.exceptions

from devloop.base.cancel import Cancel
from devloop.base.process import Completed
from devloop.base.threads import Background
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


T = TypeVar("T")

_LIMIT = 60.0  # seconds for one request
_PULL = 300.0
_FAULTS = (docker.errors.DockerException, urllib3.exceptions.HTTPError, OSError)


class DockerRefused(DevloopError):  # noqa: N818 - an answer, which callers may expect
    """cluster/provision: the daemon answered that it cannot do it; its reason is the detail."""


class DockerNotFound(DockerRefused):
    """There is no such container, image, file or volume."""


def last_lines(text: str, lines: int = 8) -> tuple[str, ...]:
    """The last non-empty lines of a program's output."""
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-lines:]


def provision_error(text: str, output: str) -> DevloopError:
    """cluster/provision, with the last lines of a program's output."""
    return DevloopError.of(Code.CLUSTER_PROVISION, text, detail=last_lines(output))


class DockerHost:
    """A daemon behind `api`, a `docker.APIClient`. All requests are ended by `cancel`.

    Errors of every method: `DockerRefused`, cluster/provision when there is no answer in time,
    env/docker-unreachable, `Cancelled`."""

    def __init__(
        self, api: Any, cancel: Cancel, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api = api
        self._clock = clock
        self.cancel = cancel

    def uncancelled(self) -> DockerHost:
        """The same daemon, for what has to be put right even when everything else is cancelled."""
        return DockerHost(self._api, Cancel(), clock=self._clock)

    def until(self, look: Callable[[], T | None], seconds: float, pause: float = 0.3) -> T | None:
        """Call `look` until it returns something; None once `seconds` have passed."""
        deadline = self._clock() + seconds
        while (found := look()) is None and self._clock() < deadline:
            self.cancel.wait(pause)
            self.cancel.check()
        return found

    def call(self, method: str, *args: Any, **more: Any) -> Any:
        """A method of the SDK's client, by name."""
        what = " ".join((method.replace("_", " "), *args[:1]))
        return self._run(what, lambda: getattr(self._api, method)(*args, **more))

    def inspect(self, container: str) -> dict[str, Any] | None:
        """None when there is no such container."""
        try:
            found: dict[str, Any] = self.call("inspect_container", container)
        except DockerNotFound:
            return None
        return found

    def create(self, name: str | None, image: str, *, host: Mapping[str, Any], **more: Any) -> str:
        """Create a container, after a pull if the image is not here; returns its id. `host` are
        the arguments of the SDK's `create_host_config`."""
        options = more | {"name": name, "host_config": self._api.create_host_config(**host)}
        try:
            created = self.call("create_container", image, **options)
        except DockerNotFound:
            self._run(f"pull {image}", lambda: self._pull(image), _PULL)
            created = self.call("create_container", image, **options)
        return str(created["Id"])

    def _pull(self, image: str) -> None:
        repository, tag = docker.utils.parse_repository_tag(image)
        for item in self._api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            # The daemon has answered 200 by now: what fails later is in the stream.
            if "error" in item:
                raise docker.errors.APIError(item["error"])

    def remove(self, container: str) -> None:
        """Remove a container, running or not, with its nameless volumes, if there is one."""
        with contextlib.suppress(DockerNotFound):
            self.call("remove_container", container, force=True, v=True)

    def logs(self, container: str, lines: int | str = "all") -> str:
        return str(self.call("logs", container, tail=lines), "utf-8", "replace")

    def execute(self, container: str, argv: Sequence[str]) -> Completed:
        """Run a program in a running container to its end."""

        def execute() -> Completed:
            identity = self._api.exec_create(container, list(argv))["Id"]
            out, err = self._api.exec_start(identity, demux=True)
            status = self._api.exec_inspect(identity)["ExitCode"]
            out, err = ((text or b"").decode(errors="replace") for text in (out, err))
            return Completed(status=status, out=out, err=err)

        return self._run(f"run {argv[0]} in {container}", execute)

    def read(self, container: str, path: str) -> dict[str, str]:
        """The text of the file `path`, or of all files beneath it, by absolute path; empty when it
        does not exist. The container may be stopped."""

        def read() -> dict[str, str]:
            chunks, _ = self._api.get_archive(container, path)
            found: dict[str, str] = {}
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
                for member in archive:
                    if (file := archive.extractfile(member)) is not None:
                        place = posixpath.join(posixpath.dirname(path), member.name)
                        found[place] = file.read().decode(errors="replace")
            return found

        try:
            return self._run(f"read {path} in {container}", read)
        except DockerNotFound:
            return {}

    def write(self, container: str, path: str, text: str) -> None:
        """Put a file in place; missing directories are created. The container may be stopped."""
        data = text.encode()
        member = tarfile.TarInfo(path.lstrip("/"))
        member.size, member.mtime = len(data), int(time.time())
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.addfile(member, io.BytesIO(data))
        self.call("put_archive", container, "/", archive.getvalue())

    def _run(self, what: str, request: Callable[[], T], limit: float = _LIMIT) -> T:
        self.cancel.check()
        # In a thread: nothing else interrupts a request that the daemon does not answer.
        work: Background[T] = Background("docker", lambda _: request(), expected=_FAULTS)
        if not work.wait(limit, self.cancel):
            raise DevloopError.of(
                Code.CLUSTER_PROVISION, f"Docker does not {what} within {limit:.0f} s"
            )
        try:
            return work.result(self.cancel)
        except docker.errors.APIError as error:
            missing = isinstance(error, docker.errors.NotFound)
            raise (DockerNotFound if missing else DockerRefused).of(
                Code.CLUSTER_PROVISION,
                f"Docker cannot {what}",
                detail=last_lines(str(error.explanation or error)),
            ) from error
        except _FAULTS as error:
            desktop = sys.platform == "darwin"
            raise DevloopError.of(
                Code.ENV_DOCKER_UNREACHABLE,
                "the Docker daemon does not answer",
                cause=str(error),
                suggestions=(
                    "start Docker Desktop" if desktop else "start it: sudo systemctl start docker",
                    "check `docker info`, DOCKER_HOST and `docker context ls`",
                ),
            ) from error
