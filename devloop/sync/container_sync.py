"""One running container: what it has, what it should have, and the thread that closes the gap.

Level-triggered: `want` sets what should be there, and the thread brings the difference, again after
a broken stream, until it is there or the agent refused. The stream is opened before anything is
wanted, so that a save finds it ready.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import threading
import time
from dataclasses import field, replace
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.sockets import wake_pair
from devloop.base.threads import supervised
from devloop.errors import Code, DevloopError
from devloop.sync.agent_session import NoAgent, start
from devloop.sync.process_start import AwaitedStart, Revival, SyncAttempt
from devloop.sync.protocol import ANY_IMAGE, DEV_IMAGE, IMAGES, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from devloop.errors import Diagnosis
    from devloop.model import ContainerView, ImageRef, PodView
    from devloop.sync.agent_session import Agent
    from devloop.sync.changes import ContainerState, FileChange, SyncPlan
    from devloop.sync.early_agents import EarlyAgent
    from devloop.sync.ports import CommandStream, OpenStream
    from devloop.sync.process_start import Restarts
    from devloop.sync.protocol import ProcessNews
    from devloop.sync.rules import SyncTarget


_ASKED_AT_ONCE = 100
_KNOWN_PERMISSIONS = 4096

_LOG = logging.getLogger(__name__)

# A stream often breaks because its container ended. The kubelet reports the next one within about
# a second (its relist); until then a stream by name could reach a container of unknown content.
FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 30.0
READ_ONLY = "Read-only file system"  # of all of a container, as a rule (EROFS)
# Not so the next time: ENOSPC, EDQUOT, EIO, in the words of the agents.
_HINT_PASSING = "free space where the container writes; until then a save makes an image"
_PASSING = ("No space left on device", "Disk quota exceeded", "Input/output error")


@dataclass(slots=True)
class PermissionQuestion:
    """Whether a container's user may bring `changes`. Once `done` is set, `reason` says why not, as
    PATH: REASON; None where nothing is known against it."""

    changes: tuple[FileChange, ...]
    done: threading.Event = field(default_factory=threading.Event)
    reason: str | None = None


class ContainerSync:
    """One container from its start to its end. `state` is what its image has; `recall` gives what a
    mark names, None for one that is not known; `looked` is called when it is `opened`: when the
    first look into it is over, and `found` is what it said that it has. `plan` compares two states.
    `refused` is called with a directory, or "" for all, and why nothing can be brought there the
    next time either. `ways` are the agents to try. `busy` while files are under way, which ends by
    itself when the agent is silent for too long, and while the process starts."""

    def __init__(
        self,
        *,
        pod: PodView,
        container: ContainerView,
        image: ImageRef,
        state: ContainerState,
        context: Path,
        open_stream: OpenStream,
        plan: Callable[[ContainerState, ContainerState, Mapping[str, SyncTarget]], SyncPlan],
        refused: Callable[[str, str, DevloopError], None],
        recall: Callable[[str], ContainerState | None] = lambda _: None,
        looked: Callable[[], None] = lambda: None,
        restarts: Restarts | None = None,
        ways: Sequence[str] = ANY_IMAGE,
        first_pause: float = FIRST_PAUSE,
        early: EarlyAgent | None = None,
    ) -> None:
        self._first_pause = first_pause
        self._ways = ways
        self._restarts = restarts
        self.pod = pod
        self.container = container.name
        self.mounts = container.mounts
        self._declared = container.ports
        self.image = image
        self._context = context
        self._open_stream = open_stream
        self._plan = plan
        self._refused = refused
        self._recall = recall
        self._image_state = self._state = state
        self._looked = looked
        self.opened = False
        self.found: str | None = None
        self._doubtful: dict[str, SyncTarget] = {}
        self._lock = threading.Lock()
        self._wanted: ContainerState | None = None
        self._attempt = SyncAttempt()
        self._question: PermissionQuestion | None = None
        self._permitted: set[SyncTarget] = set()
        self.busy = False
        # Whether a process may run that started before all of `_state` was in place.
        self._old_process = False
        self._wrote = False
        self._awaited: AwaitedStart | None = None
        self._revival = Revival()
        self._supervised: bool | None = None
        self._trouble: str | None = None
        self._unknown = False
        self._final: DevloopError | None = None
        self._early = early
        self._cancel = Cancel() if early is None else early.cancel
        self._wake, self._waker = wake_pair()
        self._thread = supervised(f"sync {pod.name}/{container.name}", self._run)
        self._thread.start()

    @property
    def blocker(self) -> str | None:
        """Why nothing can be brought to the container now; None while it can or may soon."""
        with self._lock:
            return self._final.diagnosis.message if self._final else self._trouble

    @property
    def state(self) -> ContainerState:
        """What it has, once it is `opened` without a `blocker`."""
        return self._state

    @property
    def is_unknown(self) -> bool:
        """Whether it has something else than its image and nobody knows what."""
        return self._unknown

    @property
    def is_untouched(self) -> bool:
        """Whether it is known to have what its image has, and is not about to get anything else."""
        with self._lock:
            wants = self._wanted is not None and self._wanted is not self._image_state
            told = self.opened and self.found in (IMAGES, self._image_state.mark)
            return told and not (self._wrote or wants or self._unknown)

    def cannot_restart(self) -> bool:
        """Whether it is known that the process cannot be started anew."""
        return self._restarts is None or self._supervised is False

    def want(self, state: ContainerState) -> SyncAttempt:
        """Bring the container to `state`, which takes the place of what was wanted before."""
        attempt = SyncAttempt()
        with self._lock:
            if self._wanted is state and not self._attempt.done.is_set():
                return self._attempt
            self._attempt.finish(gone=True)
            self._attempt, self._wanted = attempt, state
            if self._final is not None:
                attempt.finish(self._final)
        self._nudge()
        return attempt

    def may(self, changes: Sequence[FileChange]) -> PermissionQuestion | None:
        """Ask whether the container's user may bring `changes`, as soon as there is an agent; None
        when that is known, or there will be none."""
        with self._lock:
            if self._final is not None or self._cancel.is_set():
                return None
            unknown = [change for change in changes if change.target not in self._permitted]
            if not unknown:
                return None
            question = self._question = PermissionQuestion(tuple(unknown[:_ASKED_AT_ONCE]))
        self._nudge()
        return question

    def stop(self) -> None:
        """Tell the thread to end; safe from any thread, never blocks."""
        self._cancel.set()
        with self._lock:
            self._attempt.finish(gone=True)
            if self._question is not None:
                self._question.done.set()
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
            if self._early is not None:
                self._early.close()
            self._first_look_is_over()
            self._wake.close()
            self._waker.close()

    def _keep_open(self) -> None:
        pause = self._first_pause
        while not self._cancel.is_set():
            opened = time.monotonic()
            try:
                agent = self._start()
                self._supervised = agent.supervised
                with self._lock:
                    self._trouble = None
                try:
                    if not self._take_over(agent.content):
                        return
                    self._first_look_is_over()
                    self._serve(agent)
                finally:
                    agent.close()
                    self.busy, self._awaited = False, None
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
            self._first_look_is_over()
            # Waited even if it stood for hours: see `FIRST_PAUSE`.
            pause = self._first_pause if time.monotonic() - opened > _LONGEST_PAUSE else pause
            if self._cancel.wait(pause):
                return
            pause = min(pause * 1.6, _LONGEST_PAUSE)

    def _take_over(self, content: str | None) -> bool:
        """Go on from what the container says that it has; False when that is not known."""
        self.found = content
        own = bool(self._doubtful) or (self._wrote and not self._state.mark)
        if content in (None, self._state.mark) or (content == UNKNOWN and own):
            return True
        state = self._image_state if content == IMAGES else self._recall(content or "")
        if content == UNKNOWN or state is None:
            self._unknown = True
            self._give_up(self._failed("somebody else changed its files, and how is not known"))
            return False
        self._state, self._doubtful = state, {}
        return True

    def _first_look_is_over(self) -> None:
        if not self.opened:
            self.opened = True
            self._looked()

    def _start(self) -> Agent:
        early, self._early = self._early, None
        return start(self._open, self._cancel, self._ways) if early is None else early.result()

    def _open(self, argv: Sequence[str]) -> CommandStream:
        return self._open_stream(self.pod, self.container, argv, self._cancel)

    def _serve(self, agent: Agent) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(agent.fileno(), select.POLLIN)
        while not self._cancel.is_set():
            for told in agent.process_news():
                self._hear(told)
            self._answer(agent)
            with self._lock:
                wanted, attempt = self._wanted, self._attempt
            awaited = self._awaited
            if awaited is not None and attempt is not awaited.attempt:
                awaited = self._awaited = None
            if wanted is not None and awaited is None and not attempt.done.is_set():
                self._bring(agent, wanted, attempt)
                continue
            if awaited is not None and awaited.left() <= 0:
                if awaited.settled():
                    agent.settle()
                    self._serves_again(awaited)
                else:
                    self._end_start(awaited.silent(self.pod.name))
                continue
            if self._restarts is not None and self._revival.left() <= 0:
                self._revival.done()
                agent.apply((), self._context, self._restarts.stop_timeout)
                continue
            left = min(self._revival.left(), awaited.left() if awaited else math.inf)
            for fd, _ in poll.poll(None if left == math.inf else left * 1000):
                if fd == agent.fileno():
                    agent.idle()
                else:
                    with contextlib.suppress(OSError):
                        self._wake.recv(4096)

    def _answer(self, agent: Agent) -> None:
        with self._lock:
            question, self._question = self._question, None
        if question is None:
            return
        try:
            question.reason = agent.may(question.changes)
        finally:
            question.done.set()
        if question.reason is None:
            with self._lock:
                if len(self._permitted) > _KNOWN_PERMISSIONS:
                    self._permitted.clear()
                self._permitted.update(change.target for change in question.changes)

    def _bring(self, agent: Agent, wanted: ContainerState, attempt: SyncAttempt) -> None:
        plan = self._plan(self._state, wanted, self._doubtful)
        restarts = self._restarts if agent.supervised else None
        blocker = plan.blocker or (plan.needs_restart if restarts is None else "")
        if blocker:
            attempt.finish(self._failed(blocker))
            return
        self._revival.done()
        restart = restarts is not None and (plan.restart or self._old_process)
        if not plan.changes and not restart:
            self._state = wanted
            attempt.finish()
            return
        # Until the agent has answered for it, what is there is not known.
        self._doubtful |= {c.target.absolute: c.target for c in plan.changes}
        self._old_process = restart
        self._wrote = True
        self.busy = True
        if restarts is not None and restart:
            restarts.starts(self.pod, self.container, False)
        try:
            timeout = restarts.stop_timeout if restarts is not None and restart else None
            refused = agent.apply(
                plan.changes, self._context, timeout, wanted.mark, kept=wanted.kept
            )
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
        if restarts is None or not restart:
            attempt.finish()
            return
        self._awaited = AwaitedStart(
            attempt, restarts.limit, restarts.halted, self._declared | restarts.ports
        )
        self.busy = True

    # --- the process ---------------------------------------------------------------------------

    def _hear(self, told: ProcessNews) -> None:
        awaited = self._awaited
        if told.kind == "ended" and told.by_itself:
            self._ended(told)
        elif told.kind == "unstarted":
            self._old_process = True
        elif awaited is None:
            return
        elif told.kind in ("refused", "mixed", "lost"):
            self._unknown = self._unknown or told.kind == "mixed"
            self._end_start(self._failed(told.how))
        elif told.kind == "restarting":
            awaited.count = told.count
        elif told.kind == "listening" and awaited.is_about(told):
            self._serves_again(awaited)
        elif told.kind == "waiting" and awaited.is_about(told):
            awaited.waits(told)

    def _serves_again(self, awaited: AwaitedStart) -> None:
        self._old_process = False
        awaited.attempt.restarted = True
        assert self._restarts is not None  # noqa: S101 - it was started anew
        self._restarts.starts(self.pod, self.container, True)
        self._end_start()

    def _ended(self, told: ProcessNews) -> None:
        assert self._restarts is not None  # noqa: S101 - nobody holds it otherwise
        awaited = self._awaited
        if awaited is not None and not awaited.is_about(told):
            return
        error = self._restarts.ended(self.pod, self.container, told.how)
        if awaited is not None:
            self._end_start(error)
        else:
            hint = ("devloop starts it again in a moment",)
            self._restarts.report(replace(error.diagnosis, suggestions=hint))
            self._revival.after_end()

    def _end_start(self, error: DevloopError | None = None) -> None:
        assert self._awaited is not None  # noqa: S101 - it is what ends
        attempt, self._awaited = self._awaited.attempt, None
        self.busy = False
        attempt.finish(error)

    def _refuse(
        self, changes: tuple[FileChange, ...], refused: Mapping[int, str], attempt: SyncAttempt
    ) -> None:
        # The restart that is refused after them, for nothing but that, is no news.
        steps = sorted(n for n in refused if n < len(changes)) or sorted(refused)
        detail = tuple(refused[n] for n in steps[:10])
        passing = any(p in detail[0] for p in _PASSING)
        error = self._failed(
            detail[0],
            detail=detail if len(detail) > 1 else (),
            suggestions=(_HINT_PASSING,) if passing else (),
        )
        for number in steps:
            reason = refused[number]
            if reason.endswith(READ_ONLY):
                self._refused("", reason.rpartition(": ")[2], error)
            elif number < len(changes) and not any(p in reason for p in _PASSING):
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
            if self._question is not None:
                self._question.done.set()

    def _failed(
        self,
        reason: str,
        *,
        like: Diagnosis | None = None,
        detail: tuple[str, ...] = (),
        suggestions: tuple[str, ...] = (),
    ) -> DevloopError:
        return DevloopError.of(
            Code.SYNC_FAILED,
            f"cannot sync into pod {self.pod.name}: {reason}",
            # Where nobody asked for a sync, the image that follows is no loss.
            severity="info" if self._ways == DEV_IMAGE else "warning",
            cause=like.cause if like else None,
            suggestions=like.suggestions if like else suggestions,
            detail=like.detail if like else detail,
        )
