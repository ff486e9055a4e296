"""One running container: what it has, what it should have, and the thread that closes the gap.

Level-triggered: `want` sets what should be there, and the thread brings the difference, again after
a broken stream, until it is there or the agent refused. The stream is opened before anything is
wanted, so that a save finds it ready.
"""

from __future__ import annotations

import contextlib
import logging
import select
import threading
import time
from dataclasses import field
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.sockets import wake_pair
from devloop.base.threads import supervised
from devloop.errors import Code, DevloopError
from devloop.sync.agent_session import NoAgent, start

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from devloop.errors import Diagnosis
    from devloop.model import ImageRef, PodView
    from devloop.sync.agent_session import Agent
    from devloop.sync.changes import ContainerState, FileChange, SyncPlan
    from devloop.sync.ports import CommandStream, OpenStream
    from devloop.sync.rules import SyncTarget


_LOG = logging.getLogger(__name__)

# A stream often breaks because its container ended. The kubelet reports the next one within about
# a second (its relist); until then a stream by name could reach a container of unknown content.
FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 30.0


@dataclass(slots=True)
class SyncAttempt:
    """One desired state and what became of it; `done` is set at the end. `error` is None when the
    container has it; `gone` when the container ended first."""

    done: threading.Event = field(default_factory=threading.Event)
    error: DevloopError | None = None
    gone: bool = False
    changes: int = 0

    def finish(self, error: DevloopError | None = None, *, gone: bool = False) -> None:
        self.error = self.error or error
        self.gone = self.gone or gone
        self.done.set()


class ContainerSync:
    """One container from its start to its end. `plan` compares two states. `refused` is called with
    a directory, or "" for all, and why nothing can be brought there the next time either. `busy`
    while files are under way, which ends by itself when the agent is silent for too long."""

    def __init__(
        self,
        *,
        pod: PodView,
        container: str,
        image: ImageRef,
        state: ContainerState,
        context: Path,
        open_stream: OpenStream,
        plan: Callable[[ContainerState, ContainerState, Mapping[str, SyncTarget]], SyncPlan],
        refused: Callable[[str, str, DevloopError], None],
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self._first_pause = first_pause
        self.pod = pod
        self.container = container
        self.image = image
        self._context = context
        self._open_stream = open_stream
        self._plan = plan
        self._refused = refused
        self._state = state
        self._doubtful: dict[str, SyncTarget] = {}
        self._lock = threading.Lock()
        self._wanted: ContainerState | None = None
        self._attempt = SyncAttempt()
        self.busy = False
        self._trouble: str | None = None
        self._final: DevloopError | None = None
        self._cancel = Cancel()
        self._wake, self._waker = wake_pair()
        self._thread = supervised(f"sync {pod.name}/{container}", self._run)
        self._thread.start()

    @property
    def blocker(self) -> str | None:
        """Why nothing can be brought to the container now; None while it can or may soon."""
        with self._lock:
            return self._final.diagnosis.message if self._final else self._trouble

    def want(self, state: ContainerState) -> SyncAttempt:
        """Bring the container to `state`, which takes the place of what was wanted before."""
        attempt = SyncAttempt()
        with self._lock:
            self._attempt.finish(gone=True)
            self._attempt, self._wanted = attempt, state
            if self._final is not None:
                attempt.finish(self._final)
        self._nudge()
        return attempt

    def stop(self) -> None:
        """Tell the thread to end; safe from any thread, never blocks."""
        self._cancel.set()
        with self._lock:
            self._attempt.finish(gone=True)
        self._nudge()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._keep_open()
        except Cancelled:
            pass
        except Exception:  # noqa: BLE001 - it must not leave a save waiting
            _LOG.exception("the sync of %s", self.pod.name)
            self._give_up(self._failed("devloop's own mistake: run again with -v"))
        finally:
            self._wake.close()
            self._waker.close()

    def _keep_open(self) -> None:
        pause = self._first_pause
        while not self._cancel.is_set():
            opened = time.monotonic()
            try:
                agent = start(self._open, self._cancel)
                with self._lock:
                    self._trouble = None
                try:
                    self._serve(agent)
                finally:
                    agent.close()
                return
            except NoAgent as lack:
                self._never(self._failed(str(lack)), str(lack))
                return
            except DevloopError as error:
                trouble = error.diagnosis.message
                if error.code.final:
                    self._never(self._failed(trouble, like=error.diagnosis), trouble)
                    return
            except OSError as error:
                trouble = str(error)
            with self._lock:
                self._trouble = f"the stream to pod {self.pod.name} broke: {trouble}"
            # Waited even if it stood for hours: see `FIRST_PAUSE`.
            pause = self._first_pause if time.monotonic() - opened > _LONGEST_PAUSE else pause
            if self._cancel.wait(pause):
                return
            pause = min(pause * 1.6, _LONGEST_PAUSE)

    def _open(self, argv: Sequence[str]) -> CommandStream:
        return self._open_stream(self.pod, self.container, argv, self._cancel)

    def _serve(self, agent: Agent) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(agent.fileno(), select.POLLIN)
        while not self._cancel.is_set():
            with self._lock:
                wanted, attempt = self._wanted, self._attempt
            if wanted is not None and not attempt.done.is_set():
                self._bring(agent, wanted, attempt)
                continue
            for fd, _ in poll.poll():
                if fd == agent.fileno():
                    agent.idle()
                else:
                    with contextlib.suppress(OSError):
                        self._wake.recv(4096)

    def _bring(self, agent: Agent, wanted: ContainerState, attempt: SyncAttempt) -> None:
        plan = self._plan(self._state, wanted, self._doubtful)
        if plan.blocker is not None:
            attempt.finish(self._failed(plan.blocker))
            return
        if not plan.changes:
            self._state = wanted
            attempt.finish()
            return
        # Until the agent has answered for it, what is there is not known.
        self._doubtful |= {c.target.absolute: c.target for c in plan.changes}
        self.busy = True
        try:
            refused = agent.apply(plan.changes, self._context)
        except DevloopError as error:
            attempt.finish(error)
            return
        finally:
            self.busy = False
        if refused:
            self._refuse(plan.changes, refused, attempt)
            return
        self._state = wanted
        self._doubtful = {}
        attempt.changes = len(plan.changes)
        attempt.finish()

    def _refuse(
        self, changes: tuple[FileChange, ...], refused: Mapping[int, str], attempt: SyncAttempt
    ) -> None:
        detail = tuple(refused[n] for n in sorted(refused)[:10])
        error = self._failed(refused[min(refused)], detail=detail if len(detail) > 1 else ())
        for number, reason in refused.items():
            if 0 <= number < len(changes):
                directory = changes[number].target.absolute.rpartition("/")[0]
                self._refused(directory or "/", reason, error)
        attempt.finish(error)

    def _never(self, error: DevloopError, reason: str) -> None:
        self._refused("", reason, error)
        self._give_up(error)

    def _give_up(self, error: DevloopError) -> None:
        with self._lock:
            self._final = error
            self._attempt.finish(error)

    def _failed(
        self, reason: str, *, like: Diagnosis | None = None, detail: tuple[str, ...] = ()
    ) -> DevloopError:
        return DevloopError.of(
            Code.SYNC_FAILED,
            f"cannot sync into pod {self.pod.name}: {reason}",
            cause=like.cause if like else None,
            suggestions=like.suggestions if like else (),
            detail=like.detail if like else detail,
        )
