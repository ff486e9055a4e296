"""A small API server on loopback: enough of Kubernetes' REST to test a client against, with faults
on order.

Keeps to what the real server does where devloop relies on it; the contract tests run the same
assertions against both.
"""

from __future__ import annotations

import contextlib
import copy
import json
import queue
import re
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Call", "FakeApi", "Fault", "fake_api", "status"]

# (group version, plural) -> kind
_KINDS = {
    "pods": "Pod",
    "services": "Service",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "events": "Event",
    "namespaces": "Namespace",
    "nodes": "Node",
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "replicasets": "ReplicaSet",
    "jobs": "Job",
    "cronjobs": "CronJob",
    "leases": "Lease",
    "persistentvolumes": "PersistentVolume",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "customresourcedefinitions": "CustomResourceDefinition",
    "kustomizations": "Kustomization",
    "helmreleases": "HelmRelease",
    "applications": "Application",
}
_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))(?:/namespaces/(?P<ns>[^/]+)(?=/))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request as it came. `query` holds each key's first value, `headers` all of a name's values
    with commas between them."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any = None


@dataclass(slots=True, kw_only=True)
class Fault:
    """What to do instead of answering, `times` times, to requests that match."""

    method: str = ""
    path: str = ""
    times: int = 1
    code: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in {"", method} and self.path in path


def status(code: int, reason: str, message: str, **details: Any) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }


class FakeApi:
    """The server's state. `put` and `remove` change objects behind the client's back; `scripts`
    holds what the next watches send instead of the truth; `logs` maps (pod, container, previous)
    to chunks, where None waits until the client goes."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.objects: dict[str, dict[str, Any]] = {}
        self.removed: list[tuple[str, dict[str, Any]]] = []
        self.owners: dict[str, dict[tuple[Any, ...], set[str]]] = {}
        self.version = 100
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.scripts: list[list[Any]] = []
        self.logs: dict[tuple[str, str, bool], list[bytes | None]] = {}
        self.token = ""
        self.watchers: list[tuple[str, queue.Queue[dict[str, Any] | None]]] = []
        self.closing = threading.Event()
        self.namespaces: set[str] | None = None
        # The versions of the API groups that there are besides the built-in ones.
        self.groups: dict[str, str] = {}
        self.url = ""
        self.on_write: list[Callable[[str, dict[str, Any]], None]] = []

    def kubeconfig(self, directory: Path, user: dict[str, Any] | None = None) -> Path:
        path = directory / "kubeconfig"
        document = {
            "current-context": "kind-fake",
            "contexts": [{"name": "kind-fake", "context": {"cluster": "fake", "user": "me"}}],
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": user or {}}],
        }
        path.write_text(json.dumps(document))
        return path

    # --- state ---------------------------------------------------------------------------------

    def put(self, path: str, thing: dict[str, Any], *, manager: str = "test") -> dict[str, Any]:
        """Store an object under its path, as if `manager` had written all of it."""
        with self.lock:
            owners = self.owners.setdefault(path, {})
            for leaf, _ in _leaves(thing):
                owners[leaf] = {manager}
            return self._store(path, thing)

    def _store(self, path: str, thing: dict[str, Any]) -> dict[str, Any]:
        old = self.objects.get(path)
        thing = copy.deepcopy(thing)
        meta = thing.setdefault("metadata", {})
        found = _PATH.match(path)
        if found and found["ns"]:
            meta["namespace"] = found["ns"]
        kept = (old or {}).get("metadata", {})
        meta["uid"] = kept.get("uid") or meta.get("uid") or str(uuid.uuid4())
        meta["generation"] = kept.get("generation", 1)
        if old is not None and (
            old.get("spec") != thing.get("spec")
            # Only Deployments count a change of an annotation.
            or ("/deployments/" in path and kept.get("annotations") != meta.get("annotations"))
        ):
            meta["generation"] += 1
        meta["resourceVersion"] = kept.get("resourceVersion", "")
        if old == thing:
            return copy.deepcopy(thing)
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        self.objects[path] = thing
        self._tell("MODIFIED" if old is not None else "ADDED", path, thing)
        for listener in self.on_write:
            listener(path, thing)
        return copy.deepcopy(thing)

    def remove(self, path: str) -> None:
        with self.lock:
            thing = self.objects.pop(path)
            self.owners.pop(path, None)
            self.version += 1
            thing["metadata"]["resourceVersion"] = str(self.version)
            self.removed.append((path, thing))
            self._tell("DELETED", path, thing)

    def _tell(self, kind: str, path: str, thing: dict[str, Any]) -> None:
        for prefix, feed in self.watchers:
            if path.startswith(prefix + "/"):
                feed.put({"type": kind, "object": copy.deepcopy(thing)})

    def said(self, method: str, path: str = "") -> list[Call]:
        with self.lock:
            return [c for c in self.calls if c.method == method and path in c.path]

    def cut_watches(self) -> None:
        """End all watches as a server does that restarts."""
        with self.lock:
            for _, feed in self.watchers:
                feed.put(None)

    # --- requests ------------------------------------------------------------------------------

    def answer(self, call: Call) -> tuple[int, dict[str, Any]]:
        if (kinds := _discovery(call.path)) is not None:
            return 200, kinds
        if call.path == "/version":
            return 200, {"gitVersion": "v1.34.0-fake"}
        if version := self.groups.get(call.path.removeprefix("/apis/")):
            return 200, {"preferredVersion": {"version": version}}
        found = _PATH.match(call.path)
        if found is None:
            return 404, status(404, "NotFound", "the server could not find the requested resource")
        if call.method == "POST" and found["name"] is None and found["plural"] in _KINDS:
            return self._create(call, found["ns"])
        if found["sub"] is None and found["name"] is None:
            return self._collection(call, found)
        if found["plural"] not in _KINDS:
            return 404, status(404, "NotFound", "the server could not find the requested resource")
        return self._single(call, found["plural"], found["name"], found["ns"])

    def _collection(self, call: Call, found: re.Match[str]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            things = [
                copy.deepcopy(thing)
                for path, thing in sorted(self.objects.items())
                if _within(path, call.path, found)
                and _selected(thing, call.query.get("labelSelector", ""))
            ]
            for thing in things:
                thing.pop("kind", None)  # as in the server's lists
                thing.pop("apiVersion", None)
            return 200, {
                "kind": _KINDS.get(found["plural"], "Unknown") + "List",
                "apiVersion": found["core"] or found["group"],
                "metadata": {"resourceVersion": str(self.version)},
                "items": things,
            }

    def _create(self, call: Call, namespace: str | None) -> tuple[int, dict[str, Any]]:
        with self.lock:
            name = call.body["metadata"]["name"]
            path = f"{call.path}/{name}"
            if self.namespaces is not None and namespace not in {None, *self.namespaces}:
                message = f'namespaces "{namespace}" not found'
                return 404, status(404, "NotFound", message, name=namespace, kind="namespaces")
            if path in self.objects:
                message = f"{name} already exists"
                return 409, status(409, "AlreadyExists", message, name=name)
            return 201, self.put(path, call.body, manager=call.query.get("fieldManager", ""))

    def _single(
        self, call: Call, plural: str, name: str, namespace: str | None
    ) -> tuple[int, dict[str, Any]]:
        with self.lock:
            live = self.objects.get(call.path)
            apply = call.headers.get("content-type") == "application/apply-patch+yaml"
            missing = self.namespaces is not None and namespace not in {None, *self.namespaces}
            if live is None and call.method == "PATCH" and apply and missing:
                message = f'namespaces "{namespace}" not found'
                return 404, status(404, "NotFound", message, name=namespace, kind="namespaces")
            if live is None and not (call.method == "PATCH" and apply):
                message = f'{plural} "{name}" not found'
                return 404, status(404, "NotFound", message, name=name, kind=plural)
            if call.method == "GET":
                return 200, copy.deepcopy(live or {})
            if live is not None and _version_wanted(call) not in {
                "",
                live["metadata"]["resourceVersion"],
            }:
                message = "the object has been modified"
                return 409, status(409, "Conflict", message, name=name, kind=plural)
            uid = _uid_wanted(call)
            if live is not None and uid and uid != live["metadata"]["uid"]:
                if call.method == "DELETE":
                    message = "Precondition failed: UID in precondition differs"
                    return 409, status(409, "Conflict", message, name=name, kind=plural)
                causes = [{"field": "metadata.uid", "message": "field is immutable"}]
                message = f"{name} is invalid: metadata.uid: field is immutable"
                return 422, status(422, "Invalid", message, causes=causes)
            if call.method == "DELETE":
                self.remove(call.path)
                return 200, {"kind": "Status", "status": "Success"}
            if apply:
                return self._apply(call, live)
            assert live is not None
            thing = copy.deepcopy(call.body if call.method == "PUT" else live)
            if call.headers.get("content-type") == "application/merge-patch+json":
                thing = _merge_patched(thing, call.body)
            elif call.method != "PUT":
                _merge(thing, call.body)
            for leaf, _ in _leaves(call.body):
                self.owners.setdefault(call.path, {})[leaf] = {call.query.get("fieldManager", "")}
            return 200, self._store(call.path, thing)

    def _apply(self, call: Call, live: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        owners = self.owners.setdefault(call.path, {})
        manager = call.query.get("fieldManager", "")
        have = dict(_leaves(live or {}))
        conflicts = [
            (leaf, other)
            for leaf, value in _leaves(call.body)
            for other in sorted(owners.get(leaf, set()) - {manager})
            if have.get(leaf) != value
        ]
        if conflicts and call.query.get("force") != "true":
            causes = [
                {
                    "reason": "FieldManagerConflict",
                    "message": f'conflict with "{owner}" using apps/v1',
                    "field": "".join(p if p.startswith("[") else f".{p}" for p in leaf),
                }
                for leaf, owner in conflicts
            ]
            message = f"Apply failed with {len(causes)} conflicts"
            return 409, status(409, "Conflict", message, causes=causes)
        thing = copy.deepcopy(live or {})
        _merge(thing, call.body)
        is_job = call.path.rsplit("/", 2)[1] == "jobs"
        if live is not None and is_job and thing["spec"] != live["spec"]:
            message = "Job.batch is invalid: spec.template: field is immutable"
            return 422, status(422, "Invalid", message)
        for leaf, value in _leaves(call.body):
            shared = owners.get(leaf, set()) if have.get(leaf) == value else set()
            owners[leaf] = {manager, *shared}
        created = live is None
        return (201 if created else 200), self._store(call.path, thing)

    def check(self, headers: dict[str, str]) -> bool:
        return not self.token or headers.get("authorization") == f"Bearer {self.token}"


def _within(path: str, collection: str, found: re.Match[str]) -> bool:
    """Whether the object at `path` is listed by `collection`, which may mean all namespaces."""
    if found["ns"] or "/namespaces/" not in path:
        return path.rpartition("/")[0] == collection
    stored = _PATH.match(path)
    group = (found["core"], found["group"], found["plural"])
    return stored is not None and (stored["core"], stored["group"], stored["plural"]) == group


def _discovery(path: str) -> dict[str, Any] | None:
    """The few lists that tell which kinds there are."""
    if path == "/apis":
        version = {"groupVersion": "apps/v1"}
        return {"groups": [{"name": "apps", "preferredVersion": version}]}
    apps = {"deployments", "statefulsets", "daemonsets", "replicasets"}
    others = {"jobs", "cronjobs", "leases", "kustomizations", "helmreleases", "applications"}
    wanted = {
        "/api/v1": set(_KINDS) - apps - others,
        "/apis/apps/v1": apps,
    }.get(path)
    if wanted is None:
        return None
    return {
        "resources": [
            {
                "name": plural,
                "kind": _KINDS[plural],
                "namespaced": plural not in {"namespaces", "nodes"},
                "verbs": ["get", "list", "delete"],
            }
            for plural in sorted(wanted)
        ]
    }


def _uid_wanted(call: Call) -> str:
    body = call.body if isinstance(call.body, dict) else {}
    if call.method == "DELETE":
        return str((body.get("preconditions") or {}).get("uid") or "")
    return str((body.get("metadata") or {}).get("uid") or "")


def _version_wanted(call: Call) -> str:
    body = call.body if isinstance(call.body, dict) else {}
    where = "preconditions" if call.method == "DELETE" else "metadata"
    return str((body.get(where) or {}).get("resourceVersion") or "")


def _selected(thing: dict[str, Any], selector: str) -> bool:
    labels = thing.get("metadata", {}).get("labels") or {}
    wanted = [part.split("=") for part in selector.split(",") if part]
    return all(labels.get(key) == value for key, value in wanted)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(path, value) of all that is no mapping; entries of a list go by their name."""
    if path in {("metadata",), ()} and isinstance(value, dict):
        skipped = {
            "uid",
            "generation",
            "resourceVersion",
            "name",
            "namespace",
            "apiVersion",
            "kind",
        }
        value = {k: v for k, v in value.items() if k not in skipped and (path or k != "status")}
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and all(isinstance(v, dict) and "name" in v for v in value):
        for inner in value:
            named = {k: v for k, v in inner.items() if k != "name"}
            yield from _leaves(named, (*path, f'[name="{inner["name"]}"]'))
    else:
        yield path, value


def _merge_patched(have: Any, change: Any) -> Any:
    """As RFC 7386 has it."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    found = dict(have) if isinstance(have, dict) else {}
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merge_patched(found.get(key), value)
    return found


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, list) and all(isinstance(v, dict) and "name" in v for v in value):
            have = into.setdefault(key, [])
            for entry in value:
                match = next((h for h in have if h.get("name") == entry["name"]), None)
                if match is None:
                    have.append(copy.deepcopy(entry))
                else:
                    _merge(match, entry)
        else:
            into[key] = copy.deepcopy(value)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: FakeApi

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known}, {value}"
        length = int(headers.get("content-length", 0))
        raw = self.rfile.read(length) if length else b""
        body = json.loads(raw) if raw else None
        call = Call(method=self.command, path=url.path, query=query, headers=headers, body=body)
        api = self.api
        with api.lock:
            api.calls.append(call)
            fault = next((f for f in api.faults if f.matches(call.method, call.path)), None)
            if fault is not None:
                fault.times -= 1
        if fault is not None:
            self._fail(fault)
        elif not api.check(headers):
            self._json(401, status(401, "Unauthorized", "Unauthorized"))
        elif query.get("watch"):
            self._watch(call)
        elif url.path.endswith("/log"):
            self._log(call)
        else:
            self._json(*api.answer(call))

    do_GET = do_PATCH = do_DELETE = do_POST = do_PUT = _handle  # noqa: N815 - http.server's names

    def _fail(self, fault: Fault) -> None:
        if fault.drop:
            self.close_connection = True
            return
        body = fault.body or status(fault.code, "", f"fault {fault.code}")
        self._json(fault.code, body, fault.headers)

    def _json(self, code: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _watch(self, call: Call) -> None:
        api = self.api
        with api.lock:
            script = api.scripts.pop(0) if api.scripts else None
            feed: queue.Queue[dict[str, Any] | None] = queue.Queue()
            if script is None:
                since = int(call.query.get("resourceVersion") or 0)
                happened = [("ADDED", *item) for item in api.objects.items()]
                happened += [("DELETED", *item) for item in api.removed]
                missed = [
                    (int(thing["metadata"]["resourceVersion"]), kind, thing)
                    for kind, path, thing in happened
                    if path.startswith(call.path + "/")
                ]
                for version, kind, thing in sorted(missed, key=lambda m: m[0]):
                    if version > since:
                        feed.put({"type": kind, "object": copy.deepcopy(thing)})
                api.watchers.append((call.path, feed))
        self._begin()
        try:
            if script is None:
                self._live(feed)
            else:
                self._play(script)
        finally:
            with api.lock:
                api.watchers = [w for w in api.watchers if w[1] is not feed]

    def _live(self, feed: queue.Queue[dict[str, Any] | None]) -> None:
        while not self.api.closing.is_set():
            try:
                event = feed.get(timeout=0.05)
            except queue.Empty:
                continue
            if event is None:
                break
            self._chunk(json.dumps(event).encode() + b"\n")
        self._chunk(b"")

    def _play(self, script: list[Any]) -> None:
        for entry in script:
            if isinstance(entry, float):
                self.api.closing.wait(entry)
            elif entry == "hang":
                self.api.closing.wait(30)
            elif entry == "cut":
                self.close_connection = True
                return
            else:
                self._chunk(json.dumps(entry).encode() + b"\n")
        self._chunk(b"")

    def _log(self, call: Call) -> None:
        pod = call.path.split("/")[-2]
        key = (pod, call.query.get("container", ""), call.query.get("previous") == "true")
        chunks = self.api.logs.get(key)
        if chunks is None:
            message = f'previous terminated container "{key[1]}" in pod "{pod}" not found'
            self._json(400, status(400, "BadRequest", message))
            return
        self._begin()
        for chunk in chunks:
            if chunk is None:
                self.api.closing.wait(30)
            else:
                self._chunk(chunk)
        self._chunk(b"")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what the tests are about."""


@contextlib.contextmanager
def fake_api() -> Iterator[FakeApi]:
    api = FakeApi()
    handler = type("Handler", (_Handler,), {"api": api})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="fake-api", daemon=True
    )
    thread.start()
    try:
        yield api
    finally:
        api.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
