"""Removes what devloop built and nobody needs any more: images in the registry and in the local
Docker, and files of its own.

What may go is decided here, from the list of what was built and from what the cluster names; what
is not in that list, or is in use, is never touched.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.lazy_dataclass import dataclass
from devloop.base.threads import supervised
from devloop.builders.docker_cli import last_tagged, local_images, remove_local
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from devloop.builders.built_images import BuiltImage, BuiltImages
    from devloop.registry.client import RegistryClient


KEPT = 10
"""How many images of a service a session keeps: as many as a Deployment keeps revisions."""

UNKNOWN_SECONDS = 3600.0
"""How old a local tag must be that nobody has recorded before a session removes it: a younger one
may be on its way to the registry, by a session in another folder too."""

_SLACK = 10  # so that not every save ends with a deletion
_QUIET = 5.0
_OLD = 3600.0


def surplus(
    built: Iterable[BuiltImage], *, keep: int, in_use: Collection[str]
) -> tuple[BuiltImage, ...]:
    """What may go: all but the `keep` that were built or used last of each service and repository,
    and never what is `in_use` (digests). `built` is ordered, newest last."""
    groups: dict[tuple[str, str], list[BuiltImage]] = {}
    for each in built:
        groups.setdefault((each.service, each.repository), []).append(each)
    newest = {m.digest for group in groups.values() for m in group[max(0, len(group) - keep) :]}
    kept = newest | set(in_use)
    return tuple(m for group in groups.values() for m in group if m.digest not in kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What can be removed. `local` are references in the local Docker, `used` counts the images
    that stay because the cluster names them."""

    manifests: tuple[BuiltImage, ...] = ()
    local: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    used: int = 0

    def __bool__(self) -> bool:
        return bool(self.manifests or self.local or self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """What was removed, and what could not be: `problems` are for the user."""

    manifests: int = 0
    local: int = 0
    files: int = 0
    problems: tuple[str, ...] = ()


def find_leftovers(
    built: BuiltImages,
    state_dir: Path,
    *,
    host: str,
    keep: int,
    in_use: Collection[str],
    unknown_since: float = 0.0,
    cancel: Cancel,
) -> Leftovers:
    """Look, and change nothing. Only images in the registry `host` are looked for. Local tags that
    are not recorded, as builds that were cancelled leave them, are leftovers when they are
    `unknown_since` so many seconds."""
    images = tuple(m for m in built.all() if m.repository.startswith(f"{host}/"))
    manifests = surplus(images, keep=keep, in_use=in_use)
    gone = {m.digest for m in manifests}
    known = {f"{m.repository}:{m.tag}" for m in images}
    stay = {f"{m.repository}:{m.tag}" for m in images if m.digest not in gone}
    listed = local_images({m.repository for m in images}, cancel)
    if unknown_since and (unknown := [each for each in listed if each not in known]):
        latest, tagged = time.time() - unknown_since, last_tagged(unknown, cancel)
        stay |= {each for each in unknown if tagged.get(each, latest) >= latest}
    return Leftovers(
        manifests=manifests,
        local=tuple(reference for reference in listed if reference not in stay),
        files=_left_files(state_dir),
        used=len({m.digest for m in images} & set(in_use)),
    )


def remove(
    leftovers: Leftovers, built: BuiltImages, registry: RegistryClient | None, cancel: Cancel
) -> Cleanup:
    """Remove what was found, as far as it can be. Errors: registry/*; `Cancelled` between two."""
    gone: list[BuiltImage] = []
    problems: list[str] = []
    try:
        for image in leftovers.manifests if registry is not None else ():
            cancel.check()
            assert registry is not None  # noqa: S101 - the loop is empty otherwise
            registry.delete_manifest(registry.name(image.repository), image.digest, cancel)
            gone.append(image)
    except DevloopError as error:
        if error.code is not Code.REGISTRY_DELETE_REFUSED:
            raise
        problems.append(f"{error.diagnosis.message}: {'; '.join(error.diagnosis.suggestions)}")
    finally:
        if gone:
            built.forget(gone)
    local = 0
    for reference in leftovers.local:
        cancel.check()
        if remove_local(reference, cancel):
            local += 1
        else:
            problems.append(f"Docker keeps {reference}: a container uses it")
    files = 0
    for path in leftovers.files:
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            files += 1
    return Cleanup(manifests=len(gone), local=local, files=files, problems=tuple(problems))


def _left_files(state_dir: Path) -> tuple[Path, ...]:
    """Half-written files of sessions that were killed; a session at work has none for an hour."""
    latest = time.time() - _OLD
    found: list[Path] = []
    for path in sorted(state_dir.rglob(".*-*")) if state_dir.is_dir() else ():
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_mtime < latest:
                found.append(path)
    return tuple(found)


class Housekeeper:
    """Keeps a session's images to the last `KEPT` of each service, in quiet moments.

    `tidy` does the work, in a thread of the housekeeper's own; a fault of it is not news: the next
    image brings the next try. It never works beside a build, whose image is recorded at its end
    only and may be one that was to go."""

    def __init__(self, built: BuiltImages, tidy: Callable[[Cancel], None]) -> None:
        self._built = built
        self._tidy = tidy
        self._lock = threading.Lock()
        self._builds = 0
        self._ended_at = 0.0
        self._tidying = Cancel()
        self._closing = Cancel()
        self._wake = threading.Event()
        self._thread = supervised("housekeeping", self._run)

    def start(self) -> None:
        self._thread.start()

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """An image is built, pushed and recorded, or not, within this; entered at once."""
        with self._lock:
            self._builds += 1
            self._tidying.set()
        try:
            yield
        finally:
            with self._lock:
                self._builds -= 1
                self._ended_at = time.monotonic()
            self._wake.set()

    def close(self) -> None:
        with self._lock:
            self._closing.set()
            self._tidying.set()
        self._wake.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while (left := self._ended_at + _QUIET - time.monotonic()) > 0:
                if self._closing.wait(left):
                    return
            if self._closing.is_set():
                return
            self.tidy_if_due()

    def tidy_if_due(self) -> None:
        """Tidy when there is more than the slack to remove, and nothing is being built."""
        if len(surplus(self._built.all(), keep=KEPT, in_use=())) <= _SLACK:
            return
        with self._lock:
            if self._builds or self._closing.is_set():
                return
            self._tidying = cancel = Cancel()
        with contextlib.suppress(DevloopError, Cancelled):
            self._tidy(cancel)
