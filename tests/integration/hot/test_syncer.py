"""`FileSync` with real agents on real files; containers are directories, streams are pipes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.ignore_rules import IgnoreRules
from devloop.engine.reporters import SilentReporter
from devloop.errors import Code, DevloopError
from devloop.model import ContainerView, Fingerprint, ImageRef, PodView, Scan
from devloop.sync.protocol import STARTS
from devloop.sync.rules import PathRule
from devloop.sync.syncer import FileSync
from devloop.watch.rules import ContextRules
from devloop.watch.scan import TreeScanner
from tests.integration.hot.conftest import tree
from tests.support.agent import needs_linux, program
from tests.support.examples import examples
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from devloop.errors import Diagnosis
    from devloop.model import Served


INTERPRETERS = [pytest.param("agent", marks=needs_linux), "python", "sh"]


class LocalStream:
    """A process's standard streams, as the API server's stream behaves."""

    def __init__(self, argv: Sequence[str], user: int | None = None) -> None:
        self._sock, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            argv,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=user,
        )
        theirs.close()
        self._sock.setblocking(False)
        self.ended: str | None = None

    @property
    def is_closed(self) -> bool:
        return self._sock.fileno() < 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def receive(self) -> bytes | None:
        try:
            got = self._sock.recv(65536)
        except BlockingIOError:
            return None
        if not got:
            self._process.wait(30)
            status = self._process.returncode
            self.ended = f"exit status {status if status >= 0 else 128 - status}"
        return got

    def send(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    def flush(self) -> bool:
        return True

    def kill(self) -> None:
        self._process.kill()

    def break_(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()
        self._process.wait(30)


class World:
    """A context, and one "container": the directory `app`, whose pod is reported of by `run`."""

    def __init__(
        self, directory: Path, *, interpreter: str = "python", rule: PathRule | None = None
    ):
        self.context, self.app = directory / "context", directory / "app"
        self.context.mkdir()
        self.app.mkdir()
        self.streams: list[LocalStream] = []
        self.reported: list[Diagnosis] = []
        self.refuse: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.supervisor = "nobody"
        self.user: int | None = None
        self.ports: frozenset[int] = frozenset()
        self.deploy, self.recipe = "d", "r"
        self._interpreter = interpreter
        self._scanner = TreeScanner(self.context, ContextRules(IgnoreRules(())))
        self._pods: tuple[PodView, ...] = ()
        self._callbacks: list[Callable[[], None]] = []
        self.sync = FileSync(
            "web",
            context=self.context,
            open_stream=self._open,
            pods=self,
            rules=[rule or PathRule(src="**", dest=str(self.app))],
            report=self.reported.append,
            limit=5.0,
            first_pause=0.01,
        )

    def _open(
        self, pod: PodView, container: str, argv: Sequence[str], cancel: Cancel
    ) -> LocalStream:
        self.open.wait(30)
        if self.refuse is not None:
            raise self.refuse
        if self._interpreter == "none":
            argv = ["false"]
        elif self._interpreter == "agent":
            argv = [str(program()), "serve", "--socket", self.supervisor]
        elif argv == STARTS["agent"].argv:
            argv = ["false"]
        elif self._interpreter == "sh":
            argv = STARTS["sh"].argv
        stream = LocalStream(argv, self.user)
        self.streams.append(stream)
        return stream

    def current(self, service: str) -> tuple[PodView, ...]:
        return self._pods

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def run(self, *images: ImageRef, incarnation: int = 1, ready: bool = True) -> None:
        """One pod for each of `images`."""
        self._pods = tuple(
            PodView(
                name=f"web-{n}",
                uid=str(n),
                namespace="x",
                ready=ready,
                containers=(
                    ContainerView(
                        name="web",
                        image=image.pinned,
                        image_id=f"{image.repository}@{image.digest}",
                        container_id=f"c{incarnation}",
                        state="running",
                        ports=self.ports,
                    ),
                ),
            )
            for n, image in enumerate(images)
        )
        for callback in self._callbacks:
            callback()

    def restart_from(self, image_content: Path, image: ImageRef, incarnation: int) -> None:
        shutil.rmtree(self.app)
        shutil.copytree(image_content, self.app, symlinks=True)
        self.run(image, incarnation=incarnation)

    def scan(self) -> Scan:
        snapshot = self._scanner.scan(None, Cancel())
        fingerprint = Fingerprint(build=snapshot.digest, deploy=self.deploy)
        looks = self._scanner.looks
        return Scan(fingerprint=fingerprint, snapshot=snapshot, recipe=self.recipe, look=looks)

    def bring(self) -> Served:
        scan = self.scan()
        assert self.sync.blocker(scan) is None
        return self.sync.sync(scan, SilentReporter(), Cancel())

    def close(self) -> None:
        self.sync.close()


def image(n: int) -> ImageRef:
    return ImageRef(repository="r/web", tag=str(n), digest=f"sha256:{n}")


@pytest.fixture(params=INTERPRETERS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, interpreter=request.param)
    yield made
    made.close()


def test_a_save_is_brought(world: World) -> None:
    world.run(image(1))
    world.sync.image_contains(image(1), world.scan())
    (world.context / "a").write_text("1")
    served = world.bring()
    assert (served.image, served.pods) == (image(1), ("web-0",))
    assert (world.app / "a").read_text() == "1"


def test_nothing_is_known_at_first(world: World) -> None:
    assert "not known yet" in str(world.sync.blocker(world.scan()))
    world.sync.image_contains(image(1), world.scan())
    assert "no container runs" in str(world.sync.blocker(world.scan()))
    world.run(image(1), image(2))
    assert world.sync.blocker(world.scan()) == "pod web-1 runs an image of unknown content"


def test_more_than_the_context(world: World) -> None:
    world.run(image(1))
    scan = world.scan()
    world.sync.image_contains(image(1), scan)
    assert world.sync.blocker(scan) is None
    assert "shapes the image" in str(world.sync.blocker(replace(scan, recipe="other")))
    moved = replace(scan, fingerprint=Fingerprint(build="b", deploy="other"))
    assert world.sync.blocker(moved) == "the manifests changed"


def test_a_container_that_starts_again_gets_it_by_itself(world: World, tmp_path: Path) -> None:
    (world.context / "a").write_text("0")
    shutil.copytree(world.context, tmp_path / "image")
    world.restart_from(tmp_path / "image", image(1), 1)
    world.sync.image_contains(image(1), world.scan())
    (world.context / "a").write_text("1")
    (world.context / "b").write_text("1")
    world.bring()
    world.restart_from(tmp_path / "image", image(1), 2)
    until(lambda: tree(world.app) == tree(world.context))


def test_an_image_made_in_the_background(world: World, tmp_path: Path) -> None:
    """It holds an older sync; what its containers lack is the newer one, and nothing goes back."""
    world.run(image(1))
    world.sync.image_contains(image(1), world.scan())
    (world.context / "a").write_text("1")
    first = world.scan()
    assert world.sync.blocker(first) is None
    world.sync.sync(first, SilentReporter(), Cancel())
    shutil.copytree(world.context, tmp_path / "image")
    (world.context / "a").write_text("2")
    world.bring()
    world.sync.image_contains(image(2), first)
    assert (world.app / "a").read_text() == "2"
    world.restart_from(tmp_path / "image", image(2), 2)
    until(lambda: (world.app / "a").read_text() == "2")


def test_the_image_that_runs_stays_known(world: World) -> None:
    world.run(image(1))
    world.sync.image_contains(image(1), world.scan())
    for n in range(2, 12):
        (world.context / "a").write_text(str(n))
        scan = world.scan()
        assert world.sync.blocker(scan) is None
        world.sync.sync(scan, SilentReporter(), Cancel())
        world.sync.image_contains(image(n), scan)
    assert (world.app / "a").read_text() == "11"


def test_a_newer_image_is_not_taken_back(world: World) -> None:
    world.run(image(1))
    world.sync.image_contains(image(1), world.scan())
    (world.context / "a").write_text("1")
    world.bring()
    (world.context / "a").write_text("2")
    scan = world.scan()
    world.sync.blocker(scan)  # the engine asks, and has an image made for another reason
    (world.app / "a").write_text("2")
    world.run(image(2), incarnation=2)
    world.sync.image_contains(image(2), scan)
    (world.context / "b").write_text("1")
    world.bring()
    assert tree(world.app) == tree(world.context)


def test_a_file_that_changed_after_the_scan(world: World) -> None:
    world.run(image(1))
    world.sync.image_contains(image(1), world.scan())
    (world.context / "a").write_text("1")
    (world.context / "b").write_bytes(b"x" * 3_000_000)
    scan = world.scan()
    assert world.sync.blocker(scan) is None
    (world.context / "b").write_bytes(b"y" * 3_000_000)
    with pytest.raises(DevloopError) as caught:
        world.sync.sync(scan, SilentReporter(), Cancel())
    assert caught.value.code == "build/context-changed"
    assert not (world.app / "b").exists()
    world.bring()
    assert tree(world.app) == tree(world.context)


def test_a_directory_that_became_a_link_is_not_followed(world: World, tmp_path: Path) -> None:
    world.run(image(1))
    world.sync.image_contains(image(1), world.scan())
    (world.context / "d").mkdir()
    (world.context / "d" / "a").write_text("1")
    scan = world.scan()
    assert world.sync.blocker(scan) is None
    shutil.move(world.context / "d", tmp_path / "d")
    (world.context / "d").symlink_to(tmp_path / "d")
    with pytest.raises(DevloopError) as caught:
        world.sync.sync(scan, SilentReporter(), Cancel())
    assert caught.value.code == "build/context-changed"


def test_a_broken_stream_is_opened_again(world: World) -> None:
    world.run(image(1))
    world.sync.image_contains(image(1), world.scan())
    (world.context / "a").write_text("1")
    world.bring()
    world.open.clear()
    world.streams[-1].break_()
    (world.context / "a").write_text("2")
    scan = world.scan()
    until(lambda: world.sync.blocker(scan) is not None)
    assert "stream to pod web-0 broke" in str(world.sync.blocker(scan))
    world.open.set()
    until(lambda: world.sync.blocker(scan) is None)
    world.sync.sync(scan, SilentReporter(), Cancel())
    assert (world.app / "a").read_text() == "2"


def test_a_cancelled_sync_ends_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.refuse = ConnectionResetError("down")
    world.run(image(1))
    world.sync.image_contains(image(1), world.scan())
    cancel = Cancel()
    timer = threading.Timer(0.05, cancel.set)
    timer.start()
    try:
        with pytest.raises(Cancelled):
            world.sync.sync(world.scan(), SilentReporter(), cancel)
    finally:
        timer.join()
        world.close()


def test_no_interpreter_is_reported_once(tmp_path: Path) -> None:
    world = World(tmp_path, interpreter="none")
    try:
        scan = world.scan()
        world.run(image(1), image(1))
        world.sync.image_contains(image(1), scan)
        until(lambda: world.sync.blocker(scan))
        assert world.sync.blocker(scan) == "the image has neither a usable shell nor Python"
        [reported] = world.reported
        assert (reported.code, reported.severity) == ("sync/failed", "warning")
        world.run(image(1), incarnation=2)
        assert world.sync.blocker(scan) is not None
        assert len(world.reported) == 1
    finally:
        world.close()


def test_a_sync_that_finds_no_interpreter_reports_it_itself(tmp_path: Path) -> None:
    world = World(tmp_path, interpreter="none")
    world.open.clear()
    raised: list[DevloopError] = []

    def sync() -> None:
        try:
            world.sync.sync(world.scan(), SilentReporter(), Cancel())
        except DevloopError as error:
            raised.append(error)

    syncing = threading.Thread(target=sync)
    try:
        world.run(image(1))
        world.sync.image_contains(image(1), world.scan())
        (world.context / "a").write_text("new")
        syncing.start()
        until(lambda: world.sync._syncing)
        world.open.set()
        syncing.join(30)
        assert [error.code for error in raised] == ["sync/failed"]
        assert world.sync.blocker(world.scan()) is not None
        assert world.reported == []
    finally:
        world.open.set()
        syncing.join(30)
        world.close()


def test_a_cluster_that_forbids_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.refuse = DevloopError.of(
        Code.CLUSTER_FORBIDDEN, "'dev' may not get pods/exec", suggestions=("ask an administrator",)
    )
    try:
        world.run(image(1))
        scan = world.scan()
        world.sync.image_contains(image(1), scan)
        with pytest.raises(DevloopError) as caught:
            world.sync.sync(scan, SilentReporter(), Cancel())
        assert caught.value.code == "sync/failed"
        assert caught.value.diagnosis.suggestions == ("ask an administrator",)
        assert world.sync.blocker(scan) == "'dev' may not get pods/exec"
    finally:
        world.close()


def test_what_was_refused_is_not_tried_again(world: World) -> None:
    (world.app / "d").symlink_to("elsewhere")
    world.run(image(1))
    (world.context / "d").mkdir()
    world.sync.image_contains(image(1), world.scan())
    (world.context / "d" / "a").write_text("1")
    with pytest.raises(DevloopError, match="symlink in the image"):
        world.sync.sync(world.scan(), SilentReporter(), Cancel())
    (world.context / "d" / "a").write_text("2")
    assert "symlink in the image" in str(world.sync.blocker(world.scan()))
    (world.context / "d" / "a").unlink()
    (world.context / "b").write_text("1")
    assert world.sync.blocker(world.scan()) is None


_NAME = st.sampled_from(["a", "b", "c d", "-e", "f\n'"])
_EDIT = st.tuples(
    st.sampled_from(["file", "run", "dir", "link", "remove", "move"]),
    st.lists(_NAME, min_size=1, max_size=3).map("/".join),
    st.lists(_NAME, min_size=1, max_size=3).map("/".join),
)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(_EDIT, max_size=6), max_size=4))
def test_any_edits_make_the_container_equal(
    interpreter: str, batches: list[list[tuple[str, str, str]]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), interpreter=interpreter)
        try:
            world.run(image(1))
            world.sync.image_contains(image(1), world.scan())
            for batch in batches:
                for n, edit in enumerate(batch):
                    _edit(world.context, n, *edit)
                world.bring()
                assert tree(world.app) == tree(world.context)
        finally:
            world.close()


def _edit(root: Path, n: int, verb: str, name: str, other: str) -> None:
    """One edit, if the file system allows it."""
    path = root / name
    for above in path.relative_to(root).parents:
        if (root / above).is_symlink():
            return
    try:
        if verb == "remove":
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            return
        if verb == "move":
            path.rename(root / other)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if verb == "dir":
            path.mkdir()
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if verb == "link":
            path.symlink_to(other)
        else:
            path.write_text(f"{n} {name}")
            path.chmod(0o755 if verb == "run" else 0o640)
    except OSError:
        assert os.path.lexists(root)
