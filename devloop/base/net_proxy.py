"""Which proxy a URL goes through, by the rules of Go's httpproxy, which kubectl, docker and the
container runtimes follow. Pure: takes the environment, reads nothing.

Source: https://pkg.go.dev/golang.org/x/net/http/httpproxy
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


_PORTS = {"http": 80, "https": 443}


def is_loopback(host: str) -> bool:
    """Whether a host without port is this computer: localhost, 127/8 or ::1."""
    host = host.strip("[]").lower()
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def proxy_for(url: str, env: Mapping[str, str]) -> str:
    """The URL of the proxy for `url` by HTTPS_PROXY, HTTP_PROXY and NO_PROXY; "" for none."""
    parts = urlsplit(url)
    name = "HTTPS_PROXY" if parts.scheme == "https" else "HTTP_PROXY"
    proxy = env.get(name) or env.get(name.lower()) or ""
    host = (parts.hostname or "").lower()
    if not proxy or is_loopback(host):
        return ""
    port = str(parts.port or _PORTS.get(parts.scheme, 80))
    no_proxy = env.get("NO_PROXY") or env.get("no_proxy") or ""
    if any(_bypasses(entry.strip().lower(), host, port) for entry in no_proxy.split(",")):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _bypasses(entry: str, host: str, port: str) -> bool:
    """Whether an entry of NO_PROXY (`*`, an address, a network, `example.com`, `.example.com`, all
    but networks with a port if need be) matches."""
    if entry in {"", "*"}:
        return entry == "*"
    address = _address(host)
    if "/" in entry:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address is not None and address in network
    name, wanted = _split(entry)
    if not name or wanted not in {"", port}:
        return False
    if (given := _address(name)) is not None:
        return given == address
    name = name.removeprefix("*")
    return host == name or host.endswith(name if name.startswith(".") else f".{name}")


def _split(entry: str) -> tuple[str, str]:
    """(host, port or "") of `host:port`, `[::1]:port`, `host` or a bare IPv6 address."""
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        return name, rest.removeprefix(":")
    if entry.count(":") == 1:
        name, _, port = entry.partition(":")
        return name, port
    return entry, ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
