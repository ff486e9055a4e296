"""`FileSync` that starts a container's process anew, with the real supervisor and agent; the
container is a directory and a process that serves a file of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel
from devloop.engine.reporters import SilentReporter
from devloop.errors import Code, DevloopError, Diagnosis
from devloop.sync.changes import SyncPlace
from devloop.sync.contents import RememberedContents
from devloop.sync.process_start import Restarts
from devloop.sync.rules import PathRule
from devloop.sync.syncer import FileSync
from tests.integration.hot.test_syncer import World, image
from tests.support.agent import Supervised, descendants, needs_linux, python
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from devloop.model import PodView, Scan, Served, Step

pytestmark = needs_linux

# It reads its code when it starts, as programs do, and answers each connection with it.
SERVER = """
import os, socket, sys, time
code = open(sys.argv[1] + "/code").read()
if code.startswith("exit"):
    sys.exit(int(code[4:]))
port = int(sys.argv[2])
while code == "worker":
    time.sleep(3600)
if code.startswith("port"):
    port = int(code[4:])
server = socket.create_server(("127.0.0.1", port))
while True:
    connection, _ = server.accept()
    connection.sendall(code.encode())
    connection.close()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


class Process:
    """A world whose container has a supervised process."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory, interpreter="agent")
        self.world.sync.close()
        self.contents = directory / "contents"
        self.reported: list[Diagnosis] = []
        self.ended: list[str] = []
        self.owner = f"{os.getuid()}:{os.getgid()}"
        self.changed_to("0")
        shutil.copytree(self.world.context, self.world.app, dirs_exist_ok=True)
        self.port = free_port()
        self.start()
        self.sync = self.syncer()
        self.world.run(image(1))
        self.sync.image_contains(image(1), self.world.scan())

    def start(self) -> None:
        """The container begins, with what is in its directory."""
        self.supervised = Supervised(*python(SERVER), str(self.world.app), str(self.port))
        self.world.supervisor = self.supervised.name
        until(lambda: self.answer() is not None)

    def syncer(self, limit: float = 30.0) -> FileSync:
        """That of a session that begins."""

        def ended(_pod: PodView, container: str, how: str) -> DevloopError:
            self.ended.append(how)
            return DevloopError.of(Code.POD_PROCESS_ENDED, f"{container} {how}")

        return FileSync(
            "web",
            context=self.world.context,
            open_stream=self.world._open,
            pods=self.world,
            places=self._places,
            restarts=Restarts(
                stop_timeout=1.0, limit=limit, ended=ended, report=self.reported.append
            ),
            contents=RememberedContents(self.contents, "web"),
            always=True,
            limit=5.0,
            first_pause=0.01,
        )

    def _places(self, scan: Scan) -> Mapping[str, tuple[SyncPlace, ...]]:
        return {
            path: (SyncPlace(path=f"{self.world.app}/{path}", mode=entry.mode, owner=self.owner),)
            for path, entry in scan.snapshot.entries.items()
        }

    def changed_to(self, code: str) -> None:
        (self.world.context / "code").write_text(code)

    def answer(self) -> str | None:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                return connection.makefile().read()
        except OSError:
            return None

    def bring(self) -> Served:
        scan = self.world.scan()
        assert self.sync.blocker(scan) is None
        return self.sync.sync(scan, SilentReporter(), Cancel())

    def close(self) -> None:
        self.sync.close()
        self.supervised.__exit__()


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr("devloop.sync.process_start._FIRST_REVIVAL", 0.01)
    made = Process(tmp_path)
    yield made
    made.close()


def test_what_is_ready_is_served_by_a_process_that_read_it(process: Process) -> None:
    for code in ("1", "2", "3"):
        process.changed_to(code)
        assert process.bring().pods == ("web-0",)
        assert process.answer() == code
    assert process.ended == []


def test_a_process_that_ends_at_a_save_waits_for_the_next_one(process: Process) -> None:
    for n in range(3):
        process.changed_to(f"exit{n}")
        with pytest.raises(DevloopError, match=f"web exited {n}"):
            process.bring()
        assert process.answer() is None
        assert process.supervised.process.poll() is None
        process.changed_to(str(n))
        process.bring()
        assert process.answer() == str(n)
    assert process.reported == []


def test_a_mending_save_may_be_the_content_of_before(process: Process) -> None:
    process.changed_to("exit7")
    with pytest.raises(DevloopError):
        process.bring()
    process.changed_to("0")
    process.bring()
    assert process.answer() == "0"


def test_a_process_that_ends_without_a_save_is_reported_and_started_again(
    process: Process,
) -> None:
    process.changed_to("1")
    process.bring()
    before = _child(process)
    os.kill(before, signal.SIGKILL)
    until(lambda: process.answer() == "1" and _child(process) != before)
    assert process.ended == ["was ended by SIGKILL"]
    assert [found.code for found in process.reported] == ["pod/process-ended"]


def test_what_cannot_be_brought_is_known_from_the_first_save_of_a_stream_on(
    process: Process,
) -> None:
    (process.world.context / "d").mkdir()
    (process.world.context / "d/a").write_text("0")
    process.bring()
    process.world.streams[-1].break_()
    until(lambda: len(process.world.streams) == 2)
    shutil.rmtree(process.world.app / "d")
    (process.world.app / "d").symlink_to(process.world.app)
    (process.world.context / "d/a").write_text("1")
    until(lambda: process.sync.blocker(process.world.scan()) is None)
    with pytest.raises(DevloopError) as caught:
        process.bring()
    reason = f"{process.world.app}/d is a symlink in the image"
    assert caught.value.diagnosis.message.endswith(reason)
    assert caught.value.diagnosis.detail == ()
    assert process.sync.blocker(process.world.scan()) == reason
    assert process.answer() == "0"


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
def test_a_user_who_may_not_write_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devloop.sync.syncer._ASKED", 30.0)  # what a busy machine may take
    # Not in one of pytest's own directories, which each run that begins closes for other users.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        process = Process(Path(directory))
        try:
            _may_not_write(process)
        finally:
            process.close()


def _may_not_write(process: Process) -> None:
    world = process.world
    world.user = 10001
    world.open.clear()
    world.run(image(1), incarnation=2)
    # A save that comes before there is an agent waits for its answer.
    opening = threading.Timer(0.05, world.open.set)
    opening.start()
    for code in ("1", "2"):
        process.changed_to(code)
        assert process.sync.blocker(process.world.scan()) == (
            f"the container's user may not write to {world.app}: Permission denied"
        )
    opening.join()
    assert process.answer() == "0"
    [told] = process.reported
    assert (told.code, told.severity) == ("sync/failed", "info")
    assert "COPY --chown" in told.suggestions[0]
    # Whether a file may be written to says the file.
    os.chown(world.app / "code", 10001, 0)
    assert process.sync.blocker(process.world.scan()) is not None
    process.owner = "10001:0"
    process.changed_to("3")
    assert process.sync.blocker(process.world.scan()) is None


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system")
def test_a_disk_that_was_full_is_tried_again(process: Process) -> None:
    app = process.world.app
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(app)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount")
    try:
        shutil.copytree(process.world.context, app, dirs_exist_ok=True)
        (process.world.context / "big").write_text("1" * 100_000)
        process.changed_to("1")
        with pytest.raises(DevloopError, match="big: No space left on device") as caught:
            process.bring()
        assert "free space" in caught.value.diagnosis.suggestions[0]
        assert process.answer() == "0"
        (process.world.context / "big").write_text("1")
        process.bring()
        assert process.answer() == "1"
    finally:
        subprocess.run(["umount", "-l", str(app)], check=True)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devloop.sync.process_start._MOVED", 0.01)
    monkeypatch.setattr("devloop.sync.process_start._FEWER", 0.01)


@pytest.mark.usefixtures("hurried")
def test_a_port_that_nobody_names_may_move_or_go(process: Process) -> None:
    process.world.ports = frozenset({1})
    process.world.run(image(1), incarnation=2)
    old, process.port = process.port, free_port()
    process.changed_to(f"port{process.port}")
    process.bring()
    assert process.answer() == f"port{process.port}"
    process.changed_to("worker")
    process.bring()
    assert process.answer() is None
    process.port = old
    process.changed_to("1")
    process.bring()  # nothing listened before, so that nothing is waited for
    until(lambda: process.answer() == "1")


class Progress(SilentReporter):
    def __init__(self) -> None:
        self.told: list[str] = []

    def progress(
        self, step: Step, message: str, *, current: int | None = None, total: int | None = None
    ) -> None:
        self.told.append(message)


class StoppedClock:
    """Stands for the module `time` where the limit is looked after: none passes until `due()`, and
    an hour then."""

    def __init__(self, due: Callable[[], bool]) -> None:
        self._now = time.monotonic()
        self._due = due

    def monotonic(self) -> float:
        """Return what the clock shows, in seconds."""
        return self._now + (3600.0 if self._due() else 0.0)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("moves", [True, False])
def test_a_port_that_the_manifest_names_is_waited_for(
    process: Process, monkeypatch: pytest.MonkeyPatch, *, moves: bool
) -> None:
    monkeypatch.setattr("devloop.sync.syncer._LOOK", 0.01)
    process.world.ports = frozenset({process.port})
    process.world.run(image(1), incarnation=2)
    process.sync.close()
    process.sync = process.syncer(limit=0.25)
    process.sync.image_contains(image(1), process.world.scan())
    other = free_port()
    process.changed_to(f"port{other}" if moves else "worker")
    scan, reporter = process.world.scan(), Progress()
    assert process.sync.blocker(scan) is None
    (worker,) = process.sync._workers.values()

    def seen() -> bool:
        """Whether all was reported that is to be."""
        ports = worker._awaited and worker._awaited.ports
        return bool(reporter.told and ports and (ports.other or not moves))

    clock = StoppedClock(seen)
    for module in ("devloop.sync.process_start", "devloop.base.deadline"):
        monkeypatch.setattr(f"{module}.time", clock)
    with pytest.raises(DevloopError) as caught:
        process.sync.sync(scan, reporter, Cancel())
    found = caught.value.diagnosis
    assert found.code == "pod/deadline"
    assert f"does not listen on {process.port} again after 0.25 s" in found.message
    assert f"names {process.port}" in str(found.cause)
    if moves:
        assert str(other) in found.suggestions[0]
    assert f"does not listen on {process.port} yet" in reporter.told[0]


def test_a_broken_stream_in_the_middle_of_a_restart_restarts_once_more(process: Process) -> None:
    process.changed_to("1")
    process.bring()
    process.world.open.clear()
    process.world.streams[-1].break_()
    process.changed_to("2")
    until(lambda: process.sync.blocker(process.world.scan()) is not None)
    process.world.open.set()
    until(lambda: process.sync.blocker(process.world.scan()) is None)
    process.bring()
    assert process.answer() == "2"


def test_a_pod_that_was_found_unready_is_waited_for(process: Process) -> None:
    process.changed_to("exit1")
    with pytest.raises(DevloopError):
        process.bring()
    process.world.run(image(1), ready=False)
    process.changed_to("1")
    scan, done = process.world.scan(), threading.Event()

    def bring() -> None:
        process.sync.sync(scan, SilentReporter(), Cancel())
        done.set()

    bringing = threading.Thread(target=bring)
    bringing.start()
    until(lambda: process.answer() == "1")
    assert not done.wait(0.05)
    process.world.run(image(1))
    bringing.join(30)
    assert done.is_set()


def test_without_a_supervisor_there_is_no_restart(tmp_path: Path) -> None:
    process = Process(tmp_path)
    try:
        process.world.supervisor = "nobody"
        process.world.run(image(1), incarnation=2)
        process.changed_to("1")
        with pytest.raises(DevloopError, match="nobody in the container can start its process"):
            process.sync.sync(process.world.scan(), SilentReporter(), Cancel())
        assert "nobody in the container" in str(process.sync.blocker(process.world.scan()))
        assert (process.world.app / "code").read_text() == "0"
    finally:
        process.close()


def test_a_rule_says_what_needs_a_new_process() -> None:
    with tempfile.TemporaryDirectory() as directory:
        process = Process(Path(directory))
        process.sync.close()
        world = process.world
        process.sync = FileSync(
            "web",
            context=world.context,
            open_stream=world._open,
            pods=world,
            rules=[
                PathRule(src="**", dest=str(world.app)),
                PathRule(src="code", dest=str(world.app), restart=True),
            ],
            restarts=process.sync._new_worker.keywords["restarts"],
            first_pause=0.01,
        )
        try:
            process.sync.image_contains(image(1), world.scan())
            before = _child(process)
            (world.context / "template").write_text("x")
            process.bring()
            assert (world.app / "template").read_text() == "x"
            assert _child(process) == before
            process.changed_to("1")
            process.bring()
            assert process.answer() == "1"
        finally:
            process.close()


def _child(process: Process) -> int:
    [child] = descendants(process.supervised.pid)
    return child
