"""Go programs, built once and kept: a cold build of Kubernetes takes ten minutes."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from . import cache, console, debian, shell

OLDEST_GO = (1, 24)
SUITE = "trixie"
PACKAGES = ("golang-1.24-go", "golang-1.24-src")
# No debug information at all: it is a tenth of the compiler's work.
FLAGS = ("-trimpath", "-gcflags=all=-dwarf=false")
SETTINGS = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}


def parse_version(text: str) -> tuple[int, int]:
    """Return (1, 26) for `go version go1.26.8 linux/amd64`; (0, 0) for anything else."""
    match = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def find_go() -> str | None:
    """Return a Go that is new enough, on PATH or where its archive is usually unpacked."""
    for place in (shell.find("go"), "/usr/local/go/bin/go", "/usr/lib/go-1.24/bin/go"):
        if place and parse_version(shell.output([place, "version"])) >= OLDEST_GO:
            return place
    return None


def go() -> tuple[str, dict[str, str]]:
    """Return a Go command and its environment, brought from Debian if there is none here."""
    if debian.usable():
        debian.install({"update-ca-certificates": "ca-certificates"})
    if found := find_go():
        return found, dict(SETTINGS)
    if not debian.usable():
        raise shell.MachineError("Go 1.24 or newer is needed: install it (https://go.dev/dl)")

    def make(tree: Path) -> None:
        with console.step("Go from Debian packages", "20 s"):
            debs = debian.Archive(suite=SUITE).fetch(
                PACKAGES, tree.with_suffix(".debs"), dependencies=False
            )
            for deb in debs:
                shell.run(["dpkg-deb", "-x", deb, tree], timeout=300)

    root = cache.made(f"go-{cache.key(SUITE, *PACKAGES)}", make) / "usr/lib/go-1.24"
    return str(root / "bin/go"), {**SETTINGS, "GOROOT": str(root)}


def build(source: Path, *flags: str, ldflags: str = "", estimate: str) -> Path:
    """Return the program built from the module in the directory `source`."""
    name = source.name

    def make(program: Path) -> None:
        command, env = go()
        link = f"-ldflags=-s -w {ldflags}"
        with console.step(f"building {name} with Go", estimate):
            argv = [command, "build", *FLAGS, *flags, link, "-o", str(program), "."]
            shell.run(argv, timeout=3000, cwd=source, env=env)

    made_from = cache.key(source, *FLAGS, *flags, ldflags, os.uname().machine)
    program = cache.made(f"go-programs/{name}-{made_from}", make)
    cache.forget(f"go-programs/{name}-*")
    return program


def install(module: str, release: str, *, estimate: str) -> Path:
    """Return the program that `go install MODULE@RELEASE` makes."""
    *_, above, last = module.split("/")
    # A major version is no name.
    name = above if re.fullmatch(r"v\d+", last) else last

    def make(program: Path) -> None:
        command, env = go()
        with console.step(f"building {name} {release} with Go", estimate):
            argv = [command, "install", *FLAGS, "-ldflags=-s -w", f"{module}@{release}"]
            shell.run(argv, timeout=3000, env={**env, "GOBIN": str(program.parent)})

    return cache.made(f"go-programs/{cache.key(release, os.uname().machine)}/{name}", make)


def from_module(module: str, release: str, package: str, *flags: str, estimate: str) -> Path:
    """Return the program PACKAGE of a module that `go install` refuses, as its go.mod has
    directives of its own."""
    name = package.rsplit("/", 1)[-1]

    def make(program: Path) -> None:
        command, env = go()
        with console.step(f"building {name} {release} with Go", estimate):
            source = program.parent / "source"
            shutil.copytree(downloaded(module, release), source)
            shell.run(["chmod", "-R", "u+w", source], timeout=60)
            argv = [command, "build", "-mod=mod", *FLAGS, *flags, "-ldflags=-s -w"]
            argv += ["-o", str(program), package]
            shell.run(argv, timeout=3000, cwd=source, env=env)

    made_from = cache.key(module, release, package, *flags, os.uname().machine)
    program = cache.made(f"go-programs/{name}-{made_from}", make)
    cache.forget(f"go-programs/{name}-*")
    return program


def downloaded(module: str, release: str) -> Path:
    """Return the directory of a module's files, which is not to be written in."""
    command, env = go()
    argv = [command, "mod", "download", "-json", f"{module}@{release}"]
    return Path(json.loads(shell.run(argv, timeout=600, env=env))["Dir"])
