"""Following container logs: one stream a container, each line once, across replacements."""

from __future__ import annotations

from devloop.logs.follower import LogFollower
from devloop.logs.ports import OpenLog

__all__ = ["LogFollower", "OpenLog"]
