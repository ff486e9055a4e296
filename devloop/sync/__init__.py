"""File sync: what was saved is copied into the running containers, over streams that stand open."""

from __future__ import annotations

from devloop.sync.changes import SyncPlace
from devloop.sync.rules import PathRule
from devloop.sync.syncer import FileSync

__all__ = ["FileSync", "PathRule", "SyncPlace"]
