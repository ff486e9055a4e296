"""RegistryCredentials as the docker CLI keeps them: config.json's auths, credential helpers and
stores.

Read-only, and never cached on disk or logged. Format: docker/cli `cli/config/configfile`, helper
protocol: https://github.com/docker/docker-credential-helpers.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devloop.base import process
from devloop.base.cancel import Cancel

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
    data = _read(config or _config_file())
    names = _names(host)
    helper = next((h for n in names if (h := _text(data, "credHelpers", n))), "")
    store = helper or (data.get("credsStore") if isinstance(data.get("credsStore"), str) else "")
    if store:
        for name in names:
            found = _ask(str(store), name)
            if found is not None:
                return found
    auths = data.get("auths")
    for name in names:
        entry = auths.get(name) if isinstance(auths, dict) else None
        if isinstance(entry, dict) and (found := _entry(entry)):
            return found
    return None


def _config_file() -> Path:
    directory = os.environ.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path.home() / ".docker") / "config.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _names(host: str) -> tuple[str, ...]:
    if host in _HUB:
        return (_HUB_KEY, "docker.io", "index.docker.io")
    return (host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/")


def _text(data: dict[str, Any], key: str, name: str) -> str:
    inner = data.get(key)
    value = inner.get(name) if isinstance(inner, dict) else None
    return value if isinstance(value, str) else ""


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
    if "/" in helper or os.sep in helper:
        return None
    try:
        done = process.capture(
            [f"docker-credential-{helper}", "get"],
            cancel=Cancel(),
            limit=_HELPER_SECONDS,
            given=name.encode(),
        )
        data = json.loads(done.out) if done.status == 0 else {}
    except (process.CannotRun, process.Overran, ValueError):
        return None
    user, secret = str(data.get("Username") or ""), str(data.get("Secret") or "")
    if user == "<token>":
        return RegistryCredentials(identity_token=secret)
    return RegistryCredentials(user=user, secret=secret) if secret else None
