"""What a session knows of the pods whose containers it restarted, what it learns from them, and
which images they ran, from one session to the next.

Thread-safe as long as two threads do not restart the same pod. Decides nothing: that is
`in_place_rules`'s.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import (
    Json,
    alive,
    container_status,
    dig,
    items,
    metadata,
    number,
    pod_images,
    text,
    uid_of,
)
from devloop.cluster.api.writes import MANAGER
from devloop.cluster.replace.in_place_rules import Memory
from devloop.cluster.replace.recovery_log import object_file
from devloop.cluster.rollout.restarted_pod import (
    RestartRecord,
    in_back_off,
    normalised,
    restart_record,
)
from devloop.cluster.rollout.rollout_status import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from devloop.model import WorkloadRef


# A process that needs longer than about a second to stop keeps its port closed for as long: it is
# rolled. The times are whole seconds, and the kubelet itself may look at a pod only a second after
# the patch, so 3 of them are needed to be sure.
_SLOW_SECONDS = 3


_BACK_OFF = 11 * 60.0  # seconds after it last ran: the ten minutes and the clocks' difference


class ImageHistory:
    """Which images one Deployment's pods ran. For one thread at a time.

    The kubelet keeps in back-off a container that starts again with an image that its pod ran a
    short while ago, as if it had crashed. Its back-off goes by pod and by the container's hash, so
    by the image, and is forgotten ten minutes after the image's last start
    (`MaxContainerBackOff`, twice: client-go's `flowcontrol.Backoff`). One file a workload under
    `.devloop/image-history/<context>/<namespace>/`; without it the cluster is slower, not wrong."""

    def __init__(self, state_dir: Path, context: str, ref: WorkloadRef) -> None:
        root = state_dir / "image-history"
        self._file = object_file(root, context, ref.namespace, f"deployment-{ref.name}")
        # pod uid -> image -> when it was last known to run, in seconds since 1970
        self._pods: dict[str, dict[str, float]] = _pods(self._file.read() or {})

    def images(self, *, lately: bool = False) -> dict[str, frozenset[str]]:
        """Pod uid -> the images that devloop knows it to have run; `lately` leaves out what is
        in no back-off any more."""
        since = time.time() - _BACK_OFF if lately else 0.0
        return {uid: frozenset(_after(since, images)) for uid, images in self._pods.items()}

    def note(self, uid: str, images: Iterable[str]) -> None:
        """The pod ran these until now, or does from now on. What is in no back-off any more is
        forgotten: a pod may live through thousands of saves."""
        now = time.time()
        before = _after(now - _BACK_OFF, self._pods.get(uid, {}))
        self._pods[uid] = before | dict.fromkeys(images, now)
        self._file.save(self._pods)

    def keep(self, uids: Iterable[str]) -> None:
        """Forget all pods but these."""
        self._pods = {uid: self._pods[uid] for uid in uids if uid in self._pods}


def _after(since: float, images: Mapping[str, float]) -> dict[str, float]:
    return {image: at for image, at in images.items() if at >= since}


def _pods(value: Json) -> dict[str, dict[str, float]]:
    try:
        return {
            uid: {image: float(at) for image, at in images.items()} for uid, images in value.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}


class PodRestarts:
    """The pods of one Deployment."""

    def __init__(self, history: ImageHistory) -> None:
        self._history = history
        self._records: dict[str, dict[str, RestartRecord]] = {}  # pod uid -> container -> record
        self._patched: dict[str, float] = {}  # pod uid -> when, by the server's clock
        self._unproven: frozenset[str] = frozenset()
        self._slow: dict[str, int] = {}

    def memory(self, refusal: str) -> Memory:
        return Memory(
            had=self._history.images(),
            lately=self._history.images(lately=True),
            unproven=self._unproven,
            slow=self._slow,
            refusal=refusal,
        )

    def includes(self, pod: Json) -> bool:
        """Whether this session restarted it before."""
        return uid_of(pod) in self._patched

    def records(self, pod: Json, images: Mapping[str, str]) -> dict[str, RestartRecord]:
        """What its containers are before they are restarted with `images` (container -> image)."""
        uid = uid_of(pod)
        before = self._records.get(uid, {}) if uid in self._unproven else {}
        return {c: restart_record(pod, c, image, before.get(c)) for c, image in images.items()}

    def restarted(self, pod: Json, records: dict[str, RestartRecord], patched: Json) -> None:
        """`pod` was patched and is `patched` now; `records` were taken before."""
        uid = uid_of(pod)
        self._records[uid] = records
        self._unproven |= {uid}
        self._patched[uid] = _last_write(patched)
        self._history.note(uid, {*pod_images(pod).values(), *(m.image for m in records.values())})

    def normalised(self, pod: Json) -> Json:
        """The pod as if it had been made when it was last restarted."""
        records = self._records.get(uid_of(pod))
        return normalised(pod, records) if records else pod

    def had_before(self, pod: Json, image_id: str) -> bool:
        """Whether the pod was given that image before the one that it is to have now."""
        images = self._history.images().get(uid_of(pod), frozenset())
        before = images.difference(pod_images(pod).values())
        return digest_of(image_id) in {digest_of(image) for image in before} - {""}

    def in_back_off(self, pods: Iterable[Json]) -> list[Json]:
        """The living pods whose new container the kubelet does not start yet."""
        return [p for p in alive(pods) if in_back_off(p, self._records.get(uid_of(p), {}))]

    def served(self, pods: Iterable[Json]) -> None:
        """What was restarted is ready: learn from how it went."""
        for pod in pods:
            uid = uid_of(pod)
            if uid not in self._unproven or uid not in self._patched:
                continue
            if metadata(pod).get("deletionTimestamp"):
                continue  # its containers end for another reason
            for name in self._records.get(uid, {}):
                # A busy kubelet looks late, but kills when the grace (2 s at least) is over.
                grace = number(dig(pod, "spec", "terminationGracePeriodSeconds"), 30)
                needed = int(min(_stopped(pod, name) - self._patched[uid], max(grace, 2)))
                if needed >= _SLOW_SECONDS:
                    self._slow[name] = needed
        self._unproven = frozenset()

    def keep(self, uids: set[str]) -> None:
        """Forget all pods but these."""
        self._history.keep(uids)
        self._records = {k: v for k, v in self._records.items() if k in uids}
        self._patched = {k: v for k, v in self._patched.items() if k in uids}
        self._unproven &= uids


def _seconds(stamp: object) -> float:
    """An RFC 3339 time as seconds since 1970; 0 when it is none."""
    try:
        return datetime.fromisoformat(text(stamp)).timestamp()
    except ValueError:
        return 0.0


def _last_write(thing: Json) -> float:
    """When devloop wrote the object, by the server's clock; infinity when it does not say."""
    mine = (e for e in items(metadata(thing).get("managedFields")) if e.get("manager") == MANAGER)
    return max((_seconds(e.get("time")) for e in mine), default=float("inf"))


def _stopped(pod: Json, container: str) -> float:
    """When the container before this one ended, by the node's clock; 0 when nobody knows."""
    status = container_status(pod, container)
    return _seconds(dig(status, "lastState", "terminated", "finishedAt"))
