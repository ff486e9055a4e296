"""Remember a workload as it was before devloop first touched it: what `restore` puts back.

One JSON file an object under `.devloop/before/<context>/<namespace>/`. Written once, before the
first write to the cluster, never by a later iteration. Secrets are never recorded.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from devloop.cluster.podview import metadata, name_of, text, uid_of
from devloop.errors import DevloopError, Location

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read_before", "record_path", "write_before"]


def record_path(state_dir: Path, context: str, thing: Mapping[str, Any]) -> Path:
    """Where an object's record lies; names are quoted so that none leaves the folder."""
    namespace = text(metadata(thing).get("namespace")) or "_cluster"
    kind = text(thing.get("kind")).lower()
    parts = [quote(p, safe="@:") for p in (context, namespace, f"{kind}-{name_of(thing)}.json")]
    safe = [p.replace(".", "%2E") if not p.strip(".") else p for p in parts]
    return state_dir.joinpath("before", *safe)


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(thing, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise DevloopError.of(
            "env/disk-full" if error.errno == 28 else "env/file-unreadable",
            "cannot record the workload as it was, so devloop does not change it",
            location=Location(str(path)),
            cause=error.strerror or str(error),
        ) from error
    return True
