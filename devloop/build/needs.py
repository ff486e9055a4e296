"""What building needs from elsewhere, as small protocols: app.py wires them to the registry.

Adapters do not import each other, so the registry's client and kind's loader come in through here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.engine.cancel import Cancel
    from devloop.model import Scan

__all__ = ["Loader", "Manifests", "Verify", "tag_of"]


class Manifests(Protocol):
    """A look into the registry that images are pushed to."""

    def digest(self, repository: str, reference: str, cancel: Cancel | None = None) -> str | None:
        """The `sha256:...` that the registry holds for a tag or digest, None when it has none.

        `repository` includes the registry's host. Raises registry/*."""
        ...


class Loader(Protocol):
    """Copies an image from the local Docker into a cluster's nodes."""

    def load(self, image: str, cancel: Cancel, progress: Callable[[str], None]) -> None: ...


if TYPE_CHECKING:
    Verify = Callable[[Scan], bool]
    """Whether the disk is still as `scan` saw it."""


def tag_of(scan: Scan) -> str:
    """The content's tag; two builds of the same inputs share it."""
    return f"devloop-{scan.fingerprint.build[:16]}"
