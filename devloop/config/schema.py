"""The shape of devloop.yaml version 1, after variables and short forms were resolved.

Paths are absolute, defaults are filled in; the rest of devloop reads these models and never the
YAML. See loader.py for how a file becomes a `Project`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Build", "Deploy", "Logs", "Port", "Project", "Service", "SyncRule"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Build(_Model):
    """How a service's image is made. `context` and `dockerfile` are absolute paths.

    `secrets` are in buildx's form (id=pip,src=/abs/pip.conf), `ssh` likewise (default,
    id=/path/to/sock). `command` is an argv list and given only with `builder: command`."""

    context: Path
    dockerfile: Path
    target: str | None = None
    args: dict[str, str] = Field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    platform: str | None = None
    ignore: tuple[str, ...] = ()
    builder: Literal["auto", "buildx", "classic", "command"] = "auto"
    command: tuple[str, ...] | None = None


class Deploy(_Model):
    """Where a service runs. `manifests` are absolute glob patterns in the order of the file; none
    means patch-only mode. `timeout` is in seconds."""

    workload_kind: Literal["deployment", "statefulset", "daemonset"] = "deployment"
    workload_name: str
    container: str | None = None
    manifests: tuple[str, ...] = ()
    timeout: float = 120.0
    replace: Literal["auto", "in-place", "rolling", "fast"] = "auto"
    on_failure: Literal["rollback", "keep"] | None = None

    @property
    def patch_only(self) -> bool:
        """Whether nothing renders the workload, so that it exists already."""
        return not self.manifests


class Port(_Model):
    """A local port (on 127.0.0.1) that leads to a container's port."""

    local: Annotated[int, Field(ge=1, le=65535)]
    container: Annotated[int, Field(ge=1, le=65535)]


class SyncRule(_Model):
    """Files to copy into running containers. `src` is a pattern relative to the build context,
    `dest` an absolute folder in the container; `restart`: the process has to start anew."""

    src: str
    dest: str
    restart: bool = False


class Logs(_Model):
    """Which containers' logs to follow: names or fnmatch patterns."""

    containers: tuple[str, ...] = ("*",)


class Service(_Model):
    """One service. `image` is the name without registry and tag (`shop/web`). `sync` is `auto` for
    rules taken from the Dockerfile. `line` is where the service stands in devloop.yaml."""

    name: str
    image: str
    build: Build
    deploy: Deploy
    sync: tuple[SyncRule, ...] | Literal["auto"] = ()
    ports: tuple[Port, ...] = ()
    logs: Logs = Logs()
    line: int = 1


class Project(_Model):
    """A whole devloop.yaml. `root` is its folder, `file` the file itself, both absolute."""

    name: str
    root: Path
    file: Path
    context: str | None = None
    namespace: str | None = None
    registry: str | None = None
    allow_contexts: tuple[str, ...] = ()
    services: dict[str, Service]

    @property
    def state_dir(self) -> Path:
        """Where devloop keeps its own files for this project."""
        return self.root / ".devloop"
