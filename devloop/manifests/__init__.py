"""Where a service's Kubernetes objects come from: one module for each way to render them.

The rest of devloop knows the port `Rendering` only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from devloop.manifests.files import FilesRendering
from devloop.manifests.remembered import RememberedRendering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from devloop.config.schema import Service
    from devloop.engine.ports import Rendering

__all__ = ["renderings_of"]


def renderings_of(
    services: Iterable[Service], *, show: Callable[[Path], str] = os.fspath
) -> dict[str, Rendering]:
    """The rendering of each service by name, without those whose image alone is patched. `show`
    turns a path into what a user would type."""
    return {
        service.name: RememberedRendering(FilesRendering(service.deploy.manifests, show=show))
        for service in services
        if not service.deploy.patch_only
    }
