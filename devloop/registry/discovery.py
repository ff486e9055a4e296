"""Where images go: the config, what the cluster says of itself (KEP-1755), its nodes' own images.

Pure decisions; the caller reads the cluster. `check` alone asks the registry whether it is there.

Source: https://github.com/kubernetes/enhancements/tree/master/keps/sig-cluster-lifecycle/generic/1755-communicating-a-local-registry
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal

import yaml

from devloop.base.image_reference import REGISTRY
from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError
from devloop.model import PushTarget
from devloop.registry.node_images import missing_tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.model import NodeImages
    from devloop.registry.client import RegistryClient


# The fields of version 1, and what `Hosting` calls them.
_FIELDS = {
    "host": "host",
    "hostFromContainerRuntime": "host_from_container_runtime",
    "hostFromClusterNetwork": "host_from_cluster_network",
    "help": "help",
}
_LONGEST = 64 * 1024

_REGISTRY = re.compile(REGISTRY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosting:
    """Version 1 of a cluster's own description of its registry; hosts are `host[:port]`."""

    host: str = ""
    host_from_container_runtime: str = ""
    host_from_cluster_network: str = ""
    help: str = ""


def parse_hosting(text: str) -> Hosting:
    """Read the ConfigMap's value strictly.

    Raises registry/discovery: devloop would push to a place that the cluster does not pull from
    if it guessed."""
    if len(text) > _LONGEST:
        raise _unreadable(f" is longer than {_LONGEST} characters")
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise _unreadable(f" is not YAML: {error}") from error
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise _unreadable(" is not a mapping")
    for key, value in data.items():
        if key not in _FIELDS:
            near = difflib.get_close_matches(str(key), _FIELDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise _unreadable(f" has no field {str(key)!r}{hint}")
        if not isinstance(value, str):
            raise _unreadable(f": {key} is not a string")
        if key != "help" and value and not _REGISTRY.fullmatch(value):
            raise _unreadable(f": {key} {value!r} is not host:port")
    return Hosting(**{_FIELDS[key]: value for key, value in data.items()})


def _unreadable(wrong: str) -> DevloopError:
    return DevloopError.of(
        Code.REGISTRY_DISCOVERY,
        "ConfigMap kube-public/local-registry-hosting cannot be read as a description of the "
        "registry (KEP-1755)",
        cause=" ".join(f"localRegistryHosting.v1{wrong}".split()),
        suggestions=(
            "devloop cluster up writes it for a local cluster",
            "or name the registry: registry: localhost:5001 in devloop.yaml",
        ),
    )


def discover(
    *, config: str | None, hosting: str | None, nodes: Callable[[], NodeImages | None]
) -> PushTarget:
    """The first that applies: config, the cluster's ConfigMap, its nodes' own images.

    `config` is a registry's name that the configuration's rules let through, `hosting` the value of
    the ConfigMap's key, None when there is no such ConfigMap; `nodes`, asked last, tells how images
    get into the nodes that the context leads to. A registry that is named but is also the one that
    the cluster describes keeps the cluster's other names for it. Raises registry/discovery and
    registry/unreachable (nowhere to push)."""
    described = Hosting()
    try:
        described = parse_hosting(hosting) if hosting is not None else described
    except DevloopError:
        # A description that is not asked for may be broken without harm.
        if not config:
            raise
    if config:
        return _described(config, described, "config")
    if described.host:
        return _described(described.host, described, "cluster")
    if (found := nodes()) is not None:
        return PushTarget(nodes=found, source="nodes")
    raise DevloopError.of(
        Code.REGISTRY_UNREACHABLE,
        "there is no registry to push to",
        cause="devloop.yaml names none, the cluster describes none (KEP-1755) and is of no kind "
        "whose nodes images are loaded into",
        suggestions=(
            "devloop cluster up starts a local cluster with a registry",
            "or name one that the nodes can pull from: registry: localhost:5001 in devloop.yaml",
            *((f"the cluster says: {described.help}",) if described.help else ()),
        ),
    )


def _described(push: str, hosting: Hosting, source: Literal["config", "cluster"]) -> PushTarget:
    host, slash, path = push.partition("/")
    pull = cluster = ""
    if host == hosting.host.partition("/")[0] != "":
        pull = hosting.host_from_container_runtime
        cluster = hosting.host_from_cluster_network
    same_path = f"{slash}{path}" if source != "cluster" else ""
    return PushTarget(
        push=push,
        pull=f"{pull}{same_path}" if pull and pull != host else "",
        cluster=f"{cluster}{same_path}" if cluster and cluster != host else "",
        source=source,
    )


def check(target: PushTarget, client: RegistryClient | None, cancel: Cancel | None = None) -> None:
    """Raise unless images can be sent to `target`: registry/unreachable, registry/unauthorized, or
    env/tool-missing when a program that loads images would be needed. `client` is None for a target
    without registry."""
    if client is not None:
        client.ping(cancel)
    elif target.nodes and (lacking := missing_tool(target.nodes)) is not None:
        raise lacking
