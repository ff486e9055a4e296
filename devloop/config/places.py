"""Where configuration files are. Looks for them, reads none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Mapping


FILE_NAME = "devloop.yaml"
# Read as they are where there is no devloop.yaml.
SKAFFOLD_NAMES = ("skaffold.yaml", "skaffold.yml")

LEAST = "the least it can hold: {version: 1, services: {web: {build: .}}}"


def user_config_path(env: Mapping[str, str]) -> Path | None:
    """The user's own config.yaml by the XDG base directory specification; None without a home."""
    base = env.get("XDG_CONFIG_HOME", "")
    if not base.startswith("/"):  # the specification ignores relative ones
        home = env.get("HOME", "")
        if not home.startswith("/"):
            return None
        base = f"{home}/.config"
    return Path(base) / "devloop" / "config.yaml"


def find_file(cwd: Path) -> Path:
    """The devloop.yaml of the working directory or the nearest directory above it; where there is
    none, a skaffold.yaml.

    Raises `DevloopError` config/not-found."""
    for names in ((FILE_NAME,), SKAFFOLD_NAMES):
        for directory in (cwd, *cwd.parents):
            for name in names:
                if os.path.lexists(directory / name):
                    return directory / name
    hints = ["devloop init writes one", "-f FILE names another file"]
    for other in ("devloop.yml", ".devloop.yaml", "Devloop.yaml"):
        if (cwd / other).exists():
            hints.insert(0, f"rename {other} to {FILE_NAME}")
    raise DevloopError.of(
        Code.CONFIG_NOT_FOUND,
        f"no {FILE_NAME} in {cwd} or a directory above it",
        suggestions=tuple(hints),
    )


def find_project(*, cwd: Path, file: Path | None, env: Mapping[str, str]) -> tuple[Path, str]:
    """The project's file, and the name that it was given, "" for one that was looked for.
    `file` is `-f`, before DEVLOOP_FILE in `env`. Raises `DevloopError` config/not-found."""
    named = str(file) if file is not None else env.get("DEVLOOP_FILE", "")
    path = Path(os.path.normpath(cwd.absolute() / named)) if named else find_file(cwd.absolute())
    return path, named
