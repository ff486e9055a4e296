"""The user's own directory, also where nobody says which that is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def home_directory(env: Mapping[str, str] | None = None) -> Path:
    """HOME, else what the system knows; `/` for a user whom it does not know, as a container that
    runs under any number has one, and as Docker has it there."""
    env = os.environ if env is None else env
    if env.get("HOME"):
        return Path(env["HOME"])
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def docker_directory() -> Path:
    """Where the `docker` command has its configuration."""
    return Path(os.environ.get("DOCKER_CONFIG") or home_directory() / ".docker")
