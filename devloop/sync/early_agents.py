"""Agents that are started before it is known what their containers have: opening a stream takes as
long as looking into an image does, and neither needs the other.

Each is taken once, by whoever works with its container from then on. One that nobody takes in time
ends: until then a process that ends by itself is held, and nobody starts it again.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.threads import supervised
from devloop.errors import DevloopError
from devloop.sync.agent_session import NoAgent, start

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from devloop.model import ContainerView, PodView
    from devloop.sync.agent_session import Agent
    from devloop.sync.ports import CommandStream, OpenStream


_UNTAKEN = 5.0  # seconds


class EarlyAgent:
    """One container's. Its thread owns the agent until it is taken; `cancel` ends it at any time,
    as the `Cancel` given to `agent_session.start` does."""

    def __init__(
        self, pod: PodView, container: str, open_stream: OpenStream, ways: Sequence[str]
    ) -> None:
        self.cancel = Cancel()
        self._pod, self._container, self._open_stream = pod, container, open_stream
        self._ways = ways
        self._agent: Future[Agent] = Future()
        self._lock = threading.Lock()
        self._taken = False
        self._decided = threading.Event()
        self._thread = supervised(f"agent {pod.name}/{container}", self._run)
        self._thread.start()

    def take(self) -> bool:
        """Whether it is the caller's from now on, who calls `result` or `close`."""
        with self._lock:
            self._taken = not self.cancel.is_set()
        self._decided.set()
        return self._taken

    def result(self) -> Agent:
        """The agent, once it is there. Raises as `agent_session.start` does."""
        return self._agent.result()

    def close(self) -> None:
        """End it, also after it was taken; waits for a start that is under way to notice."""
        self.cancel.set()
        self._decided.set()
        with contextlib.suppress(Exception):
            self._agent.result().close()

    def drop(self) -> None:
        """End it unless it was taken. Never blocks."""
        with self._lock:
            if not self._taken:
                self.cancel.set()
        self._decided.set()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            agent = start(self._open, self.cancel, self._ways)
        except Exception as error:
            self._agent.set_exception(error)
            if isinstance(error, (NoAgent, DevloopError, OSError, Cancelled)):
                return  # raised where the result is wanted
            raise
        self._agent.set_result(agent)
        self._decided.wait(_UNTAKEN)
        self.drop()
        if not self._taken:
            agent.close()

    def _open(self, argv: Sequence[str]) -> CommandStream:
        return self._open_stream(self._pod, self._container, argv, self.cancel)


class EarlyAgents:
    """One service's. Safe to use from any thread."""

    def __init__(self, open_stream: OpenStream, ways: Sequence[str]) -> None:
        self._open_stream = open_stream
        self._ways = ways
        self._lock = threading.Lock()
        self._agents: dict[tuple[str, str], EarlyAgent] = {}
        self._ended: list[EarlyAgent] = []
        self._over = False

    def open(self, pods: Iterable[PodView], digests: Collection[str]) -> None:
        """Start one in each running container whose image has one of `digests`. Never blocks."""
        with self._lock:
            for pod in pods:
                for container in pod.containers if not self._over and not pod.deleting else ():
                    key = (pod.uid, container.container_id)
                    if key not in self._agents and _runs(container, digests):
                        made = EarlyAgent(pod, container.name, self._open_stream, self._ways)
                        self._agents[key] = made

    def take(self, uid: str, container_id: str) -> EarlyAgent | None:
        with self._lock:
            found = self._agents.pop((uid, container_id), None)
            if found is None:
                return None
            self._ended.append(found)
        return found if found.take() else None

    def end(self) -> None:
        """End those that nobody took, and start no more. Never blocks; safe to repeat."""
        with self._lock:
            self._over = True
            left, self._agents = self._agents, {}
            self._ended += left.values()
        for agent in left.values():
            agent.drop()

    def join(self, timeout: float) -> None:
        for agent in self._ended:
            agent.join(timeout)


def _runs(container: ContainerView, digests: Collection[str]) -> bool:
    there = not container.init and container.state == "running" and bool(container.container_id)
    return there and container.image_id.rpartition("@")[2] in digests
