"""Copies images into a kind cluster's nodes, for a cluster that has no registry.

The slow way out: every load sends the whole image to every node. It drives `kind` itself, which
knows the nodes and their containerd; devloop must not reach into nodes by its own means.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
from collections import deque
from typing import TYPE_CHECKING

from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel

__all__ = ["KindLoader"]

_GRACE = 0.3


class KindLoader:
    """`kind load docker-image` for one cluster."""

    def __init__(self, cluster: str, *, program: str = "kind") -> None:
        self._cluster = cluster
        self._program = program

    def load(self, image: str, cancel: Cancel, progress: Callable[[str], None]) -> None:
        """Returns when every node has `image` (a name with a tag, in the local Docker).

        Raises env/tool-missing, env/disk-full, cluster/not-found, registry/push-failed and
        Cancelled."""
        cancel.check()
        progress(f"loading {image} into the nodes of {self._cluster}")
        lines: deque[str] = deque(maxlen=50)
        status = self._run([image, "--name", self._cluster], cancel, lines)
        cancel.check()
        if status != 0:
            raise _failed(image, self._cluster, lines)

    def _run(self, arguments: list[str], cancel: Cancel, lines: deque[str]) -> int:
        wake_read, wake_write = os.pipe()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, wake_read)
            stack.callback(os.close, wake_write)
            try:
                process = subprocess.Popen(
                    [self._program, "load", "docker-image", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise DevloopError.of(
                    Code.ENV_TOOL_MISSING,
                    f"{self._program} cannot be run",
                    cause=error.strerror,
                    suggestions=("install kind: https://kind.sigs.k8s.io",),
                ) from error
            stack.callback(_end, process)
            stack.enter_context(cancel.closing(lambda: _wake(wake_write)))
            _read(process, wake_read, cancel, lines)
            return -1 if cancel.is_set() else process.wait()


def _wake(fd: int) -> None:
    os.write(fd, b"x")


def _read(process: subprocess.Popen[bytes], wake: int, cancel: Cancel, lines: deque[str]) -> None:
    pipe = process.stdout
    if pipe is None:
        return
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while not cancel.is_set():
            ready = {key.fd for key, _ in selector.select(None)}
            if pipe.fileno() not in ready:
                continue
            data = os.read(pipe.fileno(), 1 << 16)
            *whole, rest = (rest + data).split(b"\n")
            lines.extend(line.decode("utf-8", "replace") for line in whole)
            if not data:
                lines.append(rest.decode("utf-8", "replace"))
                return


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: kind runs `docker save` and `docker exec` beneath itself."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _failed(image: str, cluster: str, lines: deque[str]) -> DevloopError:
    said = [line.strip() for line in lines if line.strip()]
    text = "\n".join(said)
    errors = [line for line in said if "error" in line.lower()]
    cause = (errors or said or ["it gave no reason"])[-1][:240]
    if "no space left on device" in text:
        return DevloopError.of(
            Code.ENV_DISK_FULL,
            f"the nodes of {cluster} have no space left",
            cause=cause,
            suggestions=("see what takes the space: docker system df",),
        )
    if "no nodes found for cluster" in text:
        return DevloopError.of(
            Code.CLUSTER_NOT_FOUND,
            f"there is no kind cluster {cluster}",
            cause=cause,
            suggestions=("list the clusters: kind get clusters",),
        )
    return DevloopError.of(
        Code.REGISTRY_PUSH_FAILED,
        f"{image} could not be loaded into the nodes of {cluster}",
        cause=cause,
        detail=tuple(said[-20:]),
    )
