"""What a session knows of the pods whose containers it restarted, and what it learns from them.

Thread-safe as long as two threads do not restart the same pod. Decides nothing: see `inplace`.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.pod_view import dig, items, metadata, number, text, uid_of
from devloop.cluster.deploy.ownership import MANAGER
from devloop.cluster.replace.in_place_rules import (
    Memory,
    RestartRecord,
    alive,
    as_new,
    is_held_back,
    mark_of,
    pod_images,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devloop.cluster.replace.image_history import ImageHistory

__all__ = ["PodRestarts"]

# A process that needs longer than about a second to stop keeps its port closed for as long: it is
# rolled. The times are whole seconds, and the kubelet itself may look at a pod only a second after
# the patch, so 3 of them are needed to be sure.
_SLOW_SECONDS = 3


class PodRestarts:
    """The pods of one Deployment."""

    def __init__(self, ran: ImageHistory) -> None:
        self._ran = ran
        self._marks: dict[str, dict[str, RestartRecord]] = {}  # pod uid -> container -> mark
        self._patched: dict[str, float] = {}  # pod uid -> when, by the server's clock
        self._unproven: frozenset[str] = frozenset()
        self._slow: dict[str, int] = {}

    def memory(self, barred: str) -> Memory:
        return Memory(
            had=self._ran.images(),
            lately=self._ran.images(lately=True),
            unproven=self._unproven,
            slow=self._slow,
            barred=barred,
        )

    def includes(self, pod: Mapping[str, Any]) -> bool:
        """Whether this session restarted it before."""
        return uid_of(pod) in self._patched

    def marks(self, pod: Mapping[str, Any], images: Mapping[str, str]) -> dict[str, RestartRecord]:
        """What its containers are before they are restarted with `images` (container -> image)."""
        uid = uid_of(pod)
        under_way = self._marks.get(uid, {}) if uid in self._unproven else {}
        return {c: mark_of(pod, c, image, under_way.get(c)) for c, image in images.items()}

    def restarted(
        self, pod: Mapping[str, Any], marks: dict[str, RestartRecord], patched: Mapping[str, Any]
    ) -> None:
        """`pod` was patched and is `patched` now; `marks` were taken before."""
        uid = uid_of(pod)
        self._marks[uid] = marks
        self._unproven |= {uid}
        self._patched[uid] = _last_write(patched)
        self._ran.note(uid, {*pod_images(pod).values(), *(m.image for m in marks.values())})

    def as_new(self, pod: Mapping[str, Any]) -> Mapping[str, Any]:
        """The pod as if it had been made when it was last restarted."""
        marks = self._marks.get(uid_of(pod))
        return as_new(pod, marks) if marks else pod

    def held_back(self, pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The living pods whose new container the kubelet does not start yet."""
        return [p for p in alive(pods) if is_held_back(p, self._marks.get(uid_of(p), {}))]

    def served(self, pods: Iterable[Mapping[str, Any]]) -> None:
        """What was restarted is ready: learn from how it went."""
        for pod in pods:
            uid = uid_of(pod)
            if uid not in self._unproven or uid not in self._patched:
                continue
            if metadata(pod).get("deletionTimestamp"):
                continue  # its containers end for another reason
            for name in self._marks.get(uid, {}):
                # A busy kubelet looks late, but kills when the grace (2 s at least) is over.
                grace = number(dig(pod, "spec", "terminationGracePeriodSeconds"), 30)
                needed = int(min(_stopped(pod, name) - self._patched[uid], max(grace, 2)))
                if needed >= _SLOW_SECONDS:
                    self._slow[name] = needed
        self._unproven = frozenset()

    def keep(self, uids: set[str]) -> None:
        """Forget all pods but these."""
        self._ran.keep(uids)
        self._marks = {k: v for k, v in self._marks.items() if k in uids}
        self._patched = {k: v for k, v in self._patched.items() if k in uids}
        self._unproven &= uids


def _seconds(stamp: object) -> float:
    """An RFC 3339 time as seconds since 1970; 0 when it is none."""
    try:
        return datetime.fromisoformat(text(stamp)).timestamp()
    except ValueError:
        return 0.0


def _last_write(thing: Mapping[str, Any]) -> float:
    """When devloop wrote the object, by the server's clock; infinity when it does not tell."""
    times = [
        _seconds(e.get("time"))
        for e in items(metadata(thing).get("managedFields"))
        if e.get("manager") == MANAGER
    ]
    return max(times, default=float("inf"))


def _stopped(pod: Mapping[str, Any], container: str) -> float:
    """When the container before this one ended, by the node's clock; 0 when nobody knows."""
    for status in items(dig(pod, "status", "containerStatuses")):
        if text(status.get("name")) == container:
            return _seconds(dig(status, "lastState", "terminated", "finishedAt"))
    return 0.0
