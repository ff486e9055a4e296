"""What everyone who follows a service's pods is shown, with the starts that devloop itself made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from devloop.app.pods import PodFeed
from devloop.events import PodChanged
from devloop.model import ContainerView, PodView, WorkloadRef

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.events import Event


class Feed:
    """A feed of two services, and what it publishes and tells."""

    def __init__(self) -> None:
        self.watched: dict[str, Callable[[PodView, bool], None]] = {}
        self.events: list[Event] = []
        self.told: list[tuple[str, list[tuple[int, int]]]] = []
        workloads = {name: [WorkloadRef("deployment", name, "dev")] for name in ("web", "api")}
        takers: list[Any] = []

        def subscribe_pods(_namespace: str, _owned: object, take: Any) -> Callable[[], None]:
            takers.append(take)
            return lambda: None

        view = SimpleNamespace(subscribe_pods=subscribe_pods)
        self.feed = PodFeed(cast("Any", view), workloads, publish=self.events.append)
        self.feed.start()
        self.watched = dict(zip(workloads, takers, strict=True))
        self.stop = self.feed.listen(
            lambda service, pods: self.told.append((service, [s for p in pods for s in starts(p)]))
        )

    def see(self, pod: PodView, *, gone: bool = False) -> None:
        self.watched["web"](pod, gone)

    def starts(self) -> list[tuple[int, int]]:
        return [s for pod in self.feed.current("web") for s in starts(pod)]


def starts(pod: PodView) -> list[tuple[int, int]]:
    return [(c.starts_asked, c.starts_done) for c in pod.containers]


def pod(uid: str = "1", *names: str, ready: bool = True) -> PodView:
    containers = tuple(ContainerView(name=name, image="web") for name in names or ("web",))
    return PodView(name=f"web-{uid}", uid=uid, namespace="dev", ready=ready, containers=containers)


@pytest.fixture
def feed() -> Feed:
    made = Feed()
    made.see(pod())
    made.told.clear()
    made.events.clear()
    return made


def test_a_start_is_counted_when_it_is_asked_for_and_when_it_is_done(feed: Feed) -> None:
    for n in (1, 2):
        feed.feed.process_starts("web", pod(), "web", done=False)
        assert feed.starts() == [(n, n - 1)]
        feed.feed.process_starts("web", pod(), "web", done=True)
        assert feed.starts() == [(n, n)]


def test_one_that_is_done_serves_all_that_were_asked_for(feed: Feed) -> None:
    for done in (False, False, True):
        feed.feed.process_starts("web", pod(), "web", done=done)
    assert feed.starts() == [(2, 2)]


def test_listeners_are_told_at_once_and_nothing_is_published(feed: Feed) -> None:
    feed.feed.process_starts("web", pod(), "web", done=False)
    feed.feed.process_starts("web", pod(), "web", done=True)
    assert feed.told == [("web", [(1, 0)]), ("web", [(1, 1)])]
    assert feed.events == []
    feed.stop()
    feed.feed.process_starts("web", pod(), "web", done=False)
    assert len(feed.told) == 2


def test_what_the_watch_reports_keeps_the_count(feed: Feed) -> None:
    feed.feed.process_starts("web", pod(), "web", done=False)
    feed.see(pod(ready=False))
    assert feed.told[-1] == ("web", [(1, 0)])
    [event] = feed.events
    assert isinstance(event, PodChanged)
    assert not event.ready


def test_it_is_the_container_s_alone(feed: Feed) -> None:
    feed.see(pod("1", "web", "side"))
    feed.see(pod("2"))
    feed.feed.process_starts("web", pod(), "side", done=False)
    assert feed.starts() == [(0, 0), (1, 0), (0, 0)]
    assert feed.feed.current("api") == ()


def test_it_is_forgotten_with_the_pod(feed: Feed) -> None:
    feed.feed.process_starts("web", pod(), "web", done=False)
    feed.see(pod(), gone=True)
    assert feed.starts() == []
    # Said too late; nobody sees it, and it goes with the next change.
    feed.feed.process_starts("web", pod(), "web", done=True)
    feed.see(pod("2"))
    assert feed.feed._starts == {}
    assert feed.starts() == [(0, 0)]


class Namespaces:
    """A view whose pods are handed out by the test: (namespace, pod as JSON)."""

    def __init__(self) -> None:
        self.takers: dict[str, list[tuple[Any, Callable[[PodView, bool], None]]]] = {}

    def subscribe_pods(self, namespace: str, owned: Any, take: Any) -> Callable[[], None]:
        entry = (owned, take)
        self.takers.setdefault(namespace, []).append(entry)
        return lambda: self.takers[namespace].remove(entry)

    def see(self, namespace: str, name: str, kind: str) -> None:
        thing = owned_pod(kind, name)
        for owned, take in tuple(self.takers.get(namespace, ())):
            if owned(thing):
                take(PodView(name=f"{name}-0", uid=name, namespace=namespace), False)


def owned_pod(kind: str, name: str) -> dict[str, Any]:
    owner = {"kind": kind, "name": name, "uid": "u", "controller": True}
    return {"metadata": {"name": f"{name}-0", "ownerReferences": [owner]}}


def test_the_pods_of_all_workloads_are_shown_and_those_of_the_picked_one_apart() -> None:
    view = Namespaces()
    events: list[Event] = []
    refs = [WorkloadRef("statefulset", "web", "shop"), WorkloadRef("daemonset", "agent", "dev")]
    feed = PodFeed(cast("Any", view), {"web": refs}, publish=events.append)
    feed.start()
    view.see("shop", "web", "StatefulSet")
    view.see("dev", "web", "StatefulSet")  # another of that name, which is none of ours
    view.see("dev", "agent", "DaemonSet")
    assert [p.uid for p in feed.current("web")] == ["web", "agent"]
    assert [p.uid for p in feed.picked.current("web")] == ["web"]
    assert len(events) == 2


def test_a_workload_that_joins_is_followed_and_one_that_leaves_is_gone() -> None:
    view = Namespaces()
    events: list[Event] = []
    web, other = WorkloadRef("statefulset", "web", "dev"), WorkloadRef("daemonset", "agent", "dev")
    feed = PodFeed(cast("Any", view), {"web": [web]}, publish=events.append)
    feed.start()
    view.see("dev", "web", "StatefulSet")
    feed.follow("web", (other,))
    view.see("dev", "agent", "DaemonSet")
    view.see("dev", "web", "StatefulSet")
    assert [p.uid for p in feed.current("web")] == ["agent"]
    changes = [(e.pod, e.phase) for e in events if isinstance(e, PodChanged)]
    assert changes == [("web-0", ""), ("web-0", "Gone"), ("agent-0", "")]


def test_the_pods_of_a_service_that_devloop_yaml_has_no_more_are_not_said_to_be_gone(
    feed: Feed,
) -> None:
    feed.feed.forget("web")
    assert (feed.feed.current("web"), feed.feed.workloads("web")) == ((), ())
    feed.see(pod("2"))
    assert feed.events == []
    feed.feed.follow("web", [WorkloadRef("deployment", "web", "dev")])
    assert feed.feed.workloads("web") == (WorkloadRef("deployment", "web", "dev"),)
