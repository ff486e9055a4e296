from __future__ import annotations

from devloop.registry.client import Registries, RegistryClient


class Noted(RegistryClient):
    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


def test_one_client_for_each_registry() -> None:
    target = Noted("localhost:5001/team")
    with Registries(target, make=Noted) as registries:
        assert registries("localhost:5001") is target
        other = registries("ghcr.io")
        assert registries("ghcr.io") is other
        assert isinstance(other, Noted)
    assert (target.closed, other.closed) == (0, 1)
    target.close()
