"""Fetches the image that a stage starts from: from a registry, and provably the one Docker takes.

`docker build` takes an image of that name from the local Docker before it asks a registry. So the
registry's answer counts only where both are the same: the name is pinned by digest, there is no
Docker, Docker has no image of that name, or what it has is what the target's registry has, too.
Nothing else is asked here; the layers stay where they are.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from devloop.base.image_reference import parse_reference
from devloop.base.lazy_dataclass import dataclass
from devloop.builders import docker_errors
from devloop.builders.docker_cli import ask_docker
from devloop.builders.docker_socket import find_image
from devloop.builders.image.documents import choose, config_digest, is_index, parse_image
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.base.cancel import Cancel
    from devloop.base.image_reference import ImageReference
    from devloop.builders.image.documents import Image
    from devloop.builders.job import OpenRegistry


# So long, in seconds, Docker is waited for.
_SECONDS = 5.0


class LocalImages(Protocol):
    """What the local Docker has."""

    def identity(self, reference: str, cancel: Cancel) -> str | None:
        """The id (`sha256:...`) under which Docker has `reference`, "" when it has no such image,
        None when there is no Docker. Raises `NeedsFullBuild` when that cannot be known."""
        ...


class DockerImages:
    """A Docker that does not answer is no Docker: it builds nothing."""

    def identity(self, reference: str, cancel: Cancel) -> str | None:
        if shutil.which("docker") is None:
            from devloop.builders.docker_client import connect  # noqa: PLC0415 - the docker SDK loads slowly

            try:
                connect(_SECONDS).close()
            except DevloopError:
                return None
            raise NeedsFullBuild(
                f"without the docker command Docker does not report whether it has {reference}"
            )
        if (found := find_image(os.environ, reference)) is not None:
            return found.identity
        argv = ("image", "inspect", "--format", "{{.Id}}", "--", reference)
        answer = ask_docker(*argv, cancel=cancel, limit=_SECONDS)
        if answer is None:
            return None
        if answer.status == 0:
            return answer.out.strip()
        if "no such image" in answer.err.lower():
            return ""
        if docker_errors.docker_unreachable(answer.err):
            return None
        raise NeedsFullBuild(f"Docker does not report whether it has {reference}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """An image in a registry: `name` in the registry `host` holds its layers."""

    host: str
    name: str
    image: Image


class RegistryImages:
    """For who wants the registry's images whatever Docker has."""

    def identity(self, reference: str, cancel: Cancel) -> str | None:  # noqa: ARG002 - the interface
        return ""


def places_of(reference: ImageReference, target: str) -> tuple[ImageReference, ...]:
    """Where an image may be found without Docker: where its name says, and in the registry of
    `target` (`host[:port][/path]`), where there may be a copy beside the images made from it."""
    host, _, path = target.partition("/")
    if host in ("", reference.host):
        return (reference,)
    path = "/".join(filter(None, (path, reference.short)))
    return reference, replace(reference, host=host, path=path)


class Bases:
    """The images of one service's Dockerfile, each asked for once until `forget`."""

    def __init__(self, open_registry: OpenRegistry, target: str, local: LocalImages) -> None:
        """`target` is where images are pushed to, `host[:port][/path]`."""
        self._open = open_registry
        self._target = target
        self._local = local
        self._known: dict[tuple[str, str], Base | NeedsFullBuild] = {}

    def forget(self) -> None:
        """Ask again from now on: a tag may mean another image by then."""
        self._known.clear()

    def find(self, text: str, platform: str, report: Callable[[str], None], cancel: Cancel) -> Base:
        """The image that a Dockerfile calls `text`, for `platform` (OS/ARCH[/VARIANT]).

        Raises `NeedsFullBuild`, and env/docker-unreachable when only Docker could have it."""
        known = self._known.get((text, platform))
        if known is None:
            report(f"looking for the base image {text}")
            try:
                known = self._find(text, platform, cancel)
            except NeedsFullBuild as needed:
                # Asking a registry that is not there again takes seconds again.
                known = needed
            self._known[text, platform] = known
        if isinstance(known, NeedsFullBuild):
            raise NeedsFullBuild(known.reason)
        return known

    def _find(self, text: str, platform: str, cancel: Cancel) -> Base:
        try:
            reference = parse_reference(text)
        except ValueError as error:
            raise NeedsFullBuild(str(error)) from None
        mine = "" if reference.digest else self._local.identity(text, cancel)
        places = [reference]
        if mine != "":
            places = list(places_of(reference, self._target))
            # Docker builds from its own image without asking the registry that the name speaks of,
            # which may be far away, count pulls or never have had it.
            places = places[-1:] if mine else places
        failure: DevloopError | None = None
        others: list[str] = []
        for place in places:
            try:
                found = self._fetch(place, platform, cancel)
            except DevloopError as error:
                failure = failure or error
                continue
            if found is None:
                continue
            base, names = found
            if not mine or mine in names:
                return base
            others.append(place.host)
        if others:
            raise NeedsFullBuild(f"{text} in Docker is not the one in {others[-1]}")
        if mine:
            raise NeedsFullBuild(f"{text} is known to Docker, and not in {self._target}")
        why = failure.diagnosis.message if failure else f"{reference.host} does not have it"
        if mine is None:
            raise DevloopError.of(
                Code.ENV_DOCKER_UNREACHABLE,
                f"the base image {text} cannot be fetched, and there is no Docker that has it",
                cause=why,
                suggestions=(
                    f"push it to {self._target}/{reference.short}:{reference.tag or 'latest'}",
                    "or name an image that a registry has",
                    "or install and start Docker",
                ),
            )
        raise NeedsFullBuild(f"{text} cannot be fetched: {why}")

    def _fetch(
        self, place: ImageReference, platform: str, cancel: Cancel
    ) -> tuple[Base, frozenset[str]] | None:
        """The image and all digests that Docker may know it by; None when it is not there."""
        registry = self._open(place.host)
        manifest = registry.get_manifest(place.path, place.reference, cancel)
        if manifest is None:
            return None
        names = {manifest.digest}
        if is_index(manifest.media_type, manifest.body):
            chosen = choose(manifest.body, platform)
            manifest = registry.get_manifest(place.path, chosen, cancel)
            if manifest is None:
                return None
            names.add(chosen)
        wanted = config_digest(manifest.body)
        config = registry.get_blob(place.path, wanted, cancel)
        if config is None:
            return None
        image = parse_image(manifest.body, manifest.media_type, config)
        own = [image.config.get("os"), image.config.get("architecture")]
        if own != platform.split("/")[:2]:
            raise NeedsFullBuild(f"{place.short} is not for {platform}")
        return Base(host=place.host, name=place.path, image=image), frozenset((*names, wanted))
