"""Which files a kustomization reaches: what kustomize reads when it builds it.

Follows its own files only, as kustomize's documentation of the kustomization file has them; renders
nothing and starts no program. What cannot be read reaches nothing: kustomize is the one to say so.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import field
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import ANY_FILE
from devloop.manifests.yaml_file import mapping_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")

# Entries that are files, kustomizations' directories, or text in their place.
_DIRECTORIES = ("resources", "bases", "components", "generators", "transformers", "validators")
_FILES = (
    "crds",
    "configurations",
    "patchesStrategicMerge",
    "secretGenerator",
    "configMapGenerator",
)
_WITH_PATH = ("patches", "patchesJson6902", "replacements")
_REMOTE = re.compile(
    r"[a-z][a-z0-9+.-]*://|git@|[^/]+\.[a-z]+(?::[0-9]+)?/|.*[?&](?:ref|version)=|.*\.git(?:/|\?|$)"
)
_MOST = 1000


@dataclass(slots=True, kw_only=True)
class Reached:
    """`kustomizations` are files, `files` everything else that is read, absolute, whether it is
    there or not; `patterns` are directories' files, for base.patterns. `remote` are the entries
    that lead elsewhere, and `charts` says whether Helm is needed."""

    kustomizations: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, None] = field(default_factory=dict)
    patterns: dict[str, None] = field(default_factory=dict)
    remote: dict[str, str] = field(default_factory=dict)
    charts: bool = False

    @property
    def all_patterns(self) -> tuple[str, ...]:
        files = map(glob.escape, (*self.kustomizations, *self.files))
        return tuple(dict.fromkeys((*files, *self.patterns)))


def kustomization_file(directory: str) -> str:
    """The kustomization of a directory, or where it would be."""
    paths = [f"{directory}/{name}" for name in NAMES]
    return next(filter(os.path.isfile, paths), paths[0])


def reached(directories: Iterable[str]) -> Reached:
    """What the kustomizations in absolute `directories` reach."""
    found = Reached()
    todo = list(directories)
    while todo and len(found.kustomizations) < _MOST:
        directory = todo.pop()
        file = kustomization_file(directory)
        if file in found.kustomizations:
            continue
        found.kustomizations[file] = content = mapping_in(file)
        for entry in _entries(content):
            path = os.path.normpath(os.path.join(directory, entry))  # noqa: PTH118
            if os.path.isdir(path):  # noqa: PTH112
                todo.append(path)
            elif _REMOTE.match(entry) and not os.path.exists(path):  # noqa: PTH110
                found.remote.setdefault(entry, file)
            else:
                found.files[path] = None
        _charts(content, directory, found)
    return found


def _entries(content: dict[str, Any]) -> Iterator[str]:
    """Paths as they are written: of files, of directories with a kustomization, of URLs."""
    for key in (*_DIRECTORIES, *_FILES):
        for each in _list(content.get(key)):
            if isinstance(each, str) and "\n" not in each:
                yield each
    for key in _WITH_PATH:
        for each in _list(content.get(key)):
            if isinstance(each, dict) and isinstance(each.get("path"), str):
                yield each["path"]
    if isinstance(schema := content.get("openapi"), dict) and isinstance(schema.get("path"), str):
        yield schema["path"]
    for key in ("configMapGenerator", "secretGenerator"):
        for each in _list(content.get(key)):
            if isinstance(each, dict):
                yield from _generated_from(each)


def _generated_from(generator: dict[str, Any]) -> Iterator[str]:
    for name in ("files", "envs"):
        for each in _list(generator.get(name)):
            if isinstance(each, str):
                yield each.partition("=")[2] or each if name == "files" else each
    if isinstance(generator.get("env"), str):
        yield generator["env"]


def _charts(content: dict[str, Any], directory: str, found: Reached) -> None:
    globals_ = content.get("helmGlobals")
    home = globals_.get("chartHome") if isinstance(globals_, dict) else None
    charts = (*_list(content.get("helmCharts")), *_list(content.get("helmChartInflationGenerator")))
    for chart in charts:
        if not isinstance(chart, dict):
            continue
        found.charts = True
        more = _list(chart.get("additionalValuesFiles"))
        for each in (chart.get("valuesFile"), chart.get("values"), *more):
            if isinstance(each, str):
                found.files[os.path.normpath(os.path.join(directory, each))] = None  # noqa: PTH118
        if isinstance(name := chart.get("name") or chart.get("chartName"), str):
            base = os.path.normpath(os.path.join(directory, home or "charts", name))  # noqa: PTH118
            if chart.get("repo") is None and os.path.isdir(base):  # noqa: PTH112
                found.patterns[f"{glob.escape(base)}/**/{ANY_FILE}"] = None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
