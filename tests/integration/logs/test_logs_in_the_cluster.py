"""Following logs of a real kubelet: each line once, whatever is done to streams and containers."""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from devloop.cluster.api.connection import Connection
from devloop.cluster.api.log_stream import open_log, server_time
from devloop.cluster.api.node_logs import NodeLogs
from devloop.cluster.api.view import ClusterView
from devloop.events import LogLine
from devloop.logs import LogFollower

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devloop.base.cancel import Cancel
    from devloop.events import Event
    from devloop.model import PodView

pytestmark = [pytest.mark.kind, pytest.mark.docker]


@pytest.fixture(scope="module")
def image() -> str:
    pushed = f"{os.environ['DEVLOOP_TEST_REGISTRY']}/logs-test/busybox:1"
    for argv in (
        ["docker", "tag", "busybox-base:dev", pushed],
        ["docker", "push", "--quiet", pushed],
    ):
        subprocess.run(argv, check=True, capture_output=True, timeout=120)
    return pushed


@pytest.fixture
def connection() -> Iterator[Connection]:
    namespace = f"devloop-{secrets.token_hex(4)}"
    opened = Connection.open(
        os.environ["DEVLOOP_TEST_CONTEXT"],
        namespace,
        env={**os.environ, "KUBECONFIG": os.environ["DEVLOOP_TEST_KUBECONFIG"]},
    )
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    opened.request("POST", "/api/v1/namespaces", body)
    yield opened
    opened.request("DELETE", f"/api/v1/namespaces/{namespace}")
    opened.close()


class Logs:
    """A namespace's pods and what is published of their logs."""

    def __init__(self, connection: Connection, image: str) -> None:
        self.lines: list[tuple[float, LogLine]] = []
        self.break_after = 0  # bytes of the first stream; each later one gets as many more
        self.breaks = 0
        self._connection = connection
        self._image = image
        self._changed = threading.Condition()
        self._pods: dict[str, PodView] = {}
        self._view = ClusterView(connection)
        self._follower: LogFollower | None = None

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self._connection.namespace}/pods"

    def run(self, name: str, script: str, *, init: str = "", **spec: Any) -> None:
        def container(name: str, script: str) -> dict[str, Any]:
            return {"name": name, "image": self._image, "command": ["sh", "-c", script]}

        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "initContainers": [container("init", init)] if init else [],
                "containers": [container("web", script)],
            }
            | spec,
        }
        self._connection.request("POST", self._path, pod)

    def delete(self, name: str) -> None:
        self._connection.request("DELETE", f"{self._path}/{name}")

    def set_image(self, name: str, image: str) -> None:
        patch = {"spec": {"containers": [{"name": "web", "image": image}]}}
        self._connection.request(
            "PATCH",
            f"{self._path}/{name}",
            patch,
            content_type="application/strategic-merge-patch+json",
        )

    def follow(self, *, since: str = "", rate: int = 20_000) -> None:
        self._follower = LogFollower(
            self._open,
            self._publish,
            patterns={"web": ("*",)},
            since=since,
            rate=rate,
            files=NodeLogs(self._connection),
        )
        self._view.subscribe_pods(self._connection.namespace, lambda _: True, self._take)

    def _take(self, pod: PodView, gone: bool) -> None:
        with self._changed:
            self._pods.pop(pod.uid, None)
            if not gone:
                self._pods[pod.uid] = pod
            self._changed.notify_all()
        assert self._follower is not None
        self._follower.pods_changed("web", tuple(self._pods.values()))

    def _open(
        self,
        pod: PodView,
        container: str,
        *,
        since_time: str | None,
        previous: bool,
        cancel: Cancel,
    ) -> Iterator[bytes]:
        chunks = open_log(
            self._connection,
            pod.namespace,
            pod.name,
            container,
            since_time=since_time,
            previous=previous,
            cancel=cancel,
        )
        # What was seen in the last two seconds comes again and counts, too.
        left = self.break_after * (self.breaks + 1)
        for chunk in chunks:
            if self.break_after and len(chunk) > left:
                yield chunk[:left]
                self.breaks += 1
                raise OSError("broken on purpose")
            left -= len(chunk)
            yield chunk

    def _publish(self, event: Event) -> None:
        if isinstance(event, LogLine):
            with self._changed:
                self.lines.append((time.time(), event))
                self._changed.notify_all()

    def texts(self, container: str = "web") -> list[str]:
        return [line.text for _, line in self.lines if line.container == container]

    def wait(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, seconds), self.texts()[-10:]

    def wait_for(self, text: str, *, container: str = "web", times: int = 1) -> None:
        seen = at = 0

        def enough() -> bool:
            nonlocal seen, at
            new = self.lines[at:]
            at += len(new)
            seen += sum(line.text == text and line.container == container for _, line in new)
            return seen >= times

        self.wait(enough)

    def running(self, name: str) -> None:
        self.wait(
            lambda: any(
                p.name == name and p.containers[-1].state == "running" for p in self._pods.values()
            )
        )

    def settled(self) -> None:
        assert self._follower is not None
        assert self._follower.drain(20)

    def close(self) -> None:
        self._view.close()
        if self._follower is not None:
            assert self._follower.close() == ()


@pytest.fixture
def logs(connection: Connection, image: str) -> Iterator[Logs]:
    logs = Logs(connection, image)
    yield logs
    logs.close()


COUNT = "i=0; while [ $i -lt {} ]; do echo line $i; i=$((i+1)); done"


def test_init_and_main_from_the_first_line_through_broken_streams(logs: Logs) -> None:
    logs.break_after = 100_000
    logs.follow()
    logs.run("web-1", COUNT.format(20_000) + "; exec sleep 3600", init="echo prepared")
    logs.wait_for("line 19999")
    assert logs.texts("init") == ["prepared"]
    assert logs.texts() == [f"line {n}" for n in range(20_000)]
    assert logs.breaks > 2, "or nothing was tried"


def test_crashes_lose_no_last_words(logs: Logs) -> None:
    logs.follow()
    logs.run("web-1", "echo start; echo more; printf 'last words' >&2; exit 1")
    logs.wait_for("last words", times=2)
    assert sorted(logs.texts()) == sorted(["start", "more", "last words"] * 2)


def test_a_container_replaced_in_its_pod_is_followed_at_once(logs: Logs, image: str) -> None:
    other = image.rpartition(":")[0] + ":2"
    for argv in (["docker", "tag", image, other], ["docker", "push", "--quiet", other]):
        subprocess.run(argv, check=True, capture_output=True, timeout=120)
    logs.follow()
    logs.run("web-1", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done")
    logs.wait_for("up")
    logs.set_image("web-1", other)
    logs.wait_for("up", times=2)
    assert logs.texts() == ["up", "bye", "up"]


def test_a_deleted_pods_last_words_are_shown(logs: Logs) -> None:
    logs.follow()
    logs.run(
        "web-1",
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done",
        terminationGracePeriodSeconds=10,
    )
    logs.wait_for("up")
    logs.delete("web-1")
    logs.wait_for("bye")
    assert logs.texts() == ["up", "bye"]


def test_an_old_pod_is_shown_from_the_sessions_start_on(logs: Logs, connection: Connection) -> None:
    logs.run("web-1", "echo long ago; while :; do sleep 0.5; echo tick; done")
    time.sleep(4)
    connection.find("/version")
    since = server_time(connection)
    logs.follow(since=since)
    logs.wait_for("tick", times=3)
    assert "long ago" not in logs.texts()
    assert all(line.ts >= since.removesuffix("Z") for _, line in logs.lines)


def test_a_flood_is_cut_down_and_ends_in_time(logs: Logs) -> None:
    logs.follow(rate=1000)
    logs.run("web-1", "yes flood")
    logs.wait(lambda: any("lines dropped" in text for text in logs.texts()))
    begun = len(logs.lines)
    time.sleep(2)
    assert len(logs.lines) - begun < 5000
    logs.delete("web-1")


def test_a_log_that_the_kubelet_rotates_comes_whole(logs: Logs) -> None:
    """10 MiB and a look every ten seconds make it rotate once or twice."""
    burst = "seq $i $((i+9999)) | sed 's/^/line /; s/$/ of some that fill a file/'"
    script = f"i=0; while [ $i -lt 300000 ]; do {burst}; i=$((i+10000)); sleep 0.8; done; echo over"
    logs.follow(rate=100_000)
    logs.run("web-1", f"{script}; sleep 1000")
    logs.wait_for("over")
    logs.wait(lambda: len(logs.lines) >= 300_001, 15)
    numbers = sorted(int(text.split()[1]) for text in logs.texts() if text.startswith("line"))
    assert numbers == list(range(300_000)), [t for t in logs.texts() if t.startswith("…")]
