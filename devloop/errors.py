"""Every error a user can meet: its code, its place, its cause, its cure and its exit status.

Adapters raise `DevloopError`; nothing else crosses a package boundary on purpose. `Code` is
the only list of codes.
"""

from __future__ import annotations

import enum
import os
from dataclasses import replace
from typing import Literal, Self, TypedDict, Unpack

from devloop.base.lazy_dataclass import dataclass
from devloop.base.location import Location

__all__ = ["Code", "DevloopError", "Diagnosis", "ExitStatus", "Location", "Severity", "unreadable"]


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


class Code(enum.StrEnum):
    """Every error code: its text as users and programs see it, and what it stands for.

    `exit_status` is what a command ends with; `transient` says that waiting may cure the cause, so
    that a session holds instead of failing."""

    meaning: str
    transient: bool

    def __new__(cls, text: str, meaning: str = "", transient: bool = False) -> Self:
        member = str.__new__(cls, text)
        member._value_ = text
        member.meaning = meaning
        member.transient = transient
        return member

    @property
    def exit_status(self) -> ExitStatus:
        return _STATUS[self.value.partition("/")[0]]

    @property
    def final(self) -> bool:
        """Whether the cluster's answer stays the same for as long as nobody changes it by hand."""
        return self in (
            Code.CLUSTER_FORBIDDEN,
            Code.CLUSTER_UNAUTHORIZED,
            Code.CONFIG_NOT_SUPPORTED,
        )

    USAGE_ARGUMENTS = "usage/arguments", "the command line is not understood"
    USAGE_PAUSED = "usage/paused", "the session is paused"
    USAGE_NO_ROLLBACK = "usage/no-rollback", "there is no image to go back to"
    CONFIG_NOT_FOUND = "config/not-found", "no devloop.yaml here or in a parent directory"
    CONFIG_PARSE = "config/parse", "the file is not YAML"
    CONFIG_DUPLICATE_KEY = "config/duplicate-key", "a key stands twice in one mapping"
    CONFIG_UNKNOWN_KEY = "config/unknown-key", "a key that devloop.yaml does not have"
    CONFIG_TYPE = "config/type", "a value of the wrong kind"
    CONFIG_VALUE = "config/value", "a value that cannot be right"
    CONFIG_VARIABLE = "config/variable", "a ${VARIABLE} that is not set"
    CONFIG_VERSION = "config/version", "a version of devloop.yaml that this devloop does not read"
    CONFIG_NOT_SUPPORTED = "config/not-supported", "a key or flag whose feature does not exist yet"
    CONFIG_NEEDS_RESTART = (
        "config/needs-restart",
        "a change that takes effect with a new start only",
    )
    CONFIG_SERVICE_REMOVED = "config/service-removed", "devloop.yaml has a service no more"
    CONFIG_UNKNOWN_SERVICE = "config/unknown-service", "a service that devloop.yaml does not have"
    CONFIG_FILE_MISSING = "config/file-missing", "a file that devloop.yaml names does not exist"
    CONFIG_DOCKERFILE_MISSING = "config/dockerfile-missing", "the Dockerfile does not exist"
    CONFIG_CONTEXT_MISSING = "config/context-missing", "the build context does not exist"
    CONFIG_IMAGE_NAME = "config/image-name", "not a valid image name"
    CONFIG_MANIFEST = "config/manifest", "a manifest that cannot be read"
    CONFIG_MANIFEST_MISSING = "config/manifest-missing", "no file matches the manifests pattern"
    CONFIG_IMAGE_NOT_USED = "config/image-not-used", "no container of the workload uses the image"
    CONFIG_CONTAINER_NOT_FOUND = "config/container-not-found", "the workload has no such container"
    CONFIG_WORKLOAD_AMBIGUOUS = "config/workload-ambiguous", "more than one workload could be meant"
    ENV_DOCKER_UNREACHABLE = "env/docker-unreachable", "the Docker daemon does not answer", True
    ENV_DISK_FULL = "env/disk-full", "no space left", True
    ENV_INOTIFY_LIMIT = "env/inotify-limit", "the kernel allows no more file watches"
    ENV_WATCH_POLLING = "env/watch-polling", "the file system tells of no changes: files are polled"
    ENV_WATCH_RESTARTED = "env/watch-restarted", "the file watcher failed and was started again"
    ENV_TOOL_MISSING = "env/tool-missing", "a program that is needed is not installed"
    ENV_PORT_BUSY = "env/port-busy", "the local port is in use"
    ENV_FILE_UNREADABLE = "env/file-unreadable", "a file cannot be read"
    ENV_SESSION_RUNNING = "env/session-running", "another devloop session runs for this project"
    ENV_NO_SESSION = "env/no-session", "no devloop session runs for this project"
    ENV_SESSION_STARTING = "env/session-starting", "the session has not got so far yet"
    ENV_CONTROL = "env/control", "the session's control socket cannot be used"
    ENV_CONTROL_BUSY = "env/control-busy", "too many programs are connected to the session"
    CLUSTER_UNREACHABLE = "cluster/unreachable", "the cluster does not answer", True
    CLUSTER_UNAUTHORIZED = "cluster/unauthorized", "the cluster does not accept the credentials"
    CLUSTER_FORBIDDEN = "cluster/forbidden", "the cluster's rules do not allow this"
    CLUSTER_NOT_FOUND = "cluster/not-found", "the object does not exist in the cluster"
    CLUSTER_CONTEXT_NOT_FOUND = "cluster/context-not-found", "no such context in the kubeconfig"
    CLUSTER_CONFLICT = "cluster/conflict", "another field manager owns what devloop would change"
    CLUSTER_PAUSED = "cluster/paused", "the Deployment is paused by its owner"
    CLUSTER_REJECTED = "cluster/rejected", "the cluster refused the object"
    CLUSTER_LEFT_OVER = "cluster/left-over", "the manifests have an object of the cluster no more"
    CLUSTER_PROVISION = "cluster/provision", "the local cluster could not be made"
    REGISTRY_DISCOVERY = "registry/discovery", "the cluster's word on its registry cannot be read"
    REGISTRY_UNREACHABLE = "registry/unreachable", "the registry does not answer", True
    REGISTRY_UNAUTHORIZED = "registry/unauthorized", "the registry does not accept the credentials"
    REGISTRY_PUSH_FAILED = "registry/push-failed", "the image could not be pushed"
    REGISTRY_DIGEST_MISMATCH = "registry/digest-mismatch", "the registry holds another image"
    REGISTRY_IMAGE_GONE = "registry/image-gone", "the registry does not have the image any more"
    REGISTRY_DELETE_REFUSED = "registry/delete-refused", "the registry is set to delete nothing"
    BUILD_DOCKERFILE_PARSE = "build/dockerfile-parse", "the Dockerfile is not understood"
    BUILD_COPY_MISSING = "build/copy-missing", "a COPY or ADD source does not exist in the context"
    BUILD_RUN_FAILED = "build/run-failed", "a RUN command failed"
    BUILD_BASE_PULL_FAILED = "build/base-pull-failed", "the base image cannot be pulled"
    BUILD_UNSUPPORTED = "build/unsupported", "the builder cannot do what Dockerfile or config ask"
    BUILD_FAILED = "build/failed", "the build failed"
    BUILD_COMMAND_FAILED = "build/command-failed", "the build command failed"
    BUILD_CONTEXT_CHANGED = "build/context-changed", "a file changed while the image was built"
    BUILD_KEEPS_CHANGING = "build/keeps-changing", "files change faster than they are deployed"
    BUILD_LARGE_CONTEXT = "build/large-context", "reading the build context takes long"
    BUILD_TIMEOUT = "build/timeout", "the build took too long"
    BUILD_BASE_MOVED = "build/base-moved", "a base image's tag means another image now"
    BUILD_CACHE_MOUNTS = "build/cache-mounts", "directories that are kept between builds"
    BUILD_NO_CACHE_MOUNT = "build/no-cache-mount", "a slow step keeps no cache between builds"
    BUILD_NO_SUPERVISOR = "build/no-supervisor", "the image's process cannot be supervised"
    POD_CRASH_LOOP = "pod/crash-loop", "the container keeps exiting"
    POD_PROCESS_ENDED = "pod/process-ended", "the process ended, its container did not"
    POD_OOM_KILLED = "pod/oom-killed", "the container ran out of memory"
    POD_IMAGE_PULL = "pod/image-pull", "the node cannot pull the image"
    POD_WRONG_ARCH = "pod/wrong-arch", "the image is made for another processor"
    POD_UNSCHEDULABLE = "pod/unschedulable", "no node takes the pod"
    POD_PROBE_FAILING = "pod/probe-failing", "a probe keeps failing"
    POD_RUN_FAILED = "pod/run-failed", "a Job or a Pod came to its end without success"
    POD_CONFIG_ERROR = "pod/config-error", "the container cannot be created"
    POD_INIT_FAILING = "pod/init-failing", "an init container fails"
    POD_EVICTED = "pod/evicted", "the node evicted the pod"
    POD_DEADLINE = "pod/deadline", "the rollout did not finish in time"
    POD_STALE_IMAGE = "pod/stale-image", "the pod runs another image than the one deployed"
    SYNC_FAILED = "sync/failed", "files could not be copied into a container"
    SYNC_IMAGE = "sync/image", "an image holds what was synced, or why not"
    SAFETY_CONTEXT = "safety/context", "the context is not known to be local, nor allowed by name"
    SAFETY_LEASE = "safety/lease", "another session works with the workload"
    SAFETY_PROTECTED_NAMESPACE = "safety/protected-namespace", "the namespace is the cluster's"
    SAFETY_CHANGED_OUTSIDE = "safety/changed-outside", "somebody else changed the workload"
    INTERNAL_BUG = "internal/bug", "a bug in devloop"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What is wrong, where, why devloop thinks so and what to do next.

    `message` is one line. `cause` says why in one line, `suggestions` what to do, best first;
    `detail` holds evidence to show below (source lines, the end of a log), one entry a line."""

    code: Code
    severity: Severity = "error"
    message: str
    location: Location | None = None
    cause: str | None = None
    suggestions: tuple[str, ...] = ()
    detail: tuple[str, ...] = ()


class _Details(TypedDict, total=False):
    severity: Severity
    location: Location | None
    cause: str | None
    suggestions: tuple[str, ...]
    detail: tuple[str, ...]


class DevloopError(Exception):
    """An error that devloop expected; carries a `Diagnosis` and nothing else."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(f"{diagnosis.code}: {diagnosis.message}")
        self.diagnosis = diagnosis
        self.diagnoses: tuple[Diagnosis, ...] = (diagnosis,)

    @classmethod
    def of(cls, code: Code, message: str, **details: Unpack[_Details]) -> DevloopError:
        return cls(Diagnosis(code=code, message=message, **details))

    def at(self, location: Location) -> DevloopError:
        """The same error with a place, for callers that know the file when the raiser did not."""
        return DevloopError(replace(self.diagnosis, location=location))

    @property
    def code(self) -> Code:
        return self.diagnosis.code

    @property
    def exit_status(self) -> ExitStatus:
        return self.code.exit_status


def unreadable(path: str | os.PathLike[str], error: OSError) -> DevloopError:
    """`env/file-unreadable` for a file of the project, with the system's own words for the
    cause."""
    return DevloopError.of(
        Code.ENV_FILE_UNREADABLE,
        f"cannot read {os.fspath(path)}",
        location=Location(os.fspath(path)),
        cause=error.strerror or str(error),
        suggestions=(
            "make it readable (chmod u+r, for a directory u+rx)",
            "or leave it out of the image with a line in .dockerignore",
        ),
    )
