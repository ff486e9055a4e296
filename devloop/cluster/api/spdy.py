"""SPDY/3.1 frames, as far as Kubernetes' port-forwarding uses them. Pure: bytes in, frames out.

It is the protocol that kubectl and every kubelet speak: many streams, one after the other, on one
upgraded connection. Flow control is left out because the servers have none: a connection carries
one live stream at a time, and TCP's window is its flow control.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1
_VERSION = 3
_CONTROL = 0x8000 | _VERSION
_WITH_STREAM = frozenset({SYN_STREAM, SYN_REPLY, RST_STREAM, 8, 9})
_CANCEL = 5
_HEAD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """`kind` is 0 for data. `stream` is 0 for frames of the whole connection. `payload` is the
    data, or a control frame's body without the stream's number."""

    kind: int
    stream: int
    flags: int
    payload: bytes

    @property
    def final(self) -> bool:
        return bool(self.flags & FIN)


class HeaderBlocks:
    """Compresses headers: one zlib stream for a connection's whole life.

    SPDY names a dictionary to start from; a zlib stream says itself whether it uses one, so
    leaving it out is understood by every reader and costs 30 bytes a connection."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zlib.Z_BEST_SPEED)

    def pack(self, headers: Mapping[str, str]) -> bytes:
        block = bytearray(len(headers).to_bytes(4, "big"))
        for name, value in headers.items():
            for text in (name.lower().encode("latin-1"), value.encode("latin-1")):
                block += len(text).to_bytes(4, "big") + text
        return self._zlib.compress(bytes(block)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, flags: int, body: bytes) -> bytes:
    return (
        _CONTROL.to_bytes(2, "big")
        + kind.to_bytes(2, "big")
        + bytes((flags,))
        + len(body).to_bytes(3, "big")
        + body
    )


def syn_stream(stream: int, block: bytes) -> bytes:
    """Open `stream` (odd, higher than any before) with a packed header block."""
    return _control(SYN_STREAM, 0, stream.to_bytes(4, "big") + bytes(6) + block)


def data(stream: int, payload: bytes | bytearray, *, final: bool = False) -> bytes:
    flags = FIN if final else 0
    return stream.to_bytes(4, "big") + bytes((flags,)) + len(payload).to_bytes(3, "big") + payload


def reset(stream: int) -> bytes:
    return _control(RST_STREAM, 0, stream.to_bytes(4, "big") + _CANCEL.to_bytes(4, "big"))


def ping(number: bytes) -> bytes:
    """`number` is four bytes: an odd number of ours, or the server's to be sent back."""
    return _control(PING, 0, number)


class SpdyFrames:
    """What the server sends, taken apart: feed it bytes, iterate `Frame`s.

    Raises ConnectionResetError for another version of the protocol."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, received: bytes) -> None:
        self._buffer += received

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < _HEAD:
            return None
        length = int.from_bytes(buffer[5:8], "big")
        if len(buffer) < _HEAD + length:
            return None
        first, flags = int.from_bytes(buffer[:4], "big"), buffer[4]
        payload = bytes(memoryview(buffer)[_HEAD : _HEAD + length])
        del buffer[: _HEAD + length]
        if not first >> 31:
            return Frame(kind=0, stream=first, flags=flags, payload=payload)
        if (first >> 16) & 0x7FFF != _VERSION:
            raise ConnectionResetError("the server does not speak SPDY/3")
        kind = first & 0xFFFF
        if kind not in _WITH_STREAM:
            return Frame(kind=kind, stream=0, flags=flags, payload=payload)
        stream = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        return Frame(kind=kind, stream=stream, flags=flags, payload=payload[4:])
