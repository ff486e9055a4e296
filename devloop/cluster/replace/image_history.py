"""Which images the pods of a Deployment ran, from one session to the next.

The kubelet keeps in back-off a container that starts again with an image that its pod ran a short
while ago, as if it had crashed. Its back-off goes by pod and by the container's hash, so by the
image, and is forgotten ten minutes after the image's last start (`MaxContainerBackOff`, twice:
client-go's `flowcontrol.Backoff`). One file a workload under
`.devloop/image-history/<context>/<namespace>/`; without it the cluster is slower, not wrong.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from devloop.cluster.replace.object_state import object_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from devloop.model import WorkloadRef


_BACK_OFF = 11 * 60.0  # seconds after it last ran: the ten minutes and the clocks' difference


class ImageHistory:
    """One Deployment's pods. For one thread at a time."""

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


def _pods(value: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    try:
        return {
            uid: {image: float(at) for image, at in images.items()} for uid, images in value.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}
