"""Which files of a folder a proposal could be made from. Names only; nothing is read."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from devloop.base.editor_files import is_temporary
from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from pathlib import Path


# Others' code, and what tools make.
_SKIP = frozenset(
    {"node_modules", "vendor", "venv", "site-packages", "__pycache__", "third_party", "testdata"}
)
# What lies here is seldom what the project deploys.
_ASIDE = frozenset({"test", "tests", "e2e", "examples", "example", "docs", "ci", "samples"})
_DEEPEST = 5
MOST = 20_000
_DOCKERFILE = re.compile(
    r"(?:Dockerfile|Containerfile)(?:[.-](?P<after>.+))?|(?P<before>.+)[.](?:dockerfile|containerfile)",
    re.IGNORECASE,
)
# A Dockerfile for another purpose or processor, beside the one that counts.
_VARIANT = re.compile(
    r"(?:dev|develop|development|prod|production|release|debug|test|tests|testing|ci|local|base"
    r"|builder|build|alpine|debian|ubuntu|slim|distroless|windows|amd64|arm64|arm|x86_64|dapper"
    r"|bak|old|orig|example|template|tmpl|j2)(?:[.-].*)?",
    re.IGNORECASE,
)
COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_KUSTOMIZATIONS = frozenset({"kustomization.yaml", "kustomization.yml", "Kustomization"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerfilePath:
    """A Dockerfile: its path from the project's folder, and what its name says that it is for
    ("" for a plain `Dockerfile`)."""

    path: str
    purpose: str = ""

    @property
    def folder(self) -> str:
        """ "" for the project's own."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Paths relative to `root`, with slashes, sorted. `variants` are Dockerfiles that stand beside
    the one that counts; `yaml` may hold manifests. `complete` is False where the folder has more
    than is looked at."""

    root: Path
    dockerfiles: tuple[DockerfilePath, ...] = ()
    variants: tuple[str, ...] = ()
    compose: tuple[str, ...] = ()
    kustomizations: tuple[str, ...] = ()
    charts: tuple[str, ...] = ()
    skaffold: tuple[str, ...] = ()
    yaml: tuple[str, ...] = ()
    complete: bool = True


def look(root: Path) -> Found:
    """What is in `root` and a few levels below. Folders that cannot be read are left out, and so
    are those of other projects, with a devloop.yaml of their own."""
    files, complete = _files(root)
    charts = tuple(_folder(path) for path in files if path.rpartition("/")[2] == "Chart.yaml")
    plain = [path for path in files if not any(path.startswith(f"{chart}/") for chart in charts)]
    names = [(path, path.rpartition("/")[2]) for path in plain]
    dockerfiles, variants = _dockerfiles(plain)
    kustomizations = [path for path, name in names if name in _KUSTOMIZATIONS]
    skaffold = [path for path, name in names if re.fullmatch(r"skaffold\.ya?ml", name)]
    compose = [path for path, name in names if name in COMPOSE_NAMES]
    known = {*kustomizations, *skaffold, *compose}
    return Found(
        root=root,
        dockerfiles=dockerfiles,
        variants=variants,
        compose=tuple(compose),
        kustomizations=tuple(map(_folder, kustomizations)),
        charts=charts,
        skaffold=tuple(skaffold),
        yaml=tuple(
            path
            for path, name in names
            if name.endswith((".yaml", ".yml")) and path not in known and not is_temporary(name)
        ),
        complete=complete,
    )


def _files(root: Path) -> tuple[list[str], bool]:
    found: list[str] = []
    seen = 0
    for folder, below, names in os.walk(root):
        inside = "" if folder == str(root) else f"{os.path.relpath(folder, root)}/"
        if inside and "devloop.yaml" in names:
            below.clear()
            continue
        depth = inside.count("/")
        below[:] = sorted(
            name for name in below if name not in _SKIP and name[0] != "." and depth < _DEEPEST
        )
        if "pyvenv.cfg" in names:
            below.clear()
            continue
        found += (inside + name for name in sorted(names) if name[0] != ".")
        seen += len(names) + len(below)
        if seen > MOST:
            return found, False
    return found, True


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _dockerfiles(paths: list[str]) -> tuple[tuple[DockerfilePath, ...], tuple[str, ...]]:
    found = []
    for path in paths:
        match = _DOCKERFILE.fullmatch(path.rpartition("/")[2])
        if match and not path.endswith((".dockerignore", ".md", ".txt", ".sh", ".lock")):
            purpose = match["after"] or match["before"] or ""
            found.append(DockerfilePath(path=path, purpose=purpose))
    if central := [each for each in found if not _ASIDE.intersection(each.path.split("/")[:-1])]:
        found = central
    kept: list[DockerfilePath] = []
    for each in found:
        beside = [other for other in found if other.folder == each.folder]
        if not _VARIANT.fullmatch(each.purpose):
            kept.append(each)
        elif all(_VARIANT.fullmatch(other.purpose) for other in beside):
            # None of them is the plain one: the one for development, else the first.
            dev = [other for other in beside if other.purpose.lower().startswith("dev")]
            if each is (dev or beside)[0]:
                kept.append(DockerfilePath(path=each.path))
    paths_kept = {each.path for each in kept}
    return tuple(kept), tuple(each.path for each in found if each.path not in paths_kept)
