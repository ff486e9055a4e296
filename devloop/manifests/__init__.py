"""Where a service's Kubernetes objects come from: one module for each way to render them.

The rest of devloop knows the port `Rendering` only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from devloop.manifests.files import FilesRendering
from devloop.manifests.remembered import RememberedRendering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from devloop.config.schema import Service
    from devloop.engine.ports import Rendering
    from devloop.manifests.release import HelmRelease

__all__ = ["releases_of", "renderings_of"]


def renderings_of(
    services: Iterable[Service],
    *,
    show: Callable[[Path], str] = os.fspath,
    namespace: str = "default",
) -> dict[str, Rendering]:
    """The rendering of each service by name, without those whose image alone is patched. `show`
    turns a path into what a user would type; `namespace` is that of charts without their own."""
    found: dict[str, Rendering] = {}
    for service in services:
        parts = tuple(_parts(service, show, namespace))
        if len(parts) == 1:
            found[service.name] = parts[0]
        elif parts:
            from devloop.manifests.joined import JoinedRendering  # noqa: PLC0415 - seldom needed

            found[service.name] = JoinedRendering(parts)
    return found


def releases_of(
    service: Service, *, context: str, namespace: str, state_dir: Path
) -> tuple[HelmRelease, ...]:
    """What of a service is deployed by `helm upgrade`; `namespace` is that of charts without their
    own."""
    charts = [chart for chart in service.deploy.helm if chart.mode == "release"]
    if not charts:
        return ()
    from devloop.manifests.release import HelmRelease  # noqa: PLC0415 - as below

    return tuple(
        HelmRelease(
            chart=chart,
            context=context,
            namespace=chart.namespace or namespace,
            state_dir=state_dir,
        )
        for chart in charts
    )


def _parts(service: Service, show: Callable[[Path], str], namespace: str) -> Iterator[Rendering]:
    """What runs a tool is imported only where it is needed: every start would pay for it."""
    deploy = service.deploy
    if deploy.manifests:
        yield RememberedRendering(FilesRendering(deploy.manifests, show=show))
    if not (deploy.kustomize or deploy.helm):
        return
    from devloop.manifests.by_content import OncePerContent  # noqa: PLC0415 - as above
    from devloop.manifests.helm import HelmRendering  # noqa: PLC0415 - as above
    from devloop.manifests.kustomize import KustomizeRendering  # noqa: PLC0415 - as above

    for directory in deploy.kustomize:
        yield OncePerContent(KustomizeRendering(directory, show=show))
    for chart in deploy.helm:
        yield OncePerContent(HelmRendering(chart, chart.namespace or namespace, show=show))
