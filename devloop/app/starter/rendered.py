"""What kustomizations and charts of a folder would run, for a project that has no plain manifests.

Starts the user's own programs; where they are missing or fail, that is said and nothing is found.
"""

from __future__ import annotations

import os
from dataclasses import field
from typing import TYPE_CHECKING

from devloop.app.starter.workloads import workload_in
from devloop.base.cancel import Cancel
from devloop.base.lazy_dataclass import dataclass
from devloop.config.charts import Chart
from devloop.errors import DevloopError
from devloop.manifests.helm import HelmRendering
from devloop.manifests.kustomization import reached
from devloop.manifests.kustomize import KustomizeRendering

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from devloop.app.starter.look import Found
    from devloop.app.starter.workloads import FoundWorkload
    from devloop.engine.ports import Rendering


# Of overlays that stand beside each other, the one to work with.
_FOR_DEVELOPMENT = ("dev", "development", "local", "default")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRenderings:
    """`workloads` have the folder of their kustomization or chart for a file; `made_of` are the
    files, relative to the project, that a folder's kustomization is made of. `doubts` and
    `problems` are lines for a person."""

    workloads: tuple[FoundWorkload, ...] = ()
    made_of: Mapping[str, frozenset[str]] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def rendered_workloads(root: Path, seen: Found) -> FoundRenderings:
    """What runs containers in what the kustomizations and charts of `root` render."""
    workloads: list[FoundWorkload] = []
    problems: list[str] = []
    overlays, doubts = _overlays(root, seen.kustomizations)
    renderings: list[tuple[str, str, Rendering]] = [
        (folder, "kustomize", KustomizeRendering(_at(root, folder))) for folder in overlays
    ]
    for folder in _outer(seen.charts):
        chart = Chart(chart=f"./{folder}", directory=_at(root, folder), release=root.name or "app")
        renderings.append((folder, "helm", HelmRendering(chart, "default")))
    for folder, by, rendering in renderings:
        try:
            objects = rendering.objects(Cancel())
        except DevloopError as error:
            problems.append(f"{folder}/: {error.diagnosis.message}")
            continue
        made = (workload_in(each, folder, by=by) for each in objects if each.hook is None)
        workloads += (each for each in made if each is not None)
    return FoundRenderings(
        workloads=tuple(workloads),
        made_of={
            folder: frozenset(
                os.path.relpath(file, root) for file in (*found.files, *found.kustomizations)
            )
            for folder in overlays
            for found in (reached([str(_at(root, folder))]),)
        },
        doubts=tuple(doubts),
        problems=tuple(problems),
    )


def _overlays(root: Path, folders: Iterable[str]) -> tuple[list[str], list[str]]:
    """The kustomizations that no other one is made of; of several beside each other the one for
    development, and what to say where none is called so."""
    places = {os.fspath(_at(root, folder)): folder for folder in folders}
    inner = {
        os.path.dirname(file)  # noqa: PTH120
        for place in places
        for file in list(reached([place]).kustomizations)[1:]
    }
    beside: dict[str, list[str]] = {}
    for place, folder in places.items():
        if place not in inner:
            beside.setdefault(os.path.dirname(place), []).append(folder)  # noqa: PTH120
    chosen: list[str] = []
    doubts: list[str] = []
    for group in beside.values():
        names = {folder.rpartition("/")[2]: folder for folder in sorted(group)}
        meant = next((names[name] for name in _FOR_DEVELOPMENT if name in names), None)
        if meant is None and len(group) > 1:
            doubts.append(f"the kustomization could be {' or '.join(sorted(group))}")
        else:
            chosen.append(meant or group[0])
    return chosen, doubts


def _outer(charts: Iterable[str]) -> list[str]:
    """Those that are not in another one."""
    found: list[str] = []
    for chart in sorted(charts):
        if not any(chart.startswith(f"{other}/") for other in found):
            found.append(chart)
    return found


def _at(root: Path, folder: str) -> Path:
    return root if folder == "." else root / folder
