"""One service's sync: which content its containers have, and bringing them all to the same.

The engine sets what images contain (`image_contains`) and what is to be served (`sync`); the
cluster's watch shows which containers run. From these three follows what each container lacks, at
any moment: a container that starts later from a known image gets it by itself. Decides nothing
about images.
"""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.model import Resumed, Served, Step, StepOutcome
from devloop.sync.changes import ByPlaces, ByRules, ContainerState, difference
from devloop.sync.container_sync import FIRST_PAUSE, READ_ONLY, ContainerSync
from devloop.sync.earlier_session import EarlierSession, KnownContent
from devloop.sync.early_agents import EarlyAgents
from devloop.sync.protocol import ANY_IMAGE, DEV_IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import PodSource, Reporter, StandingOf
    from devloop.model import ContainerView, ImageRef, Scan
    from devloop.sync.changes import FileChange, Placing, SyncPlace, SyncPlan
    from devloop.sync.contents import RememberedContents
    from devloop.sync.ports import OpenStream
    from devloop.sync.process_start import Restarts, SyncAttempt
    from devloop.sync.rules import PathRule, SyncTarget


# That no container runs. Snapshots of 20,000 files are 2 MB each.
_IMAGES = 4
_LIMIT = 10.0  # seconds until an agent takes the files; how long they are is their own matter
_ASKED = 2.0  # seconds for a container to say what its user may write
_LOOK = 0.5  # seconds between two looks at what takes longer
_ENDED = 1.0  # seconds for the threads to end


@dataclass(frozen=True, slots=True)
class _DesiredState:
    """What is to be served."""

    scan: Scan
    state: ContainerState


class FileSync:
    """The engine's `Syncer` for one service. Safe to use from any thread.

    `context` is the build context's directory. What goes where is set by `rules` or, without any,
    by `places` (`sync: auto`): from a scan to where the image's build puts its paths, without those
    of which that is not known and those that a later step of the build reads, or to the reason why
    nothing is known; `below` is `ByPlaces`' of the image that was built last and may wait a second.
    `restarts`, where a container has a supervisor: how its process is started anew after what the
    rules do not except; without `always`, a process that nobody can restart goes on. `contents`
    are of earlier sessions, for `places` alone: what rules of then brought, nobody knows. `resumed`
    is told of the scans of their images before `places` is asked about these; without `early` their
    containers are not asked ahead of time. `report` gets, once,
    why containers cannot be synced into at all. `close` ends it."""

    def __init__(
        self,
        service: str,
        *,
        context: Path,
        open_stream: OpenStream,
        pods: PodSource,
        rules: Sequence[PathRule] = (),
        places: Callable[[Scan], Mapping[str, tuple[SyncPlace, ...]] | str] | None = None,
        below: Callable[[str], str | None] = lambda _: "",
        restarts: Restarts | None = None,
        contents: RememberedContents | None = None,
        resumed: Callable[[Scan], None] = lambda _: None,
        always: bool = False,
        early: bool = True,
        report: Callable[[Diagnosis], None] | None = None,
        limit: float = _LIMIT,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        # What rules brought in an earlier session takes more to be known than what its scan saw.
        self._earlier: EarlierSession | None = None
        ways = DEV_IMAGE if always else ANY_IMAGE
        if contents is not None and places is not None:
            agents = EarlyAgents(open_stream, ways)
            if not early:
                agents.end()
            self._earlier = EarlierSession(
                service,
                contents,
                pods=pods,
                state_of=self._state_of,
                workers=self._living,
                resumed=resumed,
                early=agents,
            )
        self._new_worker = functools.partial(
            ContainerSync,
            context=context,
            open_stream=open_stream,
            plan=self._plan,
            refused=self._remember,
            recall=self._earlier.marked if self._earlier else lambda _: None,
            looked=self._earlier.looked if self._earlier else lambda: None,
            restarts=restarts,
            ways=ways,
            first_pause=first_pause,
        )
        self._service = service
        self._pods = pods
        self._by_rules = ByRules(rules)
        self._places = places
        # Whether all that is known is what an earlier session left.
        self._resumed = False
        self._below = below
        self._may_stay = not always
        self._by_places: ByPlaces | None = None
        self._report = report
        self._limit = limit
        self._lock = threading.Lock()
        self._images: dict[str, KnownContent] = {}
        self._workers: dict[tuple[str, str], ContainerSync] = {}
        self._ended: list[ContainerSync] = []
        self._desired: _DesiredState | None = None
        self._asked: _DesiredState | None = None
        self._last_plan: tuple[ContainerState, ContainerState, SyncPlan] | None = None
        self._refusals: dict[tuple[str, str], dict[str, str]] = {}
        self._told: set[str] = set()
        self._syncing = False
        self._closed = False
        self._restarts = restarts
        self._changed = threading.Event()
        self._unsubscribe = pods.on_change(self._look)

    # --- as engine.ports.Syncer ----------------------------------------------------------------

    def image_contains(self, image: ImageRef, scan: Scan) -> None:
        """From now on, containers that run `image` are known to start from what `scan` saw.

        It is also what is to be served, unless a sync of something newer came in between."""
        asked = self._asked_for(scan)
        desired = asked or self._desired_by(scan)
        if isinstance(desired, str):
            nothing = ContainerState(snapshot=scan.snapshot, placing=ByPlaces({}))
            desired = _DesiredState(scan, nothing)
        with self._lock:
            key = image.digest or image.pinned
            self._images.pop(key, None)
            # What it starts from is not brought to it.
            state = replace(desired.state, kept={}) if desired.state.kept else desired.state
            self._images[key] = KnownContent(image=image, state=state)
            # The oldest are dropped, but none that a container runs: it may start from it again.
            used = {w.image.digest or w.image.pinned for w in self._workers.values()}
            spare = [key for key in self._images if key not in used]
            for key in spare[:-_IMAGES]:
                del self._images[key]
            # An image that something else asked for, as one below it, was no question before.
            newest = self._desired is None or self._desired.scan.look <= scan.look
            if asked is not None or newest:
                self._desired = desired
        if self._earlier is not None:
            self._earlier.remember(scan, image)
        self._look()
        if self._earlier is not None:
            self._earlier.end_early()

    def image_again(self, image: ImageRef, scan: Scan | None) -> frozenset[str]:
        key = image.digest or image.pinned
        if scan is None and self._earlier is not None:
            scan = self._earlier.content_of(image)
        desired = self._desired_by(scan) if scan is not None else None
        with self._lock:
            known = self._images.get(key)
            if scan is not None and known is not None:
                desired = _DesiredState(scan, known.state)
            if isinstance(desired, str):
                desired = None
            # Without that, its containers are left alone until the next image.
            self._desired, self._asked, self._resumed = desired, None, False
            self._images.pop(key, None)
            if desired is not None:
                self._images[key] = KnownContent(image=image, state=desired.state)
            workers = tuple(self._workers.values())
        own = [worker for worker in workers if (worker.image.digest or worker.image.pinned) == key]
        names = {worker.pod.name for worker in own if worker.is_untouched}
        return frozenset(names - {w.pod.name for w in workers if not w.is_untouched})

    def blocker(self, scan: Scan) -> str | None:
        asked = self._desired_by(scan)
        if isinstance(asked, str):
            return asked
        states = self._states(asked)
        if isinstance(states, str):
            return states
        if (refused := self._refusal(scan, "")) is not None:
            return refused
        workers = self._living()
        plans = [self._plan(state, asked.state, {}) for state in states]
        for plan in plans:
            if (reason := self._plan_blocker(plan, asked, workers)) is not None:
                return reason
        if not workers:
            return "no container runs an image of known content"
        reason = next((worker.blocker for worker in workers if worker.blocker), None)
        changes = tuple(change for plan in plans for change in plan.changes)
        reason = reason or self._unknown_pod() or self._forbidden(workers, changes)
        # Found out while the containers were asked, and told then.
        return reason or self._refusal(scan, "")

    def _states(self, asked: _DesiredState) -> list[ContainerState] | str:
        """What the containers have, as far as that differs; or why `asked` is beyond any sync."""
        with self._lock:
            self._asked = asked
            desired, resumed = self._desired, self._resumed
        if desired is None:
            if resumed:
                return _distinct(self._living())
            return "it is not known yet what the running containers contain"
        if asked.scan.recipe != desired.scan.recipe:
            return "what shapes the image changed, not the context alone"
        if asked.scan.fingerprint.deploy != desired.scan.fingerprint.deploy:
            return "the manifests changed"
        return [desired.state]

    def _plan_blocker(
        self, plan: SyncPlan, asked: _DesiredState, workers: Sequence[ContainerSync]
    ) -> str | None:
        if plan.blocker is not None:
            return plan.blocker
        if plan.needs_restart and any(worker.cannot_restart() for worker in workers):
            return plan.needs_restart
        for change in plan.changes:
            target = change.target.absolute
            hidden = next((m for w in workers for m in w.mounts if _is_below(target, m)), None)
            if hidden is not None and isinstance(asked.state.placing, ByPlaces):
                return f"{target} is hidden by the volume at {hidden}"
            above = target.rpartition("/")[0] or "/"
            if (refused := self._refusal(asked.scan, above)) is not None:
                return refused
        return None

    def sync(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> Served:
        reporter.started(Step.SYNC)
        desired = self._asked_for(scan) or self._desired_by(scan)
        if isinstance(desired, str):
            raise DevloopError.of(Code.SYNC_FAILED, desired)
        with self._lock:
            before, self._desired = self._desired, desired
            self._syncing = True
            workers = tuple(self._workers.values())
        attempts = [(worker, worker.want(desired.state)) for worker in workers]
        try:
            arrived = self._wait(attempts, reporter, cancel)
            if any(attempt.restarted for _, attempt in attempts):
                self._until_ready({worker.pod.uid for worker in arrived}, reporter, cancel)
        except DevloopError:
            with self._lock:
                if self._desired is desired:
                    self._desired = before
            raise
        finally:
            with self._lock:
                self._syncing = False
        if self._earlier is not None:
            self._earlier.remember(scan)
        count = max((attempt.changes for _, attempt in attempts), default=0)
        what = f"{count} path" + ("s" if count != 1 else "")
        where = f" into {len(arrived)} containers" if len(arrived) != 1 else ""
        if any(attempt.restarted for _, attempt in attempts):
            where += ", process restarted"
        reporter.finished(Step.SYNC, StepOutcome.DONE, what + where)
        pods = tuple(sorted({worker.pod.name for worker in arrived}))
        return Served(image=arrived[0].image, pods=pods)

    def close(self) -> None:
        """End all streams, and so the agents in the containers; safe to repeat."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            workers = [*self._workers.values(), *self._ended]
            self._workers = {}
        self._unsubscribe()
        if self._earlier is not None:
            self._earlier.close()
        for worker in workers:
            worker.stop()
        deadline = time.monotonic() + _ENDED
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    # --- what an earlier session left ----------------------------------------------------------

    def resume(self, scan: Scan, standing: StandingOf, cancel: Cancel) -> Resumed | str:
        if self._earlier is None:
            return ""
        try:
            return self._resume(self._earlier, scan, standing, cancel)
        finally:
            self._earlier.end_early()

    def _resume(
        self, earlier: EarlierSession, scan: Scan, standing: StandingOf, cancel: Cancel
    ) -> Resumed | str:
        images = earlier.images(scan)
        if isinstance(images, str):
            return images
        found = standing(images)
        if isinstance(found, str):
            return found
        image = found.image
        asked = self._desired_by(scan)
        if isinstance(asked, str):
            return asked
        known = earlier.known(image, scan)
        if isinstance(known, str):
            return known
        coming = known[image.digest]
        with self._lock:
            self._images.update(known)
        self._look()
        if (blocker := earlier.blocker(found.pods, cancel)) is not None:
            return blocker
        plans = [self._plan(state, asked.state, {}) for state in _distinct(self._living())]
        current = not any(plan.changes or plan.blocker for plan in plans)
        with self._lock:
            self._resumed = True
            if current:
                self._desired = asked
        return Resumed(image=image, current=current, held=coming.state.mark == asked.state.mark)

    def strays(self, cancel: Cancel) -> tuple[str, ...]:
        desired = self._desired
        if self._earlier is None or desired is None:
            return ()
        return self._earlier.strays(desired.state, cancel)

    def _living(self) -> tuple[ContainerSync, ...]:
        with self._lock:
            return tuple(self._workers.values())

    def _state_of(self, scan: Scan) -> ContainerState | str:
        desired = self._desired_by(scan)
        return desired if isinstance(desired, str) else desired.state

    # --- waiting -------------------------------------------------------------------------------

    def _wait(
        self,
        attempts: Sequence[tuple[ContainerSync, SyncAttempt]],
        reporter: Reporter,
        cancel: Cancel,
    ) -> list[ContainerSync]:
        """The workers whose containers have what was wanted, without those that ended meanwhile."""
        deadline = time.monotonic() + self._limit
        arrived, waits = [], ""
        for worker, attempt in attempts:
            with cancel.closing(attempt.done.set):
                while not attempt.done.wait(_LOOK):
                    if attempt.waits != waits:
                        waits = attempt.waits
                        reporter.progress(Step.SYNC, f"pod {worker.pod.name}: {waits}")
                    if worker.busy or time.monotonic() < deadline:
                        continue
                    raise DevloopError.of(
                        Code.SYNC_FAILED,
                        f"pod {worker.pod.name} did not take the files in {self._limit:g} s",
                        cause=worker.blocker,
                    )
            cancel.check()
            if attempt.error is not None:
                raise attempt.error
            if not attempt.gone:
                arrived.append(worker)
        if not arrived:
            raise DevloopError.of(Code.SYNC_FAILED, "the containers to sync into ended meanwhile")
        return arrived

    def _until_ready(self, uids: set[str], reporter: Reporter, cancel: Cancel) -> None:
        """Wait for the pods that Kubernetes has taken out of the Service, as after a crash: they
        listen again, and its next look will tell. Those that it never found unready serve."""
        deadline = time.monotonic() + (self._restarts.limit if self._restarts else self._limit)
        with cancel.closing(self._changed.set):
            while True:
                self._changed.clear()
                pods = self._pods.current(self._service)
                away = [pod.name for pod in pods if pod.uid in uids and not pod.ready]
                cancel.check()
                if not away:
                    return
                reporter.progress(
                    Step.SYNC, f"the process serves; waiting for pod {away[0]} to be ready"
                )
                if not self._changed.wait(deadline - time.monotonic()):
                    raise DevloopError.of(
                        Code.POD_DEADLINE,
                        f"pod {away[0]} is not ready, although its process listens again",
                        suggestions=("look at its readiness probe and its log",),
                    )

    # --- what there is -------------------------------------------------------------------------

    def _look(self) -> None:
        """Bring the workers in line with the pods. Called from any thread; never blocks."""
        self._changed.set()
        with self._lock:
            if self._closed:
                return
            # Asked under the lock: of two who look, the later one must not see the older pods.
            pods = self._pods.current(self._service)
            running = {
                (pod.uid, container.container_id): (pod, container, known)
                for pod in pods
                if not pod.deleting
                for container in pod.containers
                if (known := self._known(container)) is not None
            }
            for key in [key for key in self._workers if key not in running]:
                worker = self._workers.pop(key)
                worker.stop()
                self._ended = [*self._ended[-20:], worker]
            for key, (pod, container, known) in running.items():
                if key not in self._workers:
                    worker = self._workers[key] = self._new_worker(
                        pod=pod,
                        container=container,
                        image=known.image,
                        state=known.state,
                        early=self._earlier.take_agent(*key) if self._earlier else None,
                    )
                    if self._desired is not None:
                        worker.want(self._desired.state)

    def _known(self, container: ContainerView) -> KnownContent | None:
        """What a running container started from, if that is known.

        With a digest, what the kubelet reports counts; an image that was loaded into the nodes has
        none and is known by its name, which is that of its content."""
        if container.init or container.state != "running" or not container.container_id:
            return None
        _, at, digest = container.image_id.rpartition("@")
        return self._images.get(digest if at else "") or self._images.get(container.image)

    def _unknown_pod(self) -> str | None:
        """A pod that serves something else cannot be brought along."""
        with self._lock:
            for pod in self._pods.current(self._service):
                running = [c for c in pod.containers if c.state == "running" and not c.init]
                if running and not pod.deleting and not any(map(self._known, running)):
                    return f"pod {pod.name} runs an image of unknown content"
        return None

    # --- plans ---------------------------------------------------------------------------------

    def _desired_by(self, scan: Scan) -> _DesiredState | str:
        """What `scan` asks of the containers, or why that is not known."""
        placing: Placing = self._by_rules
        if self._places is not None:
            places = self._places(scan)
            if isinstance(places, str):
                return places
            last = self._by_places
            if last is None or last.places is not places:
                last = self._by_places = ByPlaces(
                    places, may_stay=self._may_stay, below=self._below
                )
            placing = last
        mark = scan.fingerprint.build if self._earlier is not None else ""
        state = ContainerState(snapshot=scan.snapshot, placing=placing, mark=mark, kept=scan.kept)
        return _DesiredState(scan, state)

    def _asked_for(self, scan: Scan) -> _DesiredState | None:
        """What the last question was about, if it was `scan`."""
        with self._lock:
            asked = self._asked
        return asked if asked is not None and asked.scan is scan else None

    def _plan(
        self, old: ContainerState, new: ContainerState, doubtful: Mapping[str, SyncTarget]
    ) -> SyncPlan:
        """`difference`, worked out once for containers that are alike."""
        if doubtful:
            return difference(old, new, doubtful)
        last = self._last_plan
        if last is None or last[0] is not old or last[1] is not new:
            last = self._last_plan = (old, new, difference(old, new))
        return last[2]

    # --- what did not work ---------------------------------------------------------------------

    def _remember(self, directory: str, reason: str, error: DevloopError) -> None:
        with self._lock:
            if self._desired is None:
                return
            known = self._refusals.setdefault(_made_from(self._desired.scan), {})
            # The rest is reported by the sync that meets it.
            is_news = directory not in known and not directory and not self._syncing
            known[directory] = reason
        if is_news and self._report is not None:
            self._report(replace(error.diagnosis, severity="warning"))

    def _forbidden(
        self, workers: Sequence[ContainerSync], changes: Sequence[FileChange]
    ) -> str | None:
        """Why the user of one of the containers may not bring `changes`. All are asked before any
        of them is changed; who does not answer will, when it is."""
        questions = [worker.may(changes) for worker in workers]
        deadline = time.monotonic() + _ASKED
        for question in filter(None, questions):
            question.done.wait(max(0.0, deadline - time.monotonic()))
            if question.reason is not None:
                path, _, why = question.reason.rpartition(": ")
                return self._tell_forbidden(path.rpartition("/")[0] or "/", why)
        return None

    def _tell_forbidden(self, directory: str, why: str) -> str:
        if why == READ_ONLY:
            reason = "the container's file system is read-only"
            hint = (
                "without `readOnlyRootFilesystem` in development a save restarts the process alone"
            )
        else:
            reason = f"the container's user may not write to {directory}: {why}"
            hint = (
                "`COPY --chown=USER:GROUP` gives the files to the user that the container runs as"
            )
        if self._restarts is not None and reason not in self._told:
            self._told.add(reason)
            self._restarts.report(
                Diagnosis(
                    code=Code.SYNC_FAILED,
                    severity="info",
                    message=f"a change restarts the container, not its process alone: {reason}",
                    suggestions=(hint, "`deploy: {replace: in-place}` says that this is meant"),
                )
            )
        return reason

    def _refusal(self, scan: Scan, directory: str) -> str | None:
        with self._lock:
            return self._refusals.get(_made_from(scan), {}).get(directory)


def _distinct(workers: Iterable[ContainerSync]) -> list[ContainerState]:
    """What the containers have, once each."""
    return list({id(worker.state): worker.state for worker in workers}.values())


def _is_below(path: str, mount: str) -> bool:
    return f"{path}/".startswith(f"{mount.rstrip('/')}/")


def _made_from(scan: Scan) -> tuple[str, str]:
    """What decides, beside the context, whether an image's containers can be synced into."""
    return scan.recipe, scan.fingerprint.deploy
