"""What a session does with an edit of devloop.yaml: to whom it gives other parts, ports and logs,
what it lets go, and what it says of the rest. The parts, the cluster and the engine are fakes.
"""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from devloop.app import reload as reloads
from devloop.app.reload import Reload
from devloop.base.cancel import Cancel
from devloop.base.current import Current
from devloop.config.loader import load_project
from devloop.engine.facts import Reconfigured, Removed
from devloop.errors import Code, DevloopError
from devloop.events import ConfigReloaded, DiagnosticRaised
from devloop.model import WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from devloop.config.schema import Service
    from devloop.events import Event

HEAD = "version: 1\nname: shop\nservices:\n"
WEB = HEAD + "  web: {build: .}\n"
API = WEB + "  api: {build: .}\n"


class Session:
    """One with the services of `text`, and what it was told to do: `done`, in order."""

    def __init__(self, root: Path, text: str, *, only: tuple[str, ...] = ()) -> None:
        self.root = root
        self.done: list[tuple[Any, ...]] = []
        self.events: list[Event] = []
        self.busy: set[int] = set()
        self.taken_leases: set[str] = set()
        self.hot = self.untrusted = False
        loaded = self.load(text)
        services = {
            name: each for name, each in loaded.project.services.items() if name in only or not only
        }
        feed = SimpleNamespace(
            follow=lambda name, refs: self.did("follow", name, *map(str, refs)),
            forget=lambda name: self.did("unfollow", name),
            current=lambda _name: (),
        )
        follower = SimpleNamespace(
            show=lambda name, patterns: self.did("logs", name, *patterns),
            pods_changed=lambda _name, _pods: None,
        )
        wiring = SimpleNamespace(
            loaded=loaded,
            services=services,
            connection=SimpleNamespace(namespace="dev"),
            environment=SimpleNamespace(
                target=SimpleNamespace(repository=lambda image: image), platforms=()
            ),
            view=SimpleNamespace(begin=lambda ref: self.did("watch", str(ref))),
            renderings=Current[str, Any]({}),
            workloads={name: (WorkloadRef("deployment", name, "dev"),) for name in services},
            publish=self.heard,
            bases=SimpleNamespace(use=lambda _builds: None),
            feed=feed,
            follower=follower,
            forwards=SimpleNamespace(use=self.use_ports),
            debuggers=SimpleNamespace(use=lambda _services: None),
            check_trust=self.check_trust,
        )
        parts = SimpleNamespace(
            tidy=lambda: None,
            make=self.make,
            held=self.held,
            leave=self.leave,
            forget=lambda _name: None,
            rolls_back=lambda _service: False,
            connect_to=lambda _service: None,
        )
        self.reload = Reload(
            cast("Any", wiring),
            cast("Any", parts),
            cast("Any", SimpleNamespace(use=lambda _: None, forget=lambda _: None)),
            cast(
                "Any",
                SimpleNamespace(extend=self.extend, release=self.release, left_behind=frozenset()),
            ),
            cast("Any", SimpleNamespace(take_over=self.take_over)),
            only=only,
        )

    def check_trust(self, _loaded: Any, _services: Any) -> None:
        if self.untrusted:
            raise DevloopError.of(Code.SAFETY_UNTRUSTED, "nobody has trusted it")

    def load(self, text: str) -> Any:
        (self.root / "devloop.yaml").write_text(text)
        return load_project(cwd=self.root, env={})

    def heard(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ConfigReloaded):
            self.did("told")

    def did(self, *what: Any) -> None:
        self.done.append(what)

    def edit(self, text: str) -> list[tuple[str, str]]:
        """What is said of it; what was done is in `done`."""
        self.done.clear()
        self.events.clear()
        notes = self.reload.take(self.load(text), Cancel())
        return [(note.code, str(note.location)) for note in notes]

    @property
    def reloaded(self) -> list[ConfigReloaded]:
        return [event for event in self.events if isinstance(event, ConfigReloaded)]

    # --- what it has ---------------------------------------------------------------------------

    def make(self, service: Service, _deployments: object, *, first: bool = True) -> Any:
        self.did("make", service.name, first)
        return SimpleNamespace(syncer=object() if self.hot else None)

    def held(self, name: str) -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        stack.callback(self.did, "close", name)
        return stack

    def leave(self, released: threading.Event, stack: contextlib.ExitStack) -> None:
        assert released.is_set()
        stack.close()

    def take_over(self, fact: Reconfigured | Removed, ports: object) -> threading.Event:
        if isinstance(fact, Removed):
            self.did("remove", fact.service)
        else:
            self.did("engine", fact.service, fact.keys, fact.proves)
        assert (ports is None) == isinstance(fact, Removed)
        released = threading.Event()
        released.set()
        return released

    def extend(self, refs: Iterable[WorkloadRef], _cancel: Cancel) -> None:
        for ref in refs:
            if str(ref) in self.taken_leases:
                raise DevloopError.of(Code.SAFETY_LEASE, f"somebody works with {ref}")
            self.did("lease", str(ref))

    def release(self, refs: Iterable[WorkloadRef]) -> None:
        for ref in refs:
            self.did("release", str(ref))

    def use_ports(self, services: Mapping[str, Service], _coming: object) -> None:
        ports = [port.local for service in services.values() for port in service.ports]
        ports += [service.debug.port for service in services.values() if service.debug]
        for port in ports:
            if port in self.busy:
                raise DevloopError.of(Code.ENV_PORT_BUSY, f"the local port {port} is in use")
        self.did("ports", *ports)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def workloads_of(_project: object, names: Iterable[str], *_: object, **__: object) -> Any:
        return {name: (WorkloadRef("deployment", name, "dev"),) for name in names}

    monkeypatch.setattr(reloads, "workloads_of", workloads_of)
    monkeypatch.setattr(reloads, "preflight", lambda *_: None)


def web(keys: str) -> str:
    return f"{HEAD}  web: {{build: ., {keys}}}\n"


def test_what_shapes_an_image_gives_that_service_other_parts_and_closes_those_of_before(
    tmp_path: Path,
) -> None:
    session = Session(tmp_path, API)
    assert session.edit(API.replace("build: .", "build: {args: {A: x}}", 1)) == []
    key = "services.web.build.args.A"
    assert session.done == [
        ("ports",),
        ("told",),
        ("make", "web", False),
        ("engine", "web", (key,), True),
        ("close", "web"),
    ]
    (event,) = session.reloaded
    assert (event.changed, event.services.changed) == ((key,), ("web",))


def test_a_way_to_deploy_is_proven_only_where_files_are_synced(tmp_path: Path) -> None:
    session = Session(tmp_path, WEB)
    session.edit(web("deploy: {timeout: 1s}"))
    session.hot = True
    key = ("services.web.deploy.timeout",)
    assert ("engine", "web", key, False) in session.done
    session.edit(web("deploy: {timeout: 2s}"))
    assert ("engine", "web", key, True) in session.done


def test_a_debugger_is_another_image_and_another_port(tmp_path: Path) -> None:
    session = Session(tmp_path, WEB)
    assert session.edit(web("debug: {kind: go, port: 2345}")) == []
    assert session.done == [
        ("ports", 2345),
        ("told",),
        ("make", "web", False),
        ("engine", "web", ("services.web.debug",), True),
        ("close", "web"),
    ]


def test_a_debuggers_port_that_is_taken_leaves_the_service_as_it_is(tmp_path: Path) -> None:
    session = Session(tmp_path, web("debug: go"))
    session.busy.add(7)
    assert session.edit(web("debug: {kind: go, port: 7}")) == [
        ("env/port-busy", "devloop.yaml:4:37")
    ]
    assert session.done == [("ports", 2345)]


@pytest.mark.parametrize(
    ("keys", "done"),
    [
        ("ports: [80]", [("ports", 80), ("told",)]),
        ("logs: {containers: [a]}", [("ports",), ("told",), ("logs", "web", "a")]),
    ],
)
def test_ports_and_logs_change_beside_the_engine(
    tmp_path: Path, keys: str, done: list[tuple[Any, ...]]
) -> None:
    session = Session(tmp_path, WEB)
    assert session.edit(web(keys)) == []
    assert session.done == done


def test_a_comment_is_nothing(tmp_path: Path) -> None:
    session = Session(tmp_path, WEB)
    assert session.edit(WEB + "# why\n") == []
    assert session.done == []
    assert session.events == []


def test_a_service_is_started_and_stopped_with_all_that_it_has(tmp_path: Path) -> None:
    session = Session(tmp_path, WEB)
    assert session.edit(API) == []
    assert session.done == [
        ("lease", "deployment/api"),
        ("ports",),
        # Before anything happens of it: readers know it from then on.
        ("told",),
        ("follow", "api", "deployment/api"),
        ("watch", "deployment/api"),
        ("logs", "api", "*"),
        ("make", "api", True),
        ("engine", "api", (), True),
    ]
    assert session.reloaded[0].services.added == ("api",)
    assert session.edit(WEB) == []
    assert session.done == [
        ("remove", "api"),
        ("unfollow", "api"),
        ("logs", "api"),
        ("close", "api"),
        ("ports",),
        ("told",),
        ("release", "deployment/api"),
    ]
    said = [event for event in session.events if isinstance(event, DiagnosticRaised)]
    assert [(event.code, event.cause) for event in said] == [
        ("config/service-removed", "kubectl -n dev delete deployment/api deletes it")
    ]
    assert session.reloaded[0].changed == ("services.api",)


def test_another_name_is_one_service_less_and_one_more(tmp_path: Path) -> None:
    session = Session(tmp_path, WEB)
    session.edit(WEB.replace("web", "shop"))
    assert [each for each in session.done if each[0] in ("remove", "engine")] == [
        ("remove", "web"),
        ("engine", "shop", (), True),
    ]


def test_services_that_were_not_asked_for_stay_out(tmp_path: Path) -> None:
    session = Session(tmp_path, WEB, only=("web",))
    session.edit(API)
    session.edit(API.replace("api: {build: .}", "api: {build: ., image: other}"))
    assert [each for each in session.done if each[0] != "ports"] == []
    assert session.reloaded == []


def test_a_port_that_is_in_use_is_said_at_its_place_and_tried_again_with_the_next_edit(
    tmp_path: Path,
) -> None:
    session = Session(tmp_path, web("ports: [80]"))
    session.busy = {81}
    text = web("image: x, ports: [80, 81]")
    assert session.edit(text) == [("env/port-busy", "devloop.yaml:4:41")]
    assert ("ports", 80) in session.done
    assert session.reloaded[0].changed == ("services.web.image",)
    session.busy = set()
    assert session.edit(text + "# again\n") == []
    assert session.done == [("ports", 80, 81), ("told",)]


def test_a_service_of_another_session_is_said_and_not_started(tmp_path: Path) -> None:
    session = Session(tmp_path, WEB)
    session.taken_leases = {"deployment/api"}
    assert session.edit(API) == [("safety/lease", "devloop.yaml:5:3")]
    assert session.done == [("ports",)]
    session.taken_leases = set()
    session.edit(API + "# again\n")
    assert ("engine", "api", (), True) in session.done


def test_what_needs_a_new_start_is_said_until_it_is_reverted_and_the_rest_is_taken_over(
    tmp_path: Path,
) -> None:
    session = Session(tmp_path, WEB)
    other = [("config/needs-restart", "devloop.yaml:2:1")]
    assert session.edit(WEB.replace("name: shop", "name: other\nregistry: localhost:1")) == other
    (event,) = session.reloaded
    assert (event.changed, event.restart) == ((), ("name", "registry"))
    assert session.done == [("told",)]
    assert session.edit(web("image: x").replace("shop", "other")) == other
    assert ("engine", "web", ("services.web.image",), True) in session.done
    assert session.edit(web("image: x")) == []
    assert session.reloaded[0].restart == ()


def test_commands_that_nobody_trusted_are_taken_over_once_somebody_does(tmp_path: Path) -> None:
    session = Session(tmp_path, web("image: a"))
    session.untrusted = True
    text = web("image: b, hooks: {after_build: [make]}")
    assert [code for code, _ in session.edit(text)] == ["safety/untrusted"]
    assert session.done == []
    session.untrusted = False
    assert session.edit(text) == []
    assert session.reloaded[0].changed == ("services.web.image", "services.web.hooks.after_build")
