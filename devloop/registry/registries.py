"""The clients of all registries that a session talks to, each opened when it is first asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from devloop.registry.client import RegistryClient

if TYPE_CHECKING:
    from collections.abc import Callable


class Registries:
    """From `host[:port]` to a client. Thread-safe. `known` is used for its own host, and left open
    by `close`."""

    def __init__(
        self,
        known: RegistryClient | None = None,
        *,
        make: Callable[[str], RegistryClient] = RegistryClient,
    ) -> None:
        self._known = {known.host: known} if known else {}
        self._make = make
        self._made: dict[str, RegistryClient] = {}
        self._lock = threading.Lock()

    def __call__(self, host: str) -> RegistryClient:
        with self._lock:
            found = self._known.get(host) or self._made.get(host)
            if found is None:
                found = self._made[host] = self._make(host)
            return found

    def close(self) -> None:
        with self._lock:
            made, self._made = list(self._made.values()), {}
        for client in made:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
