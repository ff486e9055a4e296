"""How far Docker on this computer trusts a registry: its own certificate authorities, a client
certificate, or no TLS at all.

A push by Docker and a question by devloop must meet the same server in the same way. Reads files
only; what the daemon of another computer knows is not to be seen.

Sources: https://docs.docker.com/engine/security/certificates/ and
https://docs.docker.com/reference/cli/dockerd/#insecure-registries
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerTrust:
    """`ca`, `cert` and `key` are PEM texts, "" for none; `insecure`: any certificate will do, and
    plain HTTP where there is no TLS."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False


def trust_of(host: str, env: Mapping[str, str], etc: Path = Path("/etc/docker")) -> DockerTrust:
    """What Docker would do with the registry `host[:port]`. What cannot be read counts as absent:
    Docker itself will say so."""
    directories = list(_directories(env, etc))
    ca, cert, key = "", "", ""
    for directory in directories:
        for file in _files(directory / "certs.d" / host):
            if file.suffix == ".crt":
                ca += _text(file) + "\n"
            elif file.suffix == ".cert" and not cert:
                cert, key = _text(file), _text(file.with_suffix(".key"))
    return DockerTrust(
        ca=ca.strip() and ca,
        cert=cert if key else "",
        key=key if cert else "",
        insecure=any(_matches(host, entry) for entry in _insecure(directories)),
    )


def _directories(env: Mapping[str, str], etc: Path) -> Iterator[Path]:
    """The system's, rootless Docker's and Docker Desktop's."""
    yield etc
    home = env.get("HOME", "")
    if config := env.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else ""):
        yield Path(config, "docker")
    if home:
        yield Path(home, ".docker")


def _files(directory: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(directory.iterdir())
    return []


def _text(file: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text()
    return ""


def _insecure(directories: Iterable[Path]) -> Iterator[str]:
    for directory in directories:
        with contextlib.suppress(ValueError):
            known = json.loads(_text(directory / "daemon.json") or "{}")
            entries = known.get("insecure-registries") if isinstance(known, dict) else None
            yield from (str(each) for each in (entries if isinstance(entries, list) else ()))


def _matches(host: str, entry: str) -> bool:
    """An entry is a host with its port, or a network that its address is in."""
    entry = entry.partition("://")[2] or entry
    if "/" not in entry:
        return entry.lower() == host.lower()
    name, _, port = host.rpartition(":")
    address = name if port.isdigit() else host
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address.strip("[]")) in ipaddress.ip_network(
            entry, strict=False
        )
    return False
