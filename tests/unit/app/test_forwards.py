"""The local ports of a session: those of `ports`, and the debugger's where an editor can attach."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devloop.app import forwards
from devloop.app.forwards import Forwards
from devloop.config.builds import Build
from devloop.config.schema import Debug, Deploy, Port, Service
from devloop.events import Event, ForwardChanged
from devloop.port_forward import forwarder


class Opened:
    """Stands for `PortForwarder`."""

    made: Opened

    def __init__(self, ports: Any, _dial: object, _pods: object, publish: Any) -> None:
        Opened.made = self
        self.ports = {(service, local): shown for service, local, shown, *_ in ports}
        self.publish = publish
        self.clients: set[tuple[str, int]] = set()

    def start(self) -> None:
        pass

    def change(self, more: Any, gone: Any) -> None:
        for key in gone:
            del self.ports[key]
        self.ports |= {(service, local): shown for service, local, shown, *_ in more}

    def connected(self, service: str, local: int) -> bool:
        return (service, local) in self.clients


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(start=lambda: None, use=lambda _: None, port_of=None)
    monkeypatch.setattr(forwarder, "PortForwarder", Opened)
    monkeypatch.setattr(forwards, "PodPorts", lambda *_, **__: nothing)
    monkeypatch.setattr(forwards, "ForwardTargets", lambda *_, **__: nothing)


def _service(debug: Debug | None, *ports: Port) -> dict[str, Service]:
    root = Path("/project")
    made = Service(
        name="web",
        image="web",
        build=Build(context=root, dockerfile=root / "Dockerfile"),
        deploy=Deploy(workload_name="web"),
        ports=ports,
        debug=debug,
    )
    return {"web": made}


def _forwards(*, attachable: bool = True) -> tuple[Forwards, list[Event]]:
    events: list[Event] = []
    nothing: Any = SimpleNamespace(picked=None, workloads=lambda _: ())
    made = Forwards(nothing, nothing, nothing, events.append, attachable=lambda _: attachable)
    return made, events


PYTHON = Debug(kind="python", port=5678)


def test_the_debuggers_port_is_forwarded_and_said_to_be_one() -> None:
    made, events = _forwards()
    made.use(_service(PYTHON, Port(local=8080, container=80)))
    assert Opened.made.ports == {("web", 8080): 80, ("web", 5678): 5678}
    for local in (8080, 5678):
        Opened.made.publish(ForwardChanged(service="web", local=local, port=1, state="ready"))
    assert [getattr(event, "debugger", None) for event in events] == ["", "python"]


def test_where_nobody_can_attach_it_is_not() -> None:
    made, _ = _forwards(attachable=False)
    made.use(_service(PYTHON, Port(local=8080, container=80)))
    assert Opened.made.ports == {("web", 8080): 80}


def test_it_comes_and_goes_with_the_key() -> None:
    made, _ = _forwards()
    made.use(_service(PYTHON))
    made.use(_service(Debug(kind="python", port=5679)))
    assert Opened.made.ports == {("web", 5679): 5679}
    made.use(_service(None))
    assert Opened.made.ports == {}


def test_an_editor_that_is_connected_is_known() -> None:
    made, _ = _forwards()
    assert not made.attached("web")
    made.use(_service(PYTHON, Port(local=8080, container=80)))
    Opened.made.clients = {("web", 8080)}
    assert not made.attached("web")
    Opened.made.clients = {("web", 5678)}
    assert made.attached("web")
    assert not made.attached("other")
