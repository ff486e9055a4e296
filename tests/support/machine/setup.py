"""Everything a machine needs for the demo or the tests, in order, and what was found."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from . import bases, cache, cluster, docker_image, engine, flux, images, shell, tools, venv, vscode

if TYPE_CHECKING:
    from .cluster import Cluster

PYTHON = (3, 11)


def ensure(wanted: Cluster) -> dict[str, str]:
    """Have everything there and return the environment variables that tell where.

    Raises:
        MachineError: something cannot be had here; the message says what to do.
    """
    if os.environ.get("DOCKER_HOST", "").startswith("tcp:"):
        raise shell.MachineError("DOCKER_HOST names another machine: the demo needs a local Docker")
    os.environ["PATH"] = venv.path()
    with cache.lock():
        venv.ensure()
        engine.ensure()
        base = images.ensure(bases.python_base())
        busybox = images.ensure(bases.busybox_base())
        registry = images.ensure(bases.registry())
        node = cluster.node_image()
        docker = controllers = ""
        tools.ensure_busybox(busybox)
        tools.ensure_kind()
        tools.ensure_kubectl(made_node=bool(node))
        if wanted.kubeconfig is not None:  # the tests' own; the demo needs none
            tools.ensure_renderers()
            tools.ensure_shells_and_editors()
            tools.ensure_buildkitd()
            docker = images.ensure(docker_image.image())
            controllers = flux.ensure()
            vscode.ensure()
        cluster.ensure(wanted, node)
    found = {
        "PATH": os.environ["PATH"],
        "DEVLOOP_TEST_CONTEXT": wanted.context,
        "DEVLOOP_TEST_NODE_IMAGE": node,
        "DEVLOOP_TEST_REGISTRY_IMAGE": registry,
        "DEVLOOP_TEST_REGISTRY": wanted.registry,
        "DEVLOOP_TEST_BASE_IMAGE": base,
    }
    if wanted.kubeconfig is not None:
        found["DEVLOOP_TEST_DOCKER_IMAGE"] = docker
        found["DEVLOOP_TEST_FLUX"] = controllers
        found["KUBECONFIG"] = found["DEVLOOP_TEST_KUBECONFIG"] = str(wanted.kubeconfig)
    return found


def exports(found: dict[str, str]) -> str:
    """Return shell commands that set these variables."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in found.items())
