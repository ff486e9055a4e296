"""What a shell offers for a half-typed word: services, profiles and contexts.

Asked at every TAB, so it reads two YAML files at most: nothing is imported that a session needs,
and nothing is asked of Docker, a cluster or the network. What cannot be read offers nothing.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


def service_names(context: click.Context, parameter: click.Parameter, word: str) -> list[str]:
    """The services of devloop.yaml that begin with `word` and are not named yet."""
    given = context.params.get(parameter.name or "") or ()
    named = given if isinstance(given, tuple) else ()
    found: list[str] = []
    # Whatever is wrong with the file, a traceback in the middle of a command line helps nobody.
    with contextlib.suppress(Exception):
        found = _names("services", context.params.get("file"))
    return [name for name in found if name.startswith(word) and name not in named]


def profile_names(context: click.Context, parameter: click.Parameter, word: str) -> list[str]:
    """The profiles of devloop.yaml that begin with `word`."""
    del parameter
    found: list[str] = []
    with contextlib.suppress(Exception):
        found = _names("profiles", context.params.get("file"))
    return [name for name in found if name.startswith(word)]


def context_names(context: click.Context, parameter: click.Parameter, word: str) -> list[str]:
    """The contexts of the kubeconfig that begin with `word`."""
    del context, parameter
    found: list[str] = []
    with contextlib.suppress(Exception):
        # Of its package it is the only module that reads files alone.
        from devloop.cluster.api.kubeconfig import read  # noqa: PLC0415 - at a TAB only

        found = sorted(read(os.environ).contexts)
    return [name for name in found if name.startswith(word)]


def _names(key: str, file: Path | None) -> list[str]:
    from devloop.base.yaml_tree import Keys, read_yaml  # noqa: PLC0415 - at a TAB only
    from devloop.config.places import find_project  # noqa: PLC0415 - as above
    from devloop.config.skaffold.artifacts import service_names  # noqa: PLC0415 - as above
    from devloop.config.skaffold.profiles import profile_names  # noqa: PLC0415 - as above
    from devloop.config.skaffold.tree import at, items, text_at  # noqa: PLC0415 - as above

    path, _ = find_project(cwd=Path.cwd(), file=file, env=os.environ)
    nodes, _ = read_yaml(path.read_text("utf-8-sig"), path.name, lenient=True)
    if nodes and text_at(nodes[0], "apiVersion").startswith("skaffold/"):
        if key == "profiles":
            return [name for node in nodes for name in profile_names(node)]
        artifacts = (each for node in nodes for each in items(at(node, "build", "artifacts")))
        return list(service_names(text_at(each, "image") for each in artifacts))
    entry = nodes[0].get(key) if nodes and isinstance(nodes[0], Keys) else None
    found = entry.value if entry is not None else None
    return [each.key for each in found] if isinstance(found, Keys) else []
