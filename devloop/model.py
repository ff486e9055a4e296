"""The values that travel between the parts: what is on disk, what was built, what runs.

Frozen data, no I/O, no third-party types; every adapter speaks in these.
"""

from __future__ import annotations

import enum
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Location

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.base.file_content import Contents


CREATED_BY = "devloop.dev/created-by"
"""The annotation of an object that devloop created: the project's name, or `devloop` for what
belongs to a local cluster. Only what carries it is deleted."""


class Step(enum.StrEnum):
    """The stages an iteration can pass through, in order."""

    SCAN = "scan"
    HOOK = "hook"
    BUILD = "build"
    PUSH = "push"
    TEST = "test"
    DEPLOY = "deploy"
    ROLLOUT = "rollout"
    SYNC = "sync"


class StepOutcome(enum.StrEnum):
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(enum.StrEnum):
    """How an iteration ends."""

    READY = "ready"
    FAILED = "failed"
    UNCHANGED = "unchanged"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ContextEntry:
    """One path of a build context as it stands on disk.

    `mode` holds the permission bits (0o7777 mask). `digest` is the content's sha256 in hex for a
    file and empty otherwise; `link` is a symlink's target as bytes decoded with surrogateescape."""

    type: Literal["file", "dir", "symlink"]
    mode: int = 0
    size: int = 0
    digest: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A tree at one moment: relative POSIX path -> entry, sorted by path, ignored paths left out.
    Files that are named like an editor's temporary ones are among the entries where they were there
    for a while, and nothing else says anything of them.

    `digest` covers path, type, mode, link target and content and nothing else, so that a `touch`
    leaves it alone. `stamp` also covers inode, size, mtime and ctime: two snapshots with the same
    stamp saw files that nobody wrote to in between (a file rewritten to something else and back
    has the same digest and another stamp)."""

    entries: Mapping[str, ContextEntry]
    digest: str
    stamp: str

    def changed_since(self, old: Snapshot) -> frozenset[str]:
        """The paths that differ between `old` and this. Scans keep the objects of what did not
        change, which makes this cheap for any size of the context."""
        before, now = old.entries, self.entries
        found = {
            path
            for path, entry in now.items()
            if (other := before.get(path)) is not entry and other != entry
        }
        added = sum(1 for path in found if path not in before)
        if len(now) - added != len(before):
            found.update(path for path in before if path not in now)
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a service is made from: `build` covers the image's inputs, `deploy` the manifests."""

    build: str
    deploy: str

    def __str__(self) -> str:
        return self.build[:12]

    @property
    def whole(self) -> str:
        """Both in one word, for whoever compares them later."""
        return f"{self.build[:16]}-{self.deploy[:16]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a look at the disk found. `changed` names paths as a user would, relative to the
    project, compared with the scan before; empty when nothing differs or there was none before.
    `recipe` is the digest of all that shapes the image except the context: two scans with the same
    recipe differ in `snapshot` alone. `look` counts the looks of one source, `named_looks` those
    into its named contexts. `fresh` is for whoever makes an image of it: the user wants a full
    build, with nothing remembered and no shortcut.

    `needs` has, for each service whose image the build uses, the reference of that image, "" while
    there is none.

    `passing` are the paths of the context that keep changing faster than images are made: a build
    goes on when they do. So that its image is what the scan saw all the same, `kept` has the bytes
    that the scan read of them; those that were not there are in no snapshot either."""

    fingerprint: Fingerprint
    snapshot: Snapshot
    recipe: str = ""
    changed: tuple[str, ...] = ()
    files: int = 0
    ms: float = 0.0
    look: int = 0
    named_looks: tuple[int, ...] = ()
    fresh: bool = False
    needs: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    passing: frozenset[str] = frozenset()
    kept: Contents = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """An image that exists. `repository` is host/path as the pusher names it; `pull_repository`
    the name under which the cluster's nodes pull it (KEP-1755 lets the two differ). `digest` is
    `sha256:...` of the manifest; empty only for an image loaded straight into the nodes, which is
    known by its content `tag` alone. `supervisor` is what stands before the command of a container
    that runs it (see base.supervisor); the image's own command has it already. `plain` is then the
    digest of the image without it."""

    repository: str
    tag: str
    digest: str = ""
    pull_repository: str = ""
    supervisor: tuple[str, ...] = ()
    plain: str = ""

    @property
    def as_base(self) -> str:
        """The reference for whoever builds from it: as it was built, by the pusher's name."""
        digest = self.plain or self.digest
        return f"{self.repository}@{digest}" if digest else f"{self.repository}:{self.tag}"

    @property
    def pinned(self) -> str:
        """The reference to write into a pod."""
        repository = self.pull_repository or self.repository
        return f"{repository}@{self.digest}" if self.digest else f"{repository}:{self.tag}"

    @property
    def short(self) -> str:
        return self.digest.removeprefix("sha256:")[:6] or self.tag


@dataclass(frozen=True, slots=True)
class NodeImages:
    """How a local cluster without a registry gets images: `tool` (kind, k3d, minikube, microk8s)
    loads them into the nodes of `cluster`, or, as `docker`, the cluster called so runs the images
    of this computer's Docker."""

    tool: str
    cluster: str

    def __str__(self) -> str:
        if self.tool == "docker":
            return f"Docker's own images ({self.cluster})"
        return f"{self.tool} load ({self.cluster})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PushTarget:
    """Where images go, and the names under which each side knows that place.

    `push` is `host[:port][/path]` as this computer sees the registry, `pull` as the nodes' runtime
    does, `cluster` as a pod does (for a builder that runs in the cluster); the last two are empty
    when they do not differ. With no registry at all `push` is empty and `nodes` says how they
    get to the nodes. `source` says how it was found."""

    push: str = ""
    pull: str = ""
    cluster: str = ""
    nodes: NodeImages | None = None
    source: Literal["config", "cluster", "nodes"] = "config"

    def repository(self, image: str) -> str:
        """The name to push `image` (without registry and tag) under."""
        return f"{self.push}/{image}" if self.push else image

    def pull_repository(self, image: str) -> str:
        """The name to write into a pod."""
        return f"{self.pull}/{image}" if self.pull else self.repository(image)

    def __str__(self) -> str:
        return self.push or (str(self.nodes) if self.nodes else "")


@dataclass(frozen=True, slots=True)
class WorkloadRef:
    """What runs pods. `kind` is in lower case. `api` is empty for Kubernetes' own kinds, else where
    the API has it: GROUP/VERSION/PLURAL."""

    kind: str
    name: str
    namespace: str
    api: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def serves(self) -> bool:
        """Whether its pods are there to stay, and not to come to an end."""
        return self.kind not in {"job", "cronjob"}


# How a workload's pods come to run an image, see devloop.cluster.replace.
ReplacedBy = Literal["rolling", "in-place", "fast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedWorkload:
    """What a deploy left of one workload in the cluster: wait for `workload` to reach `generation`
    with `image` in `containers`. `changed` is False when the cluster already had it all. `previous`
    maps those containers to the images they had before, for a rollback; empty when the workload is
    new. `how` its pods come to run the image; `alone` says that the only pod is restarted with it:
    nothing else serves meanwhile."""

    workload: WorkloadRef
    uid: str
    generation: int
    image: ImageRef
    containers: tuple[str, ...]
    changed: bool = True
    how: ReplacedBy = "rolling"
    alone: bool = False
    previous: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What a deploy of `image` left in the cluster: every workload of the service, the picked one
    first. `changed` is False when the cluster already had it all, whatever came along included.
    `uses` are the images of other services that the manifests run, by service."""

    image: ImageRef
    workloads: tuple[DeployedWorkload, ...]
    changed: bool = True
    uses: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def picked(self) -> DeployedWorkload:
        return self.workloads[0]

    @property
    def alone(self) -> bool:
        """Whether the image before is not served any more, as of some workload's only pod."""
        return any(workload.alone for workload in self.workloads)

    @property
    def can_roll_back(self) -> bool:
        """Whether there is an image to put back."""
        return any(workload.previous for workload in self.workloads)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerView:
    """One container's status. `image_id` is what the kubelet reports that it runs; `mounts` are the
    paths of its volumes, `ports` the TCP ports that its spec names, its probes' among them,
    `named_ports` those that it gives a name. `starts_asked` counts how often devloop had its
    process start anew, `starts_done` up to which of these the new one serves."""

    name: str
    image: str
    image_id: str = ""
    container_id: str = ""
    state: Literal["waiting", "running", "terminated", "unknown"] = "unknown"
    ready: bool = False
    started: bool = False
    restarts: int = 0
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    last_exit_code: int | None = None
    last_reason: str = ""
    init: bool = False
    mounts: tuple[str, ...] = ()
    ports: frozenset[int] = frozenset()
    named_ports: tuple[tuple[str, int], ...] = ()
    starts_asked: int = 0
    starts_done: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One pod as the API server last reported it. `created` is the server's RFC 3339 timestamp."""

    name: str
    uid: str
    namespace: str
    created: str = ""
    phase: str = ""
    ready: bool = False
    deleting: bool = False
    node: str = ""
    revision: str = ""
    containers: tuple[ContainerView, ...] = ()

    @property
    def suffix(self) -> str:
        """The part of the name that tells this pod from its siblings."""
        return self.name.rsplit("-", 1)[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTest:
    """How a command ended that was run in an image; `status` is negative for a signal. `not_run`
    is why it was not run at all, in words, "" when it was."""

    status: int = 0
    not_run: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Proof that an image is served: the pods whose reported image is the one deployed."""

    image: ImageRef
    pods: tuple[str, ...]
    image_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What an earlier session left in the cluster, with nothing to change but files: pods to come
    start with `image`; `pods` are those that run, all of them ready."""

    image: ImageRef
    pods: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What the containers of an earlier session have is known. Pods to come start with `image`;
    `current`: what runs has all that is on disk, and `held`: so has the image."""

    image: ImageRef
    current: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderingInputs:
    """What a service's objects are made from: every file that one of the absolute `patterns` names
    (see base.patterns), and `values`, anything else that counts (a chart's version, say)."""

    patterns: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """An object that is run beside a deploy and no part of it (helm.sh/docs/topics/charts_hooks).
    `events` are when, `delete` its deletion policies, both in Helm's words."""

    events: frozenset[str]
    weight: int = 0
    delete: frozenset[str] = frozenset({"before-hook-creation"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestObject:
    """One Kubernetes object and where it is written. `places` maps a path of keys and indices to
    (line, column)."""

    object: Mapping[str, Any]
    file: str
    places: Mapping[tuple[str | int, ...], tuple[int, int]]
    hook: Hook | None = None

    @property
    def location(self) -> Location:
        return self.at()

    def at(self, *path: str | int) -> Location:
        """Where the value at `path` stands, or the nearest thing around it."""
        while path and path not in self.places:
            path = path[:-1]
        line, column = self.places.get(path, (1, 1))
        return Location(self.file, line, column)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """(apiVersion, kind, namespace as written, name)."""
        metadata = self.object.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        return (
            str(self.object.get("apiVersion")),
            str(self.object.get("kind")),
            str(metadata.get("namespace") or ""),
            str(metadata.get("name") or ""),
        )
