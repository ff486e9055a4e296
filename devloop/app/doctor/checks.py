"""How each hop is looked at, with the adapters that a session uses.

Everything that is made (a folder, a namespace, a session) is put on the examination's stack and
goes with it, however it ends; namespaces that killed ones left are removed by the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from devloop.app import connect, find_registry
from devloop.app.doctor.hops import HopFinding
from devloop.app.doctor.rehearsal import SERVICE, Rehearsal, project_files
from devloop.app.housekeeping import UNKNOWN_SECONDS, find_leftovers, remove
from devloop.base.cancel import Cancel, Cancelled
from devloop.base.platforms import own_platform
from devloop.base.process import CannotRun, Overran, run
from devloop.base.supervisor import program
from devloop.base.threads import Background
from devloop.builders.built_images import BuiltImages
from devloop.builders.docker_socket import ask_daemon
from devloop.builders.preflight import require_docker
from devloop.builders.select import buildx_problem
from devloop.cluster.api.api_errors import ApiError
from devloop.cluster.api.log_stream import node_platforms
from devloop.cluster.api.pod_ports import PodPorts
from devloop.cluster.api.pod_view import dig, items, name_of, pod_view, text
from devloop.cluster.deploy.guard import local_reason
from devloop.config.schema import STATE_DIR
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.model import CREATED_BY, PushTarget
from devloop.registry.client import RegistryClient
from devloop.registry.discovery import check as check_registry
from devloop.watch.hints import WatchHints

if TYPE_CHECKING:
    from devloop.app.doctor.hops import Check
    from devloop.cluster.api.connection import Connection
    from devloop.config.schema import Project


_LABEL = "devloop.dev/doctor"
# Seconds after which a namespace was left by somebody who was killed.
_FORGOTTEN = 600.0
_EVENT = 5.0  # seconds for a file event
_BUILD, _STEP, _PULL, _SYNC = 180.0, 60.0, 60.0, 30.0
_SESSION = 600.0
_GRACE = 5.0
_SKEW = 5.0  # seconds that the clocks may be apart
_FEW_WATCHES = 65_536
_INOTIFY = Path("/proc/sys/fs/inotify")


class Examination:
    """The hops of one project (or of none: then one of defaults). A context manager."""

    def __init__(self, project: Project, folder: Path) -> None:
        self._project = project
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._rehearsal: Rehearsal | None = None
        self._builder = "auto"
        self._namespace = ""
        self._connection: Connection | None = None
        self._registry: RegistryClient | None = None
        self._target = PushTarget()
        self._made: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def checks(self) -> dict[str, Check]:
        """By the names of the hops."""
        return {
            "docker": self.docker,
            "builder": self.builder,
            "watch": self.watch,
            "cluster": self.cluster,
            "clock": self.clock,
            "registry": self.registry,
            "build": self.build,
            "push": lambda cancel: self._session(cancel).wait("push", _STEP, cancel),
            "deploy": lambda cancel: self._session(cancel).wait("deploy", _STEP, cancel),
            "pull": lambda cancel: self._session(cancel).wait("pull", _PULL, cancel),
            "log": lambda cancel: self._session(cancel).wait("log", _STEP, cancel),
            "port": self.port,
            "agent": self.agent,
        }

    # This computer

    def docker(self, cancel: Cancel) -> HopFinding:
        require_docker(cancel)
        answer = ask_daemon(os.environ, "/version", 1.0)
        version = ""
        with contextlib.suppress(ValueError, AttributeError):
            version = str(json.loads(answer.body).get("Version")) if answer else ""
        return HopFinding(detail=f"Docker {version}".strip())

    def builder(self, cancel: Cancel) -> HopFinding:
        problem = buildx_problem(cancel)
        self._builder = "classic" if problem else "buildx"
        if problem is None:
            return HopFinding(detail="buildx")
        warning = Diagnosis(
            code=Code.ENV_TOOL_MISSING,
            severity="warning",
            message="images are built with Docker's classic builder, which is slower",
            cause=problem,
            suggestions=("install it: https://docs.docker.com/build/install-buildx/",),
        )
        return HopFinding(detail="the classic builder", warning=warning)

    def watch(self, cancel: Cancel) -> HopFinding:
        folder = self._own_folder()
        file = folder / "seen"
        warned: list[Diagnosis] = []
        stop = Cancel()

        def wait_for_event(ended: Cancel) -> bool:
            with ended.closing(stop.set):
                hints = WatchHints((), files=[file], warn=warned.append).hints(stop)
                next(hints)
                file.write_text("now\n")
                return any(each is None or file in each for each in hints)

        file.write_text("before\n")
        waiting = Background("doctor-watch", wait_for_event, expected=(StopIteration,))
        self._stack.callback(waiting.close)
        if not waiting.wait(_EVENT, cancel):
            raise DevloopError.of(
                Code.ENV_WATCH_POLLING,
                f"no event came for a file written in {folder}",
                cause="the file system reports no changes, or late",
                suggestions=("keep the project on a local disk (in WSL: not under /mnt)",),
            )
        waiting.close()
        polled = next((each for each in warned if each.severity != "info"), None)
        detail, few = _budget()
        return HopFinding(detail=detail, warning=polled or few)

    # The cluster

    def cluster(self, cancel: Cancel) -> HopFinding:
        connection = self._stack.enter_context(connect(self._project))
        version = text(dig(connection.request("GET", "/version", cancel=cancel), "gitVersion"))
        self._connection = connection
        self._remove_forgotten(connection)
        self._namespace = self._new_namespace(connection)
        return HopFinding(detail=f"{connection.context} {version}".strip())

    def _new_namespace(self, connection: Connection) -> str:
        name = f"devloop-doctor-{secrets.token_hex(3)}"
        metadata = {
            "name": name,
            "labels": {_LABEL: "true"},
            "annotations": {CREATED_BY: SERVICE},
        }
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        self._stack.callback(_delete_namespace, connection, name)
        connection.request("POST", "/api/v1/namespaces", body)
        return name

    def _remove_forgotten(self, connection: Connection) -> None:
        with contextlib.suppress(DevloopError):
            query = {"labelSelector": f"{_LABEL}=true"}
            answer = connection.request("GET", "/api/v1/namespaces", query=query)
            for each in items(answer.get("items")):
                made = text(dig(each, "metadata", "creationTimestamp"))
                if _age(made, connection.date) > _FORGOTTEN:
                    _delete_namespace(connection, name_of(each))

    def clock(self, cancel: Cancel) -> HopFinding:
        assert self._connection is not None  # noqa: S101 - the hop needs `cluster`
        self._connection.request("GET", "/version", cancel=cancel)
        try:
            theirs = parsedate_to_datetime(self._connection.date).timestamp()
        except (TypeError, ValueError):
            return HopFinding(detail="the API server does not tell")
        # The header counts whole seconds.
        apart = time.time() - theirs
        apart = 0.0 if 0 <= apart <= 1 else apart
        if abs(apart) <= _SKEW:
            return HopFinding(detail="the same as here")
        how = f"{abs(apart):.0f} s {'behind' if apart > 0 else 'ahead of'} this computer's"
        warning = Diagnosis(
            code=Code.CLUSTER_UNREACHABLE,
            severity="warning",
            message=f"the cluster's clock is {how}",
            cause="certificates, tokens and the times of logs depend on it",
            suggestions=("restart the virtual machine that Docker runs in; it may have slept",),
        )
        return HopFinding(detail=how, warning=warning)

    def registry(self, cancel: Cancel) -> HopFinding:
        assert self._connection is not None  # noqa: S101 - as above
        target = find_registry(self._project, self._connection)
        client = self._stack.enter_context(RegistryClient(target.push)) if target.push else None
        check_registry(target, client, cancel)
        self._target, self._registry = target, client
        names = f", for the nodes {target.pull}" if target.pull else ""
        return HopFinding(detail=f"{target}{names}")

    # The session

    def build(self, cancel: Cancel) -> HopFinding:
        return self._session(cancel).wait("build", _BUILD, cancel)

    def port(self, cancel: Cancel) -> HopFinding:
        """Nothing listens in the container: that this is what the node says is the proof."""
        assert self._connection is not None  # noqa: S101 - as above
        connection = self._connection
        path = f"/api/v1/namespaces/{self._namespace}/pods/{self._session(cancel).pod}"
        pod = pod_view(connection.request("GET", path, cancel=cancel))
        dial = PodPorts(connection, spare=0)
        try:
            stream = dial(pod, 9, cancel)
            try:
                deadline = time.monotonic() + _EVENT
                while stream.receive() is None:
                    cancel.check()
                    if time.monotonic() > deadline:
                        raise connection.lost(TimeoutError("the node is silent"))
                    stream.flush()
                    poll = select.poll()
                    poll.register(stream, select.POLLIN)
                    poll.poll(200)
            finally:
                stream.close()
        except ConnectionRefusedError:
            return HopFinding(detail=f"reached {pod.name}")
        except OSError as error:
            raise connection.lost(error) from error
        finally:
            dial.close()
        return HopFinding(detail=f"reached {pod.name}")

    def agent(self, cancel: Cancel) -> HopFinding:
        assert self._connection is not None  # noqa: S101 - as above
        session = self._session(cancel)
        session.wait("iteration 0", _STEP, cancel)
        connection = self._connection
        local = local_reason(connection.context, connection.server, lambda: connection.local_tool)
        saved = self._own_folder() / "project" / "image" / "saved"
        saved.write_text("twice\n")
        if local is None or not self._target.push:
            session.wait("iteration 1", _PULL, cancel)
            why = "not on a local cluster" if local is None else "there is no registry"
            return HopFinding(detail=f"a new image for each save: {why}")
        return session.wait("agent", _SYNC, cancel)

    def _session(self, cancel: Cancel) -> Rehearsal:
        """The one session, begun by whoever needs it first."""
        if self._rehearsal is None:
            self._rehearsal = self._begin()
        cancel.check()
        return self._rehearsal

    def _begin(self) -> Rehearsal:
        assert self._connection is not None  # noqa: S101 - as above
        connection = self._connection
        platform = next(iter(node_platforms(connection)), own_platform())
        agent = program(platform)
        if agent is None:
            raise DevloopError.of(
                Code.BUILD_NO_SUPERVISOR,
                f"this devloop has no program for {platform}",
                cause="it was installed without, or the nodes are of a rare kind",
                suggestions=("install devloop-k8s from its wheel: uv tool install devloop-k8s",),
            )
        folder = self._own_folder() / "project"
        files = project_files(
            agent=agent,
            builder=self._builder,
            registry=self._project.registry,
            allow_contexts=self._project.allow_contexts,
        )
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (folder / "image" / "agent").chmod(0o755)
        # Another image than any before: each layer has to be pushed and pulled.
        (folder / "image" / "saved").write_text(f"{secrets.token_hex(8)}\n")
        rehearsal = Rehearsal()
        argv = [
            *(sys.executable, "-m", "devloop", "dev", "--output", "json", "-f", "devloop.yaml"),
            *("--context", connection.context, "--namespace", self._namespace),
        ]

        def go(cancel: Cancel) -> None:
            try:
                run(
                    argv,
                    on_line=rehearsal.line,
                    on_error_line=rehearsal.error_line,
                    cancel=cancel,
                    limit=_SESSION,
                    cwd=folder,
                    grace=_GRACE,
                )
            except (Cancelled, CannotRun, Overran) as error:
                rehearsal.error_line(str(error))
            finally:
                rehearsal.over()

        session = Background("doctor-session", go)
        self._stack.callback(self._forget_images, folder / STATE_DIR)
        self._stack.callback(session.join)
        self._stack.callback(session.stop)
        return rehearsal

    def _forget_images(self, state_dir: Path) -> None:
        """Those of this session, here and, if it deletes anything, in the registry."""
        if not self._target.push:
            return
        built, cancel = BuiltImages(state_dir), Cancel()
        with contextlib.suppress(DevloopError, Cancelled):
            found = find_leftovers(
                built,
                state_dir,
                host=self._target.push,
                keep=0,
                in_use=(),
                unknown_since=UNKNOWN_SECONDS,
                cancel=cancel,
            )
            remove(found, built, self._registry, cancel)

    def _own_folder(self) -> Path:
        """Where the project is, whose file system is the one in question, and hidden there; else
        where temporary files are."""
        if self._made is None:
            beside = self._folder if self._folder.is_dir() else None
            made = Path(tempfile.mkdtemp(prefix="doctor-", dir=beside))
            self._made = made.resolve()
            self._stack.callback(shutil.rmtree, made, ignore_errors=True)
        return self._made


def _delete_namespace(connection: Connection, name: str) -> None:
    with contextlib.suppress(DevloopError, ApiError, Cancelled):
        connection.request("DELETE", f"/api/v1/namespaces/{name}")


def _age(made: str, now: str) -> float:
    try:
        began = datetime.fromisoformat(made)
        return (parsedate_to_datetime(now).astimezone(UTC) - began).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def _budget() -> tuple[str, Diagnosis | None]:
    """How many directories Linux lets a user watch; elsewhere whole trees are watched."""
    try:
        watches = int((_INOTIFY / "max_user_watches").read_text())
        instances = int((_INOTIFY / "max_user_instances").read_text())
    except (OSError, ValueError):
        return ("FSEvents" if sys.platform == "darwin" else "events arrive"), None
    detail = f"inotify: {watches:,} directories, {instances:,} programs"
    if watches >= _FEW_WATCHES:
        return detail, None
    warning = Diagnosis(
        code=Code.ENV_INOTIFY_LIMIT,
        severity="warning",
        message=f"the kernel lets all programs of this user watch {watches:,} directories",
        cause="a project with more of them, or an editor beside devloop, uses that up",
        suggestions=(
            "sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024",
        ),
    )
    return detail, warning
