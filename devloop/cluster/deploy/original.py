"""Keep a workload as it was before devloop first touched it, so that it can be restored.

One file an object under `.devloop/before/<context>/<namespace>/`. Written once, before the first
write to the cluster, never by a later iteration. Secrets are never kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.cluster.api.pod_view import Json, metadata, name_of, text, uid_of
from devloop.cluster.replace.recovery_log import object_file, write_first

if TYPE_CHECKING:
    from pathlib import Path

    from devloop.base.state_file import StateFile


def original_file(state_dir: Path, context: str, thing: Json) -> StateFile:
    """Where an object's original is."""
    namespace = text(metadata(thing).get("namespace")) or "_cluster"
    name = f"{text(thing.get('kind')).lower()}-{name_of(thing)}"
    return object_file(state_dir / "before", context, namespace, name, durable=True)


def original_of(state_dir: Path, context: str, live: Json) -> Json | None:
    """The object as it was before devloop first wrote to it; None where devloop did not, or where
    it is another object since."""
    before = original_file(state_dir, context, live).read()
    return before if before is not None and uid_of(before) == uid_of(live) else None


def keep_original(state_dir: Path, context: str, thing: Json) -> bool:
    """Keep `thing` unless its original is kept already; False when it was. Raises env/disk-full or
    env/file-unreadable: what cannot be kept must not be changed."""
    if thing.get("kind") == "Secret":
        return False
    file = original_file(state_dir, context, thing)
    before = file.read()
    # An object that was deleted and recreated by its owner is another object.
    if before is not None and uid_of(before) == uid_of(thing):
        return False
    write_first(file, thing, "cannot record the workload as it was, so devloop does not change it")
    return True
