"""Keep a workload as it was before devloop first touched it, so that it can be put back.

One JSON file an object under `.devloop/before/<context>/<namespace>/`. Written once, before the
first write to the cluster, never by a later iteration. Secrets are never recorded.
"""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from devloop.base.files import replace_file
from devloop.cluster.api.pod_view import metadata, name_of, text, uid_of
from devloop.errors import Code, DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["place_of", "put_down", "read_before", "record_path", "write_before"]


def record_path(state_dir: Path, context: str, thing: Mapping[str, Any]) -> Path:
    """Where an object's record lies; names are quoted so that none leaves the folder."""
    namespace = text(metadata(thing).get("namespace")) or "_cluster"
    kind = text(thing.get("kind")).lower()
    return place_of(state_dir / "before", context, namespace, f"{kind}-{name_of(thing)}.json")


def place_of(folder: Path, *names: str) -> Path:
    """A path beneath `folder` of one part a name, whatever is in the names."""
    quoted = [quote(name, safe="@:") for name in names]
    return folder.joinpath(*(q if q.strip(".") else "%2E" * len(q) for q in quoted))


def put_down(path: Path, value: object, otherwise: str, *, durable: bool) -> None:
    """Write `value` as JSON. Raises env/disk-full or env/file-unreadable, saying `otherwise`: what
    cannot be written down must not be changed."""
    try:
        replace_file(path, json.dumps(value, indent=1).encode(), durable=durable)
    except OSError as error:
        raise DevloopError.of(
            Code.ENV_DISK_FULL if error.errno == errno.ENOSPC else Code.ENV_FILE_UNREADABLE,
            otherwise,
            location=Location(str(path)),
            cause=error.strerror or str(error),
        ) from error


def read_before(path: Path) -> dict[str, Any] | None:
    """The recorded object, None when there is none or it cannot be read."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_before(state_dir: Path, context: str, thing: Mapping[str, Any]) -> bool:
    """Record `thing` unless it is already; False when it was. Raises env/disk-full or
    env/file-unreadable: what cannot be recorded must not be changed."""
    if thing.get("kind") == "Secret":
        return False
    path = record_path(state_dir, context, thing)
    before = read_before(path)
    # An object that was deleted and made anew by its owner is another object.
    if before is not None and uid_of(before) == uid_of(thing):
        return False
    otherwise = "cannot record the workload as it was, so devloop does not change it"
    put_down(path, thing, otherwise, durable=True)
    return True
