"""Which Deployments devloop has taken a hand to for a moment: what a killed session left half done.

One JSON file a workload under `.devloop/in-place/<context>/<namespace>/`, there from before the
first patch until after the last. Written without fsync, since a process that is killed loses
nothing it wrote; after a power failure the mark on the Deployment itself tells. Must not heal
anything: that is `heal`'s.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from devloop.cluster.api.pod_view import text
from devloop.cluster.deploy.original import place_of, put_down
from devloop.model import WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["RecoveryEntry", "RecoveryLog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryEntry:
    """One Deployment. `before` and `after` map containers to images; `replicaset` is the name of
    the one whose template is to follow. `strategy` is the one that `fast` took away."""

    context: str
    namespace: str
    name: str
    uid: str
    replicaset: str = ""
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    strategy: Mapping[str, Any] | None = None

    @property
    def ref(self) -> WorkloadRef:
        return WorkloadRef("deployment", self.name, self.namespace)


class RecoveryLog:
    """The files of one project."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "in-place"

    def write(self, entry: RecoveryEntry) -> None:
        """Raises env/disk-full or env/file-unreadable: what cannot be written down is not begun."""
        otherwise = "cannot write down what is about to change, so devloop does not change it"
        put_down(self._path(entry), asdict(entry), otherwise, durable=False)

    def remove(self, entry: RecoveryEntry) -> None:
        with contextlib.suppress(OSError):
            self._path(entry).unlink()

    def entries(self) -> tuple[RecoveryEntry, ...]:
        """What was left open, by path; files that cannot be read are left out."""
        found = []
        for path in sorted(self._folder.glob("*/*/*.json")):
            try:
                value = json.loads(path.read_text("utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(value, dict) and value.get("name"):
                found.append(_entry(value))
        return tuple(found)

    def _path(self, entry: RecoveryEntry) -> Path:
        name = f"deployment-{entry.name}.json"
        return place_of(self._folder, entry.context, entry.namespace, name)


def _entry(value: Mapping[str, Any]) -> RecoveryEntry:
    def images(key: str) -> dict[str, str]:
        found = value.get(key)
        return {text(k): text(v) for k, v in found.items()} if isinstance(found, dict) else {}

    strategy = value.get("strategy")
    return RecoveryEntry(
        context=text(value.get("context")),
        namespace=text(value.get("namespace")),
        name=text(value.get("name")),
        uid=text(value.get("uid")),
        replicaset=text(value.get("replicaset")),
        before=images("before"),
        after=images("after"),
        strategy=strategy if isinstance(strategy, dict) else None,
    )
