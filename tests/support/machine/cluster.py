"""The clusters of the demo and of the tests, made and mended by devloop's own command."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import bases, cache, console, images, node, shell, venv

if TYPE_CHECKING:
    from pathlib import Path

CREATE_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A kind cluster with its registry; `kubeconfig` None means the user's own."""

    name: str
    port: int
    kubeconfig: Path | None

    @property
    def context(self) -> str:
        """Return the name of the kubeconfig context."""
        return f"kind-{self.name}"

    @property
    def registry(self) -> str:
        """Return the registry as those who push name it."""
        return f"localhost:{self.port}"


def for_tests() -> Cluster:
    """Return the cluster that the tests use; it has a kubeconfig of its own."""
    return Cluster(name="devloop-test", port=5005, kubeconfig=cache.home() / "kubeconfig")


def for_demo() -> Cluster:
    """Return the cluster of the demo: the one that `devloop cluster up` makes by default."""
    return Cluster(name="devloop", port=5001, kubeconfig=None)


def node_image() -> str:
    """Return the node image to use; empty where kind can pull its own."""
    image = node.image()
    made = images.current(image) or (cache.home() / image.archive).exists()
    return images.ensure(image) if made or not images.can_pull() else ""


def ensure(cluster: Cluster, image: str) -> None:
    """Have the cluster run, made from this node image; one that cannot be mended is made anew."""
    registry = images.ensure(bases.registry())
    argv = [str(venv.BIN / "devloop"), "cluster", "up", "--name", cluster.name]
    argv += ["--registry-image", registry, "--registry-port", str(cluster.port)]
    argv += ["--node-image", image] if image else []
    anew = ["--recreate", "--yes"]
    if outdated(cluster, image):
        console.say(f"    cluster {cluster.name} is made of an older node image: made anew")
        argv += anew
    try:
        up(cluster, argv)
    except shell.MachineError:
        if anew[0] in argv:
            raise
        console.say(f"    cluster {cluster.name} cannot be mended: made anew")
        up(cluster, [*argv, *anew])


def up(cluster: Cluster, argv: list[str]) -> None:
    """Run `devloop cluster up`, its progress shown as ours."""
    env = dict(os.environ)
    if cluster.kubeconfig is not None:
        env["KUBECONFIG"] = str(cluster.kubeconfig)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            env=env,
            timeout=CREATE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise shell.MachineError(f"cluster {cluster.name}: not up in {CREATE_SECONDS} s") from error
    if done.returncode != 0:
        raise shell.MachineError(f"cluster {cluster.name} did not come up (see above)")


def outdated(cluster: Cluster, image: str) -> bool:
    """Tell whether the cluster's node was made from another image than the one given."""
    container = f"{cluster.name}-control-plane"
    if not image or not shell.succeeds(["docker", "container", "inspect", container]):
        return False
    label = ["-f", f'{{{{index .Config.Labels "{images.LABEL}"}}}}']
    used = shell.output(["docker", "container", "inspect", *label, container])
    return used != shell.output(["docker", "image", "inspect", *label, image])
