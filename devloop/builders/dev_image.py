"""The image that `devloop dev` deploys on a local cluster: the one that was built, one layer with
devloop's own program more, and its command under the supervisor in it.

The built image stays what the next one is made from. The same built image gives the same digest.
Nothing is decided here about which sessions and clusters get it.
"""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from devloop.base.debug_hooks import hook
from devloop.base.linux_signals import signal_number
from devloop.base.supervisor import DIRECTORY, PROGRAM, is_init, program, supervise, under
from devloop.builders.image.documents import sha256
from devloop.builders.image.full_build import NeedsFullBuild
from devloop.builders.image.repository import Repository
from devloop.builders.image.tar_writer import END, header, padding
from devloop.errors import Code, Diagnosis

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel
    from devloop.builders.image.documents import Documents, Image
    from devloop.builders.job import Registry
    from devloop.config.schema import Debug
    from devloop.engine.ports import Reporter, ServiceBuilder
    from devloop.errors import Severity
    from devloop.model import ImageRef, Scan


_ABOUT = "devloop supervisor"


class DevImages:
    """The `ServiceBuilder` of one service, around the one that builds. `platform` is the nodes',
    `debug` says how an editor attaches to its process."""

    def __init__(
        self,
        builder: ServiceBuilder,
        registry: Registry,
        platform: str | None,
        debug: Debug | None = None,
    ) -> None:
        self._builder = builder
        self._registry = registry
        self._platform = platform
        self._debug = debug
        # Repositories that have the layer; the same for all of a session's images.
        self._ready: set[tuple[str, str]] = set()
        self._reported = ""

    def build(self, scan: Scan, reporter: Reporter, cancel: Cancel) -> ImageRef:
        """See engine.ports.Builder."""
        built = self._builder.build(scan, reporter, cancel)
        try:
            return self._make(built, cancel)
        except NeedsFullBuild as error:
            self._report(error.reason, reporter)
            return built

    def may_differ(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.ServiceBuilder."""
        return self._builder.may_differ(before, after)

    def wrote(self, before: Scan, after: Scan) -> bool:
        """See engine.ports.ServiceBuilder."""
        return self._builder.wrote(before, after)

    def _make(self, built: ImageRef, cancel: Cancel) -> ImageRef:
        """Raises `NeedsFullBuild` where there is none, with the reason, and registry/*."""
        if not built.digest:
            raise NeedsFullBuild("it is in no registry")
        repository = Repository(self._registry, built.repository)
        image = repository.image(built.digest, self._platform, cancel)
        settings = image.config.get("config") or {}
        debug = self._debug
        supervisor = supervise(
            signal_number(str(settings.get("StopSignal") or "")) or 15,
            (debug.kind, debug.port) if debug is not None else None,
        )
        layer = _layer(_platform_of(image), hook(debug.kind) if debug is not None else None)
        documents = _documents(image, settings, supervisor, layer)
        known = (built.repository, sha256(layer))
        try:
            repository.send(documents, [] if known in self._ready else [layer], _tag(built), cancel)
        except NeedsFullBuild:
            if known not in self._ready:
                raise
            # The registry is another one by now, or has collected its garbage.
            self._ready.discard(known)
            repository.send(documents, [layer], _tag(built), cancel)
        self._ready.add(known)
        return replace(
            built,
            tag=_tag(built),
            digest=documents.digest,
            supervisor=supervisor,
            plain=built.digest,
        )

    def _report(self, reason: str, reporter: Reporter) -> None:
        if reason == self._reported:
            return
        self._reported = reason
        diagnosis = Diagnosis(
            code=Code.BUILD_NO_SUPERVISOR,
            severity="info",
            message=f"a change restarts the container, not its process alone: {reason}",
            suggestions=("`deploy: {supervise: false}` says that this is meant",),
        )
        reporter.diagnostic(diagnosis)
        if self._debug is not None:
            reporter.diagnostic(debug_off(self._debug, f"there is no supervisor: {reason}"))


def debug_off(debug: Debug, reason: str, severity: Severity = "warning") -> Diagnosis:
    """What is said of a service whose `debug` does nothing."""
    return Diagnosis(
        code=Code.DEBUG_OFF,
        severity=severity,
        message=f"`debug` does nothing: {reason}",
        location=debug.location,
        suggestions=() if severity == "info" else ("remove `debug` where that is meant",),
    )


def _tag(built: ImageRef) -> str:
    return f"{built.tag}-dev"


def _platform_of(image: Image) -> str:
    return f"{image.config.get('os')}/{image.config.get('architecture')}"


def _layer(platform: str, more: tuple[str, bytes] | None) -> bytes:
    """The layer's tar, always the same, with one file `more`: its path and content."""
    content = program(platform)
    if content is None:
        raise NeedsFullBuild(f"there is no supervisor for {platform}")
    head = header(PROGRAM.lstrip("/"), "file", mode=0o755, size=len(content))
    folder = header(DIRECTORY.lstrip("/"), "dir", mode=0o755)
    files = [folder, head, content, padding(len(content))]
    if more is not None:
        path, text = more
        if (directory := posixpath.dirname(path)) != DIRECTORY:
            files.append(header(directory.lstrip("/"), "dir", mode=0o755))
        files += [header(path.lstrip("/"), "file", mode=0o644, size=len(text)), text]
        files.append(padding(len(text)))
    return b"".join((*files, END))


def _documents(
    image: Image, settings: dict[str, Any], supervisor: tuple[str, ...], layer: bytes
) -> Documents:
    # It may start from a development image itself.
    entrypoint = under(settings.get("Entrypoint") or (), ())
    command = list(settings.get("Cmd") or ())
    if not (whole := [*entrypoint, *command]):
        raise NeedsFullBuild("the image has no command")
    if is_init(whole):
        raise NeedsFullBuild(f"{whole[0]} has to be process 1")
    digest = sha256(layer)
    created = str(image.config.get("created") or "1970-01-01T00:00:00Z")
    history = [*(image.config.get("history") or ()), {"created": created, "created_by": _ABOUT}]
    config = {
        **image.config,
        "config": {**settings, "Entrypoint": [*supervisor, *entrypoint], "Cmd": command or None},
        "history": history,
    }
    layers = (*image.layers, image.bare(digest, len(layer)))
    return replace(image, config=config, layers=layers).documents(created)
