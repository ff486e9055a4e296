"""What stands for building in `devloop deploy`: images that an earlier stage made.

They are those of its file, or those in the registry that were made of what is on disk. Nothing is
built, and no Docker is asked.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from devloop.builders.job import tag_of
from devloop.errors import Code, DevloopError
from devloop.model import Fingerprint, ImageRef, Scan, Snapshot, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.config.schema import Service
    from devloop.engine.ports import Reporter
    from devloop.model import PushTarget
    from devloop.registry.client import RegistryClient
    from devloop.registry.node_images import NodeImageLoader


_NOTHING = Snapshot(entries=MappingProxyType({}), digest="", stamp="")


class GivenSource:
    """The engine's `Source` for an image that is there: the disk is not looked at. `check` raises
    for manifests that cannot be deployed."""

    def __init__(self, image: ImageRef, check: Callable[[Cancel], None]) -> None:
        self._build = hashlib.sha256(image.pinned.encode()).hexdigest()
        self._check = check

    def scan(
        self,
        hints: frozenset[Path] | None,
        cancel: Cancel,
        passing: frozenset[str] = frozenset(),
        needs: Mapping[str, str] = MappingProxyType({}),
    ) -> Scan:
        """See engine.ports.Source."""
        del hints, passing, needs
        self._check(cancel)
        return Scan(fingerprint=Fingerprint(self._build, ""), snapshot=_NOTHING)

    def concerns(self, path: Path) -> bool:
        """See engine.ports.Source."""
        del path
        return False


class GivenImages:
    """The engine's builder for an image that is there. With a `loader`, one that is in no registry
    is loaded into the nodes; `here`: it is wanted on this computer alone."""

    def __init__(
        self,
        image: ImageRef,
        target: PushTarget,
        loader: NodeImageLoader | None,
        *,
        here: bool = False,
    ) -> None:
        self._image = as_pulled(image, target)
        self._loader = loader
        self._here = here

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """See engine.ports.Builder. Errors: registry/*, config/value for an image that is in no
        registry and cannot be loaded."""
        del scan
        image = self._image
        if image.digest or self._here:
            return image
        if self._loader is None:
            raise DevloopError.of(
                Code.CONFIG_VALUE,
                f"{image.pinned} is in no registry that the nodes could pull it from",
                suggestions=("push it: devloop build --push --file-output FILE",),
            )
        reporter.started(Step.PUSH)
        self._loader.load(
            image.pinned, cancel, lambda message: reporter.progress(Step.PUSH, message)
        )
        return image

    def wrote(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.ServiceBuilder."""
        del before, after
        return False

    def may_differ(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.ServiceBuilder."""
        del before, after
        return False


class PushedImages:
    """The engine's builder for images that `devloop build --push` made of what is on disk: the
    registry has them by their content's tag."""

    def __init__(
        self, service: Service, target: PushTarget, registry: RegistryClient | None
    ) -> None:
        self._service = service
        self._target = target
        self._registry = registry

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """See engine.ports.Builder. Errors: registry/*, build/not-pushed."""
        del reporter
        image, tag = self._service.image, tag_of(scan)
        repository = self._target.repository(image)
        digest = self._registry.digest(repository, tag, cancel) if self._registry else None
        if digest is None:
            raise DevloopError.of(
                Code.BUILD_NOT_PUSHED,
                f"the registry has no image of {self._service.name} as it is on disk",
                cause=f"there is no {repository}:{tag}",
                suggestions=(
                    f"build it: devloop build --push {self._service.name}",
                    "or name what was built before: devloop deploy --images FILE",
                ),
            )
        return ImageRef(
            repository=repository,
            tag=tag,
            digest=digest,
            pull_repository=self._target.pull_repository(image),
        )

    def wrote(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.ServiceBuilder."""
        del before, after
        return False

    def may_differ(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.ServiceBuilder."""
        return before.fingerprint.build != after.fingerprint.build


def as_pulled(image: ImageRef, target: PushTarget) -> ImageRef:
    """The image under the name that the nodes have for its registry, where the cluster has
    another one than who pushed it."""
    named = image.pull_repository or image.repository
    prefix = f"{target.push}/"
    if not target.pull or named != image.repository or not named.startswith(prefix):
        return image
    return replace(image, pull_repository=f"{target.pull}/{named.removeprefix(prefix)}")
