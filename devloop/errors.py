"""Every error a user can meet: its code, its place, its cause, its cure and its exit status.

Adapters raise `DevloopError`; nothing else crosses a package boundary on purpose. `Code` is
the only list of codes.
"""

from __future__ import annotations

import enum
import functools
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
    def cure(self) -> str:
        """What to do about it, whatever the case; docs/troubleshooting.md is made of these."""
        return _cures()[self]

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
    CONFIG_UNKNOWN_PROFILE = "config/unknown-profile", "a profile that devloop.yaml does not have"
    CONFIG_FILE_MISSING = "config/file-missing", "a file that devloop.yaml names does not exist"
    CONFIG_DOCKERFILE_MISSING = "config/dockerfile-missing", "the Dockerfile does not exist"
    CONFIG_CONTEXT_MISSING = "config/context-missing", "the build context does not exist"
    CONFIG_IMAGE_NAME = "config/image-name", "not a valid image name"
    CONFIG_MANIFEST = "config/manifest", "a manifest that cannot be read"
    CONFIG_MANIFEST_MISSING = "config/manifest-missing", "no file matches the manifests pattern"
    CONFIG_IMAGE_NOT_USED = "config/image-not-used", "no container of the workload uses the image"
    CONFIG_CONTAINER_NOT_FOUND = "config/container-not-found", "the workload has no such container"
    CONFIG_WORKLOAD_AMBIGUOUS = "config/workload-ambiguous", "more than one workload could be meant"
    MANIFESTS_RENDER_FAILED = (
        "manifests/render-failed",
        "kustomize or Helm cannot render the manifests",
    )
    MANIFESTS_RENDER_TIMEOUT = "manifests/render-timeout", "rendering the manifests takes too long"
    MANIFESTS_FETCH_FAILED = (
        "manifests/fetch-failed",
        "a remote chart, dependency or base cannot be fetched",
    )
    MANIFESTS_NOTE = "manifests/note", "what rendering did, or left out, besides"
    ENV_DOCKER_UNREACHABLE = "env/docker-unreachable", "the Docker daemon does not answer", True
    ENV_BUILDER_UNREACHABLE = "env/builder-unreachable", "the buildx builder does not answer", True
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
    BUILD_NO_EMULATION = "build/no-emulation", "the builder cannot run another platform's programs"
    BUILD_BASE_PULL_FAILED = "build/base-pull-failed", "the base image cannot be pulled"
    BUILD_UNSUPPORTED = "build/unsupported", "the builder cannot do what Dockerfile or config ask"
    BUILD_FAILED = "build/failed", "the build failed"
    BUILD_COMMAND_FAILED = "build/command-failed", "the build command failed"
    BUILD_NOT_PUSHED = "build/not-pushed", "the registry has no image of what is on disk"
    BUILD_CONTEXT_CHANGED = "build/context-changed", "a file changed while the image was built"
    BUILD_KEEPS_CHANGING = "build/keeps-changing", "files change faster than they are deployed"
    BUILD_LARGE_CONTEXT = "build/large-context", "reading the build context takes long"
    BUILD_TIMEOUT = "build/timeout", "the build took too long"
    BUILD_BASE_MOVED = "build/base-moved", "a base image's tag means another image now"
    BUILD_CACHE_MOUNTS = "build/cache-mounts", "directories that are kept between builds"
    BUILD_NO_CACHE_MOUNT = "build/no-cache-mount", "a slow step keeps no cache between builds"
    BUILD_NO_SUPERVISOR = "build/no-supervisor", "the image's process cannot be supervised"
    DEBUG_OFF = "debug/off", "`debug` does nothing here"
    DEBUG_NOT_STARTED = "debug/not-started", "the debugger could not be started with the process"
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
    POD_NODE_NOT_READY = "pod/node-not-ready", "the pod's node does not answer"
    POD_DEADLINE = "pod/deadline", "the rollout did not finish in time"
    POD_STALE_IMAGE = "pod/stale-image", "the pod runs another image than the one deployed"
    SYNC_FAILED = "sync/failed", "files could not be copied into a container"
    SYNC_IMAGE = "sync/image", "an image holds what was synced, or why not"
    TEST_FAILED = "test/failed", "the service's `test` failed in the fresh image"
    HOOK_FAILED = "hook/failed", "a command of `hooks` failed"
    SAFETY_UNTRUSTED = (
        "safety/untrusted",
        "devloop.yaml names commands to run on this computer, and nobody has trusted them",
    )
    SAFETY_CONTEXT = "safety/context", "the context is not known to be local, nor allowed by name"
    SAFETY_LEASE = "safety/lease", "another session works with the workload"
    SAFETY_PROTECTED_NAMESPACE = "safety/protected-namespace", "the namespace is the cluster's"
    SAFETY_GITOPS_OWNED = (
        "safety/gitops-owned",
        "Flux or Argo CD owns the workload and would put its own version back",
        True,
    )
    SAFETY_CHANGED_OUTSIDE = "safety/changed-outside", "somebody else changed the workload"
    SAFETY_NOT_RENDERED = (
        "safety/not-rendered",
        "a file is in the way that no rendering wrote",
    )
    INTERNAL_BUG = "internal/bug", "a bug in devloop"


_STATUS = {
    "usage": ExitStatus.USAGE,
    "config": ExitStatus.USAGE,
    "manifests": ExitStatus.USAGE,
    "env": ExitStatus.ENVIRONMENT,
    "cluster": ExitStatus.ENVIRONMENT,
    "registry": ExitStatus.ENVIRONMENT,
    "build": ExitStatus.FAILED,
    "debug": ExitStatus.FAILED,
    "pod": ExitStatus.FAILED,
    "sync": ExitStatus.FAILED,
    "test": ExitStatus.FAILED,
    "hook": ExitStatus.FAILED,
    "safety": ExitStatus.REFUSED,
    "internal": ExitStatus.BUG,
}

# What to do about each code as a whole, in a sentence or two; a line that is indented goes on with
# the one before. What is known of one case stands in its `Diagnosis`.
_CURES = """
usage/arguments: The message says what is wrong; `--help` behind the command lists what it takes.
usage/paused: `devloop resume`, or the key `p`, then ask again.
usage/no-rollback: No earlier image is known to have been ready. Go back in your version control
  and save, or use `devloop restore`.
config/not-found: Run it in the project, name the file with `-f`, or let `devloop init` write one.
config/parse: Correct the file at the line named: often an indentation, a tab or an open quote.
config/duplicate-key: Remove one of the two; YAML readers differ in which one counts.
config/unknown-key: Correct the key: the message names the nearest one, and all that may stand
  there.
config/type: Write what the message asks for; often quotes are missing, or the `- ` of a list.
config/value: Correct the value; the message says which form it has to have.
config/variable: Set it in the environment or the file of `env_file`, or give a default:
  `${NAME:-default}`. A plain dollar is `$$`.
config/version: Write `version: 1`, or update devloop for a newer one.
config/not-supported: Remove the key; the message names another way where there is one.
config/needs-restart: The session goes on with the value of before. End it with Ctrl-C and start it
  again.
config/service-removed: A note: what runs of the service stays. The message has the `kubectl`
  command that deletes it.
config/unknown-service: Use a name that stands under `services:`; the message lists them.
config/unknown-profile: Use a name that stands under `profiles:`; the message lists them.
config/file-missing: Make the file, or correct the path; it is relative to devloop.yaml.
config/dockerfile-missing: Write one, or name it with `build.dockerfile`; that is relative to the
  context.
config/context-missing: Correct `build.context`; it is a directory, relative to devloop.yaml.
config/image-name: Write the name in lower case without registry, tag and digest; those are
  devloop's.
config/manifest: Correct the manifest at the line named. A note or warning says what of it is done
  otherwise, or not applied.
config/manifest-missing: Correct `deploy.manifests`; patterns are relative to devloop.yaml.
config/image-not-used: Write the service's image into the manifest of what runs it, or name the
  container with `deploy.container`.
config/container-not-found: Correct `deploy.container`; the message lists the containers.
config/workload-ambiguous: Name one with `deploy.workload` or `deploy.container`. As a note it says
  which one ports and status speak of.
manifests/render-failed: Correct the file at the line named; the message has the tool's own words,
  and the same command by hand prints them.
manifests/render-timeout: Run the command that the message has by hand: often it waits for the
  network, or for a password.
manifests/fetch-failed: Look at the address, the version and the network; `helm registry login` or
  `helm repo add` gives access. The next save, or `devloop trigger`, tries again.
manifests/note: A note: dependencies that were fetched, files that are not watched, hooks that are
  for something that devloop does not do.
env/docker-unreachable: Start Docker; look at `docker info`, DOCKER_HOST and `docker context ls`.
env/builder-unreachable: `docker buildx ls` shows the builders and the one in use; `docker buildx
  use default` builds with Docker. `dev` tries again by itself.
env/disk-full: Free some: `docker system df` shows what takes it, `docker builder prune` and
  `devloop clean` free it.
env/inotify-limit: A warning: the other directories are polled, so a save is seen later. Raise
  fs.inotify.max_user_watches, or leave big directories out in .dockerignore.
env/watch-polling: A warning: saves are seen later. Keep the project on a local disk; in WSL not
  under /mnt.
env/watch-restarted: A warning: nothing is lost, since all files are looked at again.
env/tool-missing: Install the program that the message names, or put it on the PATH.
env/port-busy: End the program that has the port, or choose another local port: `ports:
  ["8081:8080"]`.
env/file-unreadable: Make it readable (`chmod u+r`), or leave it out of the image in .dockerignore.
env/session-running: End it with Ctrl-C; the message has its process id. Two sessions would undo
  each other's work.
env/no-session: Start `devloop dev`, or name the devloop.yaml of the session with `-f`.
env/session-starting: It waits for the cluster, the registry or Docker. Try again in a moment.
env/control: Try again; if that does not help, restart the session. It goes on without the socket.
env/control-busy: End one of the programs that follow its events or logs.
cluster/unreachable: Start the cluster, or look at the context and the network: `kubectl
  cluster-info`. `devloop cluster up` repairs a local one.
cluster/unauthorized: Log in again, or renew the kubeconfig; `kubectl auth whoami` tries it.
cluster/forbidden: Ask for the right that the message names, or use another context or namespace;
  `kubectl auth can-i` tries it.
cluster/not-found: Create it, or give the manifests that make it: `deploy.manifests`. For a
  namespace: `kubectl create namespace`.
cluster/context-not-found: Use one of the contexts listed, or set KUBECONFIG; `devloop cluster up`
  makes a local cluster.
cluster/conflict: Pause the other tool for this object (Argo CD, Flux, Helm), or take it out of
  `deploy.manifests`. As a note it says what was left as others set it.
cluster/paused: `kubectl rollout resume deployment/NAME`, where that is wanted.
cluster/rejected: Correct what the cluster's own words name. Where a field cannot be changed,
  delete the object, or set `deploy.recreate`.
cluster/left-over: Nothing, if it says that it was deleted. Else the message has the `kubectl`
  command.
cluster/provision: The message has Docker's or kind's own words; `devloop cluster up --recreate`
  begins anew, and the registry keeps its images.
registry/discovery: `devloop cluster up` writes the ConfigMap anew; or name the registry with
  `registry:`.
registry/unreachable: Start it: `devloop cluster up` for a local one. Else name one that the nodes
  can pull from with `registry:`.
registry/unauthorized: `docker login` to the registry, as a user who may push there.
registry/push-failed: The cause has the registry's answer. The next save tries again.
registry/digest-mismatch: See that the name leads to one registry only: no mirror, and no second
  one at that port.
registry/image-gone: Somebody deleted it. Go back in your version control and save: that builds it
  again.
registry/delete-refused: Allow deletion in the registry's own configuration, or clean it up there;
  devloop's own registry allows it.
build/dockerfile-parse: Correct the line named.
build/copy-missing: Correct the path, which is relative to the context, or take it out of
  .dockerignore if it is excluded there.
build/run-failed: Read the end of its output, below the message. Where it works elsewhere, a file
  may be missing in the context.
build/no-emulation: Install emulation where the builder runs (`docker run --privileged --rm
  tonistiigi/binfmt --install all`), or compile in a stage `FROM --platform=$BUILDPLATFORM` and only
  copy after it.
build/base-pull-failed: Check the name and tag; `docker pull IMAGE` tries it, `docker login` gives
  access.
build/unsupported: Install buildx, or do without what the message names.
build/failed: The message has the builder's own words; `devloop trigger --fresh` builds without
  caches.
build/command-failed: Run `build.command` by hand. It has to push the image whose name is in
  DEVLOOP_IMAGE.
build/not-pushed: Build it with `devloop build --push`, or name what was built before with
  `--images FILE`.
build/context-changed: Nothing: it is built again with the new content. What a build itself writes
  belongs into .dockerignore.
build/keeps-changing: A warning: leave what a program writes all the time out with a line in
  .dockerignore.
build/large-context: A warning: leave what the image does not need out with the line for
  .dockerignore that the message has.
build/timeout: A build ends after half an hour. The cause names the step that was running; see
  what it waits for.
build/base-moved: A note: the image is built again with it.
build/cache-mounts: A note: what `build.cache` adds to which RUN, or why nothing.
build/no-cache-mount: Advice: add the cache mount that the message shows to the RUN, or set
  `build.cache`.
build/no-supervisor: A note: saves restart the container. If that is meant, `deploy: {supervise:
  false}` says so.
debug/off: A note: the service runs without a debugger, for the reason in the message. Use `devloop
  dev` on a local cluster with a registry, or take `debug` out.
debug/not-started: A warning: the program runs, without a debugger. Do what the message says: have
  debugpy or dlv in the image, or choose another `debug.port`.
pod/crash-loop: Read the last lines of its log, below the message; `devloop logs` has more. Correct
  the program and save.
pod/process-ended: Read its last lines, correct the program and save: that starts it again at once.
pod/oom-killed: Raise `resources.limits.memory` in the manifest, or have the program use less.
pod/image-pull: See that the nodes reach the registry by the name in the message, with a pull
  secret if it needs one; `devloop doctor pull` tries it.
pod/wrong-arch: Set `build.platform` to that of the nodes, or leave it out; take a base image that
  has it.
pod/unschedulable: The cause has the scheduler's words: lower `resources.requests`, or look at node
  selectors, taints and volumes.
pod/probe-failing: Check the probe's path and port, and that the program listens on 0.0.0.0.
pod/run-failed: Read its log, correct it and save.
pod/config-error: Create the ConfigMap, Secret or volume that the cause names, or correct its name
  or the command in the manifest.
pod/init-failing: Read the init container's log; the pod starts only after it succeeds.
pod/evicted: Free memory or disk on the node, or set `resources.requests`.
pod/node-not-ready: See `kubectl get nodes`; `devloop cluster up` starts a local one that stopped.
  Once the node is deleted (`kubectl delete node NAME`), its pods are made on another one.
pod/deadline: The cause says what is missing. Raise `deploy.timeout` if the program needs longer;
  else look at its probe and its log.
pod/stale-image: See whether an admission webhook rewrites images, or a mirror serves an old copy;
  with `OnDelete` delete the old pods.
sync/failed: Mostly a note: an image, or a new pod, brings the files instead. The cause says what
  was in the way.
sync/image: A note: pods to come start with what was synced; else the cause says why not.
test/failed: Read its last lines, correct the program or the test and save. Nothing was deployed.
hook/failed: The key's place and its last lines are in the message. Correct the command, or what it
  needs, and save.
safety/untrusted: Read the commands that the message shows. `devloop trust` trusts them, `--trust`
  or DEVLOOP_TRUST=1 for this once (as in CI).
safety/context: Choose another with `--context`; or, if devloop may write there, name it in
  `allow_contexts`.
safety/lease: End the other session, or take the workload over from it with `--takeover`.
safety/protected-namespace: Use another namespace. Only Roles and RoleBindings may go there, where
  `allow_namespaces` names it.
safety/gitops-owned: `--suspend-gitops` suspends it for the session; or suspend it yourself, as the
  message shows, or use another namespace (docs/gitops.md). As a note: what was suspended, resumed,
  or stands still anyway.
safety/changed-outside: A warning: what runs is not what is on disk. The next save, or `devloop
  trigger`, takes the workload back.
safety/not-rendered: Name another directory, or remove the file: a rendering replaces and removes
  only what an earlier one wrote.
internal/bug: Run again with `-v` and report what it prints.
"""


@functools.cache
def _cures() -> dict[str, str]:
    entries = _CURES.replace("\n  ", " ").strip().splitlines()
    return dict(entry.split(": ", 1) for entry in entries)


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
