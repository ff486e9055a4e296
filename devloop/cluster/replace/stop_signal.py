"""Whether the process of a container ends when it is asked to, known before it is asked.

The first process of a PID namespace gets no default handling of signals: without a handler of its
own it ignores SIGTERM (pid_namespaces(7)), and the kubelet waits out the whole grace period. A
rolling update starts the next pod meanwhile; a restart in place would serve nothing until then. So
its signal masks (proc(5)) are looked at with one command in the container. Restarts nothing.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from devloop.base.linux_signals import signal_number
from devloop.base.supervisor import PROGRAM
from devloop.cluster.api.exec_stream import run_exec
from devloop.cluster.api.pod_view import Json, container_status, dig, number, text, uid_of
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection

    ReadStatus = Callable[[Json, str, Cancel], str]
    """From a pod and the name of one of its containers to its /proc/1/status. Raises
    `DevloopError`, OSError and `Cancelled`."""


# With a grace period up to this, a process that ignores the signal is away no longer than the next
# pod of a rolling update takes.
_SHORT_SECONDS = 1
_LIMIT = 2.0  # seconds until an answer
_CAUGHT = re.compile(r"^SigCgt:\s*([0-9a-f]+)", re.MULTILINE)
_BLOCKED = re.compile(r"^SigBlk:\s*([0-9a-f]+)", re.MULTILINE)
_SUPERVISOR = re.compile(r"^Name:\s*agent$", re.MULTILINE)


class StopSignals:
    """For the containers of one workload; asks once for each that handles its signal. Safe to use
    from any thread."""

    def __init__(self, read_status: ReadStatus) -> None:
        self._read_status = read_status
        self._handled: dict[tuple[str, str], str] = {}

    def blocker(self, pod: Json, container: str, cancel: Cancel) -> str:
        """Why the container's process may not end soon, "" when it does. Raises `Cancelled`."""
        status = container_status(pod, container)
        key, running = (uid_of(pod), container), text(status.get("containerID"))
        if (
            dig(status, "state", "running") is None
            or self._handled.get(key) == running
            or dig(pod, "spec", "shareProcessNamespace") is True
            or dig(pod, "spec", "hostPID") is True
            or number(dig(pod, "spec", "terminationGracePeriodSeconds"), 30) <= _SHORT_SECONDS
        ):
            return ""
        # In the status since Kubernetes 1.33: the image's or the pod's own.
        name = text(status.get("stopSignal")) or "SIGTERM"
        try:
            handled = _catches(self._read_status(pod, container, cancel), name)
        except (DevloopError, OSError, ValueError) as error:
            why = error.diagnosis.message if isinstance(error, DevloopError) else str(error)
            return f"it is not known whether {container} ends at {name}: {why}"
        if not handled:
            return f"{container} ignores {name}: it is process 1 and has no handler for it"
        self._handled[key] = running
        return ""


def reading_by_exec(connection: Connection) -> ReadStatus:
    """Reads with `cat` in the container, or with devloop's own program where there is no `cat`."""

    def read(pod: Json, container: str, cancel: Cancel) -> str:
        run = partial(run_exec, connection, pod, container, cancel, limit=_LIMIT)
        try:
            return run(argv=("cat", "/proc/1/status"))
        except (DevloopError, OSError, ValueError) as error:
            try:
                return run(argv=(PROGRAM, "status"))
            except (DevloopError, OSError, ValueError):
                raise error from None

    return read


def _catches(status: str, name: str) -> bool:
    """Whether /proc/PID/status says that a signal is caught. Raises ValueError."""
    # The supervisor reads its signals from a signalfd, for which they are blocked.
    found = (_BLOCKED if _SUPERVISOR.search(status) else _CAUGHT).search(status)
    number = signal_number(name)
    if found is None or number is None:
        raise ValueError(f"/proc/1/status does not say whether {name} is caught")
    return bool(int(found[1], 16) >> (number - 1) & 1)
