"""What the cluster looks like now, as the API server last reported: one watch per kind and
namespace, shared by all services of a session.

Objects are plain dicts and must not be changed by readers. Nothing here asks again when it wants to
know: followers are notified. Must not decide what a change means for a rollout or a log.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from typing import TYPE_CHECKING, Literal

from devloop.base.cancel import Cancelled
from devloop.base.threads import report_bug
from devloop.cluster.api.api_errors import connection_error
from devloop.cluster.api.kinds import workload_path
from devloop.cluster.api.pod_view import (
    Json,
    controller_of,
    labels,
    metadata,
    name_of,
    pod_view,
    text,
)
from devloop.cluster.api.reflector import Feed, Reflector, WatchEvent
from devloop.errors import Code, DevloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devloop.base.cancel import Cancel
    from devloop.cluster.api.connection import Connection
    from devloop.cluster.api.stream import ResponseStream
    from devloop.model import PodView, WorkloadRef


Kind = Literal["pods", "replicasets", "deployments", "statefulsets", "daemonsets", "events"]

# Normal events are many and say nothing that a pod's status does not.
_SELECTORS: dict[str, dict[str, str]] = {"events": {"fieldSelector": "type=Warning"}}
# What waiting for a view does not cure.
_HOPELESS = (Code.CLUSTER_FORBIDDEN, Code.INTERNAL_BUG)
_IDLE_SECONDS = 100.0  # bookmarks come about once a minute


class ConnectionFeed:
    """A `Feed` over a `Connection`; every read of it can be shut."""

    def __init__(self, connection: Connection, path: str, query: Mapping[str, str]) -> None:
        self._connection = connection
        self._path = path
        self._query = dict(query)
        self._lock = threading.Lock()
        self._shut: Callable[[], None] | None = None
        self._closed = False

    def list(self, resource_version: str) -> Json:
        query = dict(self._query)
        if resource_version:
            query["resourceVersion"] = resource_version
        with self._open(query, 30.0) as stream:
            body = b"".join(stream)
        self._check()
        try:
            page = json.loads(body)
            # What is not there counts as deleted: an answer without the word is no answer.
            if not isinstance(page, dict) or "items" not in page:
                raise ValueError("its answer is no list")
        except ValueError as error:
            raise connection_error(error, self._connection.server) from error
        return page

    def watch(self, resource_version: str, timeout_seconds: int) -> Iterator[Json]:
        query = self._query | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_seconds),
            "resourceVersion": resource_version,
        }
        return self._events(self._open(query, _IDLE_SECONDS))

    def _events(self, stream: ResponseStream) -> Iterator[Json]:
        with stream:
            for line in stream.lines():
                self._check()
                try:
                    event = json.loads(line)
                except ValueError:
                    return  # cut in the middle of an event: resume from the one before
                if isinstance(event, dict):
                    yield event

    def _open(self, query: Mapping[str, str], idle: float) -> ResponseStream:
        self._check()
        return self._connection.stream(self._path, query, idle=idle, opened=self._hold)

    def _hold(self, shut: Callable[[], None]) -> None:
        with self._lock:
            self._shut = shut
            closed = self._closed
        if closed:
            shut()

    def _check(self) -> None:
        if self._closed:
            raise Cancelled

    def interrupt(self) -> None:
        """Drop the connection; the reflector opens another and resumes."""
        with self._lock:
            shut = self._shut
        if shut is not None:
            shut()

    def shut(self) -> None:
        with self._lock:
            self._closed = True
        self.interrupt()


class View:
    """One kind in one namespace. Thread-safe; objects are read-only.

    `synced` is set from the first list on, for as long as there is a watch; `error` is what cut it,
    None once it is there again. `on_bug` gets an exception in a listener, after which the watch
    goes on, or in the watch itself, after which the view is not to be believed any more."""

    def __init__(
        self,
        feed: Feed,
        *,
        name: str,
        slim: bool = False,
        on_bug: Callable[[BaseException], None] = report_bug,
    ) -> None:
        self.error: DevloopError | None = None
        self.synced = threading.Event()
        self._slim = slim
        self._on_bug = on_bug
        self._lock = threading.RLock()
        self._store: dict[str, Json] = {}
        self._listeners: list[Callable[[WatchEvent], None]] = []
        self._reflector = Reflector(feed, self._take, name=name, on_bug=self._end)

    def start(self) -> None:
        self._reflector.start()

    def get(self, name: str) -> Json | None:
        with self._lock:
            return self._store.get(name)

    def items(self) -> list[Json]:
        with self._lock:
            return list(self._store.values())

    def wait_synced(self, cancel: Cancel, timeout: float = 15.0) -> None:
        """Wait for the first list. Raises `Cancelled`, or after `timeout` seconds the reason why
        there is none (at once when the cluster forbids it or the watch ended by a bug)."""
        wake = threading.Event()
        with self.subscribe(lambda _: wake.set()), cancel.closing(wake.set):
            deadline = time.monotonic() + timeout
            while not self.synced.is_set():
                cancel.check()
                error = self.error
                late = time.monotonic() >= deadline
                if error is not None and (late or error.code in _HOPELESS):
                    raise error
                if late:
                    raise DevloopError.of(Code.CLUSTER_UNREACHABLE, "the cluster does not answer")
                wake.wait(min(1.0, timeout))
                wake.clear()

    @contextlib.contextmanager
    def subscribe(self, listener: Callable[[WatchEvent], None]) -> Iterator[None]:
        """Call `listener` for every PUT, DELETE, LOST and LIVE while in the block, in the watch's
        thread: it must not block."""
        self.add(listener)
        try:
            yield
        finally:
            self.remove(listener)

    def add(
        self,
        listener: Callable[[WatchEvent], None],
        *,
        replay: Callable[[WatchEvent], None] | None = None,
    ) -> None:
        """Like `subscribe` until `remove`. `replay` first gets what is there, nothing missed and
        nothing doubled between the two."""
        with self._lock:
            if replay is not None:
                for thing in list(self._store.values()):
                    replay(WatchEvent("PUT", object=thing))
            self._listeners.append(listener)

    def remove(self, listener: Callable[[WatchEvent], None]) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def stop(self) -> None:
        self._reflector.stop()

    def close(self) -> None:
        self._reflector.close()

    def _take(self, change: WatchEvent) -> None:
        # Listeners run under the lock, so that all see one order and `add` can replay.
        with self._lock:
            for event in self._apply(change):
                for listener in tuple(self._listeners):
                    try:
                        listener(event)
                    except Exception as error:  # noqa: BLE001 - one listener must not end the watch
                        self._on_bug(error)

    def _end(self, bug: BaseException) -> None:
        """The watch ended by a bug: say so to whoever waits, and to whoever runs the process."""
        self.synced.clear()
        error = DevloopError.of(
            Code.INTERNAL_BUG, "a watch of the cluster ended by a bug in devloop", cause=repr(bug)
        )
        self._take(WatchEvent("LOST", error=error))
        self._on_bug(bug)

    def _apply(self, change: WatchEvent) -> list[WatchEvent]:
        if change.type == "SYNC":
            return self._replace(change.items)
        if change.type == "PUT":
            thing = self._kept(change.object)
            self._store[name_of(thing)] = thing
            return [WatchEvent("PUT", object=thing)]
        if change.type == "DELETE":
            self._store.pop(name_of(change.object), None)
            return [change]
        self.error = change.error
        return [change]

    def _replace(self, found: tuple[Json, ...]) -> list[WatchEvent]:
        old, self._store = self._store, {name_of(i): self._kept(i) for i in found}
        events = [
            WatchEvent("DELETE", object=thing)
            for name, thing in old.items()
            if not _same(self._store.get(name), thing, "uid")
        ]
        events += [
            WatchEvent("PUT", object=thing)
            for name, thing in self._store.items()
            if not _same(old.get(name), thing, "resourceVersion")
        ]
        self.error = None
        first = not self.synced.is_set()
        self.synced.set()
        return [*events, WatchEvent("LIVE")] if first else events

    def _kept(self, thing: Json) -> Json:
        if not self._slim or "managedFields" not in metadata(thing):
            return thing
        slim = {k: v for k, v in metadata(thing).items() if k != "managedFields"}
        return {**thing, "metadata": slim}


def _same(one: Json | None, other: Json, key: str) -> bool:
    return one is not None and metadata(one).get(key) == metadata(other).get(key)


def workload_of(pod: Json) -> tuple[str, str] | None:
    """(kind in lower case, name) of the workload that a pod belongs to.

    A Deployment names its ReplicaSets `<deployment>-<pod-template-hash>` (Kubernetes'
    deployment/sync.go), so a pod tells its Deployment without a look at the ReplicaSet."""
    owner = controller_of(pod)
    if owner is None:
        return None
    kind, name, _ = owner
    if kind == "ReplicaSet":
        tail = "-" + text(labels(pod).get("pod-template-hash"))
        if len(tail) > 1 and name.endswith(tail):
            return "deployment", name.removesuffix(tail)
    return kind.lower(), name


def owned_by(ref: WorkloadRef) -> Callable[[Json], bool]:
    """A predicate for `subscribe_pods`: the pods of one workload, of all its revisions.

    A CronJob names its Jobs `<cronjob>-<minutes since 1970>`. What a custom resource makes is told
    by its name or by its label, where it is in ReplicaSets (Argo Rollouts) or Knative's."""
    if ref.kind == "pod":
        return lambda pod: name_of(pod) == ref.name and controller_of(pod) is None
    if ref.kind == "cronjob":
        of_its_jobs = re.compile(rf"{re.escape(ref.name)}-\d{{8,10}}")
        return lambda pod: _is_job_named(workload_of(pod), of_its_jobs)
    if ref.api:
        return lambda pod: _is_custom(pod, ref)
    return lambda pod: workload_of(pod) == (ref.kind, ref.name)


def _is_job_named(owner: tuple[str, str] | None, name: re.Pattern[str]) -> bool:
    return owner is not None and owner[0] == "job" and name.fullmatch(owner[1]) is not None


def _is_custom(pod: Json, ref: WorkloadRef) -> bool:
    kind, name = workload_of(pod) or ("", "")
    of_its_set = kind == "replicaset" and name.rpartition("-")[0] == ref.name
    knative = labels(pod).get("serving.knative.dev/service") == ref.name
    return (kind, name) == (ref.kind, ref.name) or of_its_set or knative


class ClusterView:
    """All views of a session, made when first asked for and closed together.

    `on_bug` is each view's."""

    def __init__(
        self, connection: Connection, *, on_bug: Callable[[BaseException], None] = report_bug
    ) -> None:
        self._connection = connection
        self._on_bug = on_bug
        self._lock = threading.Lock()
        self._views: dict[str, tuple[View, ConnectionFeed]] = {}  # by the collection's path
        self._closed = False

    def view(self, kind: Kind, namespace: str) -> View:
        """The shared view of `kind` in `namespace`; its watch starts now if it is the first."""
        root = "/api/v1" if kind in {"pods", "events"} else "/apis/apps/v1"
        return self._at(f"{root}/namespaces/{namespace}/{kind}")

    def workload(self, ref: WorkloadRef) -> View:
        """The view that holds `ref`."""
        return self._at(workload_path(ref).rpartition("/")[0])

    def _at(self, path: str) -> View:
        with self._lock:
            if self._closed:
                raise Cancelled
            if path in self._views:
                return self._views[path][0]
            _, namespace, plural = path.rsplit("/", 2)
            feed = ConnectionFeed(self._connection, path, _SELECTORS.get(plural, {}))
            view = View(
                feed,
                name=f"watch {plural} {namespace}",
                slim=plural in {"pods", "replicasets", "events"},
                on_bug=self._on_bug,
            )
            self._views[path] = (view, feed)
            view.start()
            return view

    def begin(self, ref: WorkloadRef) -> None:
        """Start the watches that a rollout of `ref` is followed by, so that what they find is here
        when it is wanted."""
        kinds: tuple[Kind, ...] = ("pods", "events")
        for kind in (*kinds, "replicasets") if ref.kind == "deployment" else kinds:
            self.view(kind, ref.namespace)
        self.workload(ref)

    def subscribe_pods(
        self,
        namespace: str,
        predicate: Callable[[Json], bool],
        callback: Callable[[PodView, bool], None],
    ) -> Callable[[], None]:
        """Call `callback(pod, gone)` for the pods that `predicate` (of the pod's JSON) accepts:
        first, in this thread, for those that are there; then, in the watch's thread, whenever
        something in the `PodView` changed or the pod is gone. Must not block. Returns how to end
        it."""
        view = self.view("pods", namespace)
        reported: dict[str, PodView] = {}

        def take(change: WatchEvent) -> None:
            if change.type not in {"PUT", "DELETE"} or not predicate(change.object):
                return
            pod = pod_view(change.object)
            if change.type == "DELETE":
                reported.pop(pod.uid, None)
                callback(pod, True)
            elif reported.get(pod.uid) != pod:
                reported[pod.uid] = pod
                callback(pod, False)

        view.add(take, replay=take)
        return lambda: view.remove(take)

    def reconnect(self) -> None:
        """Drop all connections and resume: for a machine that slept or changed its network."""
        with self._lock:
            feeds = [feed for _, feed in self._views.values()]
        for feed in feeds:
            feed.interrupt()

    def close(self) -> None:
        """End all watches: stopped together, then waited for."""
        with self._lock:
            self._closed = True
            views = [view for view, _ in self._views.values()]
        for view in views:
            view.stop()
        for view in views:
            view.close()
