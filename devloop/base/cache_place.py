"""Where on this computer lies what devloop can fetch again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.home import home_directory

if TYPE_CHECKING:
    from collections.abc import Mapping


def cache_directory(env: Mapping[str, str] | None = None) -> Path:
    """The user's directory for what devloop can fetch again: below XDG_CACHE_HOME."""
    env = os.environ if env is None else env
    found = env.get("XDG_CACHE_HOME", "")
    if found.startswith("/"):
        return Path(found) / "devloop"
    return home_directory(env) / ".cache" / "devloop"
