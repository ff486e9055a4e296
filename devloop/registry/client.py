"""A small client for the OCI distribution API: manifests and blobs of a registry.

It is on the hot path (every deploy asks it for a digest), so connections stay open and nothing is
asked twice. It must not know what an image is for; it moves bytes and checks digests.

Spec: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, tokens:
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
import urllib.parse
from dataclasses import KW_ONLY, field
from typing import TYPE_CHECKING, Self

from devloop.base.lazy_dataclass import dataclass
from devloop.errors import Code, DevloopError
from devloop.registry import credentials
from devloop.registry.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import urllib3

    from devloop.base.cancel import Cancel
    from devloop.registry.credentials import RegistryCredentials


_ACCEPT = (
    "application/vnd.oci.image.index.v1+json, "
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)

_BYTES = {"Content-Type": "application/octet-stream"}

# Pieces of a blob that is read bit by bit, in bytes.
_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# An upload's address may be signed and good for minutes only; distribution itself keeps it a week.
_OPEN_SECONDS = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a registry says of an object: `size` is in bytes."""

    digest: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageManifest(Descriptor):
    body: bytes


class RegistryClient:
    """One registry. `host` is `host[:port]` (a path after it is ignored). Thread-safe; every call
    raises registry/* or, with a `cancel`, Cancelled."""

    def __init__(
        self,
        host: str,
        *,
        lookup: Callable[[str], RegistryCredentials | None] = credentials.for_host,
    ) -> None:
        self.host = host.partition("/")[0]
        self._transport = Transport(self.host, lookup)
        self._lock = threading.Lock()
        # Uploads that are open and not begun, by repository: since when (monotonic), and where.
        self._open: dict[str, list[tuple[float, str]]] = {}

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def ping(self, cancel: Cancel | None = None) -> None:
        """Raise registry/unreachable or registry/unauthorized unless the API answers."""
        response = self._transport.call("GET", "/v2/", scope="", cancel=cancel)
        html = _media_type(response).startswith("text/html")
        if response.status in (404, 405) or (html and response.status < 400):
            raise self._transport.no_registry(response)
        if response.status != 200:
            raise self._transport.refused(response, "asking for its API")

    def digest(self, repository: str, reference: str, cancel: Cancel | None = None) -> str | None:
        """The digest behind a tag or digest of `host/name`, None when there is none."""
        found = self.head_manifest(self.name(repository), reference, cancel)
        return found.digest if found else None

    def name(self, repository: str) -> str:
        """`host/team/app` -> `team/app`."""
        return repository.removeprefix(f"{self.host}/")

    def repositories(self, cancel: Cancel | None = None) -> tuple[str, ...]:
        """The repositories that have a tag, as far as the registry lists them: the first thousand.

        One request for each: for local registries only. Raises registry/*."""
        names = self._listed("_catalog?n=1000", "registry:catalog:*", "repositories", cancel)
        return tuple(
            name for name in names if self._listed(f"{name}/tags/list", _pull(name), "tags", cancel)
        )

    def _listed(self, path: str, scope: str, key: str, cancel: Cancel | None) -> list[str]:
        response = self._transport.call("GET", f"/v2/{path}", scope=scope, cancel=cancel)
        # None for a repository whose last tag was deleted.
        found = self._found(response, f"listing its {key}")
        return [str(each) for each in found.json().get(key) or ()] if found else []

    def head_manifest(
        self, name: str, reference: str, cancel: Cancel | None = None
    ) -> Descriptor | None:
        response = self._manifest("HEAD", name, reference, cancel)
        if response is None:
            return None
        digest = response.headers.get("Docker-Content-Digest", "")
        if not _DIGEST.fullmatch(digest):
            # The header is only recommended; the body always says it.
            return self.get_manifest(name, reference, cancel)
        return Descriptor(
            digest=digest,
            media_type=_media_type(response),
            size=int(response.headers.get("Content-Length") or 0),
        )

    def get_manifest(
        self, name: str, reference: str, cancel: Cancel | None = None
    ) -> ImageManifest | None:
        """The manifest, its digest worked out from its bytes; None when there is none."""
        response = self._manifest("GET", name, reference, cancel)
        if response is None:
            return None
        body, media_type = response.data, _media_type(response)
        digest = sha256(body)
        if _DIGEST.fullmatch(reference) and digest != reference:
            raise _mismatch(f"{self.host}/{name}", reference, digest)
        return ImageManifest(digest=digest, media_type=media_type, size=len(body), body=body)

    def put_manifest(
        self, name: str, reference: str, body: bytes, media_type: str, cancel: Cancel | None = None
    ) -> Descriptor:
        path, headers = f"/v2/{name}/manifests/{reference}", {"Content-Type": media_type}
        response = self._transport.call(
            "PUT", path, scope=_push(name), headers=headers, body=body, cancel=cancel
        )
        if response.status != 201:
            raise self._push_failed(response, f"pushing {name}")
        digest = sha256(body)
        answered = response.headers.get("Docker-Content-Digest", digest)
        if answered != digest:
            raise _mismatch(f"{self.host}/{name}", digest, answered)
        return Descriptor(digest=digest, media_type=media_type, size=len(body))

    def delete_manifest(self, name: str, digest: str, cancel: Cancel | None = None) -> bool:
        """Delete a manifest and every tag that leads to it; False when it was gone already.

        Layers stay until the registry's own garbage collector runs. Raises
        registry/delete-refused for a registry that is set to keep everything."""
        path, scope = f"/v2/{name}/manifests/{digest}", f"{_push(name)},delete"
        response = self._transport.call("DELETE", path, scope=scope, cancel=cancel)
        if response.status == 404:
            return False
        if response.status == 405:
            message = f"the registry {self.host} does not delete anything"
            hint = "run it with REGISTRY_STORAGE_DELETE_ENABLED=true"
            raise DevloopError.of(Code.REGISTRY_DELETE_REFUSED, message, suggestions=(hint,))
        if response.status != 202:
            raise self._transport.refused(response, f"deleting from {name}")
        return True

    def head_blob(self, name: str, digest: str, cancel: Cancel | None = None) -> int | None:
        """The blob's size, None when the registry does not have it."""
        response = self._blob("HEAD", name, digest, cancel)
        return int(response.headers.get("Content-Length") or 0) if response else None

    def get_blob(self, name: str, digest: str, cancel: Cancel | None = None) -> bytes | None:
        """A whole blob in memory, for configs and small layers; None when there is none."""
        response = self._blob("GET", name, digest, cancel)
        if response is None:
            return None
        if sha256(response.data) != digest:
            raise _mismatch(f"{self.host}/{name}", digest, sha256(response.data))
        return response.data

    @contextlib.contextmanager
    def open_blob(
        self, name: str, digest: str, cancel: Cancel | None = None
    ) -> Iterator[Iterator[bytes] | None]:
        """A blob piece by piece, for what does not fit in memory; None when there is none.

        Read it to its end inside the block: only there it is known to be what was asked for."""
        path = f"/v2/{name}/blobs/{digest}"
        with self._transport.stream(path, scope=_pull(name), cancel=cancel) as response:
            found = self._found(response, f"asking for a layer of {name}")
            yield _checked(response, f"{self.host}/{name}", digest) if found else None

    def mount_blob(self, name: str, digest: str, origin: str, cancel: Cancel | None = None) -> bool:
        """Have the registry take a blob over from its repository `origin`; False when it will not,
        which the spec leaves to it."""
        query = urllib.parse.urlencode({"mount": digest, "from": origin})
        path, scope = f"/v2/{name}/blobs/uploads/?{query}", f"{_push(name)} {_pull(origin)}"
        response = self._transport.call("POST", path, scope=scope, body=b"", cancel=cancel)
        if response.status == 201:
            return True
        location = response.headers.get("Location", "")
        if response.status == 202 and location:
            # It began an upload instead, which nobody will go on with.
            self._transport.call("DELETE", location, scope=_push(name), cancel=cancel)
        return False

    def put_blob(self, name: str, data: bytes, cancel: Cancel | None = None) -> str:
        """Upload in one piece; returns the digest. Uses what `ready_uploads` opened."""
        digest = sha256(data)
        location = self._opened(name)
        # The registry may have forgotten what was opened long ago: then open another.
        if location and self._finish(name, location, digest, data, cancel).status == 201:
            return digest
        response = self._finish(name, self._begin(name, cancel), digest, data, cancel)
        if response.status != 201:
            raise self._push_failed(response, f"pushing a layer of {name}")
        return digest

    def ready_uploads(self, name: str, count: int, cancel: Cancel | None = None) -> None:
        """Open uploads ahead of time until `count` are open, which saves the next `put_blob`s a
        round trip each. Best not called while somebody waits."""
        while True:
            with self._lock:
                if len(self._open.get(name, ())) >= count:
                    return
            location = self._begin(name, cancel)
            with self._lock:
                self._open.setdefault(name, []).append((time.monotonic(), location))

    def _opened(self, name: str) -> str | None:
        with self._lock:
            waiting = self._open.get(name, [])
            while waiting:
                since, location = waiting.pop()
                if time.monotonic() - since < _OPEN_SECONDS:
                    return location
        return None

    def put_chunks(
        self, name: str, chunks: Iterable[bytes], cancel: Cancel | None = None
    ) -> tuple[str, int]:
        """Upload piece by piece, for what does not fit in memory; returns digest and size."""
        hashed, offset = hashlib.sha256(), 0
        location = self._begin(name, cancel)
        for chunk in chunks:
            if not chunk:
                continue
            headers = _BYTES | {"Content-Range": f"{offset}-{offset + len(chunk) - 1}"}
            response = self._transport.call(
                "PATCH", location, scope=_push(name), headers=headers, body=chunk, cancel=cancel
            )
            if response.status != 202:
                raise self._push_failed(response, f"pushing a layer of {name}")
            hashed.update(chunk)
            offset += len(chunk)
            location = response.headers.get("Location") or location
        digest = f"sha256:{hashed.hexdigest()}"
        response = self._finish(name, location, digest, b"", cancel)
        if response.status != 201:
            raise self._push_failed(response, f"pushing a layer of {name}")
        return digest, offset

    def _begin(self, name: str, cancel: Cancel | None) -> str:
        path = f"/v2/{name}/blobs/uploads/"
        response = self._transport.call("POST", path, scope=_push(name), body=b"", cancel=cancel)
        location = response.headers.get("Location", "")
        if response.status != 202 or not location:
            raise self._push_failed(response, f"pushing a layer of {name}")
        return location

    def _finish(
        self, name: str, location: str, digest: str, data: bytes, cancel: Cancel | None
    ) -> urllib3.BaseHTTPResponse:
        joint = "&" if "?" in location else "?"
        path = f"{location}{joint}digest={urllib.parse.quote(digest)}"
        return self._transport.call(
            "PUT", path, scope=_push(name), headers=_BYTES, body=data, cancel=cancel
        )

    def _push_failed(self, response: urllib3.BaseHTTPResponse, doing: str) -> DevloopError:
        return self._transport.refused(response, doing, Code.REGISTRY_PUSH_FAILED)

    def _manifest(
        self, method: str, name: str, reference: str, cancel: Cancel | None
    ) -> urllib3.BaseHTTPResponse | None:
        path, headers = f"/v2/{name}/manifests/{reference}", {"Accept": _ACCEPT}
        response = self._transport.call(
            method, path, scope=_pull(name), headers=headers, cancel=cancel
        )
        return self._found(response, f"asking for {name}")

    def _blob(
        self, method: str, name: str, digest: str, cancel: Cancel | None
    ) -> urllib3.BaseHTTPResponse | None:
        path = f"/v2/{name}/blobs/{digest}"
        response = self._transport.call(method, path, scope=_pull(name), cancel=cancel)
        return self._found(response, f"asking for a layer of {name}")

    def _found(
        self, response: urllib3.BaseHTTPResponse, doing: str
    ) -> urllib3.BaseHTTPResponse | None:
        """The answer, None when the registry has no such thing."""
        if response.status not in (200, 404):
            raise self._transport.refused(response, doing)
        return response if response.status == 200 else None


@dataclass(slots=True, eq=False)
class Registries:
    """From `host[:port]` to a client, opened when it is first asked for. Thread-safe. `known` is
    used for its own host, and left open by `close`."""

    known: RegistryClient | None = None
    _: KW_ONLY
    make: Callable[[str], RegistryClient] = RegistryClient
    _made: dict[str, RegistryClient] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __call__(self, host: str) -> RegistryClient:
        with self._lock:
            if self.known and self.known.host == host:
                return self.known
            if host not in self._made:
                self._made[host] = self.make(host)
            return self._made[host]

    def close(self) -> None:
        with self._lock:
            made, self._made = list(self._made.values()), {}
        for client in made:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _checked(response: urllib3.BaseHTTPResponse, what: str, digest: str) -> Iterator[bytes]:
    hashed = hashlib.sha256()
    for chunk in response.stream(_CHUNK, decode_content=False):
        hashed.update(chunk)
        yield chunk
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise _mismatch(what, digest, f"sha256:{hashed.hexdigest()}")


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _pull(name: str) -> str:
    return f"repository:{name}:pull"


def _push(name: str) -> str:
    return f"repository:{name}:pull,push"


def _media_type(response: urllib3.BaseHTTPResponse) -> str:
    return str(response.headers.get("Content-Type", "")).partition(";")[0].strip()


def _mismatch(what: str, wanted: str, got: str) -> DevloopError:
    message, cause = f"the registry gave another object for {what}", f"wanted {wanted}, got {got}"
    return DevloopError.of(Code.REGISTRY_DIGEST_MISMATCH, message, cause=cause)
