"""The documents that make an image: manifest, config, and the list of platforms above them.

From bytes to values and back; no registry and no file system. What is not understood in a document
is kept as it stands, so that an image made from another differs from it in nothing but its layers.

Formats: https://github.com/opencontainers/image-spec (manifest.md, config.md, image-index.md) and
Docker's schema 2, which has the same fields under other media types.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass
from devloop.builders.image.full_build import NeedsFullBuild

if TYPE_CHECKING:
    from collections.abc import Mapping


MARK = "devloop.delta.v1"
"""The comment of the history entry of a layer that holds what changed since the layers below."""

_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEXES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
_TAR = {
    _DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar",
    _OCI_MANIFEST: "application/vnd.oci.image.layer.v1.tar",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: `descriptor` as the manifest has it, `diff_id` the digest of the bare tar."""

    descriptor: Mapping[str, Any]
    diff_id: str

    @property
    def digest(self) -> str:
        return str(self.descriptor["digest"])

    @property
    def size(self) -> int:
        """In bytes, as the registry keeps it."""
        return int(self.descriptor["size"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """An image's two documents as they go to the registry."""

    manifest: bytes
    config: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return sha256(self.manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as its documents describe it. `manifest` and `config` are the parsed documents,
    `layers` stand for what is in them, the lowest first; `delta` says that the last layer is
    devloop's."""

    media_type: str
    manifest: Mapping[str, Any]
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    delta: bool = False

    def bare(self, digest: str, size: int) -> Layer:
        """A layer of this image's kind for a tar that is stored as it is."""
        descriptor = {"mediaType": _TAR[self.media_type], "size": size, "digest": digest}
        return Layer(descriptor=descriptor, diff_id=digest)

    def with_layer(self, index: int, layer: Layer) -> Image:
        """The image with another layer at `index`."""
        layers = (*self.layers[:index], layer, *self.layers[index + 1 :])
        return replace(self, layers=layers)

    def without_delta(self) -> Image:
        """The image below devloop's own layer."""
        if not self.delta:
            return self
        history = list(self.config.get("history") or ())
        last = max(i for i, entry in enumerate(history) if entry.get("comment") == MARK)
        config = {**self.config, "history": history[:last] + history[last + 1 :]}
        return replace(self, config=config, layers=self.layers[:-1], delta=False)

    def documents(self, created: str, delta: Layer | None = None, about: str = "") -> Documents:
        """Manifest and config of this image, made at `created` (RFC 3339), with `delta` on top.

        Another `created` gives another digest even where all files are the same."""
        layers = (*self.layers, delta) if delta else self.layers
        config = dict(self.config)
        history = list(config.get("history") or ())
        if delta is not None:
            history.append({"created": created, "created_by": about, "comment": MARK})
        config |= {
            "created": created,
            "history": history,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
        data = _encode(config)
        manifest = dict(self.manifest) | {
            "config": {**self.manifest["config"], "size": len(data), "digest": sha256(data)},
            "layers": [dict(layer.descriptor) for layer in layers],
        }
        return Documents(manifest=_encode(manifest), config=data, media_type=self.media_type)


def is_index(media_type: str, body: bytes) -> bool:
    """Whether a manifest is a list of manifests."""
    return media_type in _INDEXES or _decode(body).get("mediaType") in _INDEXES


def choose(body: bytes, platform: str | None) -> str:
    """The digest of the one image in an index. Attestations are passed over. With several
    platforms, `platform` (OS/ARCH[/VARIANT]) decides. Raises `NeedsFullBuild`."""
    found = []
    for entry in _decode(body).get("manifests") or ():
        where = entry.get("platform") or {}
        # Attestations have the platform unknown/unknown.
        if where.get("os") != "unknown":
            name = "/".join(filter(None, (where.get("os"), where.get("architecture"))))
            found.append((name, str(entry["digest"])))
    if len(found) != 1 and platform:
        wanted = "/".join(platform.split("/")[:2])
        found = [pair for pair in found if pair[0] == wanted]
    if len(found) != 1:
        raise NeedsFullBuild("the image is for several platforms")
    return found[0][1]


def config_digest(manifest: bytes) -> str:
    """The digest of the config that `manifest` names. Raises `NeedsFullBuild`."""
    try:
        return str(_decode(manifest)["config"]["digest"])
    except (KeyError, TypeError):
        raise NeedsFullBuild("the image's manifest has no config") from None


def parse_image(manifest: bytes, media_type: str, config: bytes) -> Image:
    """Raises `NeedsFullBuild` for documents that do not fit each other."""
    parsed, parsed_config = _decode(manifest), _decode(config)
    kind = str(parsed.get("mediaType") or media_type)
    if kind not in _TAR:
        raise NeedsFullBuild(f"the image's manifest is of an unknown kind: {kind}")
    try:
        diff_ids = map(str, parsed_config["rootfs"]["diff_ids"])
        pairs = zip(map(dict, parsed["layers"]), diff_ids, strict=True)
        layers = tuple(Layer(descriptor=found, diff_id=diff_id) for found, diff_id in pairs)
        history = [entry for entry in parsed_config.get("history") or () if isinstance(entry, dict)]
    except (KeyError, TypeError, ValueError):
        raise NeedsFullBuild("the image's manifest and config do not fit each other") from None
    return Image(
        media_type=kind,
        manifest=parsed,
        config=parsed_config,
        layers=layers,
        # Further down it is that of an image that this one is built from.
        delta=bool(layers and history) and history[-1].get("comment") == MARK,
    )


def timestamp() -> str:
    """Now, as documents have it (RFC 3339)."""
    return dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _decode(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise NeedsFullBuild("the image's documents cannot be read")
    return parsed


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
