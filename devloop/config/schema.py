"""devloop.yaml version 1 and the user's own config.yaml: the one place where a key is described.

The field of a dataclass is the description of a key: its name, type and default, how it is read,
and what editors say of it. Reading with positions, defaults, the JSON Schema and `--set` all come
from here; a key that is not here does not exist. Paths are absolute once they are read; the rest of
devloop sees these values and never the YAML.
"""
# Annotations are read when this module is imported, so they cannot be put off (PEP 563).

from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Final, Literal

from devloop.base.lazy_dataclass import dataclass
from devloop.config import resolve, rules
from devloop.config.builds import BUILD, Build
from devloop.config.charts import CHART, Chart
from devloop.config.commands import HOOKS, TEST, HookCommands, ImageTest
from devloop.config.grammar import (
    Block,
    Choice,
    Flag,
    Key,
    List,
    Map,
    Number,
    Text,
    block,
    changes_of,
)
from devloop.config.problems import Fault, fault
from devloop.errors import Code, Location

NEWEST_VERSION: Final = 1

# The directory beside devloop.yaml with devloop's own files.
STATE_DIR = ".devloop"

_TEXT = Text(rules.ANY_TEXT)
_TEXTS = List(_TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """Where a service runs. `workload_kind` and `workload_name` are those of the first of
    `workloads`; with `workload_default` nobody named one. `manifests` are absolute patterns in the
    order of the file (see base.patterns), `kustomize` absolute directories; what all of them and
    the charts render is applied together. `timeout` is in seconds."""

    workload_kind: str = "deployment"
    workload_name: str
    workload_default: bool = False
    workloads: Annotated[
        tuple[str, ...],
        Key(
            List(Text(rules.WORKLOAD), least=1, single=True),
            "The workload that ports and the short status speak of, as KIND/NAME: a deployment, "
            "statefulset, daemonset, replicaset, pod, job or cronjob. Everything else in the "
            "manifests that runs the image is deployed and followed as well. Without manifests a "
            "list of several, which exist already: the image of each is patched.",
            name="workload",
            default="of what runs the image in the manifests: the one called like the service, or "
            "the first; without manifests deployment/<service>",
            read=lambda items, _: resolve.texts(items),
        ),
    ] = ()
    container: Annotated[
        str | None,
        Key(
            Text(rules.CONTAINER),
            "The container that runs the image.",
            default="the one whose image matches, or the only one",
        ),
    ] = None
    manifests: Annotated[
        tuple[str, ...],
        Key(
            _TEXTS,
            "Manifests to apply first, as files, directories or patterns (*, **) relative to "
            "devloop.yaml. Without any, the workload must exist already and only its image is "
            "patched.",
            read=lambda items, scope: tuple(map(scope.pattern, resolve.texts(items))),
        ),
    ] = ()
    kustomize: Annotated[
        tuple[Path, ...],
        Key(
            List(_TEXT, least=1, single=True),
            "The directory of a kustomization relative to devloop.yaml, or a list of several: what "
            "`kustomize build` (or `kubectl kustomize`) makes of it is applied first.",
            read=lambda items, scope: tuple(map(scope.path, resolve.texts(items))),
        ),
    ] = ()
    helm: Annotated[
        tuple[Chart, ...],
        Key(
            List(CHART, least=1, single=True),
            f"{CHART.about} Several charts are a list.",
        ),
    ] = ()
    timeout: Annotated[
        float,
        Key(
            Text(rules.DURATION, number=True),
            "How long a rollout may take: 120s, 2m, 500ms; a bare number counts seconds.",
            default="120s",
            read=lambda text, _: rules.seconds(text),
            change="rollout",
        ),
    ] = 120.0
    replace: Annotated[
        Literal["auto", "hot", "in-place", "rolling", "fast"],
        Key(
            Choice(("auto", "hot", "in-place", "rolling", "fast")),
            "How a change gets to the pods: `hot` writes the files into the running containers "
            "and starts their process anew, `in-place` restarts the containers with the new "
            "image, each where that is the same thing as the next; `rolling` makes new pods as "
            "the workload says, `fast` makes all of them at once and stops the old ones at once.",
            default="auto: hot in `devloop dev` on a local cluster, rolling everywhere else",
            change="rollout",
        ),
    ] = "auto"
    supervise: Annotated[
        bool,
        Key(
            Flag(),
            "Whether the image gets devloop's supervisor as process 1, in `devloop dev` on a local "
            "cluster with a registry: `hot` needs it.",
            default="true",
            change="build",
        ),
    ] = True
    stop_timeout: Annotated[
        float,
        Key(
            Text(rules.STOP_TIMEOUT, number=True),
            "How long the process has from SIGTERM to SIGKILL when devloop starts it anew.",
            default="1s",
            read=lambda text, _: rules.seconds(text),
            change="rollout",
        ),
    ] = 1.0
    recreate: Annotated[
        bool,
        Key(
            Flag(),
            "Whether an object that devloop created is deleted and made anew where a change of it "
            "is not possible otherwise, as of a selector. Volumes and namespaces never are.",
            default="false: the change is refused, with the command to delete it",
            change="rollout",
        ),
    ] = False
    on_failure: Annotated[
        Literal["rollback", "keep"] | None,
        Key(
            Choice(("rollback", "keep")),
            "What happens when a rollout fails: go back to the last good image, or stay.",
            default="keep in `devloop dev`, rollback in `devloop run`",
            change="rollout",
        ),
    ] = None

    @property
    def patch_only(self) -> bool:
        """Whether nothing renders the workload, so that it exists already."""
        return not (self.manifests or self.kustomize or self.helm)


_DEPLOY = block(Deploy, about="Where the service runs.", finish=resolve.finish_deploy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A local port that leads to a container's port, given by its number or its name.

    `address` is where it is open, "" for loopback. `target` is the object whose pods have the port,
    as KIND/NAME, "" for the service's own workload; of a Kubernetes Service the port is the
    Service's."""

    local: int
    container: int | str
    address: str = ""
    target: str = ""

    @property
    def shown(self) -> int | str:
        """The port with its object: 80, `http`, `service/db:5432`."""
        return f"{self.target}:{self.container}" if self.target else self.container


DebugKind = Literal["python", "node", "go"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Debug:
    """How an editor attaches to the service's process. `location` is where that is written."""

    port: Annotated[
        int,
        Key(
            Text(rules.DEBUG_PORT, number=True),
            "Where the debugger listens: this port of the container, on its loopback alone, and "
            "the same port of this computer.",
            default="5678 for python, 9229 for node, 2345 for go",
            read=lambda text, _: int(text),
        ),
    ]
    kind: Annotated[
        DebugKind,
        Key(
            Choice(("python", "node", "go")),
            "The debugger: debugpy, node's inspector, or Delve. debugpy and Delve (dlv) have to be "
            "in the image.",
            required=True,
        ),
    ]
    location: Location = field(default=Location(""), compare=False)


_DEBUG = block(
    Debug,
    about="How an editor attaches to the process, in `devloop dev` on a local cluster: it is "
    "started with a debugger, which listens again after each restart.",
    short="kind",
    finish=resolve.finish_debug,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRule:
    """Files to copy into running containers; `restart`: the process has to start anew."""

    src: Annotated[
        str,
        Key(
            Text(rules.SYNC_SOURCE),
            "A file, a directory (with all in it) or a pattern (*, ?, [a-z], and ** for any "
            "number of directories), relative to the build context.",
            required=True,
        ),
    ]
    dest: Annotated[
        str,
        Key(
            Text(rules.SYNC_DEST),
            "The directory in the container. What of a path comes after the part of `src` that "
            "has no wildcard is appended: templates/** and /app/templates bring "
            "templates/a/b.html to /app/templates/a/b.html.",
            required=True,
        ),
    ]
    restart: Annotated[
        bool,
        Key(
            Flag(),
            "Whether the process has to start anew when one of these files changed.",
            default="false",
        ),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """Which containers' logs to follow: names or fnmatch patterns."""

    containers: Annotated[
        tuple[str, ...],
        Key(
            List(_TEXT, least=1),
            "Containers by name or pattern (*, ?).",
            default='["*"]: all of them',
            read=lambda items, _: resolve.texts(items) or ("*",),
        ),
    ] = ("*",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service. `image` is the name without registry and tag (`shop/web`). `sync` is `auto` for
    rules taken from the Dockerfile. `line` is where the service stands in devloop.yaml."""

    name: str
    image: Annotated[
        str,
        Key(
            Text(rules.IMAGE),
            "The image's name without registry, tag and digest.",
            default="the service's name",
            change="build",
        ),
    ]
    build: Annotated[Build, Key(BUILD, BUILD.about, required=True, change="build")]
    needs: Annotated[
        tuple[str, ...],
        Key(
            List(Text(rules.LABEL)),
            "Services that are built, deployed and ready before this one is deployed. The image of "
            "one reaches the build as the argument NAME_IMAGE (upper case, _ for -) if the "
            "Dockerfile declares that, or by its name in FROM and COPY --from; another image of it "
            "is another build. A service that others need, without manifests and without a "
            "workload of its name in the cluster, is built only.",
            read=lambda items, _: tuple(dict.fromkeys(resolve.texts(items))),
            change="build",
        ),
    ] = ()
    test: Annotated[ImageTest, Key(TEST, TEST.about, change="build")] = field(
        default_factory=ImageTest
    )
    deploy: Annotated[Deploy, Key(_DEPLOY, _DEPLOY.about, change="deploy")]
    sync: Annotated[
        tuple[SyncRule, ...] | Literal["auto"],
        Key(
            List(block(SyncRule, "Files to copy."), word="auto"),
            "Files to copy into the running containers when they change, instead of a new "
            "image at once. `auto` takes the Dockerfile's COPY lines for rules.",
            default="none: every change becomes an image",
            change="sync",
        ),
    ] = ()
    ports: Annotated[
        tuple[Port, ...],
        Key(
            List(Text(rules.PORT, number=True)),
            "Ports to keep open for the whole session: PORT, or [ADDRESS:]LOCAL:PORT in quotes. "
            "PORT is a container's, by number or name, or that of another object: "
            "service/NAME:PORT. The address is 127.0.0.1 unless one is given.",
            change="ports",
            read=lambda items, _: tuple(
                Port(
                    local=local,
                    container=int(port) if port.isdigit() else port,
                    address=address,
                    target=target,
                )
                for address, local, target, port in map(resolve.port, resolve.texts(items))
            ),
        ),
    ] = ()
    debug: Annotated[
        Debug | None,
        Key(
            _DEBUG,
            f"{_DEBUG.about} A bare word is short for `kind`.",
            default="none",
            change="build",
            read=lambda values, scope: resolve.make(_DEBUG, values, scope) if values else None,
        ),
    ] = None
    logs: Annotated[
        Logs,
        Key(block(Logs, "Which logs to follow."), "Which logs to follow.", change="logs"),
    ] = field(default_factory=Logs)
    hooks: Annotated[HookCommands, Key(HOOKS, HOOKS.about, change="rollout")] = field(
        default_factory=HookCommands
    )
    line: int = 1


_SERVICE = block(
    Service,
    about="One image and the workload that runs it.",
    finish=resolve.finish_service,
    elsewhere={
        "dockerfile": "it belongs under `build`",
        "context": "it belongs under `build`",
        "manifests": "it belongs under `deploy`",
        "workload": "it belongs under `deploy`",
        "timeout": "it belongs under `deploy`",
        "namespace": "it belongs at the top: all services share one namespace",
        "registry": "it belongs at the top: all services share one registry",
    },
)


def _version_fault(version: int) -> Fault:
    message = f"version {version} of devloop.yaml is"
    if version < NEWEST_VERSION:
        hint = f"version: {NEWEST_VERSION}"
        return fault(f"{message} not one that this devloop reads", hint)
    message = f"{message} newer than the {NEWEST_VERSION} that this devloop reads"
    # What else looks wrong may be right in that version.
    return replace(fault(message, "update devloop"), alone=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A whole devloop.yaml. `root` is its directory, `file` the file itself, both absolute."""

    version: Annotated[
        int,
        Key(
            Number(
                least=1, most=NEWEST_VERSION, code=Code.CONFIG_VERSION, otherwise=_version_fault
            ),
            "The version of this file's format: 1.",
            required=True,
        ),
    ] = NEWEST_VERSION
    name: Annotated[
        str, Key(Text(rules.LABEL), "The project's name.", default="the directory's name")
    ]
    root: Path
    file: Path
    context: Annotated[
        str | None,
        Key(
            Text(rules.CONTEXT_PATTERN),
            "The Kubernetes context to use.",
            default="the kubeconfig's current one",
            files="user",
        ),
    ] = None
    namespace: Annotated[
        str | None,
        Key(
            Text(rules.LABEL),
            "The namespace of the workloads.",
            default="the context's",
            files="both",
        ),
    ] = None
    registry: Annotated[
        str | None,
        Key(
            Text(rules.REGISTRY),
            "Where images are pushed, as HOST[:PORT][/PATH].",
            default="the local registry that the cluster announces (KEP-1755), else the nodes of "
            "a local cluster",
            files="both",
        ),
    ] = None
    allow_contexts: Annotated[
        tuple[str, ...],
        Key(
            List(Text(rules.CONTEXT_PATTERN)),
            "Kubernetes contexts, by name, that devloop may change although not local.",
            files="both",
        ),
    ] = ()
    allow_namespaces: Annotated[
        tuple[str, ...],
        Key(
            List(Text(rules.LABEL)),
            "Namespaces of the cluster itself (kube-system) in which the manifests' Roles and "
            "RoleBindings may be applied. Nothing else ever is.",
            files="both",
        ),
    ] = ()
    env_file: Annotated[
        Path | None,
        Key(
            _TEXT,
            "A file of variables for ${NAME} in this file, relative to it, in the syntax of "
            "Docker Compose. The environment's own variables win.",
            read=lambda text, scope: scope.path(text),
            # What it changes are the keys that name its variables.
            change="nothing",
        ),
    ] = None
    services: Annotated[
        dict[str, Service],
        Key(
            Map(key=rules.LABEL, value=_SERVICE, noun="service", least=1, closed=True),
            "The services by name.",
            required=True,
        ),
    ]

    def only_built(self, service: str) -> bool:
        """Whether a service is there for the images of others: one of them needs it, and neither
        manifests nor a workload are named for it. Where the cluster has a workload of its name, its
        image is that one's all the same."""
        deploy = self.services[service].deploy
        needed = any(service in other.needs for other in self.services.values())
        return needed and deploy.workload_default and deploy.patch_only

    @property
    def state_dir(self) -> Path:
        """Where devloop keeps its own files for this project."""
        return self.root / STATE_DIR


# All keys of both files. What is not said to be taken over by a session that runs is not.
ALL = block(Project, "devloop.yaml", finish=resolve.finish_project)

_NO_CONTEXT = {
    "context": (
        "a project does not choose the cluster: use --context, DEVLOOP_CONTEXT or "
        "~/.config/devloop/config.yaml"
    )
}

# devloop.yaml once its profiles are merged.
MERGED = replace(
    ALL,
    keys={name: key for name, key in ALL.keys.items() if key.files != "user"},
    elsewhere=_NO_CONTEXT,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileCondition:
    """When a profile is active by itself; all that is given has to hold."""

    env: Annotated[
        str | None,
        Key(
            Text(rules.PROFILE_VARIABLE),
            "A variable of the environment, as NAME=PATTERN; NAME alone for one that is not empty.",
        ),
    ] = None
    context: Annotated[
        str | None,
        Key(Text(rules.CONTEXT_PATTERN), "The Kubernetes context, by name or pattern."),
    ] = None
    command: Annotated[
        tuple[str, ...],
        Key(
            List(Choice(("dev", "run", "build", "test", "render", "deploy")), least=1, single=True),
            "The command of devloop.",
        ),
    ] = ()


_CHANGES = changes_of(MERGED)
assert isinstance(_CHANGES, Block)  # noqa: S101 - as MERGED is
PROFILE = replace(
    _CHANGES,
    about="What a profile changes: any keys of the file but `version`, and when it is active.",
    keys={
        "activate": Key(
            List(block(ProfileCondition, "Conditions, all of which have to hold.")),
            "When the profile is active without being named; one of the items is enough. Patterns "
            "have *, ? and [a-z], and ! before them for all that does not match.",
            default="only with --profile or DEVLOOP_PROFILE",
            change="nothing",
        ),
        **{name: key for name, key in _CHANGES.keys.items() if name != "version"},
    },
)

PROJECT = replace(
    MERGED,
    keys={
        **MERGED.keys,
        "profiles": Key(
            Map(key=rules.LABEL, value=PROFILE, noun="profile"),
            "Changes to this file by name, merged over it with --profile NAME, DEVLOOP_PROFILE or "
            "by themselves: mappings key by key, everything else as a whole; a key without a "
            "value is taken away.",
        ),
    },
)
USER = replace(
    ALL,
    about="~/.config/devloop/config.yaml",
    keys={name: key for name, key in ALL.keys.items() if key.files != "project"},
)
