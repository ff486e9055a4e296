"""Whether anybody listens behind a stream to a pod: waits a moment for a refusal, sends nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from devloop.port_forward.event_loop import SocketEvents

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from devloop.port_forward.ports import Duplex


_LOG = logging.getLogger(__name__)


def await_refusal(
    loop: asyncio.AbstractEventLoop, stream: Duplex, seconds: float, done: Callable[[bool], None]
) -> Callable[[], None]:
    """Call `done(refused)` once, at the latest after so many seconds; takes ownership of
    `stream`. What is returned ends it early."""

    def finish(refused: bool) -> None:
        if not timer.cancelled():
            timer.cancel()
            events.stop()
            stream.close()
            done(refused)

    def read() -> None:
        if timer.cancelled():
            return
        try:
            if stream.receive() is None:
                return
            refused = False
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
        except Exception:  # noqa: BLE001 - no probe is worth the clients
            _LOG.exception("a bug in devloop: a probe broke")
            refused = False
        finish(refused)

    timer = loop.call_later(seconds, finish, False)
    events = SocketEvents(loop, stream.fileno(), read)
    events.want(read=True)
    # What has come already may not make the descriptor readable.
    loop.call_soon(read)
    return lambda: finish(False)
