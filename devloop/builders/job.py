"""What building needs from elsewhere and what every builder is given.

Adapters do not import each other, so the registry's client and kind's loader come in through the
protocols here; app.py wires them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.config.schema import Build
    from devloop.model import PushTarget, Scan

__all__ = ["TAG_PREFIX", "Held", "Job", "Loader", "Manifests", "Registry", "shown_path", "tag_of"]

# Half an hour: longer than any build one waits for, short enough that a hung one ends by itself.
LIMIT = 1800.0


# What tells devloop's tags from everybody else's in the same repository.
TAG_PREFIX = "devloop-"


class Manifests(Protocol):
    """A look into the registry that images are pushed to."""

    def digest(self, repository: str, reference: str, cancel: Cancel | None = None) -> str | None:
        """The `sha256:...` that the registry holds for a tag or digest, None when it has none.

        `repository` includes the registry's host. Raises registry/*."""
        ...


@runtime_checkable
class Registry(Manifests, Protocol):
    """The registry that images are pushed to, for images made here: `name` is a repository without
    the host. Every call raises registry/* or Cancelled."""

    def name(self, repository: str) -> str: ...

    def get_manifest(
        self, name: str, reference: str, cancel: Cancel | None = None
    ) -> Held | None: ...

    def put_manifest(
        self, name: str, reference: str, body: bytes, media_type: str, cancel: Cancel | None = None
    ) -> object: ...

    def get_blob(self, name: str, digest: str, cancel: Cancel | None = None) -> bytes | None: ...

    def open_blob(
        self, name: str, digest: str, cancel: Cancel | None = None
    ) -> AbstractContextManager[Iterator[bytes] | None]: ...

    def put_blob(self, name: str, data: bytes, cancel: Cancel | None = None) -> str: ...

    def ready_uploads(self, name: str, count: int, cancel: Cancel | None = None) -> None:
        """Open uploads ahead of time, so that the next `put_blob`s take one round trip."""
        ...


class Held(Protocol):
    """A manifest as a registry gave it."""

    @property
    def media_type(self) -> str: ...

    @property
    def body(self) -> bytes: ...


class Loader(Protocol):
    """Copies an image from the local Docker into a cluster's nodes."""

    def load(self, image: str, cancel: Cancel, progress: Callable[[str], None]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One service's build, as every builder gets it.

    `image` is the name without registry and tag, `root` the project's folder, `shown` the
    Dockerfile as the user would type it. `verify` says whether the disk is still as a scan saw it.
    `limit` is in seconds."""

    build: Build
    image: str
    root: Path
    target: PushTarget
    shown: str
    verify: Callable[[Scan], bool]
    manifests: Manifests | None = None
    loader: Loader | None = None
    limit: float = LIMIT

    @property
    def loaded(self) -> str:
        """What to say of an image that has no digest."""
        return f"loaded into the nodes of {self.target.kind_cluster}"

    def check_unchanged(self, scan: Scan) -> None:
        """Raise build/context-changed when a file was written since `scan`.

        The builder reads the files itself and later than the scan, so only this check makes the
        tag (which is made from the scan) tell the truth about the image."""
        if not self.verify(scan):
            raise DevloopError.of(
                Code.BUILD_CONTEXT_CHANGED, "a file changed while the image was being built"
            )

    def confirm(self, digest: str, tag: str, cancel: Cancel) -> str:
        """The digest under which the registry holds what was just pushed as `tag`.

        `digest` is what the builder says, "" when it does not say. A registry that does not answer
        here (the builder may be elsewhere) confirms nothing; then the builder is believed. Raises
        registry/digest-mismatch, and registry/push-failed when nobody knows a digest."""
        repository = self.target.repository(self.image)
        try:
            held = self.manifests.digest(repository, tag, cancel) if self.manifests else digest
            if held == digest != "":
                return digest
            # The same tag may have been pushed by another build of the same content meanwhile.
            if digest and self.manifests and self.manifests.digest(repository, digest, cancel):
                return digest
        except DevloopError:
            if digest:
                return digest
            raise
        if not digest and held:
            return held
        if not digest:
            raise DevloopError.of(
                Code.REGISTRY_PUSH_FAILED,
                f"the registry does not have {repository}:{tag} after the push",
            )
        raise DevloopError.of(
            Code.REGISTRY_DIGEST_MISMATCH,
            f"{repository}:{tag} is not the image that was pushed",
            cause=f"pushed {digest}, the registry has {held or 'nothing'}",
            suggestions=("check that the name leads to one registry only",),
        )


def tag_of(scan: Scan) -> str:
    """The content's tag; two builds of the same inputs share it."""
    return f"{TAG_PREFIX}{scan.fingerprint.build[:16]}"


def shown_path(path: Path) -> str:
    """`path` as the user would type it: relative to the working directory if it is beneath."""
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown
