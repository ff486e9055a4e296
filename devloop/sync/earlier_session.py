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


_LOOK = 3.0  # seconds until every container has said what it has
_BRING = 60.0  # seconds until all of them have what is wanted, with their processes started anew
_PODS = 0.3  # seconds until a watch that has just begun shows the first pod


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownContent:
    """An image and what containers have that start from it."""

    image: ImageRef
    state: ContainerState


class EarlierSession:
    """One service's. `state_of` is what a container has that has a scan, or why that is not known;
    `workers` are those of the containers that run images of known content; `resumed` is told what
    an image was made of before `state_of` is asked about it. `close` ends it."""

    def __init__(
        self,
        service: str,
        contents: RememberedContents,
        *,
        pods: PodSource,
        state_of: Callable[[Scan], ContainerState | str],
        workers: Callable[[], Collection[ContainerSync]],
        resumed: Callable[[Scan], None],
    ) -> None:
        self._service = service
        self._contents = contents
        self._pods = pods
        self._state_of = state_of
        self._workers = workers
        self._resumed = resumed
        self._like: Scan | None = None
        self._news = threading.Event()
        self._unsubscribe = pods.on_change(self._news.set)

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

    def images(self, scan: Scan) -> tuple[list[KnownContent], Mapping[str, ImageRef]] | str:
        """What is known of the images that run now, and the images that earlier sessions deployed
        with these manifests, by digest; or why that is of no use, "" where there was no session."""
        self._like = scan
        remembered = self._contents.images()
        if not remembered:
            return ""
        self._wait(lambda: bool(self._pods.current(self._service)), _PODS)
        running = [c for pod in self._pods.current(self._service) for c in pod.containers]
        found = []
        for digest in {container.image_id.rpartition("@")[2] for container in running}:
            if digest not in remembered:
                continue
            content = self._content(remembered[digest], scan)
            if isinstance(content, str):
                return content
            found.append(content)
        same = {d: r.image for d, r in remembered.items() if r.deploy == scan.fingerprint.deploy}
        return (found, same) if same else "the manifests changed since the last session"

    def content(self, image: ImageRef, scan: Scan) -> KnownContent | str:
        """What an image has that `images` gave, or why that is not known."""
        remembered = self._contents.images().get(image.digest)
        if remembered is None:
            return "what its image contains is not known"
        return self._content(remembered, scan)

    def _content(self, found: RememberedImage, scan: Scan) -> KnownContent | str:
        then = self._contents.scan(found.mark, scan)
        if then is None:
            return "what shapes the image changed since the last session"
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
        self._news.set()

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
