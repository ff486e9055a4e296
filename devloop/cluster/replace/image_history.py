"""Which images the pods of a Deployment ran, from one session to the next.

The kubelet holds back a container that starts again with an image that its pod ran a short while
ago, as if it had crashed. Its back-off goes by pod and by the container's hash, so by the image,
and is forgotten ten minutes after the image's last start (`MaxContainerBackOff`, twice: client-go's
`flowcontrol.Backoff`). One JSON file a workload, `.devloop/ran/<context>/<namespace>/`; without it
the cluster is slower, not wrong, so what cannot be read or written is passed over.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

from devloop.base.files import replace_file
from devloop.cluster.deploy.original import place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from devloop.model import WorkloadRef

__all__ = ["ImageHistory"]

_HELD_BACK_FOR = 11 * 60.0  # seconds after it last ran: the ten minutes and the clocks' difference


class ImageHistory:
    """One Deployment's pods. For one thread at a time."""

    def __init__(self, state_dir: Path, context: str, ref: WorkloadRef) -> None:
        name = f"deployment-{ref.name}.json"
        self._path = place_of(state_dir / "ran", context, ref.namespace, name)
        # pod uid -> image -> when it was last known to run, in seconds since 1970
        self._pods: dict[str, dict[str, float]] = _read(self._path)

    def images(self, *, lately: bool = False) -> dict[str, frozenset[str]]:
        """Pod uid -> the images that devloop knows it to have run; `lately` leaves out what the
        kubelet does not hold back any more."""
        since = time.time() - _HELD_BACK_FOR if lately else 0.0
        return {uid: frozenset(_after(since, images)) for uid, images in self._pods.items()}

    def note(self, uid: str, images: Iterable[str]) -> None:
        """The pod ran these until now, or does from now on. What the kubelet does not hold back any
        more is forgotten: a pod may live through thousands of saves."""
        now = time.time()
        before = _after(now - _HELD_BACK_FOR, self._pods.get(uid, {}))
        self._pods[uid] = before | dict.fromkeys(images, now)
        with contextlib.suppress(OSError):
            replace_file(self._path, json.dumps(self._pods, indent=1).encode(), durable=False)

    def keep(self, uids: Iterable[str]) -> None:
        """Forget all pods but these."""
        self._pods = {uid: self._pods[uid] for uid in uids if uid in self._pods}


def _after(since: float, images: Mapping[str, float]) -> dict[str, float]:
    return {image: at for image, at in images.items() if at >= since}


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        value = json.loads(path.read_text("utf-8"))
        return {
            str(uid): {str(image): float(at) for image, at in images.items()}
            for uid, images in value.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
