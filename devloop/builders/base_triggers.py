"""Whether the base images of a Dockerfile have ONBUILD triggers, which read files of the context
that the Dockerfile does not name.

Asked where the builder takes each image from: the local Docker, else the registry. What is not sure
counts as having some. Fetches no layer.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from typing import TYPE_CHECKING

from devloop.base.platforms import own_platform
from devloop.builders.docker_cli import ask_docker
from devloop.builders.docker_socket import find_image
from devloop.builders.image.base_image import Bases, RegistryImages
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import platform_arguments
from devloop.builders.image.text import expand, outer_arguments
from devloop.builders.named_contexts import check_stages, image_for
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devloop.base.cancel import Cancel
    from devloop.builders.base_moves import BaseLookup
    from devloop.builders.dockerfile import Dockerfile
    from devloop.builders.job import OpenRegistry
    from devloop.config.builds import Build


_LOG = logging.getLogger(__name__)
_SECONDS = 5.0


def started_from(dockerfile: Dockerfile, build: Build) -> tuple[str, ...] | None:
    """The images that stages start from; None when that, or what a stage hands on to the next, is
    not known."""
    if dockerfile.custom_syntax or dockerfile.problems:
        return None
    if any(instruction.keyword == "ONBUILD" for instruction in dockerfile.instructions):
        return None
    escape = dockerfile.directives.get("escape", "\\")
    platform = platform_arguments(build.platform or own_platform(), own_platform())
    found: dict[str, None] = {}
    try:
        check_stages(dockerfile, build, "Dockerfile")
        outer = outer_arguments(dockerfile, build.args, platform)
        for stage in dockerfile.stages:
            name = expand(stage.base, outer, escape)
            if not name:
                return None
            other = dockerfile.stage(name)
            if name != "scratch" and (other is None or other.index >= stage.index):
                found[image_for(build, name) or name] = None
    except NeedsFullBuild:
        return None
    return tuple(found)


class BaseTriggers:
    """For one service. `target` is where images are pushed to, "" for nowhere."""

    def __init__(self, build: Build, lookup: BaseLookup, open_registry: OpenRegistry, target: str):
        self._platform = build.platform or own_platform()
        self._lookup = lookup
        self._open = open_registry
        self._target = target

    def none_in(self, images: Iterable[str], cancel: Cancel) -> bool:
        """Whether all `images` are sure to have no triggers. Raises Cancelled."""
        try:
            return all(self._none(image, cancel) for image in images)
        except (DevloopError, NeedsFullBuild) as error:
            _LOG.info("what base images read is not known: %s", error)
            return False

    def _none(self, image: str, cancel: Cancel) -> bool:
        if shutil.which("docker") is not None and self._lookup.takes_local(cancel):
            local = find_image(os.environ, image)
            if local is not None and local.identity and local.triggers is not None:
                return not local.triggers
            argv = ("image", "inspect", "--format", "{{json .Config.OnBuild}}", "--", image)
            answer = ask_docker(*argv, cancel=cancel, limit=_SECONDS)
            if answer is None:
                return False
            if answer.status == 0:
                return not json.loads(answer.out or "[]")
        bases = Bases(self._open, self._target, RegistryImages())
        found = bases.find(image, self._platform, lambda _: None, cancel)
        return not (found.image.config.get("config") or {}).get("OnBuild")
