"""Which pod a new connection goes to, and whether its process is being replaced: pure decisions.

Never back from newer content to older: pods are ranked by when their image first appeared, and a
pod whose container is restarted in place stays the choice although it is not ready meanwhile.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.model import PodView


# Seconds for which a restarted pod is preferred although it is not ready: alone, and while there
# are others to go to.
_PATIENCE = 30.0
_PATIENCE_WITH_OTHERS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendView:
    """`target` is None when a connection has to wait. `likely` are the pods that may be asked now
    or next. `replacing` are the pods (uids) whose process is about to be killed, `replaced` those
    whose new container runs; each is reported once."""

    target: PodView | None
    likely: tuple[PodView, ...]
    replacing: frozenset[str]
    replaced: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownPod:
    """A pod as last seen: the images and ids of its containers, each with that of its process, and
    when one last changed (monotonic)."""

    images: tuple[str, ...]
    ids: tuple[str, ...]
    changed: float | None


class BackendChooser:
    """Remembers what it was shown; one for each service's port."""

    def __init__(self) -> None:
        self._known: dict[str, _KnownPod] = {}
        self._ages: dict[tuple[str, ...], int] = {}  # of images: higher is newer
        self._newer = itertools.count(1)

    def look(self, pods: Iterable[PodView], now: float) -> BackendView:
        """What to do with `pods`, which are all that there are; `now` is monotonic.

        The target is the newest pod that is ready, or restarted in place just now, and not being
        deleted: it may be gone in the middle of an answer, so waiting for its successor is
        better even while it still counts as ready. Timestamps have seconds only: names decide
        between pods of one second, so that the choice does not flicker."""
        ordered = sorted(pods, key=lambda pod: (pod.created, pod.name))
        before, self._known = self._known, {}
        replacing, replaced = set(), set()
        for pod in ordered:
            known = before.get(pod.uid)
            containers = [container for container in pod.containers if not container.init]
            images = tuple(f"{c.image} {c.starts_asked}" for c in containers)
            ids = tuple(c.container_id and f"{c.container_id} {c.starts_done}" for c in containers)
            changed = known.changed if known is not None else None
            if known is not None and all(known.ids) and all(ids):
                if known.ids != ids and _runs_its_images(pod):
                    replaced.add(pod.uid)
                    changed = now
                elif known.images != images:
                    replacing.add(pod.uid)
                    changed = now
            self._known[pod.uid] = _KnownPod(images=images, ids=ids, changed=changed)
        # An image that comes back after it was gone is as new as any.
        present = dict.fromkeys(self._known[pod.uid].images for pod in ordered)
        self._ages = {images: self._ages.get(images) or next(self._newer) for images in present}
        staying = [pod for pod in ordered if not pod.deleting]
        patience = _PATIENCE_WITH_OTHERS if any(pod.ready for pod in staying) else _PATIENCE
        fit = [pod for pod in staying if pod.ready or self._restarting(pod, now, patience)]
        target = max(fit, key=self._rank, default=None)
        coming = [pod for pod in staying if pod.node or pod.phase == "Running"]
        likely = {
            pod.uid: pod for pod in (target, max(coming, key=self._rank, default=None)) if pod
        }
        return BackendView(
            target=target,
            likely=tuple(likely.values()),
            replacing=frozenset(replacing),
            replaced=frozenset(replaced),
        )

    def _rank(self, pod: PodView) -> tuple[int, str, str]:
        return self._ages[self._known[pod.uid].images], pod.created, pod.name

    def _restarting(self, pod: PodView, now: float, patience: float) -> bool:
        changed = self._known[pod.uid].changed
        if changed is None or now - changed > patience:
            return False
        # Restarted by the kubelet's back-off, it can be away for minutes.
        return not any(container.reason.endswith("BackOff") for container in pod.containers)


def _runs_its_images(pod: PodView) -> bool:
    """Whether the containers are those that the pod asks for by now, as far as is known.

    The kubelet reports a container up to a second after it started: by then the pod may ask for
    the next one already, and this one is about to be killed."""
    digests = (
        (container.image.partition("@")[2], container.image_id.partition("@")[2])
        for container in pod.containers
        if not container.init
    )
    return all(wanted == runs or not wanted or not runs for wanted, runs in digests) and all(
        container.starts_asked == container.starts_done for container in pod.containers
    )
