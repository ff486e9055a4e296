"""Rendered objects as an OCI artifact, which Flux (an OCIRepository) and Argo CD (a source with
oci://) take from a registry.

The config has the media type by which `flux` knows its artifacts. The layer has OCI's own: Flux
takes the first layer whatever its type is, while Argo CD takes no other without a setting. Same
objects, same digest: the tar has neither times nor owners.

Sources: https://fluxcd.io/flux/components/source/ocirepositories/#layer-selector,
https://argo-cd.readthedocs.io/en/stable/user-guide/oci/.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from devloop.base.image_reference import IMAGE_PATH, split_registry
from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError
from devloop.registry.client import RegistryClient, sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.base.cancel import Cancel


CONFIG = "application/vnd.cncf.flux.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_SCHEME = "oci://"
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_PATH = re.compile(IMAGE_PATH)


@dataclass(frozen=True, slots=True)
class ArtifactName:
    """Where an artifact goes: `oci://HOST/PATH:TAG`."""

    host: str
    path: str
    tag: str = "latest"

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}"


def parse_name(text: str) -> ArtifactName:
    """Errors: usage/arguments."""
    name, colon, tag = text.removeprefix(_SCHEME).rpartition(":")
    if not colon or "/" in tag:
        name, tag = text.removeprefix(_SCHEME), "latest"
    host, path = split_registry(name)
    if (
        not text.startswith(_SCHEME)
        or not host
        or not _PATH.fullmatch(path)
        or not _TAG.fullmatch(tag)
    ):
        raise DevloopError.of(
            Code.USAGE_ARGUMENTS,
            f"--push {text} is no place for an artifact",
            suggestions=("it is like oci://registry.example/shop/manifests:main",),
        )
    return ArtifactName(host, path, tag)


def push_artifact(
    name: ArtifactName, files: Mapping[str, bytes], annotations: Mapping[str, str], cancel: Cancel
) -> str:
    """Push `files` and give the artifact its tag; returns `HOST/PATH@sha256:…`. `annotations` are
    the manifest's. Errors: registry/*."""
    layer, diff_id = _layer(files)
    config = _json(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }
    )
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": CONFIG, "digest": sha256(config), "size": len(config)},
        "layers": [{"mediaType": LAYER, "digest": sha256(layer), "size": len(layer)}],
    }
    if annotations:
        manifest["annotations"] = dict(sorted(annotations.items()))
    with RegistryClient(name.host) as registry:
        for blob in (config, layer):
            if registry.head_blob(name.path, sha256(blob), cancel) is None:
                registry.put_blob(name.path, blob, cancel)
        body = _json(manifest)
        pushed = registry.put_manifest(name.path, name.tag, body, _MANIFEST, cancel)
    return f"{name.repository}@{pushed.digest}"


def annotations_of(source: str, revision: str, env: Mapping[str, str]) -> dict[str, str]:
    """What the artifact says of where it is from; when it was made only if SOURCE_DATE_EPOCH says
    so (https://reproducible-builds.org/specs/source-date-epoch/). Errors: usage/arguments."""
    found = {"source": source, "revision": revision}
    if epoch := env.get("SOURCE_DATE_EPOCH"):
        try:
            when = datetime.fromtimestamp(int(epoch), UTC)
        except (ValueError, OverflowError, OSError):
            raise DevloopError.of(
                Code.USAGE_ARGUMENTS,
                f"SOURCE_DATE_EPOCH is no number of seconds: {epoch}",
                suggestions=("set it to one, as of `git log -1 --format=%ct`, or unset it",),
            ) from None
        found["created"] = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {f"org.opencontainers.image.{key}": value for key, value in found.items() if value}


def _layer(files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """The layer, and the digest of what is compressed in it."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    data = plain.getvalue()
    return gzip.compress(data, compresslevel=9, mtime=0), sha256(data)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
