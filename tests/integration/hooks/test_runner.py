"""HookCommands as they run: what they are told, how they end, and what they write."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from devloop.base.cancel import Cancel, Cancelled
from devloop.base.location import Location
from devloop.config.builds import Build
from devloop.config.commands import HookCommand, HookCommands, argv_of
from devloop.config.schema import Deploy, Service
from devloop.engine.reporters import SilentReporter
from devloop.errors import Code, DevloopError
from devloop.events import LogLine
from devloop.hooks.runner import HookRunner
from devloop.model import ImageRef
from devloop.watch.source import ServiceSource
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devloop.events import Event
    from devloop.model import Scan

IMAGE = ImageRef(repository="localhost:5001/web", tag="devloop-1", digest="sha256:ab")
PLACE = Location("devloop.yaml", 7, 9)


def hook(text: str, *, container: str = "", timeout: float = 20.0) -> HookCommand:
    return HookCommand(
        command=argv_of((text,)), container=container, timeout=timeout, location=PLACE
    )


class Lab:
    """A project with a Dockerfile and its hooks; `inside` plays the containers."""

    def __init__(
        self, root: Path, *, replaces_builds: bool = False, **hooks: str | HookCommand
    ) -> None:
        self.root = root
        (root / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        self.events: list[Event] = []
        self.asked: list[tuple[tuple[str, ...], Mapping[str, str]]] = []
        self.inside: str | None = ""
        service = Service(
            name="web",
            image="web",
            build=Build(context=root, dockerfile=root / "Dockerfile"),
            deploy=Deploy(workload_name="web"),
        )
        self.source = ServiceSource(service, root)
        made = {when: (hook(h) if isinstance(h, str) else h,) for when, h in hooks.items()}
        self.runner = HookRunner(
            service="web",
            hooks=HookCommands(**made),
            root=root,
            env={"DEVLOOP_NAMESPACE": "shop"},
            files=root.parent / "changed",
            source=self.source,
            publish=self.events.append,
            in_container=self._in_container,
            replaces_builds=replaces_builds,
        )

    def _in_container(
        self,
        hook: HookCommand,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        cancel: Cancel,
    ) -> str | None:
        del cancel
        self.asked.append((hook.command, env))
        on_line("inside")
        return self.inside

    def scan(self) -> Scan:
        return self.source.scan(None, Cancel())

    def before_build(self, scan: Scan) -> Scan:
        return self.runner.before_build(scan, SilentReporter(), Cancel())

    @property
    def lines(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, LogLine)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def test_a_hook_runs_in_the_project_and_is_told_what_it_is_about(root: Path) -> None:
    lab = Lab(root, after_deploy='echo "$DEVLOOP_HOOK $DEVLOOP_SERVICE $DEVLOOP_IMAGE"; pwd')
    lab.runner.run("after_deploy", IMAGE, SilentReporter(), Cancel())
    assert lab.lines == ["after_deploy web localhost:5001/web@sha256:ab", str(root)]
    [first, _] = [e for e in lab.events if isinstance(e, LogLine)]
    assert (first.pod, first.container) == ("after_deploy", "")


def test_a_hook_is_told_which_files_changed_until_they_are_served(root: Path) -> None:
    lab = Lab(root, before_build="echo $DEVLOOP_CHANGED_FILES; cat $DEVLOOP_CHANGED_FILES_LIST")
    lab.scan()
    (root / "a").write_text("1")
    lab.before_build(lab.scan())
    (root / "b").write_text("1")
    lab.before_build(lab.scan())
    assert lab.lines == ["a", "a", "a b", "a", "b"]
    lab.runner.run("after_deploy", IMAGE, SilentReporter(), Cancel())
    (root / "c").write_text("1")
    lab.before_build(lab.scan())
    assert lab.lines[5:] == ["c", "c"]


def test_a_hook_that_fails_says_where_it_stands_and_what_it_printed(root: Path) -> None:
    lab = Lab(root, before_deploy="echo one; echo two >&2; exit 3")
    with pytest.raises(DevloopError) as caught:
        lab.runner.run("before_deploy", IMAGE, SilentReporter(), Cancel())
    found = caught.value.diagnosis
    assert (found.code, found.location, found.detail) == (Code.HOOK_FAILED, PLACE, ("one", "two"))
    assert "exited 3" in found.message


@pytest.mark.parametrize(
    ("command", "says"),
    [(("./no-such",), "does not exist in"), (("no-such-program",), "not installed or not on PATH")],
)
def test_a_program_that_is_not_there_is_named(
    root: Path, command: tuple[str, ...], says: str
) -> None:
    lab = Lab(root, before_build=HookCommand(command=command))
    with pytest.raises(DevloopError, match=says):
        lab.before_build(lab.scan())


def test_a_hook_that_takes_too_long_is_ended(root: Path) -> None:
    lab = Lab(root, before_build=hook("sleep 30", timeout=0.05))
    with pytest.raises(DevloopError, match=r"longer than 0\.05 s"):
        lab.before_build(lab.scan())


def test_a_newer_save_ends_a_hook_with_its_children(root: Path) -> None:
    lab = Lab(root, before_build="sleep 60 & echo $!; wait")
    cancel, ended = Cancel(), []

    def work() -> None:
        try:
            lab.runner.before_build(lab.scan(), SilentReporter(), cancel)
        except Cancelled:
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: bool(lab.lines))
    cancel.set()
    thread.join(10)
    assert ended
    until(lambda: not _runs(int(lab.lines[0])))


def _runs(pid: int) -> bool:
    """Whether the process is there, and not only waited for."""
    shown = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(shown.stdout.strip()) and not shown.stdout.startswith("Z")


# --- what they write -----------------------------------------------------------------------------


def test_what_a_hook_makes_before_a_build_is_built_and_is_no_change(root: Path) -> None:
    lab = Lab(root, before_build="date +%s%N > made.txt")
    before = lab.scan()
    now = lab.before_build(before)
    assert "made.txt" in now.snapshot.entries
    seen = lab.scan()
    assert seen.changed == ("made.txt",)
    assert lab.runner.wrote(before, seen)
    again = lab.before_build(seen)
    assert lab.runner.wrote(seen, lab.scan())
    assert again.fingerprint != now.fingerprint


def test_an_edit_of_what_a_hook_made_is_a_change(root: Path) -> None:
    lab = Lab(root, before_build="date +%s%N > made.txt")
    before = lab.before_build(lab.scan())
    (root / "made.txt").write_text("mine")
    assert not lab.runner.wrote(before, lab.scan())
    assert not lab.runner.may_have_written(before, lab.scan())


def test_an_edit_while_a_hook_runs_is_seen_by_the_hook(root: Path) -> None:
    (root / "source").write_text("1")
    # The person saves between the hook's look at the file and its end, once.
    save = "[ -e ../saved ] || { touch ../saved; echo 2 > source; }"
    lab = Lab(root, before_build=f"cat source > ../copy; {save}; cp ../copy made")
    built = lab.before_build(lab.scan())
    assert (root / "made").read_text().strip() == "2"
    assert lab.source.scan(None, Cancel()).fingerprint == built.fingerprint


def test_a_log_that_hooks_write_in_the_context_starts_nothing_for_ever(root: Path) -> None:
    lab = Lab(root, after_deploy="echo again >> log")
    before = lab.scan()
    lab.runner.run("after_deploy", IMAGE, SilentReporter(), Cancel())
    found = lab.scan()
    # The first time it may have been somebody else: that is looked at once more.
    assert not lab.runner.wrote(before, found)
    assert lab.runner.may_have_written(before, found)
    lab.runner.run("after_deploy", IMAGE, SilentReporter(), Cancel())
    assert lab.runner.wrote(found, lab.scan())


def test_a_save_together_with_what_a_hook_wrote_is_a_change(root: Path) -> None:
    lab = Lab(root, before_build="echo 1 > made")
    before = lab.scan()
    lab.before_build(before)
    (root / "app.py").write_text("print()")
    assert not lab.runner.wrote(before, lab.scan())


def test_looking_again_takes_nothing_from_the_next_scan(root: Path) -> None:
    lab = Lab(root)
    lab.scan()
    (root / "a").write_text("1")
    lab.source.look_again(Cancel())
    assert lab.scan().changed == ("a",)


# --- in containers, and around a sync ------------------------------------------------------------


def test_a_hook_in_a_container_runs_there(root: Path) -> None:
    lab = Lab(root, after_sync=hook("kill -HUP 1", container="true"))
    lab.runner.run("after_sync", IMAGE, SilentReporter(), Cancel())
    [(command, env)] = lab.asked
    assert command == ("sh", "-c", "kill -HUP 1")
    assert env["DEVLOOP_NAMESPACE"] == "shop"
    assert lab.lines == ["inside"]


def test_how_it_failed_in_a_container_is_said(root: Path) -> None:
    lab = Lab(root, after_sync=hook("x", container="side"))
    lab.inside = "command terminated with exit code 2"
    with pytest.raises(DevloopError, match="exit code 2"):
        lab.runner.run("after_sync", IMAGE, SilentReporter(), Cancel())


def test_without_a_container_that_runs_there_is_nothing_to_run(root: Path) -> None:
    lab = Lab(root, before_deploy=hook("x", container="true"))
    lab.inside = None
    lab.runner.run("before_deploy", IMAGE, SilentReporter(), Cancel())


@pytest.mark.parametrize(("stands_for_a_build", "ran"), [(True, ["b", "s"]), (False, ["s"])])
def test_a_sync_that_stands_for_a_build_has_the_hooks_of_a_build(
    root: Path, stands_for_a_build: bool, ran: list[str]
) -> None:
    lab = Lab(root, replaces_builds=stands_for_a_build, before_build="echo b", before_sync="echo s")
    lab.runner.before_sync(lab.scan(), SilentReporter(), Cancel())
    assert lab.lines == ran
