"""The app as it runs: a process, asked over HTTP and stopped by a signal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = Path(__file__).parent.parent / "app.py"


@dataclass
class App:
    process: subprocess.Popen[str]
    port: int

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data=body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def notes(self) -> Any:
        return json.loads(self.ask("GET", "/api/notes")[1])


@contextlib.contextmanager
def running() -> Iterator[App]:
    with subprocess.Popen(
        [sys.executable, APP],
        env={**os.environ, "PORT": "0"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match("listening on port ([0-9]+)", line)
        assert found, line
        yield App(process, int(found[1]))
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    """For tests that leave it as it was."""
    with running() as app:
        yield app


@pytest.fixture
def own_app() -> Iterator[App]:
    """For a test that changes or ends it."""
    with running() as app:
        yield app


def test_the_page(app: App) -> None:
    status, page = app.ask("GET", "/")
    assert status == 200
    assert "<h1>" in page
    assert "$" not in page
    assert app.ask("GET", "/style.css")[0] == 200


def test_health(app: App) -> None:
    assert app.ask("GET", "/healthz") == (200, "ok\n")


def test_notes_come_and_go(own_app: App) -> None:
    assert own_app.notes() == []
    status, body = own_app.ask("POST", "/api/notes", b'{"text": " one  two "}')
    assert (status, json.loads(body)) == (201, {"id": 1, "text": "one two"})
    own_app.ask("POST", "/api/notes", b'{"text": "three"}')
    assert [note["text"] for note in own_app.notes()] == ["three", "one two"]
    assert own_app.ask("DELETE", "/api/notes/1")[0] == 204
    assert own_app.ask("DELETE", "/api/notes/1")[0] == 404
    assert [note["id"] for note in own_app.notes()] == [2]


def test_the_form_shows_what_was_written_as_text(own_app: App) -> None:
    status, page = own_app.ask("POST", "/", b"text=%3Cb%3E+%26+you")
    assert status == 200  # after the redirect
    assert "<li>&lt;b&gt; &amp; you</li>" in page


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/notes", b"no json", 400),
        ("/api/notes", b"[]", 400),
        ("/api/notes", b'{"text": 1}', 400),
        ("/api/notes", b'{"text": "  "}', 400),
        ("/api/notes", json.dumps({"text": "x" * 501}).encode(), 400),
        ("/api/notes", b"x" * 10_001, 413),
        ("/nothing", b"", 404),
    ],
)
def test_refused(app: App, path: str, body: bytes, status: int) -> None:
    code, answer = app.ask("POST", path, body)
    assert code == status
    assert json.loads(answer)["error"]
    assert app.notes() == []


def test_unknown_path(app: App) -> None:
    assert app.ask("GET", "/nothing")[0] == 404


def test_stops_at_once_although_a_connection_is_open(own_app: App) -> None:
    with socket.create_connection(("127.0.0.1", own_app.port)):
        own_app.process.send_signal(signal.SIGTERM)
        assert own_app.process.wait(timeout=30) == 0
