"""File sync, wired: a service's rules, its pods and commands in its containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devloop.builders.delta.copy_targets import UNKNOWN, Targets
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.cluster.api.exec_stream import open_exec
from devloop.cluster.api.log_stream import tail_log
from devloop.cluster.rollout.ended_process import process_ended
from devloop.errors import DevloopError
from devloop.sync.changes import SyncPlace
from devloop.sync.process_start import Restarts
from devloop.sync.rules import PathRule
from devloop.sync.syncer import FileSync

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from devloop.app.pods import PodFeed
    from devloop.base.cancel import Cancel
    from devloop.builders.delta.builder import DeltaBuilder
    from devloop.builders.delta.copy_targets import ShownCopies
    from devloop.builders.image.copies import FileEntry
    from devloop.builders.image.listing import Listing
    from devloop.builders.needs import NeedsBuilder
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.rollout.stack_traces import ProjectPaths
    from devloop.config.schema import Service
    from devloop.errors import Diagnosis
    from devloop.model import PodView, Scan
    from devloop.sync.contents import RememberedContents
    from devloop.sync.ports import CommandStream


def file_sync(
    service: Service,
    connection: Connection,
    feed: PodFeed,
    report: Callable[[Diagnosis], None],
    *,
    paths: ProjectPaths,
    builder: DeltaBuilder | NeedsBuilder,
    hot: bool,
    contents: RememberedContents,
    ports: AbstractSet[int],
    early: bool,
    halted: Callable[[], bool] = lambda: False,
) -> FileSync:
    """The syncer of a service with `sync:` in devloop.yaml, or of one that is replaced `hot`: all
    that the Dockerfile copies, and the process starts anew. `paths` knows the project's files in
    the containers, `builder` what its last image shows of the COPYs and below them; `contents` is
    where later sessions find what containers have, `ports` are those that somebody connects to, now
    and later; `early`: nothing is known yet of what runs; `halted`: a debugger may have stopped it.
    `report` gets what cannot be."""

    def open_stream(
        pod: PodView, container: str, argv: Sequence[str], cancel: Cancel
    ) -> CommandStream:
        return open_exec(connection, pod.namespace, pod.name, container, argv=argv, cancel=cancel)

    def ended(pod: PodView, container: str, how: str) -> DevloopError:
        lines = tail_log(connection, pod.namespace, pod.name, container)
        return DevloopError(process_ended(pod.name, container, how, lines, paths))

    inferred, rules = None, service.sync
    if hot or rules == "auto":
        inferred, rules = Places(service, builder.shown_copies).of, ()
    return FileSync(
        service.name,
        context=service.build.context,
        open_stream=open_stream,
        pods=feed.serving,
        report=None if hot else report,
        restarts=Restarts(
            stop_timeout=service.deploy.stop_timeout,
            limit=service.deploy.timeout,
            ended=ended,
            report=report,
            ports=ports,
            halted=halted,
            starts=lambda pod, container, done: feed.process_starts(
                service.name, pod, container, done=done
            ),
        ),
        contents=contents,
        resumed=builder.resume,
        always=hot,
        early=early,
        rules=[PathRule(src=r.src, dest=r.dest, restart=r.restart) for r in rules],
        places=inferred,
        below=lambda path: type_below(builder.below_copies(), path),
    )


class Places:
    """Where the Dockerfile has the build put the context's paths; `shown` is as for `Targets`."""

    def __init__(self, service: Service, shown: Callable[[str], ShownCopies | None]) -> None:
        self._targets = Targets(service.build, shown)
        self._last: tuple[object, Mapping[str, tuple[SyncPlace, ...]]] = (None, {})

    def of(self, scan: Scan) -> Mapping[str, tuple[SyncPlace, ...]] | str:
        """The same mapping for as long as nothing moves; a text says why it is not known."""
        try:
            found = self._targets.of(scan)
        except NeedsFullBuild as error:
            return error.reason
        except DevloopError as error:
            return error.diagnosis.message
        if self._last[0] is not found:
            places = {path: tuple(map(_place, placed)) for path, placed in found.items()}
            self._last = (found, places)
        return self._last[1]


def type_below(listing: Listing | None, path: str) -> str | None:
    """The type of what an image has at an absolute path: "" for nothing, None where that is not
    known, a symlink's for what is behind one."""
    if listing is None:
        return None
    parts = path.strip("/").split("/")
    for size in range(1, len(parts) + 1):
        node = listing.nodes.get("/".join(parts[:size]))
        if node is not None and (node.type == "symlink" or size == len(parts)):
            return node.type
    return ""


def _place(entry: FileEntry) -> SyncPlace:
    owner = "" if entry.uid == UNKNOWN else f"{entry.uid}:{entry.gid}"
    return SyncPlace(path=f"/{entry.path}", mode=entry.mode, owner=owner)
