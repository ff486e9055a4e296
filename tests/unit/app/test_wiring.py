"""Which adapters a session has, and what they do when it ends."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from devloop.app import file_sync as file_syncs
from devloop.app import service_parts
from devloop.app import wiring as wirings
from devloop.app.preflight import Environment, watch_workloads
from devloop.app.service_parts import ServiceParts
from devloop.app.wiring import Wiring
from devloop.base.current import Current
from devloop.cluster.api.connection import Connection
from devloop.config.schema import SyncRule
from devloop.events import LogLine
from devloop.model import PushTarget, WorkloadRef
from devloop.registry.client import RegistryClient
from devloop.sync.contents import RememberedContents
from tests.support.cluster_objects import deployment, pod, replicaset, service_config, terminated
from tests.support.fake_api import fake_api
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devloop.config.schema import Service
    from devloop.events import Event


WEB = WorkloadRef("deployment", "web", "dev")


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
        project = SimpleNamespace(
            project=SimpleNamespace(root=tmp_path, state_dir=tmp_path / ".devloop"), show=str
        )
        services = {"web": service_config(tmp_path)}
        wiring = Wiring(
            cast("Any", project),
            services,
            connection,
            Environment(target=PushTarget(), registry=None, platforms=(), began=""),
            watch_workloads([WEB], connection, stack),
            renderings=Current({}),
            workloads={"web": (WEB,)},
            mode="run",
            publish=events.append,
            stack=stack,
            load=lambda: cast("Any", project),
            contents={},
        )
        wiring.follow_logs()
        wiring.feed.start()
        until(lambda: any(isinstance(event, LogLine) for event in events))
        stack.callback(log.last.set)
        stack.close()
    assert [event.text for event in events if isinstance(event, LogLine)] == ["first", "last"]


LOCAL = "https://127.0.0.1:6443"
REMOTE = "https://prod.example.com"
RULES = (SyncRule(src="**", dest="/app"),)


def wired(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    service: Service,
    *,
    mode: Any = "dev",
    server: str = LOCAL,
    registry: bool = True,
) -> tuple[bool, bool | None]:
    """Whether the service's image is supervised, and whether its syncer is a hot one; None where
    it has none."""
    supervised: list[object] = []
    hot: list[bool] = []

    def builder(*_: object, **__: object) -> object:
        return SimpleNamespace(close=lambda: None, below_copies=lambda: None)

    def dev_images(of: object, *_: object) -> object:
        supervised.append(of)
        return of

    def syncer(*_: object, **how: Any) -> object:
        hot.append(how["hot"])
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(service_parts, "make_builder", builder)
    monkeypatch.setattr(service_parts, "DevImages", dev_images)
    monkeypatch.setattr(file_syncs, "file_sync", syncer)
    project = SimpleNamespace(
        root=root, state_dir=root / ".devloop", only_built=lambda _name: False
    )
    connection = SimpleNamespace(context="kind-fake", server=server, namespace="dev")
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(contextlib.closing(RegistryClient("localhost:1")))
        wiring = Wiring(
            cast("Any", SimpleNamespace(project=project, show=str)),
            {"web": service},
            cast("Any", connection),
            Environment(
                target=PushTarget(),
                registry=client if registry else None,
                platforms=("linux/amd64",),
                began="",
            ),
            cast("Any", None),
            renderings=Current({}),
            workloads={"web": (WEB,)},
            mode=mode,
            publish=lambda _: None,
            stack=stack,
            load=lambda: cast("Any", project),
            contents={},
        )
        source: Any = SimpleNamespace(written_since=lambda _: None)
        parts = ServiceParts(
            project=cast("Any", project),
            connection=wiring.connection,
            environment=wiring.environment,
            renderings=wiring.renderings,
            configs=cast("Any", None),
            mode=mode,
            pull=False,
            publish=wiring.publish,
            registries=cast("Any", None),
            lookup=cast("Any", None),
            bases=wiring.bases,
            feed=wiring.feed,
            built=cast("Any", None),
            housekeeper=cast("Any", SimpleNamespace(building=None)),
        )
        contents = RememberedContents(root / "contents", "web")
        _, inner = parts.builder(service, source, stack, contents)
        parts.syncer(service, cast("Any", None), inner, stack, contents)
    return bool(supervised), hot[0] if hot else None


@pytest.mark.parametrize(
    ("deploy", "sync", "expected"),
    [
        ({}, (), (True, True)),
        ({"replace": "hot"}, (), (True, True)),
        ({"replace": "in-place"}, (), (True, None)),
        ({"replace": "rolling"}, (), (True, None)),
        ({"replace": "fast"}, (), (True, None)),
        ({"supervise": False}, (), (False, None)),
        ({"replace": "hot", "supervise": False}, (), (False, None)),
        ({}, "auto", (True, False)),
        ({}, RULES, (True, False)),
        ({"supervise": False}, RULES, (False, False)),
    ],
)
def test_a_service_is_hot_unless_it_says_otherwise(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deploy: dict[str, Any],
    sync: Any,
    expected: tuple[bool, bool | None],
) -> None:
    service = service_config(tmp_path)
    service = replace(service, sync=sync, deploy=replace(service.deploy, **deploy))
    assert wired(tmp_path, monkeypatch, service) == expected


@pytest.mark.parametrize("sync", [(), "auto"])
@pytest.mark.parametrize("where", [{"mode": "run"}, {"server": REMOTE}, {"registry": False}])
def test_nothing_is_hot_where_images_have_no_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: dict[str, Any], sync: Any
) -> None:
    service = replace(service_config(tmp_path), sync=sync)
    syncs = False if sync and "mode" not in where else None
    assert wired(tmp_path, monkeypatch, service, **where) == (False, syncs)
