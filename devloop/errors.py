"""Every error a user can meet: its code, its place, its cause, its cure and its exit status.

Adapters raise `DevloopError`; nothing else crosses a package boundary on purpose. The catalogue is
the only list of codes; a code that is not in it is a bug that the constructor reports at once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Literal

__all__ = [
    "CATALOGUE",
    "DevloopError",
    "Diagnosis",
    "ExitStatus",
    "Location",
    "Severity",
]


class ExitStatus(enum.IntEnum):
    """The process's exit status; one meaning each, for shells, editors and CI."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    ENVIRONMENT = 3
    REFUSED = 4
    BUG = 70
    INTERRUPTED = 130
    TERMINATED = 143


Severity = Literal["error", "warning", "info"]

# One line a code: what it stands for. The part before the slash decides the exit status.
CATALOGUE: dict[str, str] = {
    "usage/arguments": "the command line is not understood",
    "config/not-found": "no devloop.yaml here or in a parent folder",
    "config/parse": "the file is not YAML",
    "config/duplicate-key": "a key stands twice in one mapping",
    "config/unknown-key": "a key that devloop.yaml does not have",
    "config/type": "a value of the wrong kind",
    "config/value": "a value that cannot be right",
    "config/variable": "a ${VARIABLE} that is not set",
    "config/version": "a version of devloop.yaml that this devloop does not read",
    "config/not-supported": "a key or flag whose feature does not exist yet",
    "config/changed": "devloop.yaml or a file it reads changed while a session runs",
    "config/unknown-service": "a service that devloop.yaml does not have",
    "config/file-missing": "a file that devloop.yaml names does not exist",
    "config/dockerfile-missing": "the Dockerfile does not exist",
    "config/context-missing": "the build context does not exist",
    "config/image-name": "not a valid image name",
    "config/manifest": "a manifest that cannot be read",
    "config/manifest-missing": "no file matches the manifests pattern",
    "config/image-not-used": "no container of the workload uses the service's image",
    "config/container-not-found": "the workload has no such container",
    "config/workload-ambiguous": "more than one workload could be meant",
    "env/docker-unreachable": "the Docker daemon does not answer",
    "env/disk-full": "no space left",
    "env/inotify-limit": "the kernel allows no more file watches",
    "env/watch-polling": "the file system does not tell of changes, so files are polled",
    "env/watch-restarted": "the file watcher failed and was started again",
    "env/tool-missing": "a program that is needed is not installed",
    "env/port-busy": "the local port is in use",
    "env/file-unreadable": "a file cannot be read",
    "env/session-running": "another devloop session runs for this project",
    "cluster/unreachable": "the cluster does not answer",
    "cluster/unauthorized": "the cluster does not accept the credentials",
    "cluster/forbidden": "the cluster's rules do not allow this",
    "cluster/not-found": "the object does not exist in the cluster",
    "cluster/context-not-found": "no such context in the kubeconfig",
    "cluster/conflict": "another field manager owns what devloop would change",
    "cluster/paused": "the Deployment is paused by its owner",
    "cluster/rejected": "the cluster refused the object",
    "cluster/provision": "the local cluster could not be made",
    "registry/discovery": "the cluster's description of its registry cannot be read",
    "registry/unreachable": "the registry does not answer",
    "registry/unauthorized": "the registry does not accept the credentials",
    "registry/push-failed": "the image could not be pushed",
    "registry/digest-mismatch": "the registry holds another image than the one pushed",
    "registry/delete-refused": "the registry is set to delete nothing",
    "registry/not-visible-in-cluster": "the nodes cannot pull from the registry",
    "build/dockerfile-parse": "the Dockerfile is not understood",
    "build/copy-missing": "a COPY or ADD source does not exist in the context",
    "build/run-failed": "a RUN command failed",
    "build/base-pull-failed": "the base image cannot be pulled",
    "build/unsupported": "this builder cannot do what the Dockerfile or the config asks",
    "build/failed": "the build failed",
    "build/command-failed": "the build command failed",
    "build/context-changed": "a file changed while the image was being built",
    "build/timeout": "the build took too long",
    "pod/crash-loop": "the container keeps exiting",
    "pod/oom-killed": "the container ran out of memory",
    "pod/image-pull": "the node cannot pull the image",
    "pod/wrong-arch": "the image is made for another processor",
    "pod/unschedulable": "no node takes the pod",
    "pod/probe-failing": "a probe keeps failing",
    "pod/config-error": "the container cannot be created",
    "pod/init-failing": "an init container fails",
    "pod/evicted": "the node evicted the pod",
    "pod/deadline": "the rollout did not finish in time",
    "pod/stale-image": "the pod runs another image than the one deployed",
    "sync/failed": "files could not be copied into a container",
    "sync/image": "an image holds what was synced, or why not",
    "safety/context": "the context is not known to be local and not allowed by name",
    "safety/protected-namespace": "the namespace belongs to the cluster itself",
    "safety/changed-outside": "somebody else changed the workload",
    "internal/bug": "a bug in devloop",
}

_STATUS = {
    "usage": ExitStatus.USAGE,
    "config": ExitStatus.USAGE,
    "env": ExitStatus.ENVIRONMENT,
    "cluster": ExitStatus.ENVIRONMENT,
    "registry": ExitStatus.ENVIRONMENT,
    "build": ExitStatus.FAILED,
    "pod": ExitStatus.FAILED,
    "sync": ExitStatus.FAILED,
    "safety": ExitStatus.REFUSED,
    "internal": ExitStatus.BUG,
}


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file. `line` and `column` count from 1; `path` is as the user would type it."""

    path: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        if self.line is None:
            return self.path
        return f"{self.path}:{self.line}:{self.column or 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is wrong, where, why devloop thinks so and what to do next.

    `message` is one line. `cause` says why in one line, `suggestions` what to do, best first;
    `detail` holds evidence to show below (source lines, the end of a log), one entry a line.
    """

    code: str
    message: str
    severity: Severity = "error"
    location: Location | None = None
    cause: str | None = None
    suggestions: tuple[str, ...] = ()
    detail: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.code not in CATALOGUE:
            raise KeyError(f"error code {self.code!r} is not in the catalogue")

    @property
    def exit_status(self) -> ExitStatus:
        return _STATUS[self.code.partition("/")[0]]


class DevloopError(Exception):
    """An error that devloop expected; carries a `Diagnosis` and nothing else."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(f"{diagnosis.code}: {diagnosis.message}")
        self.diagnosis = diagnosis

    @classmethod
    def of(
        cls,
        code: str,
        message: str,
        *,
        location: Location | None = None,
        cause: str | None = None,
        suggestions: tuple[str, ...] = (),
        detail: tuple[str, ...] = (),
    ) -> DevloopError:
        return cls(
            Diagnosis(
                code=code,
                message=message,
                location=location,
                cause=cause,
                suggestions=suggestions,
                detail=detail,
            )
        )

    def at(self, location: Location) -> DevloopError:
        """The same error with a place, for callers that know the file when the raiser did not."""
        return DevloopError(replace(self.diagnosis, location=location))

    @property
    def code(self) -> str:
        return self.diagnosis.code

    @property
    def exit_status(self) -> ExitStatus:
        return self.diagnosis.exit_status
