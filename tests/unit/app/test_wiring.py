"""What the adapters of a session do when it ends."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from devloop.app import wiring as wirings
from devloop.app.preflight import Environment, watch_workloads
from devloop.app.wiring import Wiring
from devloop.cluster.api.connection import Connection
from devloop.events import LogLine
from devloop.model import PushTarget
from tests.support.cluster_objects import deployment, pod, replicaset, service_config, terminated
from tests.support.fake_api import fake_api
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from devloop.events import Event


class SlowLog(list[bytes | None]):
    """A container's log whose last line comes late."""

    def __init__(self) -> None:
        super().__init__()
        self.last = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        yield b"2099-01-01T00:00:01.000000000Z first\n"
        self.last.wait(30)
        yield b"2099-01-01T00:00:02.000000000Z last\n"


def test_a_run_that_ends_shows_the_last_lines_of_what_crashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wirings, "_LAST_LINES", 10.0)
    events: list[Event] = []
    log = SlowLog()
    with fake_api() as api, contextlib.ExitStack() as stack:
        api.put("/apis/apps/v1/namespaces/dev/deployments/web", deployment())
        api.put("/apis/apps/v1/namespaces/dev/replicasets/web-new", replicaset())
        api.put("/api/v1/namespaces/dev/pods/web-new-x", pod(terminated(1)))
        api.logs["web-new-x", "web", False] = log
        env = {"KUBECONFIG": str(api.kubeconfig(tmp_path)), "HOME": str(tmp_path)}
        connection = stack.enter_context(contextlib.closing(Connection.open(None, "dev", env=env)))
        project = SimpleNamespace(project=SimpleNamespace(root=tmp_path), show=str)
        services = {"web": service_config(tmp_path)}
        wiring = Wiring(
            cast("Any", project),
            services,
            connection,
            Environment(target=PushTarget(), registry=None, platforms=(), began=""),
            watch_workloads(services, connection, stack),
            mode="run",
            publish=events.append,
            stack=stack,
        )
        wiring.follow_logs()
        wiring._feed.start()
        until(lambda: any(isinstance(event, LogLine) for event in events))
        stack.callback(log.last.set)
        stack.close()
    assert [event.text for event in events if isinstance(event, LogLine)] == ["first", "last"]
