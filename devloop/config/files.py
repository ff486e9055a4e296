"""Whether the files that devloop.yaml names are there: contexts, Dockerfiles, manifests, secrets.

Apart from loading, since a running session goes on while a file is away for a moment.
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.patterns import FilePatterns, is_magic
from devloop.config.problems import Problems, nearest
from devloop.config.resolve import secret_fields
from devloop.errors import Code

if TYPE_CHECKING:
    from devloop.config.loader import LoadedProject
    from devloop.config.problems import Path as Where
    from devloop.config.schema import Service
    from devloop.errors import Diagnosis


# Directories in which nobody keeps the Dockerfile that was meant.
_SKIP = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".devloop"})
_MOST_SEEN = 5_000
_LIKE = re.compile(r"dockerfile|containerfile|dockerfile\..*|.*\.dockerfile", re.DOTALL)


def check_files(loaded: LoadedProject) -> tuple[Diagnosis, ...]:
    """What is missing, each at its key in devloop.yaml (or at the service's, for a default).

    Codes: config/context-missing, config/dockerfile-missing, config/manifest-missing,
    config/file-missing."""
    problems = Problems()
    for service in loaded.project.services.values():
        if _check_context(loaded, service, problems):
            _check_dockerfile(loaded, service, problems)
        _check_named_contexts(loaded, service, problems)
        _check_manifests(loaded, service, problems)
        _check_kustomizations(loaded, service, problems)
        _check_charts(loaded, service, problems)
        _check_secrets(loaded, service, problems)
    return problems.sorted()


def _check_context(loaded: LoadedProject, service: Service, problems: Problems) -> bool:
    where: Where = ("services", service.name, "build", "context")
    what = "the build context"
    return _check_directory(loaded, service.build.context, where, what, problems)


def _check_named_contexts(loaded: LoadedProject, service: Service, problems: Problems) -> None:
    where: Where = ("services", service.name, "build", "contexts")
    for name, directory in service.build.directories.items():
        what = f"the named context {name},"
        _check_directory(loaded, directory, (*where, name), what, problems)


def _check_directory(
    loaded: LoadedProject, context: Path, key: Where, what: str, problems: Problems
) -> bool:
    if context.is_dir():
        return True
    where = loaded.locate(*key)
    if context.exists():
        wrong = "is a file, not a directory"
        hint = f"name its directory: {loaded.show(context.parent)}"
    else:
        meant = _neighbour(context, directories=True)
        wrong, hint = "does not exist", f"did you mean {loaded.show(meant)}?" if meant else ""
    message = f"{what} {loaded.show(context)} {wrong}"
    problems.add(Code.CONFIG_CONTEXT_MISSING, message, where, hint)
    return False


def _check_dockerfile(loaded: LoadedProject, service: Service, problems: Problems) -> None:
    build = service.build
    if build.builder == "command" or build.dockerfile.is_file():
        return
    wrong = "is a directory, not a Dockerfile" if build.dockerfile.is_dir() else "does not exist"
    meant = _neighbour(build.dockerfile) or _dockerfile_below(build.context)
    hints: tuple[str, ...] = ()
    if meant is not None:
        relative = os.path.relpath(meant, build.context)
        hints = (f"did you mean `dockerfile: {relative}`?",)
        if meant.name == "Dockerfile" and meant.is_relative_to(loaded.project.root):
            directory = os.path.relpath(meant.parent, loaded.project.root)
            if meant.parent != build.context:
                hints = (f"did you mean `build: {directory}`?", f"or `dockerfile: {relative}`?")
    problems.add(
        Code.CONFIG_DOCKERFILE_MISSING,
        f"{loaded.show(build.dockerfile)} {wrong}",
        loaded.locate("services", service.name, "build", "dockerfile"),
        *hints,
        cause=f"service `{service.name}` is built from it",
    )


def _check_manifests(loaded: LoadedProject, service: Service, problems: Problems) -> None:
    for position, pattern in enumerate(service.deploy.manifests):
        patterns = FilePatterns([pattern])
        if patterns.files():
            continue
        where = loaded.locate("services", service.name, "deploy", "manifests", position)
        root = glob.escape(str(loaded.project.root))
        shown = pattern.removeprefix(f"{root}/")
        message = f"no file matches {shown}"
        hint = ""
        if Path(patterns.tops[0]).is_dir() and not is_magic(shown):
            message = f"{shown} holds no YAML or JSON file"
        elif not is_magic(shown) and (meant := _neighbour(Path(patterns.tops[0]))):
            hint = f"did you mean {os.path.relpath(meant, loaded.project.root)}?"
        problems.add(Code.CONFIG_MANIFEST_MISSING, message, where, hint)


def _check_kustomizations(loaded: LoadedProject, service: Service, problems: Problems) -> None:
    for position, directory in enumerate(service.deploy.kustomize):
        names = ("kustomization.yaml", "kustomization.yml", "Kustomization")
        if any((directory / name).is_file() for name in names):
            continue
        where = loaded.locate("services", service.name, "deploy", "kustomize", position)
        shown, hint = loaded.show(directory), ""
        if directory.is_dir():
            message = f"{shown} has no kustomization.yaml"
            found = [d for d in sorted(directory.rglob("kustomization.y*ml"))[:3] if d.is_file()]
            hint = ", ".join(loaded.show(d.parent) for d in found)
            hint = f"did you mean {hint}?" if hint else ""
        elif directory.exists():
            message = f"{shown} is a file; `kustomize` names the directory of a kustomization"
            hint = f"kustomize: {loaded.show(directory.parent)}"
        else:
            message = f"{shown} does not exist"
            if meant := _neighbour(directory, directories=True):
                hint = f"did you mean {loaded.show(meant)}?"
        problems.add(Code.CONFIG_MANIFEST_MISSING, message, where, hint)


def _check_charts(loaded: LoadedProject, service: Service, problems: Problems) -> None:
    for number, chart in enumerate(service.deploy.helm):
        at: Where = ("services", service.name, "deploy", "helm")
        if (*at, "chart") not in loaded.locations.keys:
            at = (*at, number)  # of a list
        written = chart.chart.startswith((".", "/", "~"))
        if written and not chart.repo and not chart.directory.exists():
            meant = _neighbour(chart.directory, directories=True)
            problems.add(
                Code.CONFIG_MANIFEST_MISSING,
                f"the chart {loaded.show(chart.directory)} does not exist",
                loaded.locate(*at, "chart"),
                f"did you mean {loaded.show(meant)}?" if meant else "",
            )
        elif chart.directory.is_dir() and not (chart.directory / "Chart.yaml").is_file():
            problems.add(
                Code.CONFIG_MANIFEST_MISSING,
                f"{loaded.show(chart.directory)} has no Chart.yaml",
                loaded.locate(*at, "chart"),
            )
        for position, path in enumerate(chart.values):
            if not path.is_file():
                meant = _neighbour(path)
                problems.add(
                    Code.CONFIG_FILE_MISSING,
                    f"the values file {loaded.show(path)} does not exist",
                    loaded.locate(*at, "values", position),
                    f"did you mean {loaded.show(meant)}?" if meant else "",
                )


def _check_secrets(loaded: LoadedProject, service: Service, problems: Problems) -> None:
    for position, secret in enumerate(service.build.secrets):
        fields = secret_fields(secret)
        source = fields.get("src") or fields.get("source")
        if source and not Path(source).is_file():
            meant = _neighbour(Path(source))
            problems.add(
                Code.CONFIG_FILE_MISSING,
                f"the secret's file {loaded.show(Path(source))} does not exist",
                loaded.locate("services", service.name, "build", "secrets", position),
                f"did you mean {loaded.show(meant)}?" if meant else "",
            )


def _neighbour(missing: Path, *, directories: bool = False) -> Path | None:
    """What was probably meant: something with nearly the same name in the same directory."""
    try:
        with os.scandir(missing.parent) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.is_dir() == directories and not entry.name.endswith(".dockerignore")
            ]
    except OSError:
        return None
    name = nearest(missing.name, names)
    return missing.parent / name if name else None


def _dockerfile_below(context: Path) -> Path | None:
    """The Dockerfile that stands highest below the context, by width first."""
    directories, seen = [context], 0
    for directory in directories:
        try:
            with os.scandir(directory) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            seen += 1
            name = entry.name.lower()
            if _LIKE.fullmatch(name) and not name.endswith(".dockerignore") and entry.is_file():
                return Path(entry.path)
            if entry.is_dir(follow_symlinks=False) and entry.name not in _SKIP:
                directories.append(Path(entry.path))
        if seen > _MOST_SEEN:
            break
    return None
