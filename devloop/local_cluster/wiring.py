"""What the wiring of a local cluster and its registry looks like, as text: no I/O.

Sources: kind's local registry guide (https://kind.sigs.k8s.io/docs/user/local-registry/) for the
containerd side, KEP-1755 for the ConfigMap that announces the registry to tools.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from devloop.model import CREATED_BY

if TYPE_CHECKING:
    from collections.abc import Mapping


_HELP = "https://kind.sigs.k8s.io/docs/user/local-registry/"

CERTS_DIR = "/etc/containerd/certs.d"

# Node images of kind 0.27 and later read certs.d by themselves and ignore the old plugin name.
KIND_CONFIG = f"""\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
containerdConfigPatches:
- |-
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{CERTS_DIR}"
"""


def certs_dir(port: int) -> str:
    """Where a node's containerd looks up how to reach `localhost:PORT`."""
    return f"{CERTS_DIR}/localhost:{port}"


def hosts_toml(registry: str) -> str:
    """Leads pulls of `localhost:PORT/...` to the registry's container.

    `server` names it too, or containerd would try the node's own loopback after a failure and
    report that one (https://github.com/containerd/containerd/blob/main/docs/hosts.md)."""
    return f'server = "http://{registry}:5000"\n\n[host."http://{registry}:5000"]\n'


def config_map(registry: str, port: int) -> dict[str, Any]:
    """The object that KEP-1755 describes.

    `hostFromContainerRuntime` stays out: it is the name to write into pods and defaults to `host`,
    which the nodes' mirror makes right. `hostFromClusterNetwork` is for pods that push: they
    resolve the container's name through the node's DNS."""
    hosting = {
        "host": f"localhost:{port}",
        "hostFromClusterNetwork": f"{registry}:5000",
        "help": _HELP,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "local-registry-hosting",
            "namespace": "kube-public",
            "annotations": {CREATED_BY: "devloop"},
        },
        # JSON is YAML; this keeps quoting out of the question.
        "data": {"localRegistryHosting.v1": json.dumps(hosting, indent=2) + "\n"},
    }


def hosted_at(config: Mapping[str, Any]) -> str:
    """The `host` of a `local-registry-hosting` ConfigMap; empty when it has none."""
    try:
        hosting = yaml.safe_load(str((config.get("data") or {}).get("localRegistryHosting.v1", "")))
    except yaml.YAMLError:
        return ""
    host = hosting.get("host") if isinstance(hosting, dict) else None
    return host if isinstance(host, str) else ""


def local_port(host: str) -> int:
    """The port of a registry's host:port on this machine; 0 for any other host."""
    found = re.fullmatch(r"(?:localhost|127\.0\.0\.1|\[::1\]):(\d+)", host)
    return int(found[1]) if found else 0


def is_ours(config: Mapping[str, Any]) -> bool:
    """Whether devloop wrote this object."""
    annotations = (config.get("metadata") or {}).get("annotations") or {}
    return CREATED_BY in annotations
