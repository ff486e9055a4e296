"""What devloop has changed in Deployments for a while: what a killed session leaves half done.

One file a workload and strategy under `.devloop/recovery/<context>/<namespace>/`, there from
before the first patch until after the last: services that share a Deployment may replace its pods
in different ways. Written without fsync, since a process that is killed loses nothing it wrote;
after a power failure the mark on the Deployment itself says so. Must not recover anything: that is
`deploy.deployments`'s.
"""

from __future__ import annotations

import contextlib
import errno
from dataclasses import asdict, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from devloop.base.lazy_dataclass import dataclass
from devloop.base.state_file import StateFile
from devloop.errors import Code, DevloopError, Location
from devloop.model import WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryEntry:
    """What one strategy does to one Deployment. In place: `before` and `after` map containers to
    images; `replicaset` is the name of the one whose template is to follow. Fast:
    `update_strategy` is what it took away."""

    strategy: Literal["in-place", "fast"]
    context: str
    namespace: str
    name: str
    uid: str
    replicaset: str = ""
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)
    update_strategy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> WorkloadRef:
        return WorkloadRef("deployment", self.name, self.namespace)


class RecoveryLog:
    """The files of one project."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / "recovery"

    def write(self, entry: RecoveryEntry) -> None:
        """Raises env/disk-full or env/file-unreadable: what cannot be written down is not begun."""
        otherwise = "cannot write down what is about to change, so devloop does not change it"
        write_first(self._file(entry), asdict(entry), otherwise)

    def remove(self, entry: RecoveryEntry) -> None:
        with contextlib.suppress(OSError):
            self._file(entry).path.unlink()

    def entries(self) -> tuple[RecoveryEntry, ...]:
        """What was left open, by path; files that cannot be read are set aside."""
        found = []
        for path in sorted(self._root.glob("*/*/*.json")):
            if value := StateFile(path).read():
                with contextlib.suppress(TypeError):
                    found.append(RecoveryEntry(**value))
        return tuple(found)

    def _file(self, entry: RecoveryEntry) -> StateFile:
        name = f"{entry.strategy}-{entry.name}"
        return object_file(self._root, entry.context, entry.namespace, name)


# --- where anything is kept that is remembered of an object: one file an object ------------------


def object_file(
    root: Path, context: str, namespace: str, name: str, *, durable: bool = False
) -> StateFile:
    """`<root>/<context>/<namespace>/<name>.json`, quoted so that it never leaves `root`."""
    quoted = [quote(part, safe="@:") for part in (context, namespace, f"{name}.json")]
    path = root.joinpath(*(q if q.strip(".") else "%2E" * len(q) for q in quoted))
    return StateFile(path, durable=durable)


def write_first(file: StateFile, value: Mapping[str, Any], otherwise: str) -> None:
    """Write what must be there before the cluster is changed. Raises env/disk-full or
    env/file-unreadable, saying `otherwise`."""
    try:
        file.write(value)
    except OSError as error:
        raise DevloopError.of(
            Code.ENV_DISK_FULL if error.errno == errno.ENOSPC else Code.ENV_FILE_UNREADABLE,
            otherwise,
            location=Location(str(file.path)),
            cause=error.strerror or str(error),
        ) from error
