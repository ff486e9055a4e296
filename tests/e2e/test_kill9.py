"""kill -9 of a session at any moment: the next one recovers, whoever looks first ends what was left
paused and says the truth, and what was restorable still is.

`DEVLOOP_TEST_KILLS` says how many moments are tried, drawn from `DEVLOOP_TEST_KILLS_SEED`, and
`DEVLOOP_TEST_KILLS_SECONDS` after how many seconds no more are; without it they are the few where
most can go wrong.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests.e2e.conftest import free_port
from tests.e2e.killed.look import Look, until
from tests.e2e.killed.project import SERVICES, Project, manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.conftest import Cluster
    from tests.e2e.session import Devloop, Event

    Start = Callable[..., Devloop]

KILLS = int(os.environ.get("DEVLOOP_TEST_KILLS", "0"))
SECONDS = float(os.environ.get("DEVLOOP_TEST_KILLS_SECONDS", "inf"))
SEED = int(os.environ.get("DEVLOOP_TEST_KILLS_SEED") or random.randrange(2**32))

Then = Literal["dev", "status", "status elsewhere", "down", "run"]
Phase = Literal["start", "iteration", "write", "quiet"]

START = 120.0
# So long before its end what a session said may be written down or not.
_WRITTEN = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a session is killed, what happens after that, and who comes next. `after` are seconds
    from the start of the process, from a save of `services`, from a step that writes to the
    cluster, or from the end of the iteration."""

    phase: Phase
    after: float
    services: tuple[str, ...]
    between: Literal["nothing", "a save", "a pod goes"]
    then: Then


_SEAMS = (
    # Between the first pod that is restarted and the last.
    Moment(phase="write", after=0.3, services=("place",), between="nothing", then="status"),
    # Files are half written, or a process is asked to end.
    Moment(phase="write", after=0.02, services=("hot",), between="a save", then="dev"),
    Moment(phase="write", after=0.1, services=("roll", "place"), between="nothing", then="run"),
    Moment(phase="start", after=0.9, services=("hot", "place"), between="a pod goes", then="down"),
)


# During deploys more often than not.
_PHASES: tuple[Phase, ...] = ("start", "start", "iteration", "write", "write", "write", "quiet")

_THEN: tuple[Then, ...] = ("dev", "dev", "dev", "status", "status elsewhere", "down", "run")


def moments(chance: random.Random) -> Iterator[Moment]:
    for _ in range(KILLS):
        phase = chance.choice(_PHASES)
        longest = {"start": 4.0, "iteration": 4.0, "write": 1.0, "quiet": 8.0}[phase]
        yield Moment(
            phase=phase,
            after=chance.uniform(0, longest),
            services=tuple(chance.sample(SERVICES, chance.choice((1, 1, 2)))),
            between=chance.choice(("nothing", "nothing", "a save", "a pod goes")),
            then=chance.choice(_THEN),
        )


def _story(session: Devloop) -> str:
    """What it said, without the apps' logs."""
    said = [e for e in session.events if e["type"] not in ("log", "pod.changed", "step.progress")]
    return "\n".join([*map(json.dumps, said), *session.stderr[-40:]])


class Killed:
    """The project and its sessions, one after the other."""

    def __init__(self, start: Start, cluster: Cluster, root: Path, chance: random.Random) -> None:
        self.image = f"killed-{cluster.namespace}"
        self.project = Project(root / "shop", self.image)
        self.cluster = cluster
        self.look = Look(cluster)
        self.chance = chance
        self.session: Devloop | None = None
        # What the killed session said, and of which services it said something as it was killed.
        self.events: list[Event] = []
        self.late: set[str] = set()
        # Of which there was a save since the session that is killed next was well.
        self.saved: set[str] = set()
        self._start = start
        self._root = root
        self._others = 0
        self._mark = f"DEVLOOP_TEST_MARK={cluster.namespace}"
        self._told = ""

    # --- a session -----------------------------------------------------------------------------

    def start(self) -> Devloop:
        name, _, value = self._mark.partition("=")
        more = {name: value, "IMAGE": self.image}
        self.session = self._start("dev", cwd=self.project.root, **more)
        return self.session

    def started(self) -> Devloop:
        """A new session, once its services all serve what is on disk."""
        session = self.start()
        ended: dict[str, Event] = {}
        while set(ended) != set(SERVICES):
            event = session.wait(
                lambda e: e["type"] == "iteration.finished" and e["outcome"] != "cancelled",
                f"{set(SERVICES) - set(ended)}",
                START,
            )
            told = f"{self._told}\n{_story(session)}"
            assert event["outcome"] in ("ready", "unchanged"), told
            ended[event["service"]] = event
        told = f"{self._told}\n{_story(session)}"
        self.look.serves(self.project, told)
        # An image that follows what went hot pauses for a moment.
        until(lambda: not self.look.paused(), f"resumed\n{told}")
        return session

    def save(self, services: tuple[str, ...]) -> None:
        self.saved |= {*services}
        self._told += ", " + ", ".join(self.project.save(name, self.chance) for name in services)

    def kill_at(self, moment: Moment, told: str) -> None:
        self._told, self.saved = told, set()
        if moment.phase == "start":
            if self.session is not None:
                self.session.interrupt()
            self.save(moment.services)
            session = self.start()
        else:
            session = self.session or self.started()
            self.save(moment.services)
        if moment.phase == "write":
            session.wait(
                lambda e: (
                    e["type"] == "step.started"
                    and e["step"] in ("sync", "deploy")
                    and e["service"] in moment.services
                ),
                "step that writes",
            )
        elif moment.phase == "quiet":
            session.wait(lambda e: e["type"] == "iteration.finished", "end of an iteration")
        time.sleep(moment.after)
        assert session.process.poll() is None, f"{self._told}\n{_story(session)}"
        session.killed = True
        session.process.kill()
        latest = datetime.now(UTC) - _WRITTEN
        session.join(10)
        self.session = None
        self.events = [e for e in session.events if datetime.fromisoformat(e["ts"]) < latest]
        self.late = {str(e.get("service", "")) for e in session.events if e not in self.events}
        self._told += f"\n{_story(session)}"
        until(lambda: not self.processes(), f"gone: {self.processes()}\n{self._told}")

    @property
    def began(self) -> Event | None:
        """How the killed session began, if it did."""
        return next((e for e in self.events if e["type"] == "session.started"), None)

    def unfinished(self, service: str) -> bool:
        """Whether the killed session was in the middle of an iteration."""
        open_ = False
        for event in self.events:
            if event.get("service") == service and event["type"].startswith("iteration."):
                open_ = event["type"] == "iteration.started"
        return open_

    def served(self, service: str) -> bool:
        """Whether the killed session saw what was on disk served."""
        ended = [e for e in self.events if e["type"] == "iteration.finished"]
        return any(e["serving"] for e in ended if e["service"] == service)

    def processes(self) -> list[str]:
        """What runs of a session or was started by one."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found

    # --- what comes next -----------------------------------------------------------------------

    def between(self, what: str) -> None:
        if what == "a save":
            self.save((self.chance.choice(SERVICES),))
        elif what == "a pod goes":
            pods = [pod for service in SERVICES for pod in self.look.pods(service)]
            if pods:
                pod = self.chance.choice(pods)
                self.cluster.kubectl("delete", "pod", pod, "--wait=false")
                self._told += f", {pod} deleted"

    def next(self, then: str) -> None:
        getattr(self, f"_{then.replace(' ', '_')}")()

    def _dev(self) -> None:
        self.started()
        assert self.session is not None

    def _status(self) -> None:
        before = self._all_pods()
        report = json.loads(self.command("status", "--output", "json"))
        told = f"{report}\n{self._told}"
        assert self.look.paused() == [], told
        # One that did not get so far as to begin has left no word.
        session, began = report["session"], self.began
        assert not session or not session["running"], told
        if began is not None:
            assert session, told
            assert session["pid"] == began["pid"], told
            assert session["killed"], told
            for service in sorted({*SERVICES} - self.late):
                found = {pod["name"] for pod in report["services"][service]["pods"]}
                assert found <= before | self._all_pods(), told
                self._is_true(report["services"][service], session["services"][service], service)

        self.look.alone(told)

    def _status_elsewhere(self) -> None:
        """Where no session wrote anything down."""
        self.command("status", cwd=self._other().root)
        assert self.look.paused() == [], self._told
        self.look.alone(self._told)

    def _other(self) -> Project:
        self._others += 1
        return self.project.copy(self._root / f"other-{self._others}")

    def _all_pods(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.cluster.get("pods")["items"]}

    def _is_true(self, report: dict[str, Any], last: dict[str, Any], service: str) -> None:
        told = f"{service}: {report}, {last}\n{self._told}"
        found = {
            each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]["image"]
            for each in self.cluster.get("deployments")["items"]
        }
        assert report["found"] == (service in found), told
        assert report["images"].get("main") == found.get(service), told
        pods = self.look.pods(service)
        if self.unfinished(service):
            assert last["state"] == "working", told
            return
        if self.served(service) and service not in self.saved:
            assert (report["disk"] or "").startswith("as "), told
        if (report["disk"] or "").startswith("as ") and set(pods) <= set(last["pods"]):
            self.look.serves_in(self.project, service, told)

    def _down(self) -> None:
        self.command("down", "--yes")
        names = [each["metadata"]["name"] for each in self.cluster.get("deployments")["items"]]
        assert names == ["roll"], self._told
        assert self.look.paused() == [], self._told
        assert self.cluster.get("lease")["items"] == [], self._told

    def _run(self) -> None:
        other = self._other()
        other.version("hot", f"other-{self._others}")
        self.command("run", "--output", "lines", cwd=other.root)
        self.look.serves(other, self._told)
        assert self.look.paused() == [], self._told
        assert self.cluster.get("lease")["items"] == [], self._told

    def command(self, *argv: str, cwd: Path | None = None) -> str:
        """What it prints; it must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "devloop", *argv, "--namespace", self.cluster.namespace],
            cwd=cwd or self.project.root,
            env={
                **os.environ,
                "BASE": os.environ["DEVLOOP_TEST_BASE_IMAGE"],
                "IMAGE": self.image,
                "PORT": str(free_port()),
            },
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        there = {
            each["metadata"]["name"]: each["metadata"]
            for each in self.cluster.get("deployments")["items"]
        }
        assert done.returncode == 0, (
            f"{argv}: {done.stdout}{done.stderr}\n{json.dumps(there)}\n{self._told}"
        )
        return done.stdout


@pytest.fixture
def killed(devloop: Start, cluster: Cluster, tmp_path: Path) -> Killed:
    return Killed(devloop, cluster, tmp_path, random.Random(SEED))


@pytest.fixture
def original(killed: Killed) -> str:
    """The manifest of what the user had before devloop came; its image answers `original`."""
    image = f"{os.environ['DEVLOOP_TEST_REGISTRY']}/{killed.image}:original"
    directory = killed.project.root.parent / "original"
    killed.project.copy(directory).version("roll", "original")
    argument = f"BASE={os.environ['DEVLOOP_TEST_BASE_IMAGE']}"
    build = ["docker", "build", "-q", "--build-arg", argument, "-t", image, str(directory / "roll")]
    for command in (build, ["docker", "push", "-q", image]):
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    text = manifest("roll", image)
    killed.cluster.kubectl("apply", "-f", "-", stdin=text)
    return text


@pytest.mark.timeout(300 + 60 * KILLS)
def test_a_session_that_is_killed_at_any_moment_leaves_nothing_that_the_next_does_not_mend(
    killed: Killed, original: str
) -> None:
    started = time.monotonic()
    for number, moment in enumerate(moments(killed.chance) if KILLS else _SEAMS):
        began = time.monotonic()
        if began - started > SECONDS:
            break
        told = f"moment {number} of seed {SEED}: {moment}"
        killed.kill_at(moment, told)
        killed.between(moment.between)
        killed.next(moment.then)
        print(f"{told}: {time.monotonic() - began:.1f} s")

    (killed.session or killed.started()).interrupt()
    assert killed.cluster.get("lease")["items"] == []
    assert killed.look.paused() == []
    assert killed.project.open_entries() == []
    killed.look.alone("the end")
    (kept,) = (killed.project.root / ".devloop" / "before").glob("*/*/deployment-roll.json")
    before = json.loads(kept.read_text())
    assert before["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":original")
    killed.cluster.kubectl("apply", "-f", "-", stdin=original)
    killed.cluster.kubectl("rollout", "status", "deployment/roll", "--timeout=60s")
    assert {killed.look.answer(pod)["version"] for pod in killed.look.pods("roll")} == {"original"}
