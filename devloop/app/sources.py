"""How a service's source is made: for a session, and for whoever compares what is on disk with what
a session saw there. Both must leave out the same, or their fingerprints differ.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from devloop.app.project_paths import DockerfileReads, NamedContextReads, may_read
from devloop.builders.base_triggers import BaseTriggers
from devloop.builders.needs import used_needs
from devloop.watch.context_rules import ReadsAnything
from devloop.watch.source import ServiceSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from devloop.base.cancel import Cancel
    from devloop.builders.base_moves import BaseLookup, BaseMoves
    from devloop.builders.job import OpenRegistry
    from devloop.config.schema import Service
    from devloop.engine.ports import Rendering
    from devloop.errors import Diagnosis
    from devloop.watch.context_rules import BuildReads


def source_of(
    service: Service,
    project_root: Path,
    rendering: Rendering | None,
    *,
    bases: BaseMoves,
    lookup: BaseLookup,
    open_registry: OpenRegistry,
    target: str,
    check: Callable[[Cancel], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
    warn: Callable[[Diagnosis], None] = lambda _: None,
) -> ServiceSource:
    """The source; `target` is where images are pushed to, "" for nowhere, the rest as for
    `BaseTriggers` and `ServiceSource`."""
    moved = functools.partial(bases.marks, service.name)
    triggers = BaseTriggers(service.build, lookup, open_registry, target)
    reads: BuildReads = DockerfileReads(service.build, triggers, moved)
    reads_of: Callable[[str], BuildReads] = functools.partial(NamedContextReads, service.build)
    if any(not hook.container for hook in service.hooks.before_build):
        # What is built may be made from what no instruction names.
        reads, reads_of = ReadsAnything(), lambda _: ReadsAnything()
    return ServiceSource(
        service,
        project_root,
        rendering,
        check=check,
        needed=functools.partial(may_read, service.build),
        bases=moved,
        uses=functools.partial(used_needs, service.build),
        reads=reads,
        reads_of=reads_of,
        progress=progress,
        warn=warn,
    )
