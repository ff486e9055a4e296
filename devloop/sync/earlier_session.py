"""What earlier sessions left in the containers that run, looked at: each says what it has (see
`protocol`), and what that stands for is remembered (`contents`).

Only looks. Whether what is known is enough to go on from, and bringing the containers further, is
the syncer's.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass
from devloop.sync.protocol import IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from devloop.base.cancel import Cancel
    from devloop.engine.ports import PodSource
    from devloop.model import ImageRef, Scan
    from devloop.sync.changes import ContainerState
    from devloop.sync.container_sync import ContainerSync
    from devloop.sync.contents import RememberedContents, RememberedImage
    from devloop.sync.early_agents import EarlyAgent, EarlyAgents


_LOOK = 3.0  # seconds until every container has said what it has
_BRING = 60.0  # seconds until all of them have what is wanted, with their processes started anew
_PODS = 0.3  # seconds until a watch that has just begun shows the first pod
_ENDED = 0.5  # seconds for a thread to end
_OTHER_RECIPE = "what shapes the image changed since the last session"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownContent:
    """An image and what containers have that start from it."""

    image: ImageRef
    state: ContainerState


class EarlierSession:
    """One service's. `state_of` is what a container has that has a scan, or why that is not known;
    `workers` are those of the containers that run images of known content; `resumed` is told what
    an image was made of before `state_of` is asked about it, which may take longer. Agents in
    containers with such images are started by `early` at once, until there is a worker for each or
    `end_early` is called. `close` ends it."""

    def __init__(
        self,
        service: str,
        contents: RememberedContents,
        *,
        pods: PodSource,
        state_of: Callable[[Scan], ContainerState | str],
        workers: Callable[[], Collection[ContainerSync]],
        resumed: Callable[[Scan], None],
        early: EarlyAgents,
    ) -> None:
        self._service = service
        self._contents = contents
        self._pods = pods
        self._state_of = state_of
        self._workers = workers
        self._resumed = resumed
        self._like: Scan | None = None
        self._news = threading.Event()
        self._early = early
        self._early_digests = frozenset(contents.images())
        self._unsubscribe = pods.on_change(self._pods_changed)
        self._pods_changed()

    def _pods_changed(self) -> None:
        self._news.set()
        if self._early_digests:
            self._early.open(self._pods.current(self._service), self._early_digests)

    def take_agent(self, uid: str, container_id: str) -> EarlyAgent | None:
        """The agent that was started in a container already, for its worker."""
        return self._early.take(uid, container_id)

    def end_early(self) -> None:
        """No agents from now on but those of workers."""
        self._early_digests = frozenset()
        self._early.end()

    def looked(self) -> None:
        """One of the workers has looked into its container. From any thread."""
        self._news.set()

    def remember(self, scan: Scan, image: ImageRef | None = None) -> None:
        """What `scan` saw is in containers or, from now on, in `image`."""
        self._like = scan
        running = {worker.image.digest for worker in self._workers()}
        self._contents.add(scan, image, running=running)

    def marked(self, mark: str) -> ContainerState | None:
        """What a container's mark stands for, None where that is not known."""
        scan = self._contents.scan(mark, self._like) if self._like is not None else None
        state = self._state_of(scan) if scan is not None else ""
        return None if isinstance(state, str) else state

    def content_of(self, image: ImageRef) -> Scan | None:
        """What an image was made of that was deployed here; None where that is not known."""
        remembered = self._contents.images().get(image.digest)
        if remembered is None or self._like is None:
            return None
        return self._contents.scan(remembered.mark, self._like)

    def images(self, scan: Scan) -> Mapping[str, ImageRef] | str:
        """The images that earlier sessions deployed with these manifests, by digest; or why that is
        of no use, "" where there was no session. What is asked about next is on its way then."""
        self._like = scan
        remembered = self._contents.images()
        if not remembered:
            return ""
        self._wait(lambda: bool(self._pods.current(self._service)), _PODS)
        for found in self._running(remembered):
            then = self._contents.scan(found.mark, scan)
            if then is None:
                return _OTHER_RECIPE
            self._resumed(then)
        same = {d: r.image for d, r in remembered.items() if r.deploy == scan.fingerprint.deploy}
        return same or "the manifests changed since the last session"

    def known(self, image: ImageRef, scan: Scan) -> Mapping[str, KnownContent] | str:
        """What the images that run have, and `image`, which `images` gave, by digest; or why that
        is not known of one of them."""
        remembered = self._contents.images()
        coming = remembered.get(image.digest)
        if coming is None:
            return "what its image contains is not known"
        known = {}
        for found in (*self._running(remembered), coming):
            content = self._content(found, scan)
            if isinstance(content, str):
                return content
            known[found.image.digest] = content
        return known

    def _running(self, remembered: Mapping[str, RememberedImage]) -> list[RememberedImage]:
        running = [c for pod in self._pods.current(self._service) for c in pod.containers]
        digests = {container.image_id.rpartition("@")[2] for container in running}
        return [remembered[digest] for digest in digests if digest in remembered]

    def _content(self, found: RememberedImage, scan: Scan) -> KnownContent | str:
        then = self._contents.scan(found.mark, scan)
        if then is None:
            return _OTHER_RECIPE
        self._resumed(then)
        state = self._state_of(then)
        return state if isinstance(state, str) else KnownContent(image=found.image, state=state)

    def blocker(self, pods: Collection[str], cancel: Cancel) -> str | None:
        """Waits until the containers of the `pods` have said what they have; None when that is
        known of all of them."""

        def told() -> bool:
            workers = self._workers()
            there = {worker.pod.name for worker in workers}
            return there.issuperset(pods) and all(worker.opened for worker in workers)

        self._wait(told, _LOOK, cancel)
        workers = self._workers()
        if lacking := set(pods) - {worker.pod.name for worker in workers}:
            return f"pod {min(lacking)} runs an image of unknown content"
        for worker in workers:
            if worker.blocker is not None:
                return worker.blocker
            if worker.found is None:
                return f"pod {worker.pod.name} does not say what it has"
        return None

    def strays(self, wanted: ContainerState, cancel: Cancel) -> tuple[str, ...]:
        """The pods with a container that has something else than `wanted` and cannot be brought to
        it. Waits until they have it otherwise."""
        workers = self._workers()
        self._wait(lambda: all(worker.opened for worker in workers), _LOOK, cancel)
        told = [worker for worker in workers if worker.found is not None]
        attempts = [(worker, worker.want(wanted)) for worker in told]
        deadline = time.monotonic() + _BRING
        for _, attempt in attempts:
            with cancel.closing(attempt.done.set):
                attempt.done.wait(max(0.0, deadline - time.monotonic()))
            cancel.check()
        return tuple(
            sorted(
                worker.pod.name
                for worker, attempt in attempts
                if worker.is_unknown
                or (worker.found != IMAGES and (attempt.error or not attempt.done.is_set()))
            )
        )

    def close(self) -> None:
        self._unsubscribe()
        self.end_early()
        self._news.set()
        self._early.join(_ENDED)

    def _wait(
        self, there: Callable[[], bool], seconds: float, cancel: Cancel | None = None
    ) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self._news.clear()
            if there():
                return
            if not self._news.wait(max(0.0, deadline - time.monotonic())):
                return
            if cancel is not None:
                cancel.check()
