"""Puts images made here into the target's registry: base layers, own layers, config, manifest.

What the registry has is asked once a session. A layer of the base is taken over within a registry,
or flows through from another one; it is never kept here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from devloop.base.threads import side_by_side
from devloop.builders.image.documents import sha256
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.builders.image.base_image import Base
    from devloop.builders.image.documents import Documents, Layer
    from devloop.builders.job import OpenRegistry, Registry


_PIECE = 8 << 20


class Upload:
    """One repository, for a whole session. `repository` is `host[:port]/name`."""

    def __init__(self, open_registry: OpenRegistry, repository: str) -> None:
        self.host, _, self.name = repository.partition("/")
        self._open = open_registry
        self._there: set[str] = set()

    @property
    def _registry(self) -> Registry:
        return self._open(self.host)

    def has(self, digest: str) -> bool:
        """Whether it is known, without asking, that the registry has the blob."""
        return digest in self._there

    def forget(self) -> bool:
        """Ask again from now on; whether there was anything to forget."""
        known, self._there = bool(self._there), set()
        return known

    def put(self, blobs: Iterable[bytes], cancel: Cancel) -> None:
        """Upload what is not known to be there, side by side."""
        new = {digest: data for data in blobs if (digest := sha256(data)) not in self._there}
        side_by_side(
            [partial(self._registry.put_blob, self.name, data, cancel) for data in new.values()]
        )
        self._there.update(new)

    def base(self, base: Base, report: Callable[[str], None], cancel: Cancel) -> None:
        """Make sure of the layers that `base` has."""
        for layer in base.image.layers:
            if layer.digest in self._there:
                continue
            if self._registry.head_blob(self.name, layer.digest, cancel) is None:
                same = base.host == self.host
                if not same or not self._registry.mount_blob(
                    self.name, layer.digest, base.name, cancel
                ):
                    self._stream(base, layer, report, cancel)
            self._there.add(layer.digest)

    def _stream(
        self, base: Base, layer: Layer, report: Callable[[str], None], cancel: Cancel
    ) -> None:
        report(f"copying {layer.size / 1e6:.1f} MB of {base.name} from {base.host} to {self.host}")
        with self._open(base.host).open_blob(base.name, layer.digest, cancel) as chunks:
            if chunks is None:
                raise DevloopError.of(
                    Code.BUILD_BASE_PULL_FAILED, f"{base.host} does not have a layer of {base.name}"
                )
            self._registry.put_chunks(self.name, _pieces(chunks), cancel)

    def finish(self, documents: Documents, tag: str, cancel: Cancel) -> None:
        self._registry.put_manifest(
            self.name, tag, documents.manifest, documents.media_type, cancel
        )


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Bigger ones: every piece is a request."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= _PIECE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
