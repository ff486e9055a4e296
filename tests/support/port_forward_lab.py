"""A real Deployment that answers its version, replaced in place or rolled by bare requests, and
clients that never stop asking: for the tests and the benchmark of the port forward."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from devloop.app.pods import PodFeed
from devloop.cluster.api.connection import JSON, STRATEGIC, Connection
from devloop.cluster.api.view import ClusterView
from devloop.events import ForwardChanged
from devloop.model import WorkloadRef
from devloop.port_forward import PortForwarder
from devloop.registry.client import RegistryClient, sha256
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devloop.engine.ports import PodSource
    from devloop.events import Event
    from devloop.port_forward import Dial

__all__ = ["Browser", "Lab", "Visit", "forwarded", "wrong_answers"]

# Answers in HTTP/1.1, to POST with what it got.
ANSWERS = """
import http.server, os, time
class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def reply(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.reply(self.rfile.read(int(self.headers["Content-Length"])))
"""
# GET answers the version; it stops at once when asked to, in mid-request.
SERVER = (
    ANSWERS
    + """
import signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class H(Answers):
    wbufsize = -1
    def do_GET(self):
        if self.path.startswith("/slow"): time.sleep(5)
        self.reply(os.environ["VERSION"].encode())
class W(http.server.ThreadingHTTPServer):
    request_queue_size = 128
W(("", 8080), H).serve_forever()
"""
)
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Lab:
    """One Deployment `web` in a namespace of its own, which `stop` deletes."""

    def __init__(self, namespace: str, *, versions: int, replicas: int = 1) -> None:
        self.namespace = namespace
        self.registry = os.environ["DEVLOOP_TEST_REGISTRY"]
        self.repository = f"{namespace}/web"
        self._replicas = replicas
        self._images: list[str] = []
        self.versions = versions
        self.connection = Connection.open(os.environ["DEVLOOP_TEST_CONTEXT"])
        self._view = ClusterView(self.connection)
        ref = WorkloadRef(kind="deployment", name="web", namespace=namespace)
        self.feed = PodFeed(self._view, {"web": [ref]}, publish=lambda _: None)

    def start(self) -> None:
        self._push()
        self.send("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.send("POST", self._apps("deployments"), self._deployment())
        self.send(
            "POST",
            f"/api/v1/namespaces/{self.namespace}/services",
            {
                "metadata": {"name": "web"},
                "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 8080}]},
            },
        )
        self.feed.start()
        until(lambda: sum(pod.ready for pod in self.feed.current("web")) == self._replicas, 90)

    def stop(self) -> None:
        self._view.close()
        self.send("DELETE", f"/api/v1/namespaces/{self.namespace}")
        self.connection.close()

    def send(
        self, method: str, path: str, body: dict[str, Any] | None = None, kind: str = JSON
    ) -> dict[str, Any]:
        return self.connection.request(method, path, body, content_type=kind)

    def _apps(self, path: str) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/{path}"

    def _push(self) -> None:
        """One image for each version: the base image with another VERSION in its environment."""
        first = f"{self.registry}/{self.repository}:base"
        for argv in (
            ["docker", "tag", os.environ["DEVLOOP_TEST_BASE_IMAGE"], first],
            ["docker", "push", "--quiet", first],
        ):
            subprocess.run(argv, check=True, capture_output=True, timeout=120)
        with RegistryClient(self.registry) as registry:
            found = registry.get_manifest(self.repository, "base")
            assert found is not None
            manifest = json.loads(found.body)
            blob = registry.get_blob(self.repository, manifest["config"]["digest"])
            assert blob is not None
            config = json.loads(blob)
            env = config["config"].get("Env") or []
            for version in range(self.versions):
                config["config"]["Env"] = [*env, f"VERSION={version}"]
                data = json.dumps(config).encode()
                registry.put_blob(self.repository, data)
                manifest["config"] |= {"digest": sha256(data), "size": len(data)}
                body = json.dumps(manifest).encode()
                media_type = manifest.get("mediaType", _MANIFEST)
                registry.put_manifest(self.repository, f"v{version}", body, media_type)
                self._images.append(f"{self.registry}/{self.repository}@{sha256(body)}")

    def _deployment(self) -> dict[str, Any]:
        labels = {"app": "web"}
        container = {
            "name": "web",
            "image": self._images[0],
            "command": ["python3", "-c", SERVER],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        }
        return {
            "metadata": {"name": "web"},
            "spec": {
                "replicas": self._replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container], "terminationGracePeriodSeconds": 2},
                },
            },
        }

    def node_port(self) -> tuple[str, int]:
        """Where the Service can be reached without anybody's forwarding."""
        service = self.send("GET", f"/api/v1/namespaces/{self.namespace}/services/web")
        (node,) = self.send("GET", "/api/v1/nodes")["items"]
        (address,) = [
            a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"
        ]
        return address, service["spec"]["ports"][0]["nodePort"]

    # --- replacements ----------------------------------------------------------------------

    def in_place(self, version: int) -> float:
        """The steps of an in-place rollout, one pod after the other; when the first pod was
        patched (monotonic)."""
        image = self._images[version]
        spec = {"spec": {"containers": [{"name": "web", "image": image}]}}
        deployment = self.send(
            "PATCH",
            self._apps("deployments/web"),
            {"spec": {"paused": True, "template": spec}},
            STRATEGIC,
        )
        first = 0.0
        for pod in self._pods():
            name = pod["metadata"]["name"]
            before = pod["status"]["containerStatuses"][0]["restartCount"]
            first = first or time.monotonic()
            path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
            self.send("PATCH", path, spec, STRATEGIC)
            until(lambda name=name, before=before: self._restarted(name, before), 60)  # type: ignore[misc]
        uid = deployment["metadata"]["uid"]
        for owned in self.send("GET", self._apps("replicasets"))["items"]:
            mine = any(o["uid"] == uid for o in owned["metadata"].get("ownerReferences", []))
            if mine and owned["spec"]["replicas"]:
                path = self._apps(f"replicasets/{owned['metadata']['name']}")
                self.send("PATCH", path, {"spec": {"template": spec}}, STRATEGIC)
        self.send("PATCH", self._apps("deployments/web"), {"spec": {"paused": False}}, STRATEGIC)
        return first

    def rolling(self, version: int) -> float:
        """One patch of the Deployment's image; when it was sent (monotonic)."""
        spec = {"spec": {"containers": [{"name": "web", "image": self._images[version]}]}}
        sent = time.monotonic()
        self.send("PATCH", self._apps("deployments/web"), {"spec": {"template": spec}}, STRATEGIC)
        return sent

    def settled(self) -> bool:
        """Whether one pod a replica is left, all of them ready."""
        pods = self.feed.current("web")
        return len(pods) == self._replicas and all(p.ready and not p.deleting for p in pods)

    def _pods(self) -> list[dict[str, Any]]:
        found = self.send("GET", f"/api/v1/namespaces/{self.namespace}/pods")
        return [p for p in found["items"] if "deletionTimestamp" not in p["metadata"]]

    def _restarted(self, name: str, before: int) -> bool:
        for pod in self.feed.current("web"):
            if pod.name == name:
                return pod.containers[0].restarts > before and pod.ready
        return False


@contextlib.contextmanager
def forwarded(
    ports: Sequence[tuple[str, int, int]], dial: Dial, pods: PodSource
) -> Iterator[tuple[int, ...]]:
    """Forward `ports` as `PortForwarder` does; the local ones."""
    events: list[Event] = []
    forwarder = PortForwarder(ports, dial, pods, events.append)
    forwarder.start()
    try:
        until(lambda: len(events) >= len(ports))
        opened = [e for e in events if isinstance(e, ForwardChanged)]
        yield tuple(event.local for event in opened[: len(ports)])
    finally:
        forwarder.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request: when it was sent and answered (monotonic), and the version or what went
    wrong."""

    sent: float
    done: float
    version: int = -1
    failure: str = ""


class Browser:
    """Asks every 10 ms, one request after the other: over one connection as long as it lives, or
    over a new one each."""

    def __init__(self, host: str, port: int, *, keep_alive: bool, pause: float = 0.01) -> None:
        self._host = host
        self._port = port
        self._keep_alive = keep_alive
        self._pause = pause
        self.visits: list[Visit] = []
        self.connections = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="port-forward-lab-browser", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(90)
        assert not self._thread.is_alive()

    @property
    def version(self) -> int:
        """The last one that was answered."""
        return next((v.version for v in reversed(self.visits) if not v.failure), -1)

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.wait(self._pause):
            if connection is None:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
                self.connections += 1
            began = time.monotonic()
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                version = int(answer.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.visits.append(Visit(sent=began, done=time.monotonic(), failure=repr(error)))
                connection.close()
                connection = None
                continue
            self.visits.append(Visit(sent=began, done=time.monotonic(), version=version))
            if not self._keep_alive:
                connection.close()
                connection = None
        with contextlib.suppress(AttributeError):
            connection.close()  # type: ignore[union-attr]


def wrong_answers(*browsers: Browser) -> list[str]:
    """What no visitor may see: a failure, or an answer older than one that had been seen by any
    of them when the request was sent."""
    visits = sorted((v for b in browsers for v in b.visits), key=lambda visit: visit.sent)
    answered = sorted((v for v in visits if not v.failure), key=lambda visit: visit.done)
    wrong = []
    newest, position = -1, 0
    for visit in visits:
        while position < len(answered) and answered[position].done <= visit.sent:
            newest = max(newest, answered[position].version)
            position += 1
        if visit.failure:
            wrong.append(f"{visit.failure} after {visit.done - visit.sent:.3f} s")
        elif visit.version < newest:
            wrong.append(f"version {visit.version} after {newest}")
    return wrong
