"""A registry in memory that speaks HTTP, with faults to order."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class State:
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    emptied: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    connections: int = 0
    auth: str = ""
    password: str = "secret"
    hide_digest: bool = False
    absolute: bool = True
    fault: Callable[[BaseHTTPRequestHandler], bool] | None = None
    tokens: int = 0
    mounts: bool = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: the second would wait 40 ms for the first's acknowledgement.
    disable_nagle_algorithm = True
    state: State

    def setup(self) -> None:
        super().setup()
        self.state.connections += 1

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        state = self.state
        authorization = self.headers.get("Authorization", "")
        state.requests.append((self.command, self.path, authorization))
        if state.fault is not None and state.fault(self):
            return
        if self.path.startswith("/token"):
            self.token(authorization, body)
        elif state.auth and not self.allowed(authorization):
            self.challenge()
        else:
            self.api(body)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"me:{self.state.password}".encode()).decode()

    def allowed(self, authorization: str) -> bool:
        if self.state.auth == "basic":
            return authorization == self.basic()
        return authorization == f"Bearer token-{self.state.tokens}"

    def challenge(self) -> None:
        host = self.headers["Host"]
        if self.state.auth == "basic":
            self.answer(401, WWW_Authenticate='Basic realm="r"')
        else:
            realm = f'Bearer realm="http://{host}/token",service="fake",scope="x"'
            self.answer(401, WWW_Authenticate=realm)

    def token(self, authorization: str, body: bytes) -> None:
        refreshed = urllib.parse.parse_qs(body.decode()).get("refresh_token") == ["identity"]
        if authorization != self.basic() and not refreshed:
            self.answer(401)
            return
        self.state.tokens += 1
        self.answer(200, json.dumps({"token": f"token-{self.state.tokens}"}).encode())

    def api(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        parts = path.strip("/").split("/")
        if path == "/v2/":
            self.answer(200, b"{}")
        elif path == "/v2/_catalog":
            names = {key.partition("@")[0] for key in self.state.manifests} | self.state.emptied
            self.answer(200, json.dumps({"repositories": sorted(names)}).encode())
        elif parts[-2:] == ["tags", "list"]:
            self.tags("/".join(parts[1:-2]))
        elif "manifests" in parts:
            self.manifest("/".join(parts[1:-2]), parts[-1], body)
        elif parts[-2:-1] == ["uploads"] or parts[-1] == "uploads":
            self.upload(parts, urllib.parse.parse_qs(query), body)
        else:
            self.blob(parts[-1])

    def tags(self, name: str) -> None:
        keys = [key.partition("@")[2] for key in self.state.manifests if key.startswith(f"{name}@")]
        if not keys:
            self.answer(404, b'{"errors":[{"code":"NAME_UNKNOWN"}]}')
            return
        tags = [key for key in keys if not key.startswith("sha256:")]
        self.answer(200, json.dumps({"name": name, "tags": tags or None}).encode())

    def manifest(self, name: str, reference: str, body: bytes) -> None:
        known = self.state.manifests
        if self.command == "PUT":
            digest = sha(body)
            for key in (reference, digest):
                known[f"{name}@{key}"] = (self.headers["Content-Type"], body)
            self.answer(201, Docker_Content_Digest=digest)
            return
        found = known.get(f"{name}@{reference}")
        if found is None:
            self.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
            return
        if self.command == "DELETE":
            for key in [k for k, v in known.items() if v == found and k.startswith(f"{name}@")]:
                del known[key]
            self.state.emptied.add(name)
            self.answer(202)
            return
        headers = {} if self.state.hide_digest else {"Docker_Content_Digest": sha(found[1])}
        headers["Content_Type"] = found[0] + "; charset=utf-8"
        if self.command == "HEAD":
            headers["Content_Length"] = str(len(found[1]))
        self.answer(200, found[1], **headers)

    def blob(self, digest: str) -> None:
        found = self.state.blobs.get(digest)
        if found is None:
            self.answer(404)
        else:
            self.answer(200, found, Content_Length=str(len(found)))

    def upload(self, parts: list[str], query: dict[str, list[str]], body: bytes) -> None:
        uploads = self.state.uploads
        wanted = query.get("mount", [""])[0]
        if self.command == "POST" and self.state.mounts and wanted in self.state.blobs:
            self.answer(201, Docker_Content_Digest=wanted)
            return
        if self.command == "DELETE":
            del uploads[parts[-1]]
            self.answer(204)
            return
        if self.command == "POST":
            key = str(len(uploads))
            uploads[key] = b""
        else:
            key = parts[-1]
            uploads[key] += body
        if self.command == "PUT":
            digest = query["digest"][0]
            if sha(uploads[key]) != digest or query["state"] != ["s"]:
                self.answer(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
                return
            self.state.blobs[digest] = uploads[key]
            self.answer(201, Docker_Content_Digest=digest)
            return
        name = "/".join(parts[1 : parts.index("blobs")])
        location = f"/v2/{name}/blobs/uploads/{key}?state=s"
        if self.state.absolute:
            location = f"http://{self.headers['Host']}{location}"
        self.answer(202, Location=location)


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@contextlib.contextmanager
def serving(state: State, host: str = "127.0.0.1") -> Iterator[str]:
    """`host:port` of a running registry."""
    handler: Any = type("Bound", (Handler,), {"state": state})
    server = ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, args=(0.01,), name="devloop-fake-registry"
    )
    thread.start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
