"""The body of an answer that keeps coming, and how to stop waiting for more of it.

Knows nothing of what is in it; opened by `Connection.stream`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

from devloop.base.cancel import Cancel
from devloop.base.net import BROKEN
from devloop.cluster.api.api_errors import connection_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.response import BaseHTTPResponse

    from devloop.base.net import Shutter


_CHUNK = 65536


class ResponseStream:
    """The body of an answer that keeps coming: iterate it for chunks of bytes as they arrive.

    `shut` may be called from any thread and ends a blocked read at once. Leaving the `with` block
    (or reading to the end) frees the connection."""

    def __init__(
        self, answer: BaseHTTPResponse, shutter: Shutter, server: str, cancel: Cancel | None
    ) -> None:
        self._answer = answer
        self._shutter = shutter
        self._ended = False
        self._server = server
        self._cancel = cancel or Cancel()
        self._cleanup = contextlib.ExitStack()
        self._cleanup.enter_context(self._cancel.closing(shutter.shut))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        """Ends when the server ends the body, or after `shut`. Raises `Cancelled`, or
        cluster/unreachable when the connection breaks or stays silent for too long."""
        try:
            while chunk := self._answer.read1(_CHUNK):
                yield chunk
            self._ended = True
        except (*BROKEN, ValueError) as error:
            # ValueError: the answer was closed under a reader that had not started its read.
            self._cancel.check()
            if not self._shutter.closed:
                raise connection_error(error, self._server) from error
        finally:
            self.close()
        self._cancel.check()

    def lines(self) -> Iterator[bytes]:
        """The same as whole lines without their newline; a last line may lack one."""
        rest = b""
        for chunk in self:
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        if rest:
            yield rest

    def shut(self) -> None:
        self._shutter.shut()

    def close(self) -> None:
        self._cleanup.close()
        if self._ended:
            return  # the connection may serve somebody else by now
        self._shutter.shut()
        with contextlib.suppress(*BROKEN, ValueError):
            self._answer.close()
