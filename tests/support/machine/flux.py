"""Flux's own source-controller and kustomize-controller, built from their Go modules.

What a cluster needs of them is one directory in the cache: an archive with an image of both
programs, for a node to load, and the definitions of the kinds that they serve.
"""

from __future__ import annotations

import inspect
import os
import shutil
import sys
from typing import TYPE_CHECKING

from . import cache, console, debian, gobuild, ociarchive, shell

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = "v1.7.3"
OLDEST_GO = (1, 25)
CONTROLLERS = ("source-controller", "kustomize-controller")
MODULE = "github.com/fluxcd"
# An older one of the same packages that grpc itself has by now: Go takes neither then.
EXCLUDED = "google.golang.org/grpc/stats/opentelemetry@v0.0.0-20240907200651-3ffb98b2c93a"
ARCHIVE, DEFINITIONS, IMAGE = "image.tar", "definitions.yaml", "image"


def ensure() -> str:
    """Return the directory; "" where it cannot be made: its tests are skipped then."""
    go = gobuild.find_go()
    if sys.platform != "linux" or go is None or not shell.find("zstd"):
        return ""
    if gobuild.parse_version(shell.output([go, "version"])) < OLDEST_GO:
        return ""
    code = inspect.getsource(sys.modules[__name__]) + inspect.getsource(ociarchive)
    made_from = cache.key(code, *gobuild.FLAGS, os.uname().machine)

    def make(place: Path) -> None:
        with console.step(f"building Flux's controllers {RELEASE} with Go", "6 to 10 min"):
            programs = build(place.with_suffix(".source"))
        with console.step("packing Flux's controllers", "10 s"):
            place.mkdir()
            pack(programs, place, f"devloop.test/flux:{made_from}")

    directory = cache.made(f"flux-{made_from}", make)
    cache.forget("flux-*")
    return str(directory)


def build(workspace: Path) -> Path:
    """Return the directory of both modules, each with its program. They are built as one workspace:
    of the packages that both have, each is compiled once."""
    command, env = gobuild.go()
    workspace.mkdir()
    for name in CONTROLLERS:
        module, source = f"{MODULE}/{name}", workspace / name
        shutil.copytree(gobuild.downloaded(module, RELEASE), source)
        shell.run(["chmod", "-R", "u+w", source], timeout=60)
        # Its archive lacks the module in the subdirectory `api`, which has releases of its own.
        edit = [command, "mod", "edit", f"-dropreplace={module}/api", f"-exclude={EXCLUDED}"]
        shell.run(edit, timeout=60, cwd=source, env=env)
        get = [command, "get", f"{module}/api@{RELEASE}"]
        shell.run(get, timeout=600, cwd=source, env=env)
    places = [f"./{name}" for name in CONTROLLERS]
    shell.run([command, "work", "init", *places], timeout=60, cwd=workspace, env=env)
    argv = [command, "build", *gobuild.FLAGS, "-ldflags=-s -w", "-o", "bin/", *places]
    shell.run(argv, timeout=3000, cwd=workspace, env=env)
    return workspace


def pack(workspace: Path, place: Path, image: str) -> None:
    """Write the directory's files."""
    layer = ociarchive.Layer()
    for name in CONTROLLERS:
        layer.file(name, workspace / "bin" / name)
    programs = ociarchive.ArchivedImage(layer=layer, entrypoint=f"/{CONTROLLERS[0]}", names=[image])
    ociarchive.write([programs], architecture=debian.architecture(), out=place / ARCHIVE)
    found = [
        file
        for name in CONTROLLERS
        for file in sorted((workspace / name / "config/crd/bases").iterdir())
    ]
    (place / DEFINITIONS).write_text("---\n".join(file.read_text() for file in found))
    (place / IMAGE).write_text(image)
