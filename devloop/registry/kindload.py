"""Copies images into a kind cluster's nodes, for a cluster that has no registry.

The slow way out: every load sends the whole image to every node. It drives `kind` itself, which
knows the nodes and their containerd; devloop must not reach into nodes by its own means.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from devloop.base import process
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel


_LIMIT = 900.0  # seconds; gigabytes for several nodes on a slow disk take minutes


class KindLoader:
    """`kind load docker-image` for one cluster; `limit` in seconds."""

    def __init__(self, cluster: str, *, program: str = "kind", limit: float = _LIMIT) -> None:
        self._cluster = cluster
        self._program = program
        self._limit = limit

    def load(self, image: str, cancel: Cancel, progress: Callable[[str], None]) -> None:
        """Returns when every node has `image` (a name with a tag, in the local Docker).

        Raises env/tool-missing, env/disk-full, cluster/not-found, registry/push-failed and
        Cancelled."""
        cancel.check()
        progress(f"loading {image} into the nodes of {self._cluster}")
        lines: deque[str] = deque(maxlen=50)
        argv = [self._program, "load", "docker-image", image, "--name", self._cluster]
        try:
            status = process.run(argv, cancel=cancel, on_line=lines.append, limit=self._limit)
        except process.CannotRun as error:
            message, hint = (
                f"{self._program} cannot be run",
                "install kind: https://kind.sigs.k8s.io",
            )
            raise DevloopError.of(
                Code.ENV_TOOL_MISSING, message, cause=error.reason, suggestions=(hint,)
            ) from error
        except process.Overran:
            lines.append(f"error: kind did not end within {self._limit:.0f} s")
            status = -1
        if status != 0:
            raise _failed(image, self._cluster, lines)


def _failed(image: str, cluster: str, lines: deque[str]) -> DevloopError:
    output = [line.strip() for line in lines if line.strip()]
    text = "\n".join(output)
    errors = [line for line in output if "error" in line.lower()]
    cause = (errors or output or ["it gave no reason"])[-1][:240]
    if "no space left on device" in text:
        code, hint = Code.ENV_DISK_FULL, "see what takes the space: docker system df"
        message = f"the nodes of {cluster} have no space left"
    elif "no nodes found for cluster" in text:
        code, hint = Code.CLUSTER_NOT_FOUND, "list the clusters: kind get clusters"
        message = f"there is no kind cluster {cluster}"
    else:
        message = f"{image} could not be loaded into the nodes of {cluster}"
        detail = tuple(output[-20:])
        return DevloopError.of(Code.REGISTRY_PUSH_FAILED, message, cause=cause, detail=detail)
    return DevloopError.of(code, message, cause=cause, suggestions=(hint,))
