"""File sync, wired: a service's rules, its pods and commands in its containers."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from devloop.builders.delta.copy_targets import Targets
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.cluster.api.exec_stream import open_exec
from devloop.errors import DevloopError
from devloop.sync.changes import SyncPlace
from devloop.sync.rules import PathRule
from devloop.sync.syncer import FileSync

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devloop.app.pods import PodFeed
    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.config.schema import Service
    from devloop.errors import Diagnosis
    from devloop.model import PodView, Scan
    from devloop.sync.ports import CommandStream


def file_sync(
    service: Service, connection: Connection, feed: PodFeed, report: Callable[[Diagnosis], None]
) -> FileSync:
    """The syncer of a service with `sync:` in devloop.yaml. `report` gets what cannot be."""

    def open_stream(
        pod: PodView, container: str, argv: Sequence[str], cancel: Cancel
    ) -> CommandStream:
        return open_exec(connection, pod.namespace, pod.name, container, argv=argv, cancel=cancel)

    inferred, rules = None, service.sync
    if rules == "auto":
        inferred, rules = functools.partial(_places, Targets(service.build)), ()
    return FileSync(
        service.name,
        context=service.build.context,
        open_stream=open_stream,
        pods=feed,
        report=report,
        rules=[PathRule(src=r.src, dest=r.dest, restart=r.restart) for r in rules],
        places=inferred,
    )


def _places(targets: Targets, scan: Scan) -> Mapping[str, tuple[SyncPlace, ...]] | str:
    try:
        found = targets.of(scan)
    except NeedsFullBuild as error:
        return error.reason
    except DevloopError as error:
        return error.diagnosis.message
    return {
        path: tuple(SyncPlace(path=f"/{p.path}", mode=p.mode, uid=p.uid, gid=p.gid) for p in placed)
        for path, placed in found.items()
    }
