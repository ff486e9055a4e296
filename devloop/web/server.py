"""The page's server: one thread, whatever browsers do, on the loopback addresses alone.

Nothing here waits for a client. One that sends too much, too slowly or nothing, or that takes
nothing of its answer, loses its connection; one that follows may be as slow as it likes, since all
it costs is its place in the history. A connection carries one request.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from http import HTTPStatus
from importlib import resources
from typing import TYPE_CHECKING, Any

from devloop.base.socket_server import MAX_PENDING, SocketClient, SocketServer
from devloop.base.sockets import listen_on_loopback
from devloop.web.feed import PING, EventFeed
from devloop.web.http import (
    LONGEST_BODY,
    LONGEST_HEAD,
    Head,
    RequestError,
    check_own_page,
    check_sender,
    check_token,
    parse_head,
    refusal,
    response,
)
from devloop.web.source import source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from devloop.base.sockets import Socket
    from devloop.web.feed import Happened


# Where the page is unless a port is asked for; whichever is free if this one is not.
USUAL_PORT = 10351

# How many connections there are at most, and how many of them follow. Browsers open six to a host
# and let all others wait, so a page more than that could not even load.
_CLIENTS = 48
_FOLLOWING = 4

# Seconds for a request, and for taking an answer that is not followed; between two signs of life to
# one who follows.
_PATIENCE = 10.0
_PING = 10.0

# Seconds in which a browser that was started has to ask for the page, and how many such tickets
# there are at most.
_TICKET = 60.0
_TICKETS = 8

# Seconds for which what happens is put together before it is handed out: a piece for each event
# would cost those who work their turn at the interpreter each time, and the page paints no sooner.
_GATHER = 0.03

_SCRIPTS = (
    *("page", "parts", "state", "stream", "logs", "log_view"),
    *("services", "problems", "iterations"),
)
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in _SCRIPTS},
}
_JSON = "application/json"


class _Visitor(SocketClient["EventFeed"]):
    """One connection; at its `deadline` it is given up, or told that all is well."""

    def __init__(self, sock: Socket, deadline: float) -> None:
        super().__init__(sock)
        self.deadline = deadline
        self.head: Head | None = None
        self.finished = False  # nothing more is sent to it


class PageServer(SocketServer[_Visitor]):
    """Serves the page at `port` of loopback, 0 for any free one, None for the usual one or any.

    `ask` gets the body of a request to the session, a line of the control protocol, in the server's
    thread, and returns the answer's; it must not block. `facts` is what the page is told besides
    the state. Raises OSError when the port cannot be had."""

    def __init__(
        self,
        port: int | None,
        happened: Happened,
        ask: Callable[[bytes], bytes],
        *,
        facts: Callable[[], Mapping[str, Any]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._happened = happened
        self._ask = ask
        self._facts = facts
        self._token = secrets.token_urlsafe(32)
        self._tickets: dict[str, float] = {}  # until when each is good
        self._following = False
        self._more = False
        self._news = False  # since the history was looked at
        self._gathered: float | None = None  # when news is handed out
        super().__init__("page", _listen(port), clock=clock)
        self._port = self._listeners[0].getsockname()[1]
        self._thread.start()

    @property
    def url(self) -> str:
        """The page's address, with the secret in the part that browsers send to nobody."""
        return f"http://localhost:{self._port}/#{self._token}"

    def url_for_once(self) -> str:
        """An address for one browser and a minute: for a command line, which other users of the
        computer can see."""
        ticket = secrets.token_urlsafe(32)
        while len(self._tickets) >= _TICKETS:
            self._tickets.pop(next(iter(self._tickets)), None)
        self._tickets[ticket] = self._clock() + _TICKET
        return f"http://localhost:{self._port}/#once-{ticket}"

    def notify(self) -> None:
        """There is something new in the history; from any thread."""
        if self._following and not self._news:
            self._news = True
            self._poke()

    # --- the thread ----------------------------------------------------------------------------

    def _timeout(self) -> float | None:
        if self._more:
            return 0.0
        ends = [client.deadline for client in self._clients]
        ends += [each for each in (self._deadline, self._gathered) if each is not None]
        return max(0.0, min(ends) - self._clock()) if ends else None

    def _before_attending(self) -> None:
        self._more = False
        self._gather()

    def _gather(self) -> None:
        """Let news wait for what comes with it, but for those who are behind already."""
        now = self._clock()
        if self._news and self._gathered is None:
            self._gathered = now + _GATHER
        if self._gathered is not None and (now >= self._gathered or self._deadline is not None):
            # In this order: what comes from here on is news again.
            self._news, self._gathered = False, None

    def _welcome(self, sock: Socket) -> _Visitor | None:
        if len(self._clients) >= _CLIENTS:
            return None
        return _Visitor(sock, self._clock() + _PATIENCE)

    def _read(self, client: _Visitor) -> None:
        data = client.out.read()
        if data == b"":
            client.heard = True
            # Who has sent all may still read; of who follows, this is all that says it has gone.
            if not client.answered or client.feed is not None or not client.out.pending:
                self._drop(client)
            return
        if data is None or client.answered:
            return  # what comes behind a request is read and forgotten
        client.received += data
        try:
            self._understand(client)
        except RequestError as error:
            method = client.head.method if client.head else ""
            self._answer(client, refusal(error, head_only=method == "HEAD"))

    def _understand(self, client: _Visitor) -> None:
        if client.head is None:
            head, end, rest = bytes(client.received).partition(b"\r\n\r\n")
            if len(head) > LONGEST_HEAD:
                raise RequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "that is too much")
            if not end:
                return
            client.head = parse_head(head)
            check_sender(client.head, self._port)
            if client.head.length > LONGEST_BODY:
                raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "that is too much")
            client.received = bytearray(rest)
        if len(client.received) >= client.head.length:
            body = bytes(client.received[: client.head.length])
            client.received.clear()
            self._route(client, client.head, body)

    def _route(self, client: _Visitor, head: Head, body: bytes) -> None:
        if (file := _FILES.get(head.path)) is not None:
            _allow(head, "GET", "HEAD")
            content = resources.files("devloop.web").joinpath("static", file[0]).read_bytes()
            head_only = head.method == "HEAD"
            self._answer(client, response(HTTPStatus.OK, file[1], content, head_only=head_only))
        elif head.path == "/events":
            _allow(head, "GET")
            check_token(head, self._token)
            self._follow(client, head)
        elif head.path == "/source":
            _allow(head, "GET")
            check_token(head, self._token)
            said = json.dumps(source_of(self._happened, head.number("seq") or 0)).encode()
            self._answer(client, response(HTTPStatus.OK, _JSON, said))
        elif head.path == "/ask":
            _allow(head, "POST")
            check_token(head, self._token)
            _check_json(head)
            self._answer(client, response(HTTPStatus.OK, _JSON, self._ask(body)))
        elif head.path == "/enter":
            _allow(head, "POST")
            _check_json(head)
            check_own_page(head)
            said = json.dumps({"token": self._token_for(body)}).encode()
            self._answer(client, response(HTTPStatus.OK, _JSON, said))
        else:
            raise RequestError(HTTPStatus.NOT_FOUND, "there is no such page")

    def _token_for(self, ticket: bytes) -> str:
        until = self._tickets.pop(ticket.decode("latin-1"), None)
        if until is None or self._clock() > until:
            raise RequestError(HTTPStatus.UNAUTHORIZED, "this address was good for one browser")
        return self._token

    def _follow(self, client: _Visitor, head: Head) -> None:
        following = [each for each in self._clients if each.feed is not None]
        for oldest in following[: max(0, len(following) - _FOLLOWING + 1)]:
            # Told, so that it does not come back at once in its turn.
            oldest.feed = None
            with contextlib.suppress(OSError):
                oldest.out.write(b"event: elsewhere\ndata: {}\n\n")
        after = head.number("after")
        seen = after if after is not None else _number(head.headers.get("last-event-id", ""))
        feed = EventFeed(self._happened, seen)
        self._answer(client, response(HTTPStatus.OK, "text/event-stream; charset=utf-8", None))
        if client in self._clients:
            client.out.write(feed.head(self._facts()))
            client.feed = feed
            self._following = True

    def _answer(self, client: _Visitor, answer: bytes) -> None:
        client.deadline = self._clock() + _PATIENCE
        super()._answer(client, answer)

    def _attend(self, client: _Visitor) -> None:
        self._feed(client)
        if client.answered and client.feed is None and not client.out.pending:
            if client.finished or client.heard:
                self._drop(client)
                return
            # What it may be sending still has to be read: a connection that is closed before
            # is reset, and the answer is lost.
            client.finished = True
            client.out.shutdown_write()
        if client.feed is None and self._clock() >= client.deadline:
            self._drop(client)
        else:
            self._watch(client)

    def _feed(self, client: _Visitor) -> None:
        feed = client.feed
        if feed is None:
            return
        if self._gathered is not None and not feed.behind:
            client.deadline = max(client.deadline, self._gathered)
            return
        now = self._clock()
        if client.out.pending < MAX_PENDING:
            data = feed.next()
            if not data and now >= client.deadline and not client.out.pending:
                data = PING
            if data:
                client.out.write(data)
                self._more |= feed.behind or feed.over  # one batch each in turn
                client.deadline = now + _PING
            if feed.over:
                client.feed = None
        if now >= client.deadline:
            client.deadline = now + _PING

    def _dropped(self) -> None:
        self._following = any(each.feed is not None for each in self._clients)


def _listen(port: int | None) -> tuple[Socket, ...]:
    if port is not None:
        return listen_on_loopback(port)
    with contextlib.suppress(OSError):
        return listen_on_loopback(USUAL_PORT)
    return listen_on_loopback(0)


def _allow(head: Head, *methods: str) -> None:
    if head.method not in methods:
        allowed = ", ".join(methods)
        raise RequestError(HTTPStatus.METHOD_NOT_ALLOWED, f"only {allowed} here", Allow=allowed)


def _check_json(head: Head) -> None:
    """A form of another site could send anything else, and no browser asks first."""
    if head.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body is {_JSON}")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
