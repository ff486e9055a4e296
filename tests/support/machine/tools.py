"""kind, kubectl and go-made helpers on PATH, with the least that brings them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from . import cache, console, debian, gobuild, node, shell

if TYPE_CHECKING:
    from pathlib import Path

KIND_MODULE = "sigs.k8s.io/kind"
KIND_VERSION = "v0.33.0"
KUSTOMIZE = ("sigs.k8s.io/kustomize/kustomize/v5", "v5.7.1")
BUILDKIT = ("github.com/moby/buildkit", "v0.26.3")
HELM = ("helm.sh/helm/v3/cmd/helm", "v3.18.6")


def ensure_kind() -> None:
    """Have `kind`: on PATH, from Homebrew, or built by Go."""
    if shell.succeeds(["kind", "version"]):
        return
    if gobuild.find_go() is None and brew("kind"):
        return
    if gobuild.find_go() is None and not debian.usable():
        raise shell.MachineError("kind is missing: install it (https://kind.sigs.k8s.io) or Go")
    cache.link(gobuild.install(KIND_MODULE, KIND_VERSION, estimate="20 s to 1 min"), "kind")


def ensure_kubectl(*, made_node: bool) -> None:
    """Have `kubectl`: on PATH, from Homebrew, or the one that is part of the node we made."""
    if shell.succeeds(["kubectl", "version", "--client"]):
        return
    if made_node:
        cache.link(node.knode(), "kubectl")
    elif not brew("kubernetes-cli"):
        raise shell.MachineError(
            "kubectl is missing: install it (https://kubernetes.io/docs/tasks/tools)"
        )


def ensure_renderers() -> None:
    """Have `kustomize` and `helm` 3: on PATH, from Homebrew, or built by Go."""
    for name, (module, release), estimate in (
        ("kustomize", KUSTOMIZE, "1 min"),
        ("helm", HELM, "2 to 4 min"),
    ):
        if shell.succeeds([name, "version"]) or (gobuild.find_go() is None and brew(name)):
            continue
        cache.link(gobuild.install(module, release, estimate=estimate), name)


def ensure_buildkitd() -> None:
    """Have `buildkitd` and `buildctl` on PATH, on Linux where Go is: without them, their tests are
    skipped."""
    tags = "-tags=osusergo,netgo"
    for name, estimate in (("buildkitd", "2 to 4 min"), ("buildctl", "1 min")):
        if sys.platform != "linux" or shell.succeeds([name, "--version"]):
            continue
        program = gobuild.from_module(*BUILDKIT, f"./cmd/{name}", tags, estimate=estimate)
        cache.link(program, name)


def ensure_busybox(image: str) -> None:
    """Have `busybox`, whose shell many images have, on PATH, from `image`. Where that does not run
    (macOS, another libc) it is left out: the tests that want it are skipped."""
    if sys.platform != "linux" or shell.succeeds(["busybox", "true"]):
        return

    def copy(place: Path) -> None:
        container = shell.output(["docker", "create", image, "true"], timeout=60).strip()
        try:
            shell.run(["docker", "cp", "-L", f"{container}:/bin/busybox", place], timeout=60)
        finally:
            shell.succeeds(["docker", "rm", container])

    program = cache.made(f"programs/busybox-{cache.key(image)}", copy)
    if shell.succeeds([program, "true"]):
        cache.link(program, "busybox")


def ensure_shells_and_editors() -> None:
    """Have the shells that devloop completes lines for, and the editors whose lists of problems it
    fills, where they can be had: the tests that want another are skipped."""
    if debian.usable():
        debian.install({"zsh": "zsh", "fish": "fish", "nvim": "neovim", "vim": "vim"})


def brew(formula: str) -> bool:
    """Install a formula with Homebrew; False if there is no Homebrew or it failed."""
    if shell.find("brew") is None:
        return False
    with console.step(f"brew install {formula}", "1 min"):
        return shell.succeeds(["brew", "install", "-q", formula], timeout=900)
