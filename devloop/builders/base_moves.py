"""Notices that a base image moved: the same tag, another image behind it.

What a tag stands for is no file, so no scan sees it. It is asked here, in the background, at the
start of a session and every few minutes: the local Docker where the builder would take the image
from there, else the registry. A move becomes part of the recipe by `marks`. What cannot be asked
counts as unchanged, and nobody waits long for an answer.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devloop.base.cancel import Cancel
from devloop.base.home import docker_directory
from devloop.base.image_reference import parse_reference
from devloop.base.lazy_dataclass import dataclass
from devloop.base.platforms import own_platform
from devloop.base.state_file import StateFile
from devloop.base.threads import Background, supervised
from devloop.builders.docker_cli import ask_docker
from devloop.builders.docker_socket import find_image
from devloop.builders.dockerfile import parse
from devloop.builders.image.base_image import places_of
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.image_config import platform_arguments
from devloop.builders.image.text import expand, outer_arguments
from devloop.builders.named_contexts import image_for
from devloop.errors import Code, DevloopError, Diagnosis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from devloop.builders.dockerfile import Dockerfile
    from devloop.builders.job import OpenRegistry
    from devloop.config.builds import Build


_LOG = logging.getLogger(__name__)

# How often they are asked in a session, in seconds; an answer of Docker is waited for so long.
_EVERY = 180.0
_SECONDS = 5.0


def base_references(dockerfile: Dockerfile, build: Build) -> tuple[str, ...]:
    """The images that the target is made from, as they are named there: FROM, COPY --from and the
    mounts of RUN. Neither stages, nor `scratch`, nor what is pinned by a digest or has a variable
    whose value only the builder knows."""
    if dockerfile.custom_syntax:
        return ()
    stages = dockerfile.needed(build.target)
    escape = dockerfile.directives.get("escape", "\\")
    known = platform_arguments(build.platform or own_platform(), own_platform())
    outer = outer_arguments(dockerfile, build.args, known)
    needs = frozenset(build.needs).difference(build.contexts)
    found: dict[str, None] = {}
    for stage in stages:
        for index, text in enumerate(_named(stage.base, stage.instructions)):
            try:
                name = expand(text, outer, escape) if index == 0 else text
            except NeedsFullBuild:
                continue
            other = dockerfile.stage(name)
            elsewhere = other is None or other.index >= stage.index
            # What a need is, the engine says.
            if not elsewhere or name == "scratch" or name in needs:
                continue
            if (image := image_for(build, name)) and not _pinned(image):
                found[image] = None
    return tuple(found)


def _pinned(name: str) -> bool:
    """Whether it is always the same image, or no image's name at all."""
    try:
        return bool(parse_reference(name).digest)
    except ValueError:
        return True


def _named(base: str, instructions: Iterable[Any]) -> Iterator[str]:
    yield base
    for instruction in instructions:
        if origin := instruction.flag("from"):
            yield origin
        yield from (mount["from"] for mount in instruction.mounts if mount.get("from"))


class BaseLookup:
    """What an image's name stands for now. `target` is where images are pushed to, "" for nowhere;
    `pull`: the builder asks the registry although Docker has an image of that name."""

    def __init__(self, open_registry: OpenRegistry, target: str, *, pull: bool) -> None:
        self._open = open_registry
        self._target = target
        self._pull = pull
        self._driver: str | None = None

    def local(self, reference: str, cancel: Cancel) -> tuple[str, ...] | None:
        """The digests by which Docker knows it, if the builder takes it from there; none where it
        is the registry's to say; None when Docker does not answer. Raises Cancelled."""
        if self._pull or shutil.which("docker") is None:
            return ()
        names = _local_names(reference, cancel)
        if names is None:
            _LOG.info("Docker does not say what %s is: it counts as unchanged", reference)
        return () if names and not self.takes_local(cancel) else names

    def remote(self, reference: str, cancel: Cancel) -> tuple[str, ...]:
        """The digest that a registry has for it; none when that cannot be known. Raises
        Cancelled."""
        image = parse_reference(reference)
        for place in places_of(image, self._target):
            try:
                digest = self._open(place.host).digest(
                    f"{place.host}/{place.path}", place.reference, cancel
                )
            except DevloopError as error:
                _LOG.info("%s counts as unchanged: %s", reference, error)
                continue
            if digest is not None:
                return (digest,)
        _LOG.info("no registry has %s: it counts as unchanged", reference)
        return ()

    def takes_local(self, cancel: Cancel) -> bool:
        """Whether the builder takes what Docker has: not where it is told to ask the registry, and
        one in a container or a cluster has its own store. Raises Cancelled."""
        if self._pull:
            return False
        if self._driver is None and is_default_builder():
            self._driver = "docker"
        if self._driver is None:
            from devloop.builders.buildx_builder import driver_in_use  # noqa: PLC0415 - chosen

            self._driver = driver_in_use(cancel)
        return self._driver in ("", "docker")


def _local_names(reference: str, cancel: Cancel) -> tuple[str, ...] | None:
    """None when Docker has no such image (an empty tuple); None when it does not say."""
    if (found := find_image(os.environ, reference)) is not None:
        return _names(found.identity, found.repo_digests) if found.identity else ()
    form = "[{{json .Id}}, {{json .RepoDigests}}]"
    argv = ("image", "inspect", "--format", form, "--", reference)
    answer = ask_docker(*argv, cancel=cancel, limit=_SECONDS)
    if answer is None:
        return None
    if answer.status != 0:
        return () if "no such image" in answer.err.lower() else None
    try:
        identity, digests = json.loads(answer.out)
        return _names(identity, digests)
    except ValueError:
        return None


def _names(identity: Any, digests: Any) -> tuple[str, ...]:
    return str(identity), *(str(digest).rpartition("@")[2] for digest in digests or ())


def is_default_builder() -> bool:
    """Whether buildx is sure to use the builder in Docker itself: no other was ever chosen. Asking
    buildx takes several times as long as all else."""
    if os.environ.get("BUILDX_BUILDER"):
        return False
    directory = Path(os.environ.get("BUILDX_CONFIG") or docker_directory() / "buildx")
    try:
        chosen = json.loads((directory / "current").read_bytes())
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return isinstance(chosen, dict) and chosen.get("Name") == ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """An image that was looked at: the digests it had `first`, and those that it has `now`, the one
    to show before the others. `mark` is that, but "" as long as it is the first image."""

    first: tuple[str, ...]
    now: tuple[str, ...]
    mark: str = ""

    def seen_as(self, names: tuple[str, ...]) -> _Known:
        """What is known once it was seen under `names`."""
        if not set(names).isdisjoint(self.now):
            now = tuple(dict.fromkeys((*self.now, *names)))
            return _Known(first=self.first if self.mark else now, now=now, mark=self.mark)
        mark = names[0] if set(names).isdisjoint(self.first) else ""
        return _Known(first=self.first, now=names, mark=mark)


class BaseMoves:
    """The base images of a session's services. Thread-safe.

    `builds` are by service. `patience` is how long, in seconds, `marks` waits for the registries at
    first, None for not at all; Docker on this computer is waited for before that. With `lasting`,
    more looks follow. `report` gets each move."""

    def __init__(
        self,
        builds: Mapping[str, Build],
        lookup: BaseLookup,
        state_dir: Path,
        *,
        report: Callable[[Diagnosis], None],
        patience: float | None,
        lasting: bool,
        every: float = _EVERY,
    ) -> None:
        self._builds = builds
        self._lookup = lookup
        self._file = StateFile(state_dir / "bases.json")
        self._report = report
        self._patience = patience
        self._lasting = lasting
        self._every = every
        self._lock = threading.Lock()
        self._known = _read(self._file.read() or {})
        self._parsed: dict[str, tuple[bytes, tuple[str, ...]]] = {}
        self._asked: set[str] = set()
        self._on_move: Callable[[str], None] = lambda _: None
        self._cancel = Cancel()
        self._wake = threading.Event()
        self._local_asked = threading.Event()
        self._waits = patience is not None
        self._first: Background[None] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._first = Background("bases", self._look)
        if self._lasting:
            self._thread = supervised("base-images", self._run, self._first)
            self._thread.start()

    def on_move(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with each service whose base moved, from another thread, from now on."""
        self._on_move = callback

    def use(self, builds: Mapping[str, Build]) -> None:
        """From now on these are the services' builds."""
        self._builds = dict(builds)
        with self._lock:
            self._parsed.clear()
        self._wake.set()

    def close(self) -> None:
        self._cancel.set()
        self._wake.set()
        if self._first is not None:
            self._first.close()
        if self._thread is not None:
            self._thread.join(1.0)

    def marks(self, service: str, cancel: Cancel) -> dict[str, str]:
        """What belongs to the service's recipe: image -> digest, of those that are another image
        than when they were first looked at. Reads the Dockerfile, asks nobody. Raises
        Cancelled."""
        references = self._references(service)
        if references and self._waits:
            self._wait(cancel)
        with self._lock:
            if not self._asked.issuperset(references):
                self._wake.set()
            found = {name: self._known[name].mark for name in references if name in self._known}
        return {name: mark for name, mark in found.items() if mark}

    def _wait(self, cancel: Cancel) -> None:
        assert self._first is not None  # noqa: S101 - it is started before anybody asks
        with cancel.closing(self._local_asked.set):
            self._local_asked.wait(_SECONDS)
        self._first.wait(self._patience, cancel)
        self._waits = False

    def _references(self, service: str) -> tuple[str, ...]:
        build = self._builds.get(service)
        if build is None:
            return ()
        try:
            data = build.dockerfile.read_bytes()
        except OSError:
            return ()
        with self._lock:
            known = self._parsed.get(service)
        if known is None or known[0] != data:
            found = parse(data.decode("utf-8", "replace"))
            known = data, base_references(found, build)
            with self._lock:
                self._parsed[service] = known
        return known[1]

    # --- looking -------------------------------------------------------------------------------

    def _run(self, first: Background[None]) -> None:
        first.join()
        while not self._cancel.is_set():
            self._wake.wait(self._every)
            self._wake.clear()
            if self._cancel.is_set():
                return
            self._look(self._cancel)

    def _look(self, cancel: Cancel) -> None:
        references = {service: self._references(service) for service in self._builds}
        moved: set[str] = set()
        names = tuple(dict.fromkeys(name for found in references.values() for name in found))
        with self._lock:
            self._asked.update(names)
        try:
            local = {name: self._local(name, cancel) for name in names}
            moved.update(name for name, known in local.items() if known and self._seen(name, known))
        finally:
            self._local_asked.set()
        for name in (name for name, known in local.items() if known == ()):
            known = self._lookup.remote(name, cancel)
            if known and self._seen(name, known):
                moved.add(name)
        for service, images in references.items():
            if moved.intersection(images):
                self._on_move(service)

    def _local(self, name: str, cancel: Cancel) -> tuple[str, ...] | None:
        try:
            return self._lookup.local(name, cancel)
        except DevloopError as error:
            _LOG.info("%s counts as unchanged: %s", name, error)
            return None

    def _seen(self, name: str, names: tuple[str, ...]) -> bool:
        """Whether it moved."""
        with self._lock:
            before = self._known.get(name)
            after = before.seen_as(names) if before else _Known(first=names, now=names)
            if after == before:
                return False
            self._known[name] = after
        with self._file.updating() as value:
            bases = value.setdefault("bases", {})
            bases[name] = {"first": after.first, "now": after.now, "mark": after.mark}
        moved = before is not None and after.mark != before.mark
        if before is not None and moved:
            self._report(_moved(name, before.now, names))
        return moved


def _moved(name: str, before: tuple[str, ...], after: tuple[str, ...]) -> Diagnosis:
    old, new = before[0][:19], after[0][:19]
    return Diagnosis(
        code=Code.BUILD_BASE_MOVED, severity="info", message=f"base {name} moved ({old} -> {new})"
    )


def _read(value: Mapping[str, Any]) -> dict[str, _Known]:
    found: dict[str, _Known] = {}
    bases = value.get("bases")
    for name, each in bases.items() if isinstance(bases, dict) else ():
        entry: Mapping[str, Any] = each if isinstance(each, dict) else {}
        first, now, mark = (entry.get(key) for key in ("first", "now", "mark"))
        if isinstance(first, list) and isinstance(now, list) and isinstance(mark, str) and now:
            found[name] = _Known(first=tuple(map(str, first)), now=tuple(map(str, now)), mark=mark)
    return found
