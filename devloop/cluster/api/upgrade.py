"""Turn a connection to the API server into one that speaks another protocol (RFC 9110, 7.8).

Knows HTTP's handshake and nothing of the protocols that follow it.
"""

from __future__ import annotations

import functools
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devloop.base.cancel import Cancelled
from devloop.cluster.api.api_errors import ApiError, connection_error, status_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection

__all__ = ["Upgraded", "upgrade"]

_HANDSHAKE = 10.0  # seconds
_MOST_HEADERS = 65536
_READ = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """`headers` have lower-case names; `rest` is what came after them."""

    sock: socket.socket
    headers: Mapping[str, str]
    rest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    rest: bytes


def upgrade(
    connection: Connection, method: str, path: str, headers: Mapping[str, str], cancel: Cancel
) -> Upgraded:
    """Ask for `path` with `headers`, which name the protocol; blocks until the server agreed.

    The socket is the caller's to close. Raises `ApiError` for an answer other than 101,
    cluster/unreachable, `Cancelled`."""
    sock, answer = _ask(connection, method, path, headers, cancel)
    if answer.status == 401:
        sock.close()
        # A request of the ordinary kind gets fresh credentials when there are any.
        connection.request("GET", "/version", cancel=cancel)
        sock, answer = _ask(connection, method, path, headers, cancel)
    if answer.status == 101:
        return Upgraded(sock=sock, headers=answer.headers, rest=answer.rest)
    sock.close()
    raise _refused(connection, answer, method, path)


def _refused(connection: Connection, answer: _Answer, method: str, path: str) -> ApiError:
    return status_error(
        answer.status,
        answer.rest,
        method=method,
        path=path.partition("?")[0],
        server=connection.server,
        user=connection.user,
    )


def _ask(
    connection: Connection, method: str, path: str, headers: Mapping[str, str], cancel: Cancel
) -> tuple[socket.socket, _Answer]:
    sock = connection.dial(cancel=cancel)
    # The plain socket's method: SSLSocket's own drops the TLS state under a reader.
    shut = functools.partial(socket.socket.shutdown, sock, socket.SHUT_RDWR)
    try:
        with cancel.closing(shut):
            return sock, _shake_hands(connection, sock, method, path, headers)
    except (OSError, ValueError) as error:
        sock.close()
        if cancel.is_set():
            raise Cancelled from error
        raise connection_error(error, connection.server, context=connection.context) from error
    except BaseException:
        sock.close()
        raise


def _shake_hands(
    connection: Connection,
    sock: socket.socket,
    method: str,
    path: str,
    headers: Mapping[str, str],
) -> _Answer:
    endpoint = connection.endpoint
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    every = {
        **connection.headers(),
        "Accept": "*/*",  # what is asked for is no object: the API server would answer 406
        "Host": f"{host}:{endpoint.port}",
        "Connection": "Upgrade",
        **({"Content-Length": "0"} if method == "POST" else {}),
        **headers,
    }
    lines = [f"{method} {endpoint.prefix}{path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in every.items()]
    deadline = time.monotonic() + _HANDSHAKE
    sock.settimeout(_HANDSHAKE)
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    got = bytearray()
    while (end := got.find(b"\r\n\r\n")) < 0:
        if len(got) > _MOST_HEADERS:
            raise ValueError("the answer's headers do not end")
        got += _some(sock, deadline)
    status, answered = _parse_head(bytes(got[:end]))
    rest = got[end + 4 :]
    if status != 101:
        length = min(int(answered.get("content-length", "0")), _MOST_HEADERS)
        while len(rest) < length:
            rest += _some(sock, deadline)
    return _Answer(status=status, headers=answered, rest=bytes(rest))


def _some(sock: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    sock.settimeout(left)
    chunk = sock.recv(_READ)
    if not chunk:
        raise ConnectionResetError("the API server closed the connection")
    return chunk


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = [*first.split(" "), "", ""]
    if not version.startswith("HTTP/1.") or not status.isdigit():
        raise ValueError(f"not an HTTP answer: {first[:80]}")
    pairs = (line.partition(":") for line in lines)
    return int(status), {name.strip().lower(): value.strip() for name, _, value in pairs}
