"""A git repository that a cluster can clone by http: git's own http-backend, served here."""

from __future__ import annotations

import os
import subprocess
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_IDENTITY = {
    "GIT_AUTHOR_NAME": "devloop's tests",
    "GIT_AUTHOR_EMAIL": "tests@devloop.test",
    "GIT_COMMITTER_NAME": "devloop's tests",
    "GIT_COMMITTER_EMAIL": "tests@devloop.test",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


class GitServer:
    """Serves the work tree `root` as `url`, on one address of this machine, from `start` to
    `close`. The work tree becomes a repository with the branch main."""

    def __init__(self, root: Path, address: str) -> None:
        self._root = root
        self._git("init", "-q", "-b", "main")
        self._server = ThreadingHTTPServer((address, 0), partial(_Handler, root.parent))
        self._server.daemon_threads = False
        self.url = f"http://{address}:{self._server.server_port}/{root.name}/.git"
        self._thread = threading.Thread(target=self._server.serve_forever, name="git-server")

    def start(self) -> None:
        self._thread.start()

    def commit(self) -> str:
        """Commit all of the work tree; its hash."""
        self._git("add", "--all")
        self._git("commit", "-q", "-m", "rendered")
        return self._git("rev-parse", "HEAD").strip()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _git(self, *argv: str) -> str:
        return subprocess.run(
            ["git", *argv],
            cwd=self._root,
            env={**os.environ, **_IDENTITY},
            check=True,
            timeout=30,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout


class _Handler(BaseHTTPRequestHandler):
    """Git's smart http, read only (https://git-scm.com/docs/git-http-backend)."""

    def __init__(self, root: Path, *args: Any) -> None:
        self._root = root
        super().__init__(*args)

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self._root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
        }
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            env=env,
            capture_output=True,
            timeout=30,
            check=True,
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""
