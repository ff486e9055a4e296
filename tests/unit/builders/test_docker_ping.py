"""The quick question to the Docker daemon, against a daemon of our own on a real socket."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from devloop.builders import docker_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """Answer one request on a socket with some bytes; gives the socket's path."""
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> str:
        path = str(tmp_path / f"docker{len(threads)}.sock")
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(path)
        server.listen()

        def run() -> None:
            with server:
                client, _ = server.accept()
                with client:
                    assert client.recv(1000).startswith(b"GET /_ping HTTP/1.0\r\n")
                    client.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join(30)


OK = b"HTTP/1.0 200 OK\r\nApi-Version: 1.45\r\n\r\nOK"


def test_a_daemon_that_answers(serve: Callable[[bytes], str]) -> None:
    assert docker_socket.answers_ping({"DOCKER_HOST": f"unix://{serve(OK)}"})


@pytest.mark.parametrize("answer", [b"HTTP/1.0 500 Internal Server Error\r\n\r\n", b"", b"hello"])
def test_a_daemon_that_does_not(serve: Callable[[bytes], str], answer: bytes) -> None:
    assert not docker_socket.answers_ping({"DOCKER_HOST": f"unix://{serve(answer)}"})


def test_no_daemon(tmp_path: Path) -> None:
    assert not docker_socket.answers_ping({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})


@pytest.mark.parametrize(
    ("config", "used"),
    [
        (None, True),
        ({}, True),
        ({"currentContext": "default"}, True),
        ({"currentContext": "colima"}, False),
        ([], True),
        ("{", False),
    ],
)
def test_the_daemon_is_the_one_of_the_cli(
    serve: Callable[[bytes], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: object,
    *,
    used: bool,
) -> None:
    path = serve(OK)
    monkeypatch.setattr(docker_socket, "_SOCKET", path)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text)
    assert docker_socket.answers_ping({"DOCKER_CONFIG": str(tmp_path)}) is used
    if not used:
        assert docker_socket.answers_ping({"DOCKER_HOST": f"unix://{path}"})


@pytest.mark.parametrize("env", [{"DOCKER_CONTEXT": "other"}, {"DOCKER_HOST": "tcp://127.0.0.1:1"}])
def test_what_takes_more_to_find_out_is_left_to_the_cli(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(docker_socket, "_SOCKET", str(tmp_path / "never asked"))
    assert not docker_socket.answers_ping(env)
