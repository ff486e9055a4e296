"""Questions to the local Docker by the `docker` program, and what it means when a program cannot be
run.

Of the images that builds left there, only tags that devloop gives (`devloop-...`) in repositories
that the caller names are listed; an image that also has another tag keeps that. Docker itself
refuses to remove what a container uses.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base import process
from devloop.base.home import docker_directory
from devloop.builders.job import TAG_PREFIX
from devloop.config.schema import STATE_DIR
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from devloop.base.cancel import Cancel


_FRACTION = re.compile(r"(\.\d{6})\d+")

_INSTALL = "install the docker command: https://docs.docker.com/engine/install/"

# In seconds, for what is done with an image.
_LIMIT = 60.0


def ask_docker(*args: str, cancel: Cancel, limit: float) -> process.Completed | None:
    """What `docker ARGS` answers; None when it does not within `limit` seconds.

    Raises env/tool-missing and Cancelled."""
    try:
        return process.capture(["docker", *args], cancel=cancel, limit=limit)
    except process.Overran:
        return None
    except process.CannotRun as error:
        raise cannot_run(error) from error


def cannot_run(error: process.CannotRun) -> DevloopError:
    """env/tool-missing, or config/context-missing for a working directory that is not there."""
    if error.directory is not None:
        return DevloopError.of(
            Code.CONFIG_CONTEXT_MISSING, f"the directory {error.directory} does not exist"
        )
    program = error.program
    if error.missing:
        return DevloopError.of(
            Code.ENV_TOOL_MISSING,
            f"{program} is not installed or not on PATH",
            suggestions=(_INSTALL,) if program == "docker" else (),
        )
    return DevloopError.of(Code.ENV_TOOL_MISSING, f"{program} cannot be run", cause=error.reason)


def place_for_files(root: Path) -> Path | None:
    """Where files have to be that the `docker` program is to read: a Docker from snap sees nothing
    of /tmp, so they are in the project `root` then. None for anywhere."""
    found = shutil.which("docker")
    if found is None or not (
        found.startswith(("/snap/", "/var/lib/snapd/")) or Path(found).resolve().name == "snap"
    ):
        return None
    place = root / STATE_DIR / "tmp"
    place.mkdir(parents=True, exist_ok=True)
    return place


def buildx_place(root: Path) -> dict[str, str]:
    """A place for buildx in the project `root`, as its variable, where it has none beside Docker's
    configuration: it does nothing without one. CI runs containers under users without a home."""
    if os.environ.get("BUILDX_CONFIG"):
        return {}
    place = docker_directory() / "buildx"
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    if os.access(there, os.W_OK | os.X_OK) or any(place.glob("instances/*")):
        return {}
    return {"BUILDX_CONFIG": str(root / STATE_DIR / "buildx")}


def local_images(repositories: Iterable[str], cancel: Cancel) -> tuple[str, ...]:
    """`repository:tag` of devloop's images, newest first; none when there is no Docker."""
    found: list[str] = []
    if shutil.which("docker") is None:
        return ()
    for repository in sorted(set(repositories)):
        argv = ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository)
        answer = ask_docker(*argv, cancel=cancel, limit=_LIMIT)
        if answer is None or answer.status != 0:
            return ()
        mine = f"{repository}:{TAG_PREFIX}"
        found += [line for line in answer.out.splitlines() if line.startswith(mine)]
    return tuple(found)


def last_tagged(references: Collection[str], cancel: Cancel) -> dict[str, float]:
    """When the image of each reference was last given a tag, in seconds since 1970; without those
    of which Docker does not say it."""
    found: dict[str, float] = {}
    for reference in references:
        argv = ("image", "inspect", "--format", "{{json .Metadata.LastTagTime}}", reference)
        answer = ask_docker(*argv, cancel=cancel, limit=_LIMIT)
        if answer is not None and answer.status == 0:
            with contextlib.suppress(ValueError):
                # RFC 3339 with as many digits as there are; Python takes six.
                text = _FRACTION.sub(r"\1", answer.out.strip().strip('"'))
                found[reference] = datetime.fromisoformat(text).timestamp()
    return found


def remove_local(reference: str, cancel: Cancel) -> bool:
    """Remove one tag, and the image with it if that was its last; False when it is in use."""
    answer = ask_docker("image", "rm", reference, cancel=cancel, limit=_LIMIT)
    return answer is not None and answer.status == 0
