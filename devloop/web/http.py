"""The little of HTTP/1.1 that the page needs, and who may ask for what. Pure.

Any web site that the user visits can send requests to a port of this computer, and by DNS
rebinding read the answers as well. So the Host has to be one of ours before anything else is looked
at, so has an Origin where there is one, and what says or does anything wants a secret that only
somebody has who was shown the page's address. Nothing here allows another origin to read (CORS).
"""

from __future__ import annotations

import hmac
import re
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping


# Bytes of all lines before the body, and of the body.
LONGEST_HEAD = 16 * 1024
LONGEST_BODY = 64 * 1024

# Whatever a browser is told to do with the page, it loads from here and talks to here.
_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_ALWAYS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_REQUEST_LINE = re.compile(r"([A-Z]+) (/[\x21-\x7e]*) HTTP/1\.[01]")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")

# What must not be said twice: two readers of a request could each believe another one.
_ONCE = frozenset({"host", "origin", "authorization", "content-length", "content-type"})


class RequestError(Exception):
    """A request that is not answered; `text` is for whoever sent it, one line."""

    def __init__(self, status: HTTPStatus, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands before a request's body, which has `length` bytes. `path` is without the query;
    names of `headers` are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    length: int

    def number(self, name: str) -> int | None:
        """A number of the query, 0 or more; None where there is none."""
        text = self.query.get(name, "")
        return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def parse_head(data: bytes) -> Head:
    """Strict: what two programs could read differently is refused. Raises RequestError."""
    first, *lines = data.decode("latin-1").split("\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        raise _bad("the request line is not understood")
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise _bad("a header is not understood")
        name = field[1].lower()
        if name in headers and name in _ONCE:
            raise _bad(f"{name} is given twice")
        headers[name] = field[2]
    if "transfer-encoding" in headers:
        raise RequestError(HTTPStatus.NOT_IMPLEMENTED, "a body has a Content-Length here")
    length = headers.get("content-length", "0")
    if re.fullmatch(r"[0-9]{1,15}", length) is None:
        raise _bad("Content-Length is no number")
    path, _, query = request[2].partition("?")
    return Head(
        method=request[1],
        path=path,
        query=dict(parse_qsl(query)),
        headers=headers,
        length=int(length),
    )


def check_sender(head: Head, port: int) -> None:
    """Before anything else is looked at: the request is for a name of ours at `port`, and from a
    page of ours if it is from any. Raises RequestError."""
    ours = {f"{name}:{port}" for name in ("localhost", "127.0.0.1", "[::1]")}
    if port == 80:
        ours |= {"localhost", "127.0.0.1", "[::1]"}
    if head.headers.get("host", "").lower() not in ours:
        raise RequestError(
            HTTPStatus.MISDIRECTED_REQUEST, f"this is the page at localhost:{port} and no other"
        )
    origin = head.headers.get("origin")
    # Not the Host as sent: under DNS rebinding both have the attacker's name.
    if origin is not None and origin.lower() not in {f"http://{name}" for name in ours}:
        raise RequestError(HTTPStatus.FORBIDDEN, "another site's page may not ask this")


def check_own_page(head: Head) -> None:
    """As browsers tell of themselves; others do not say it. Raises RequestError."""
    if head.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise RequestError(HTTPStatus.FORBIDDEN, "another site's page may not ask this")


def check_token(head: Head, token: str) -> None:
    """Whoever asks has been shown the page's address. Raises RequestError."""
    check_own_page(head)
    given = head.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode("latin-1"), f"Bearer {token}".encode("latin-1")):
        raise RequestError(
            HTTPStatus.UNAUTHORIZED,
            "the token is not this session's: open the address that devloop printed",
            **{"WWW-Authenticate": "Bearer"},
        )


def response(
    status: HTTPStatus, kind: str, body: bytes | None, *, head_only: bool = False, **headers: str
) -> bytes:
    """A whole answer; with a `body` of None its head alone, and what follows until the connection
    ends is the body."""
    fields = {"Content-Type": kind, **_ALWAYS, **headers}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if head_only or body is None else head + body


def refusal(error: RequestError, *, head_only: bool = False) -> bytes:
    """The answer to a request that is refused."""
    body = f"{error.text}\n".encode()
    kind = "text/plain; charset=utf-8"
    return response(error.status, kind, body, head_only=head_only, **error.headers)


def _bad(text: str) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, text)
