"""Gets images into a local cluster's nodes where there is no registry.

The slow way out: every load sends the whole image to every node. It drives the program that made
the cluster, which knows the nodes and their containerd; devloop must not reach into nodes by its
own means. Where the cluster runs the images of the very Docker that builds them, nothing is to be
done.
"""

from __future__ import annotations

import re
import shutil
from collections import deque
from typing import TYPE_CHECKING

from devloop.base import process
from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError
from devloop.model import NodeImages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.base.cancel import Cancel


_LIMIT = 900.0  # seconds; gigabytes for several nodes on a slow disk take minutes


@dataclass(frozen=True, slots=True)
class _Tool:
    """What is called to load IMAGE into the nodes of CLUSTER, where the program comes from, how it
    says that there is no such cluster, and what lists those that there are."""

    argv: tuple[str, ...]
    homepage: str
    lists: str
    absent: str


# Sources: `--help` of each, https://kind.sigs.k8s.io/docs/user/quick-start/#loading-an-image-into-your-cluster,
# https://k3d.io/stable/usage/importing_images/, https://minikube.sigs.k8s.io/docs/handbook/pushing/,
# https://microk8s.io/docs/registry-images.
_TOOLS = {
    "kind": _Tool(
        ("kind", "load", "docker-image", "IMAGE", "--name", "CLUSTER"),
        "https://kind.sigs.k8s.io",
        "kind get clusters",
        "no nodes found for cluster",
    ),
    "k3d": _Tool(
        # `direct` writes no file and starts no container in between.
        ("k3d", "image", "import", "IMAGE", "--cluster", "CLUSTER", "--mode", "direct"),
        "https://k3d.io",
        "k3d cluster list",
        "no nodes found for given cluster",
    ),
    "minikube": _Tool(
        # From this Docker: else it may be looked for on the net.
        ("minikube", "image", "load", "IMAGE", "--daemon=true", "--profile", "CLUSTER"),
        "https://minikube.sigs.k8s.io",
        "minikube profile list",
        'Profile "',
    ),
    "microk8s": _Tool(
        ("sh", "-c", 'docker save "$1" | microk8s ctr image import -', "devloop", "IMAGE"),
        "https://microk8s.io",
        "microk8s status",
        "microk8s is not running",
    ),
}
# k3d says that an import failed and exits with 0.
_SAID_ERROR = re.compile(r"\berro(?:r|\[)|^X ", re.IGNORECASE)
_K3D_FAILED = re.compile(r"\bERRO\[")
# What kind shows of a node that does not run: its own command, and Docker's answer to that.
_NODE_STOPPED = re.compile(r'command "docker exec (?:-\S+ )*(\S+) .*?is not running', re.DOTALL)

# --- which nodes a context leads to --------------------------------------------------------------

# The contexts of clusters that run the images of the Docker beside them, by their names.
_SHARES_DOCKER = re.compile(
    r"docker-desktop|docker-for-desktop|rancher-desktop|orbstack|colima(-[\w.-]+)?"
)
_SHARES_BY_TOOL = frozenset({"Docker Desktop", "Rancher Desktop", "OrbStack", "Colima"})


def node_images(
    context: str, made_by: Callable[[], tuple[str, str]], env: Mapping[str, str]
) -> NodeImages | None:
    """How images get into the nodes of the cluster of `context`, None where nobody knows.

    `made_by` gives the tool that made the nodes, as `cluster.api.local_nodes` calls it, and the
    cluster's name for it; it is asked where the context's name tells nothing. `env` is the
    process's: `minikube docker-env` has Docker's commands go to minikube's own Docker."""
    found = _by_name(context)
    if found is None:
        tool, cluster = made_by()
        if tool in _SHARES_BY_TOOL:
            found = NodeImages("docker", context)
        elif tool and cluster:
            found = NodeImages(tool.lower(), cluster)
    if found is None or (found.tool != "docker" and found.tool not in _TOOLS):
        return None
    if found.tool == "minikube" and env.get("MINIKUBE_ACTIVE_DOCKERD") == found.cluster:
        return NodeImages("docker", context)
    return found


def _by_name(context: str) -> NodeImages | None:
    for prefix, tool in (("kind-", "kind"), ("k3d-", "k3d")):
        if context.startswith(prefix):
            return NodeImages(tool, context.removeprefix(prefix))
    if context in ("minikube", "microk8s"):
        return NodeImages(context, context)
    return NodeImages("docker", context) if _SHARES_DOCKER.fullmatch(context) else None


# --- loading -------------------------------------------------------------------------------------


def missing_tool(nodes: NodeImages) -> DevloopError | None:
    """env/tool-missing where the program that loads images is not on PATH."""
    if nodes.tool == "docker" or shutil.which(nodes.tool) is not None:
        return None
    return _not_there(nodes, "it is not on PATH")


def _not_there(nodes: NodeImages, reason: str) -> DevloopError:
    return DevloopError.of(
        Code.ENV_TOOL_MISSING,
        f"{nodes.tool} is not installed or cannot be run",
        cause=f"{nodes.cluster} has no registry, so images are loaded with it: {reason}",
        suggestions=(
            f"install {nodes.tool}: {_TOOLS[nodes.tool].homepage}",
            "or give the cluster a registry, which is faster: registry: in devloop.yaml names it",
        ),
    )


class NodeImageLoader:
    """Copies images from the local Docker into the nodes of one cluster; `limit` in seconds."""

    def __init__(self, nodes: NodeImages, *, limit: float = _LIMIT) -> None:
        self._nodes = nodes
        self._limit = limit

    def load(self, image: str, cancel: Cancel, progress: Callable[[str], None]) -> None:
        """Returns when every node has `image` (a name with a tag, in the local Docker).

        Raises env/tool-missing, env/disk-full, cluster/not-found, registry/push-failed and
        Cancelled."""
        cancel.check()
        nodes = self._nodes
        if nodes.tool == "docker":
            return
        if (lacking := missing_tool(nodes)) is not None:
            raise lacking
        progress(f"loading {image} into the nodes of {nodes.cluster}")
        words = {"IMAGE": image, "CLUSTER": nodes.cluster}
        argv = [words.get(word, word) for word in _TOOLS[nodes.tool].argv]
        lines: deque[str] = deque(maxlen=50)
        try:
            status = process.run(argv, cancel=cancel, on_line=lines.append, limit=self._limit)
        except process.CannotRun as error:
            raise _not_there(nodes, error.reason) from error
        except process.Overran:
            lines.append(f"error: {nodes.tool} did not end within {self._limit:.0f} s")
            status = -1
        if nodes.tool == "k3d" and any(map(_K3D_FAILED.search, lines)):
            status = status or 1
        if status != 0:
            raise _failed(image, nodes, lines)


def _failed(image: str, nodes: NodeImages, lines: deque[str]) -> DevloopError:
    output = [line.strip() for line in lines if line.strip()]
    text = "\n".join(output)
    errors = [line for line in output if _SAID_ERROR.search(line)]
    cause = (errors or output or ["it gave no reason"])[-1][:240]
    tool = _TOOLS[nodes.tool]
    if "no space left on device" in text:
        code, hint = Code.ENV_DISK_FULL, "see what takes the space: docker system df"
        message = f"the nodes of {nodes.cluster} have no space left"
    elif tool.absent in text:
        code, hint = Code.CLUSTER_NOT_FOUND, f"list the clusters: {tool.lists}"
        message = f"there is no {nodes.tool} cluster {nodes.cluster} that runs"
    elif (stopped := _NODE_STOPPED.search(text)) is not None:
        code, hint = Code.REGISTRY_PUSH_FAILED, f"start it: docker start {stopped[1]}"
        message = f"node {stopped[1]} of {nodes.cluster} does not run"
    else:
        message = f"{image} could not be loaded into the nodes of {nodes.cluster}"
        detail = tuple(output[-20:])
        return DevloopError.of(Code.REGISTRY_PUSH_FAILED, message, cause=cause, detail=detail)
    return DevloopError.of(code, message, cause=cause, suggestions=(hint,))
