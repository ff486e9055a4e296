"""RegistryCredentials as the docker CLI keeps them: config.json's auths, credential helpers and
stores.

Read-only, and never cached on disk or logged. Format: docker/cli `cli/config/configfile`, helper
protocol: https://github.com/docker/docker-credential-helpers.
"""

from __future__ import annotations

import base64
import json
from dataclasses import field
from itertools import chain
from typing import TYPE_CHECKING, Any

from devloop.base import process
from devloop.base.cancel import Cancel
from devloop.base.home import docker_directory
from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from pathlib import Path

_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HUB_KEY = "https://index.docker.io/v1/"
_HELPER_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryCredentials:
    """A user with a password, or an identity token (then `user` is empty)."""

    user: str = ""
    secret: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        text = f"{self.user}:{self.secret}".encode()
        return f"Basic {base64.b64encode(text).decode('ascii')}"


def for_host(host: str, config: Path | None = None) -> RegistryCredentials | None:
    """What Docker would send to `host` (with its port), None when it knows nothing.

    A broken config.json or helper counts as knowing nothing: Docker itself will say so."""
    try:
        data = _mapping(json.loads((config or docker_directory() / "config.json").read_text()))
    except (OSError, ValueError):
        return None
    names, auths = _names(host), _mapping(data.get("auths"))
    helpers = _mapping(data.get("credHelpers"))
    stores = [*map(helpers.get, names), data.get("credsStore")]
    store = next((each for each in stores if each and isinstance(each, str)), "")
    asked = (_ask(store, name) for name in names if store)
    kept = (_entry(_mapping(auths.get(name))) for name in names)
    return next((found for found in chain(asked, kept) if found), None)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(host: str) -> tuple[str, ...]:
    if host in _HUB:
        return (_HUB_KEY, "docker.io", "index.docker.io")
    return (host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/")


def _entry(entry: dict[str, Any]) -> RegistryCredentials | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return RegistryCredentials(identity_token=token)
    try:
        text = base64.b64decode(str(entry.get("auth") or "")).decode("utf-8")
    except ValueError:
        return None
    user, colon, secret = text.strip("\0").partition(":")
    return RegistryCredentials(user=user, secret=secret) if colon else None


def _ask(helper: str, name: str) -> RegistryCredentials | None:
    if "/" in helper:
        return None
    argv = [f"docker-credential-{helper}", "get"]
    try:
        done = process.capture(argv, cancel=Cancel(), limit=_HELPER_SECONDS, given=name.encode())
        data = json.loads(done.out) if done.status == 0 else {}
    except (process.CannotRun, process.Overran, ValueError):
        return None
    user, secret = str(data.get("Username") or ""), str(data.get("Secret") or "")
    if user == "<token>":
        return RegistryCredentials(identity_token=secret)
    return RegistryCredentials(user=user, secret=secret) if secret else None
