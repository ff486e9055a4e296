"""What runs in the cluster is looked at, and a cluster that is no help is no hindrance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devloop.app.starter import running
from devloop.cluster.api.connection import Connection
from devloop.errors import Code, DevloopError
from devloop.model import CREATED_BY

if TYPE_CHECKING:
    from devloop.base.cancel import Cancel


def deployment(name: str, **annotations: str) -> dict[str, Any]:
    ports = [{"containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]
    container = {"name": "web", "image": f"acme/{name}:1", "ports": ports}
    return {
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


class Asked:
    """A connection; `answer` is what it gives, or raises."""

    context, server, local_tool, namespace = "kind-a", "https://127.0.0.1:6443", "kind", "blue"

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.closed = False
        self.paths: list[str] = []

    def request(self, _: str, path: str, *, timeout: float, cancel: Cancel) -> Any:
        self.paths.append(path)
        if isinstance(self.answer, DevloopError):
            raise self.answer
        if self.answer is None:
            cancel.wait(timeout)
            cancel.check()
        return {"items": self.answer}

    def close(self) -> None:
        self.closed = True


def asking(monkeypatch: pytest.MonkeyPatch, answer: object) -> Asked:
    made = Asked(answer)
    monkeypatch.setattr(Connection, "open", lambda *_: made)
    return made


def test_deployments_are_found_but_for_those_of_devloop(monkeypatch: pytest.MonkeyPatch) -> None:
    own = deployment("own", **{CREATED_BY: "shop"})
    asked = asking(monkeypatch, [deployment("web"), own])
    (found,) = running.running_workloads(None, None, ())
    assert str(found) == "deployment/web"
    assert found.images == (("web", "acme/web:1"),)
    assert found.ports == (("web", 8080),)
    assert asked.paths == ["/apis/apps/v1/namespaces/blue/deployments"]
    assert asked.closed


def test_a_cluster_that_is_not_local_is_asked_where_it_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = asking(monkeypatch, [deployment("web")])
    asked.context, asked.server = "prod", "https://10.1.2.3"
    assert running.running_workloads(None, None, ()) == ()
    assert asked.paths == []
    assert len(running.running_workloads(None, None, ("prod",))) == 1


@pytest.mark.parametrize("code", [Code.CLUSTER_UNREACHABLE, Code.CLUSTER_FORBIDDEN])
def test_a_cluster_that_refuses_runs_nothing(monkeypatch: pytest.MonkeyPatch, code: Code) -> None:
    asking(monkeypatch, DevloopError.of(code, "no"))
    assert running.running_workloads(None, None, ()) == ()


def test_a_cluster_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asking(monkeypatch, None)
    monkeypatch.setattr(running, "_PATIENCE", 0.01)
    assert running.running_workloads(None, None, ()) == ()
    assert asked.closed
