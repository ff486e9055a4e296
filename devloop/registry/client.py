"""A small client for the OCI distribution API: manifests and blobs of one registry.

It is on the hot path (every deploy asks it for a digest), so connections stay open and nothing is
asked twice. It must not know what an image is for; it moves bytes and checks digests.

Spec: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, tokens:
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from devloop.errors import DevloopError
from devloop.registry import credentials
from devloop.registry.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import urllib3

    from devloop.engine.cancel import Cancel
    from devloop.registry.credentials import Credentials

__all__ = ["ACCEPT", "Client", "Descriptor", "Manifest"]

ACCEPT = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a registry says of an object: `size` is in bytes."""

    digest: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Descriptor):
    body: bytes


class Client:
    """One registry. `host` is `host[:port]` (a path after it is ignored). Thread-safe; every call
    raises registry/* or, with a `cancel`, Cancelled."""

    def __init__(
        self,
        host: str,
        *,
        lookup: Callable[[str], Credentials | None] = credentials.for_host,
    ) -> None:
        self.host = host.partition("/")[0]
        self._transport = Transport(self.host, lookup)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def ping(self, cancel: Cancel | None = None) -> None:
        """Raise registry/unreachable or registry/unauthorized unless the API answers."""
        response = self._transport.call("GET", "/v2/", scope="", cancel=cancel)
        if response.status != 200:
            raise self._transport.refused(response, "asking for its API")

    def digest(self, repository: str, reference: str, cancel: Cancel | None = None) -> str | None:
        """The digest behind a tag or digest of `host/name`, None when there is none."""
        found = self.head_manifest(self.name(repository), reference, cancel)
        return found.digest if found else None

    def name(self, repository: str) -> str:
        """`host/team/app` -> `team/app`."""
        return repository.removeprefix(f"{self.host}/")

    def head_manifest(
        self, name: str, reference: str, cancel: Cancel | None = None
    ) -> Descriptor | None:
        response = self._manifest("HEAD", name, reference, cancel)
        if response.status == 404:
            return None
        if response.status != 200:
            raise self._transport.refused(response, f"asking for {name}")
        digest = response.headers.get("Docker-Content-Digest", "")
        if not _DIGEST.fullmatch(digest):
            # The header is only recommended; the body always tells.
            return self.get_manifest(name, reference, cancel)
        return Descriptor(
            digest=digest,
            media_type=_media_type(response),
            size=int(response.headers.get("Content-Length") or 0),
        )

    def get_manifest(
        self, name: str, reference: str, cancel: Cancel | None = None
    ) -> Manifest | None:
        """The manifest, its digest worked out from its bytes; None when there is none."""
        response = self._manifest("GET", name, reference, cancel)
        if response.status == 404:
            return None
        if response.status != 200:
            raise self._transport.refused(response, f"asking for {name}")
        digest = sha256(response.data)
        if _DIGEST.fullmatch(reference) and digest != reference:
            raise _mismatch(f"{self.host}/{name}", reference, digest)
        return Manifest(
            digest=digest,
            media_type=_media_type(response),
            size=len(response.data),
            body=response.data,
        )

    def put_manifest(
        self, name: str, reference: str, body: bytes, media_type: str, cancel: Cancel | None = None
    ) -> Descriptor:
        response = self._transport.call(
            "PUT",
            f"/v2/{name}/manifests/{reference}",
            scope=_push(name),
            headers={"Content-Type": media_type},
            body=body,
            cancel=cancel,
        )
        if response.status != 201:
            raise self._transport.refused(response, f"pushing {name}")
        digest = sha256(body)
        said = response.headers.get("Docker-Content-Digest", digest)
        if said != digest:
            raise _mismatch(f"{self.host}/{name}", digest, said)
        return Descriptor(digest=digest, media_type=media_type, size=len(body))

    def head_blob(self, name: str, digest: str, cancel: Cancel | None = None) -> int | None:
        """The blob's size, None when the registry does not have it."""
        path = f"/v2/{name}/blobs/{digest}"
        response = self._transport.call("HEAD", path, scope=_pull(name), cancel=cancel)
        if response.status == 404:
            return None
        if response.status != 200:
            raise self._transport.refused(response, f"asking for a layer of {name}")
        return int(response.headers.get("Content-Length") or 0)

    def get_blob(self, name: str, digest: str, cancel: Cancel | None = None) -> bytes | None:
        """A whole blob in memory, for configs and small layers; None when there is none."""
        path = f"/v2/{name}/blobs/{digest}"
        response = self._transport.call("GET", path, scope=_pull(name), cancel=cancel)
        if response.status == 404:
            return None
        if response.status != 200:
            raise self._transport.refused(response, f"asking for a layer of {name}")
        if sha256(response.data) != digest:
            raise _mismatch(f"{self.host}/{name}", digest, sha256(response.data))
        return response.data

    def put_blob(self, name: str, data: bytes, cancel: Cancel | None = None) -> str:
        """Upload in one piece; returns the digest."""
        digest = sha256(data)
        location = self._begin(name, cancel)
        self._finish(name, location, digest, data, cancel=cancel)
        return digest

    def put_chunks(
        self, name: str, chunks: Iterable[bytes], cancel: Cancel | None = None
    ) -> tuple[str, int]:
        """Upload piece by piece, for what does not fit in memory; returns digest and size."""
        hashed, offset = hashlib.sha256(), 0
        location = self._begin(name, cancel)
        for chunk in chunks:
            if not chunk:
                continue
            response = self._transport.call(
                "PATCH",
                location,
                scope=_push(name),
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{offset}-{offset + len(chunk) - 1}",
                },
                body=chunk,
                cancel=cancel,
            )
            if response.status != 202:
                raise self._transport.refused(response, f"pushing a layer of {name}")
            hashed.update(chunk)
            offset += len(chunk)
            location = response.headers.get("Location") or location
        digest = f"sha256:{hashed.hexdigest()}"
        self._finish(name, location, digest, b"", cancel=cancel)
        return digest, offset

    def _begin(self, name: str, cancel: Cancel | None) -> str:
        path = f"/v2/{name}/blobs/uploads/"
        response = self._transport.call("POST", path, scope=_push(name), body=b"", cancel=cancel)
        location = response.headers.get("Location", "")
        if response.status != 202 or not location:
            raise self._transport.refused(response, f"pushing a layer of {name}")
        return location

    def _finish(
        self, name: str, location: str, digest: str, data: bytes, *, cancel: Cancel | None
    ) -> None:
        joint = "&" if "?" in location else "?"
        response = self._transport.call(
            "PUT",
            f"{location}{joint}digest={urllib.parse.quote(digest)}",
            scope=_push(name),
            headers={"Content-Type": "application/octet-stream"},
            body=data,
            cancel=cancel,
        )
        if response.status != 201:
            raise self._transport.refused(response, f"pushing a layer of {name}")

    def _manifest(
        self, method: str, name: str, reference: str, cancel: Cancel | None
    ) -> urllib3.BaseHTTPResponse:
        return self._transport.call(
            method,
            f"/v2/{name}/manifests/{reference}",
            scope=_pull(name),
            headers={"Accept": ", ".join(ACCEPT)},
            cancel=cancel,
        )


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _pull(name: str) -> str:
    return f"repository:{name}:pull"


def _push(name: str) -> str:
    return f"repository:{name}:pull,push"


def _media_type(response: urllib3.BaseHTTPResponse) -> str:
    return str(response.headers.get("Content-Type", "")).partition(";")[0].strip()


def _mismatch(what: str, wanted: str, got: str) -> DevloopError:
    return DevloopError.of(
        "registry/digest-mismatch",
        f"the registry gave another object for {what}",
        cause=f"wanted {wanted}, got {got}",
    )
