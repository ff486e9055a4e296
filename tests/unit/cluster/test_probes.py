"""Probes of a container that is debugged wait, and only those."""

from __future__ import annotations

from typing import Any

import pytest

from devloop.base.supervisor import supervise
from devloop.cluster.deploy.objects import pin
from devloop.cluster.deploy.probes import impatient, patient, waits
from devloop.model import ImageRef

DEBUGGED = ImageRef(
    repository="r/web", tag="t", digest="sha256:1", supervisor=supervise(debug=("python", 5678))
)
PLAIN = ImageRef(repository="r/web", tag="t", digest="sha256:1", supervisor=supervise())


def _container(**probes: Any) -> dict[str, Any]:
    return {"name": "web", "image": "web", **probes}


@pytest.mark.parametrize("name", ["livenessProbe", "readinessProbe", "startupProbe"])
def test_each_probe_of_a_manifest_waits(name: str) -> None:
    probe = {"httpGet": {"path": "/", "port": 80}, "timeoutSeconds": 3}
    container = _container(**{name: probe})
    pin(container, DEBUGGED)
    assert container[name] == {**probe, "timeoutSeconds": 600}
    assert probe["timeoutSeconds"] == 3
    assert waits(container)


def test_without_a_debugger_they_are_as_they_are_written() -> None:
    container = _container(livenessProbe={"tcpSocket": {"port": 80}})
    pin(container, PLAIN)
    assert container["livenessProbe"] == {"tcpSocket": {"port": 80}}


def test_one_that_waits_longer_and_what_is_none_stay() -> None:
    container = _container(livenessProbe={"timeoutSeconds": 900}, readinessProbe=None)
    assert patient(container) == {}
    assert not waits(container)


def test_what_was_there_comes_back() -> None:
    before = _container(livenessProbe={"timeoutSeconds": 3}, readinessProbe={})
    now = {key: value for key, value in before.items() if not key.endswith("Probe")}
    now |= {name: before[name] | more for name, more in patient(before).items()}
    assert impatient(now, before) == {
        "livenessProbe": {"timeoutSeconds": 3},
        "readinessProbe": {"timeoutSeconds": 1},
    }
    assert impatient(before, before) == {}
    # Somebody else's by now.
    assert impatient(_container(livenessProbe={"timeoutSeconds": 5}), before) == {}
    assert impatient(now, {}) == {}
