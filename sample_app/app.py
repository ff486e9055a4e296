"""A guestbook: a page, a JSON API and a health check, with the standard library only.

    GET    /                 the page
    POST   /                 the page's form: adds a note and shows the page again
    GET    /api/notes        all notes, newest first
    POST   /api/notes        {"text": "..."} adds one
    DELETE /api/notes/ID     removes one
    GET    /healthz          ok

Notes live in memory and go with the process. PORT (8080) is the environment's only setting.
"""

from __future__ import annotations

import html
import json
import os
import re
import signal
import socket
import threading
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from notes import NoteError, Notes

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PAGE = Template((HERE / "templates/index.html").read_text(encoding="utf-8"))
STYLE = (HERE / "static/style.css").read_bytes()

LARGEST_BODY = 10_000
# How long a stopping server waits for the requests that it has begun to answer.
GRACE_SECONDS = 1.0


class Server(ThreadingHTTPServer):
    """Answers each connection in a thread of its own."""

    # A browser's idle connection must not hold up the exit; requests under way are waited for.
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int) -> None:
        super().__init__(("", port), Handler)
        self.notes = Notes()
        self._under_way = 0
        self._changed = threading.Condition()

    @contextmanager
    def answering(self) -> Iterator[None]:
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def finish(self) -> None:
        """Wait for the requests under way, then close."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way == 0, timeout=GRACE_SECONDS)
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = 30

    def do_GET(self) -> None:
        with self.server.answering():
            match self.path.partition("?")[0]:
                case "/":
                    self.reply(render(self.server.notes).encode(), "text/html; charset=utf-8")
                case "/style.css":
                    self.reply(STYLE, "text/css; charset=utf-8")
                case "/api/notes":
                    self.reply_json(self.server.notes.all())
                case "/healthz":
                    self.reply(b"ok\n", "text/plain")
                case _:
                    self.fail(HTTPStatus.NOT_FOUND, "there is nothing here")

    def do_POST(self) -> None:
        with self.server.answering():
            if self.path not in ("/", "/api/notes"):
                self.fail(HTTPStatus.NOT_FOUND, "there is nothing here")
                return
            length = self.headers.get("Content-Length", "0")
            if not re.fullmatch("[0-9]{1,9}", length) or int(length) > LARGEST_BODY:
                self.fail(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LARGEST_BODY} bytes")
                return
            body = self.rfile.read(int(length))
            try:
                if self.path == "/":
                    form = parse_qs(body.decode("utf-8", "replace"))
                    self.server.notes.add(form.get("text", [""])[0])
                    self.redirect("/")
                else:
                    self.reply_json(self.server.notes.add(text_of(body)), HTTPStatus.CREATED)
            except NoteError as error:
                self.fail(HTTPStatus.BAD_REQUEST, str(error))

    def do_DELETE(self) -> None:
        with self.server.answering():
            found = re.fullmatch("/api/notes/([0-9]{1,9})", self.path)
            if found and self.server.notes.remove(int(found[1])):
                self.send_response(HTTPStatus.NO_CONTENT)
                self.end_headers()
            else:
                self.fail(HTTPStatus.NOT_FOUND, "there is no such note")

    def reply(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def reply_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.reply(json.dumps(value).encode() + b"\n", "application/json", status)

    def redirect(self, path: str) -> None:
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def fail(self, status: HTTPStatus, message: str) -> None:
        self.reply_json({"error": message}, status)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        if self.path != "/healthz":  # a probe asks every second
            print(f"{self.command} {self.path} {int(code)}", flush=True)


def text_of(body: bytes) -> str:
    """The note in a JSON request; raises `NoteError`."""
    try:
        value = json.loads(body)
    except ValueError:
        raise NoteError("the body is not JSON") from None
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise NoteError('the body is not {"text": "..."}')
    return text


def render(notes: Notes) -> str:
    """The page with all notes."""
    items = [f"<li>{html.escape(str(note['text']))}</li>" for note in notes.all()]
    return PAGE.substitute(
        notes="\n".join(items) or '<li class="none">Nobody yet. Be the first!</li>',
        host=html.escape(socket.gethostname()),
    )


def main() -> None:
    server = Server(int(os.environ.get("PORT", "8080")))
    # shutdown() waits for serve_forever(), which runs in the thread that gets the signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.finish()
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
