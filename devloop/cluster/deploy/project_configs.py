"""The ConfigMaps and Secrets of all services' manifests: what one service's pods read may stand
among those of another.

Manifests are read again only when one of their files was written. Those that cannot be read count
as they were: their own service reports what is wrong with them.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancel
from devloop.base.lazy_dataclass import dataclass
from devloop.base.patterns import FilePatterns
from devloop.cluster.api.pod_view import dig
from devloop.cluster.deploy.config_reads import HAVE_TEMPLATES, hash_of, is_config, references
from devloop.errors import DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.engine.ports import Rendering
    from devloop.errors import Diagnosis
    from devloop.model import ManifestObject, RenderingInputs


# Kind, namespace, name.
_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifests:
    """What one service's manifests hold and what their pods read, as of `stamp`."""

    stamp: object = None
    hashes: Mapping[_Key, str]
    reads: frozenset[_Key] = frozenset()


class ProjectConfigs:
    """`renderings` are by service, `namespace` is that of objects that name none. Thread-safe."""

    def __init__(self, renderings: Mapping[str, Rendering], namespace: str) -> None:
        self._renderings = renderings
        self._namespace = namespace
        self._lock = threading.Lock()
        self._known: dict[str, _Manifests] = {}

    def beside(self, service: str) -> dict[tuple[str, str], dict[str, str]]:
        """As `config_hashes`, of the manifests of the other services."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for other in self._others(service):
            for (kind, namespace, name), digest in self._of(other).hashes.items():
                found.setdefault((kind, namespace), {})[name] = digest
        return found

    def watched(self, service: str) -> Rendering:
        """The service's rendering with more inputs: what holds what its pods read."""
        return _Watched(self._renderings[service], lambda: self._holders(service))

    def _holders(self, service: str) -> tuple[Rendering, ...]:
        """Other renderings that hold what the service's pods read and its own manifests lack."""
        if not (others := self._others(service)):
            return ()
        own = self._of(service)
        missing = own.reads - own.hashes.keys()
        return tuple(
            rendering
            for other in others
            if (rendering := self._renderings.get(other)) is not None
            and missing
            and not missing.isdisjoint(self._of(other).hashes)
        )

    def _others(self, service: str) -> tuple[str, ...]:
        mine = self._renderings.get(service)
        return tuple(name for name, other in self._renderings.items() if other != mine)

    def _of(self, service: str) -> _Manifests:
        with self._lock:
            known = self._known.get(service, _Manifests(hashes={}))
        rendering = self._renderings.get(service)
        if rendering is None:
            return known
        try:
            stamp = _stamp(rendering.inputs())
            if stamp == known.stamp:
                return known
            found = self._read(rendering.objects(Cancel()), stamp)
        except (DevloopError, OSError):
            return known
        with self._lock:
            self._known[service] = found
        return found

    def _read(self, manifests: tuple[ManifestObject, ...], stamp: object) -> _Manifests:
        hashes: dict[_Key, str] = {}
        reads: set[_Key] = set()
        for manifest in manifests:
            version, kind, namespace, name = manifest.key
            where = namespace or self._namespace
            if is_config(version, kind):
                hashes[kind, where, name] = hash_of(kind, name, manifest.object)
            elif kind in HAVE_TEMPLATES:
                template = dig(dict(manifest.object), "spec", "template")
                reads.update((kind, where, name) for kind, name in references(template))
        return _Manifests(stamp=stamp, hashes=hashes, reads=frozenset(reads))


@dataclass(frozen=True, slots=True)
class _Watched:
    """See engine.ports.Rendering."""

    own: Rendering
    holders: Callable[[], tuple[Rendering, ...]]

    def inputs(self) -> RenderingInputs:
        mine = self.own.inputs()
        more = [holder.inputs() for holder in self.holders()]
        patterns = dict.fromkeys((*mine.patterns, *(p for each in more for p in each.patterns)))
        values = (*mine.values, *(value for each in more for value in each.values))
        return replace(mine, patterns=tuple(patterns), values=values)

    def objects(
        self, cancel: Cancel, notify: Callable[[Diagnosis], None] = lambda _: None
    ) -> tuple[ManifestObject, ...]:
        return self.own.objects(cancel, notify)


def _stamp(inputs: RenderingInputs) -> object:
    """Raises OSError for a file that went away meanwhile."""
    files = FilePatterns(inputs.patterns).files()
    stats = ((file, os.stat(file)) for file in files)  # noqa: PTH116 - text, as they come
    return inputs.values, [(f, s.st_mtime_ns, s.st_size, s.st_ino) for f, s in stats]
