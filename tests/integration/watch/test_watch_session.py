"""Real files, the real watcher: every way to save a file is one change, and noise is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from devloop.app.project_paths import DockerfileReads
from devloop.manifests.files import FilesRendering
from devloop.watch import hints, pauses, watchset
from devloop.watch.inotify import InotifyWatch
from devloop.watch.pauses import SleepDetector
from devloop.watch.source import ServiceSource
from devloop.watch.watchset import SilentMounts
from tests.integration.watch.watching import Session, service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from devloop.builders.base_triggers import BaseTriggers
    from devloop.watch.event_buffer import EventBuffer, FileEvent

pytestmark = pytest.mark.realtime


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write(root / "Dockerfile", "FROM scratch\nCOPY . /\n")
    write(root / ".dockerignore", "node_modules\n*.log\n")
    write(root / "src/app.py", "one")
    write(root / "src/pkg/mod.py", "one")
    write(root / "node_modules/lib/index.js")
    return root


@pytest.fixture
def session(root: Path) -> Iterator[Session]:
    with Session(ServiceSource(service(root), root)) as session:
        yield session


@pytest.fixture
def in_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine pauses between two of them, and all of them take their time."""
    for name in ("_SHORTEST_SECONDS", "_NEW_SECONDS", "LONGEST_SECONDS"):
        monkeypatch.setattr(pauses, name, 0.2)
    monkeypatch.setattr(hints, "_CAP_SECONDS", 10.0)


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def atomic(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp~")
    temporary.write_text(text)
    temporary.replace(path)


def vim(path: Path, text: str) -> None:
    probe = path.with_name("4913")
    probe.touch()
    probe.unlink()
    swap = path.with_name(f".{path.name}.swp")
    swap.write_bytes(b"b0VIM")
    backup = path.with_name(path.name + "~")
    path.rename(backup)
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)
    backup.unlink()
    swap.unlink()


def jetbrains(path: Path, text: str) -> None:
    new = path.with_name(path.name + "___jb_tmp___")
    old = path.with_name(path.name + "___jb_old___")
    new.write_text(text)
    path.rename(old)
    new.rename(path)
    old.unlink()


def emacs(path: Path, text: str) -> None:
    lock = path.with_name(f".#{path.name}")
    lock.symlink_to("me@host.1:1")
    auto = path.with_name(f"#{path.name}#")
    auto.write_text(text)
    shutil.copy2(path, path.with_name(path.name + "~"))
    path.write_text(text)
    auto.unlink()
    lock.unlink()


def gedit(path: Path, text: str) -> None:
    new = path.with_name(".goutputstream-AB12CD")
    new.write_text(text)
    new.replace(path)


def unlink_and_create(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def empty_first(path: Path, text: str) -> None:
    path.write_text("")
    time.sleep(0.008)
    path.write_text(text)


def slowly(path: Path, text: str) -> None:
    with path.open("w") as file:
        for letter in text:
            file.write(letter)
            file.flush()
            time.sleep(0.008)


@pytest.mark.parametrize(
    "save",
    [in_place, atomic, vim, jetbrains, emacs, gedit, unlink_and_create, empty_first, slowly],
)
def test_a_save_is_one_change(
    session: Session, root: Path, save: Callable[[Path, str], None]
) -> None:
    path = root / "src/app.py"
    assert session.change(save, path, "two") == ("src/app.py",)
    assert session.entries == [
        ".dockerignore",
        "Dockerfile",
        "src",
        "src/app.py",
        "src/pkg",
        "src/pkg/mod.py",
    ]
    # And the next one is seen too: the watch survived the file's replacement.
    assert session.change(save, path, "three") == ("src/app.py",)


@pytest.mark.usefixtures("in_several_steps")
def test_several_files_saved_together_are_one_change(session: Session, root: Path) -> None:
    def save() -> None:
        for i in range(20):
            write(root / f"src/f{i}.py", "new")

    assert len(session.change(save)) == 20


@pytest.mark.parametrize("what", ["touch", "same bytes", "swap file", "ignored", "git", "state"])
def test_what_is_no_change(session: Session, root: Path, what: str) -> None:
    path = root / "src/app.py"
    match what:
        case "touch":
            session.nothing(os.utime, path)
        case "same bytes":
            session.nothing(atomic, path, "one")
        case "swap file":
            session.nothing(write, path.with_name(".app.py.swp"), hints=0)
        case "ignored":
            session.nothing(write, root / "a.log", hints=0)
            session.nothing(write, root / "node_modules/new/index.js", hints=0)
        case "git":
            session.nothing(write, root / ".git/objects/ab/cd", hints=0)
        case _:
            session.nothing(write, root / ".devloop/session.json", hints=0)


def test_a_changed_mode_is_a_change(session: Session, root: Path) -> None:
    path = root / "src/app.py"
    assert session.change(path.chmod, 0o755) == ("src/app.py",)


def test_a_renamed_file_is_one_change(session: Session, root: Path) -> None:
    def rename() -> None:
        (root / "src/app.py").rename(root / "src/main.py")

    assert session.change(rename) == ("src/app.py", "src/main.py")


def test_noise_neither_triggers_nor_delays(root: Path) -> None:
    """A file in .git and a log that are written all the time."""
    write(root / ".git/FETCH_HEAD")
    stop = threading.Event()

    def noise() -> None:
        i = 0
        while not stop.wait(0.005):
            i += 1
            write(root / ".git/FETCH_HEAD", str(i))
            write(root / f"noise{i % 50}.log", str(i))

    with Session(ServiceSource(service(root), root)) as session:
        thread = threading.Thread(target=noise)
        thread.start()
        try:
            session.nothing(lambda: None, hints=0)
            assert session.change(atomic, root / "src/app.py", "two") == ("src/app.py",)
        finally:
            stop.set()
            thread.join()


def test_a_new_directory_and_what_follows_in_it(session: Session, root: Path) -> None:
    write(root / "new/deep/er/a.py")
    session.has("new/deep/er/a.py")
    for name in ("new/b.py", "new/deep/c.py", "new/deep/er/d.py"):
        assert session.change(write, root / name) == (name,)


def test_directories_made_one_in_the_other_while_watches_are_made(
    session: Session, root: Path
) -> None:
    path = root / "deep"
    for i in range(30):
        path /= f"d{i}"
        path.mkdir(parents=True)
        write(path / "f")
        time.sleep(0.003)
    session.until(lambda: sum(e.endswith("/f") for e in session.entries) == 30)
    session.change(write, path / "f", "two")


class Growing(ServiceSource):
    """Gets a directory, with a file in it, right after each walk, for `LEVELS` walks."""

    LEVELS = 12

    def directories(self) -> set[str]:
        found = super().directories()
        deepest = max(Path(path) for path in found if "deep" in path)
        if len(deepest.relative_to(self.root).parts) < self.LEVELS:
            write(deepest / "d" / "f")
        return found

    def __init__(self, root: Path) -> None:
        super().__init__(service(root), root)
        self.root = root


def test_each_walk_for_watches_misses_a_directory(root: Path) -> None:
    (root / "deep").mkdir()
    source = Growing(root)
    with Session(source) as session:
        session.until(lambda: sum(e.endswith("/f") for e in session.entries) == source.LEVELS - 1)
        session.rest()
        deepest = max(Path(path) for path in source.directories() if "deep" in path)
        session.change(write, deepest / "f", "two")


def test_a_directory_moved_in_and_out(session: Session, root: Path, tmp_path: Path) -> None:
    write(tmp_path / "outside/sub/a.py")
    session.change((tmp_path / "outside").rename, root / "inside")
    assert "inside/sub/a.py" in session.entries
    session.change(write, root / "inside/sub/a.py", "two")
    session.change((root / "inside").rename, root / "renamed")
    assert "renamed/sub/a.py" in session.entries
    assert not any(e.startswith("inside") for e in session.entries)
    session.change(write, root / "renamed/sub/a.py", "three")
    session.change((root / "renamed").rename, tmp_path / "outside")
    assert not any(e.startswith("renamed") for e in session.entries)


def test_a_directory_deleted_and_made_again(session: Session, root: Path) -> None:
    for i in range(3):
        shutil.rmtree(root / "src")
        write(root / "src/app.py", f"again {i}")
        write(root / "src/pkg/mod.py", f"again {i}")
        session.has("src/pkg/mod.py")
        session.rest()
        session.change(write, root / "src/pkg/mod.py", f"edit {i}")


def test_the_root_deleted_and_made_again(session: Session, root: Path, tmp_path: Path) -> None:
    for _ in range(2):
        shutil.rmtree(root)
        session.until(lambda: session.errors)
        assert session.errors[-1].code == "config/context-missing"
        session.errors.clear()
        write(root / "Dockerfile", "FROM scratch\n")
        write(root / "src/new.py")
        session.has("src/new.py")
        session.rest()
        session.change(write, root / "src/new.py", "two")
        write(root / "src/new.py", "x")
        session.until(lambda: session.scans[-1].changed == ("src/new.py",))


@pytest.mark.usefixtures("in_several_steps")
def test_symlink_loops_and_pipes_do_no_harm(session: Session, root: Path) -> None:
    def act() -> None:
        (root / "src/loop").symlink_to(".")
        (root / "src/up").symlink_to("..")
        (root / "slash").symlink_to("/")
        os.mkfifo(root / "src/pipe")

    session.change(act)
    assert session.scans[-1].changed == ("slash", "src/loop", "src/up")
    session.change(write, root / "src/app.py", "two")


@pytest.mark.skipif(sys.platform != "linux", reason="counts inotify watches")
def test_only_what_matters_is_watched(root: Path) -> None:
    for i in range(50):
        write(root / f"node_modules/m{i}/index.js")
        write(root / f".git/objects/{i}/x")
    (root / "slash").symlink_to("/usr")
    before = inotify_watches()
    with Session(ServiceSource(service(root), root)) as session:
        # root, src and src/pkg
        assert inotify_watches() - before == 3
        write(root / ".dockerignore", "")
        session.has("node_modules/m9/index.js")
        session.until(lambda: inotify_watches() - before == 3 + 1 + 1 + 50)
        session.change(write, root / "node_modules/m9/index.js", "two")
        write(root / ".dockerignore", "node_modules\n")
        session.until(lambda: inotify_watches() - before == 3)


def inotify_watches() -> int:
    total = 0
    for info in Path("/proc/self/fdinfo").iterdir():
        try:
            total += info.read_text().count("inotify wd")
        except OSError:
            continue
    return total


def test_files_outside_of_the_context(tmp_path: Path) -> None:
    context = tmp_path / "api"
    write(context / "a.py")
    dockerfile = write(tmp_path / "docker/api.Dockerfile", "FROM scratch\n")
    secret = write(tmp_path / "secrets/pip.conf", "one")
    write(tmp_path / "k8s/base/web.yaml", "kind: Deployment")
    made = service(
        context,
        dockerfile=dockerfile,
        secrets=(f"id=pip,src={secret}",),
        manifests=(f"{tmp_path}/k8s/*/*.yaml",),
    )
    config = write(tmp_path / "devloop.yaml", "version: 1")
    rendering = FilesRendering(made.deploy.manifests)
    with Session(ServiceSource(made, tmp_path, rendering), files=[config]) as session:
        first = session.scans[-1].fingerprint
        changed = session.change(atomic, dockerfile, "FROM busybox\n")
        assert changed == ("docker/api.Dockerfile",)
        assert session.change(atomic, secret, "two") == ("secrets/pip.conf",)
        assert session.scans[-1].fingerprint.deploy == first.deploy
        build = session.scans[-1].fingerprint.build
        session.change(atomic, tmp_path / "k8s/base/web.yaml", "kind: Service")
        assert session.scans[-1].fingerprint.build == build
        session.change(write, tmp_path / "k8s/extra/more.yaml")
        session.change(write, tmp_path / "k8s/extra/more.yaml", "two")
        session.change(write, tmp_path / "docker/api.Dockerfile.dockerignore", "*.py")
        assert session.entries == []
        session.nothing(write, tmp_path / "docker/other.txt", hints=0)
        atomic(config, "version: 2")
        session.until(lambda: session.hints[-1] is not None and config in session.hints[-1])


def test_a_new_copy_finds_and_watches_what_was_left_alone(root: Path) -> None:
    for index in range(5):
        write(root / f"data/d{index}/file")
    dockerfile = write(root / "Dockerfile", "FROM scratch\nCOPY src /\n")
    made = service(root)
    reads = DockerfileReads(made.build, cast("BaseTriggers", NoTriggers()))
    with Session(ServiceSource(made, root, reads=reads)) as session:
        assert "data/d1/file" not in session.entries
        session.nothing(write, root / "data/d1/file", "two", hints=0)
        session.change(atomic, dockerfile, "FROM scratch\nCOPY src data /\n")
        assert "data/d1/file" in session.entries
        assert session.change(atomic, root / "data/d1/file", "three") == ("data/d1/file",)
        assert session.change(write, root / "data/new/file") == ("data/new", "data/new/file")
        session.change(atomic, dockerfile, "FROM scratch\nCOPY src /\n")
        session.nothing(write, root / "data/d1/file", "four", hints=0)


class NoTriggers:
    def none_in(self, images: object, cancel: object) -> bool:
        del images, cancel
        return True


def test_a_missing_dockerfile_comes_back(session: Session, root: Path) -> None:
    (root / "Dockerfile").rename(root / "Dockerfile.bak")
    session.until(lambda: session.errors)
    assert session.errors[-1].code == "config/dockerfile-missing"
    assert "Dockerfile.bak" in session.errors[-1].diagnosis.suggestions[0]
    (root / "Dockerfile.bak").rename(root / "Dockerfile")
    write(root / "src/app.py", "two")
    session.until(lambda: session.scans[-1].changed == ("src/app.py",))


def test_names_that_are_not_utf8(session: Session, root: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(root / "src") + b"/caf\xe9.py"))
    session.change(write, odd)
    session.change(write, odd, "two")
    session.change(write, root / "src/pkg/mod.py", "two")
    directory = Path(os.fsdecode(os.fsencode(root) + b"/\xff"))
    session.change(write, directory / "a")
    session.until(lambda: len(session.scans[-1].snapshot.entries) >= 9)
    session.change(write, directory / "a", "two")
    assert session.told == []


@pytest.mark.parametrize("options", [{"polling": True, "poll_seconds": 0.05}, {"trees": True}])
def test_other_means_see_the_same(root: Path, options: dict[str, object]) -> None:
    with Session(ServiceSource(service(root), root), **options) as session:
        session.change(atomic, root / "src/app.py", "two")
        session.nothing(write, root / "a.log", hints=0)
        write(root / "new/deep/a.py")
        session.has("new/deep/a.py")
        session.change(write, root / "new/deep/a.py", "two")
        shutil.rmtree(root / "new")
        session.until(lambda: "new" not in session.entries)


def test_the_audit_finds_what_no_event_told(root: Path, tmp_path: Path) -> None:
    """A write through another hard link gives no event in the watched directory."""
    outside = tmp_path / "outside"
    os.link(root / "src/app.py", outside)
    with Session(ServiceSource(service(root), root), audit_seconds=0.3) as session:
        session.until(lambda: session.hints)
        assert set(session.hints) == {None}
        assert len(session.scans) == 1
        assert session.change(outside.write_text, "two") == ("src/app.py",)


class Failing(InotifyWatch):
    """Linux's watcher, but it dies when told to."""

    die = threading.Event()
    made = 0

    def __init__(self, buffer: EventBuffer) -> None:
        type(self).made += 1
        super().__init__(buffer)
        if self.die.is_set():
            buffer.fail(OSError("made to fail"))

    def _file_events(self, data: bytes) -> tuple[list[FileEvent], bool]:
        if self.die.is_set():
            raise OSError("made to fail")
        return super()._file_events(data)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Failing]]:
    monkeypatch.setattr(watchset, "InotifyWatch", Failing)
    monkeypatch.setattr(hints, "_FIRST_PAUSE_SECONDS", 0.05)
    Failing.die.clear()
    Failing.made = 0
    yield Failing
    Failing.die.clear()


def test_a_watcher_that_died_is_started_again(root: Path, failing: type[Failing]) -> None:
    with Session(ServiceSource(service(root), root)) as session:
        failing.die.set()
        write(root / "src/app.py", "two")
        session.until(lambda: session.told)
        failing.die.clear()
        session.more(1)
        assert set(session.told) == {"env/watch-restarted"}
        assert session.change(write, root / "src/app.py", "three") == ("src/app.py",)


def test_a_watcher_that_keeps_dying_gives_way_to_polling(
    root: Path, failing: type[Failing]
) -> None:
    with Session(ServiceSource(service(root), root), poll_seconds=0.05) as session:
        failing.die.set()
        write(root / "src/app.py", "two")
        # One None for each start: twice again, and then for polling.
        session.until(lambda: len(session.hints) >= 3)
        session.more(1)
        time.sleep(0.1)
        made = failing.made
        assert session.change(write, root / "src/app.py", "three") == ("src/app.py",)
        assert failing.made == made
        assert session.told == ["env/watch-restarted", "env/watch-polling"]


def test_a_share_that_keeps_quiet_is_polled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = f"22 1 254:0 / {root}/src rw - 9p drvfs rw\n"
    monkeypatch.setattr(SilentMounts, "read", lambda: SilentMounts(table))
    with Session(ServiceSource(service(root), root), poll_seconds=0.05) as session:
        assert session.told == ["env/watch-polling"]
        session.change(write, root / "src/app.py", "two")
        session.change(write, root / "top.py", "two")


def test_after_sleep_everything_is_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = [0.0]
    monkeypatch.setattr(hints, "SleepDetector", lambda: SleepDetector(lambda: slept[0]))
    monkeypatch.setattr(hints, "_WAKE_SECONDS", 0.05)
    woke: list[bool] = []
    source = ServiceSource(service(root), root)
    with Session(source, woke=lambda: woke.append(True)) as session:
        session.nothing(time.sleep, 0.1, hints=0)
        slept[0] = 3600.0
        session.until(lambda: session.hints)
        assert session.hints == [None]
        assert woke == [True]


def git(root: Path, *words: str, stdin: str = "") -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "gc.auto=0"]
    command = ["git", *identity, *words]
    subprocess.run(command, cwd=root, check=True, capture_output=True, input=stdin.encode())


def commits(branches: Sequence[str], files: Sequence[str]) -> str:
    """For `git fast-import`: one commit for each branch, whose name is what its files contain."""
    return "".join(
        f"commit refs/heads/{branch}\ncommitter t <t@example.com> 0 +0000\ndata 0\n"
        + "".join(f"M 644 inline {file}\ndata {len(branch)}\n{branch}\n" for file in files)
        for branch in branches
    )


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_switching_branches_is_one_change_or_two(root: Path) -> None:
    git(root, "init", "-q", "-b", "main")
    for i in range(300):
        write(root / f"src/m{i % 7}/f{i}.py", "main")
    git(root, "add", ".")
    git(root, "commit", "-qm", "main")
    git(root, "switch", "-qc", "other")
    shutil.rmtree(root / "src/m3")
    for i in range(300):
        write(root / f"src/n{i % 5}/f{i}.py", "other")
    git(root, "add", ".")
    git(root, "commit", "-qm", "other")
    with Session(ServiceSource(service(root), root)) as session:
        for branch in ("main", "other", "main", "other"):
            start = len(session.scans)
            git(root, "switch", "-q", branch)
            session.more(start)
            time.sleep(0.5)
            assert len(session.scans) - start <= 2
            fresh = ServiceSource(service(root), root).scan(None, session._cancel)
            assert fresh.snapshot.digest == session.scans[-1].snapshot.digest
            session.change(write, root / "src/app.py", f"on {branch}")
            git(root, "checkout", "-q", ".")
            time.sleep(0.3)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_of_thousands_of_files_is_one_change(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "_GIT_SECONDS", 60.0)  # what a busy machine may take
    files = [f"src/m{i // 50}/f{i}.py" for i in range(2000)]
    git(root, "init", "-q", "-b", "main")
    git(root, "fast-import", "--quiet", stdin=commits(("main", "other"), files))
    git(root, "checkout", "-q", "other")
    with Session(ServiceSource(service(root), root)) as session:
        for branch in ("main", "other"):
            assert len(session.change(git, root, "checkout", "-q", branch)) == 2000


def test_what_never_rests_is_looked_at_anyway(session: Session, root: Path) -> None:
    path = root / "src/app.py"
    stop = threading.Event()

    def write_on() -> None:
        with path.open("w") as file:
            while not stop.wait(0.01):
                file.write("more")
                file.flush()

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        session.until(lambda: len(session.hints) >= 3)
    finally:
        stop.set()
        thread.join()


def test_an_index_lock_holds_back_and_lets_go(root: Path) -> None:
    lock = write(root / ".git/index.lock")
    lock.unlink()
    with Session(ServiceSource(service(root), root)) as session:
        lock.touch()
        session.nothing(write, root / "src/app.py", "two", hints=0)
        session.change(lock.unlink)
        assert session.hints[-1] is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's limit")
def test_the_kernels_limit_of_watches(root: Path) -> None:
    """In a user namespace of its own, where the limit can be lowered for nobody else."""
    for i in range(30):
        write(root / f"src/d{i:02}/f.py")
    script = Path(__file__).with_name("limited.py")
    if subprocess.run(["unshare", "-Ur", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-W", "error", str(script), str(root)],
        env=os.environ | {"PYTHONPATH": str(script.parents[3])},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "env/inotify-limit" in done.stdout
