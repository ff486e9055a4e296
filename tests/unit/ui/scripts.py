"""Sessions as records, for the tests of the views."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from devloop.errors import Code, Diagnosis, Location
from devloop.events import (
    DiagnosticRaised,
    ForwardChanged,
    HoldStarted,
    IterationFinished,
    IterationStarted,
    LogLine,
    PodChanged,
    Record,
    Serving,
    SessionEnded,
    SessionStarted,
    StepFinished,
    StepProgress,
    StepStarted,
    Trigger,
)
from devloop.model import Outcome, Step, StepOutcome

if TYPE_CHECKING:
    from devloop.events import Event

__all__ = ["Script", "whole_session"]

DOCKERFILE = """\
FROM python:3.13
WORKDIR /app
COPY requirements.txt .
RUN pip install -r requirements.txt
COPY . .
"""


class Script:
    """Builds records on a clock of its own, which only the script moves."""

    def __init__(self, root: str = "/shop", services: tuple[str, ...] = ("web",)) -> None:
        self.records: list[Record] = []
        self.root = root
        self.services = services
        self.now = datetime(2026, 11, 23, 14, 31, 0, tzinfo=UTC)
        self.iteration = -1
        self.serving: dict[str, Serving] = {}
        self._since = self.now

    def add(self, event: Event, after: float = 0.0) -> None:
        self.now += timedelta(seconds=after)
        ts = self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.records.append(Record(len(self.records) + 1, ts, event))

    def session(self) -> None:
        self.add(
            SessionStarted(
                version="0.4.0",
                mode="dev",
                project="shop",
                root=self.root,
                context="kind-dev",
                namespace="default",
                registry="localhost:5001",
                services=self.services,
                pid=7,
            )
        )

    def begin(self, *paths: str, service: str = "web") -> None:
        self.iteration += 1
        self._since = self.now
        trigger = Trigger(kind="start")
        if paths:
            trigger = Trigger(kind="files", paths=paths, count=len(paths))
        self.add(IterationStarted(iter=self.iteration, service=service, trigger=trigger))
        self.step(Step.SCAN, 0.01, "143 files", service=service)

    def start(self, step: Step, *, service: str = "web") -> None:
        self.add(StepStarted(iter=self.iteration, service=service, step=step))

    def progress(
        self, step: Step, message: str, current: int, total: int, after: float, service: str = "web"
    ) -> None:
        self.add(
            StepProgress(
                iter=self.iteration,
                service=service,
                step=step,
                message=message,
                current=current,
                total=total,
            ),
            after,
        )

    def end(
        self,
        step: Step,
        seconds: float,
        detail: str = "",
        outcome: StepOutcome = StepOutcome.DONE,
        *,
        service: str = "web",
        took: float | None = None,
    ) -> None:
        self.add(
            StepFinished(
                iter=self.iteration,
                service=service,
                step=step,
                outcome=outcome,
                ms=(seconds if took is None else took) * 1000,
                detail=detail,
            ),
            seconds,
        )

    def step(
        self,
        step: Step,
        seconds: float,
        detail: str = "",
        outcome: StepOutcome = StepOutcome.DONE,
        *,
        service: str = "web",
    ) -> None:
        self.start(step, service=service)
        self.end(step, seconds, detail, outcome, service=service)

    def problem(self, diagnosis: Diagnosis, step: Step, *, service: str = "web") -> None:
        self.add(DiagnosticRaised.of(diagnosis, iter=self.iteration, service=service, step=step))

    def finish(
        self,
        outcome: Outcome,
        *,
        digest: str = "",
        why: str = "",
        failed: Step | None = None,
        rolled_back: bool = False,
        stopped: bool = False,
        service: str = "web",
    ) -> None:
        if outcome is Outcome.READY:
            self.serving[service] = Serving(
                iter=self.iteration, image=f"r/{service}@sha256:{digest}", digest=f"sha256:{digest}"
            )
        self.add(
            IterationFinished(
                iter=self.iteration,
                service=service,
                outcome=outcome,
                ms=(self.now - self._since).total_seconds() * 1000,
                digest=f"sha256:{digest}" if digest else None,
                serving=self.serving.get(service),
                why=why,
                failed_step=failed,
                rolled_back=rolled_back,
                stopped=stopped,
            )
        )

    def log(
        self, text: str, pod: str = "web-6c9d-x2x7", *, service: str = "web", container: str = "web"
    ) -> None:
        self.add(LogLine(service=service, pod=pod, container=container, text=text), 0.2)


def whole_session(root: str = "/shop") -> list[Record]:
    """A first start, changes, an error, a crash, a hold, a cancelled try, the end."""
    s = Script(root)
    s.add(ForwardChanged(service="web", local=8080, port=80, state="listening"))
    s.session()
    s.begin()
    s.start(Step.BUILD)
    s.progress(Step.BUILD, "RUN pip install -r requirements.txt", 4, 12, 0.9)
    s.end(Step.BUILD, 3.2, "12 steps, 9 cached", took=4.1)
    s.step(Step.PUSH, 0.3, "3 layers, 2.1 MB, sha256:9f2c41")
    s.step(Step.DEPLOY, 0.1, "web image, was nginx:1.27 (saved for restore)")
    s.start(Step.ROLLOUT)
    s.log("listening on \x1b[1;32m:8080\x1b[0m")
    s.end(Step.ROLLOUT, 2.0, "1/1 ready", took=2.2)
    s.finish(Outcome.READY, digest="9f2c41aa", why="serving 9f2c41")
    s.log("GET / \x1b]52;c;ZXZpbA==\x07200")

    s.now += timedelta(seconds=30)
    for digest, paths in (("4be01daa", ("sample_app/app.py",)), ("77aa01bb", ("a.py", "b.py"))):
        s.begin(*paths)
        s.step(Step.BUILD, 0.9)
        s.step(Step.PUSH, 0.1)
        s.step(Step.DEPLOY, 0.1)
        s.start(Step.ROLLOUT)
        s.log("listening on :8080", f"web-7f1a-{digest[:4]}")
        s.log("bye", "web-6c9d-x2x7")
        s.end(Step.ROLLOUT, 0.4, took=0.8)
        s.finish(Outcome.READY, digest=digest)
    s.begin("sample_app/app.py")
    s.finish(Outcome.UNCHANGED, why="the content equals what is serving")

    s.begin("sample_app/Dockerfile", "requirements.txt")
    s.start(Step.BUILD)
    s.now += timedelta(seconds=2.8)
    s.problem(
        Diagnosis(
            code=Code.BUILD_RUN_FAILED,
            message="RUN exited 1: pip install -r requirements.txt",
            location=Location("sample_app/Dockerfile", 4, 1),
            cause="pip could not find `flaks` (requirements.txt:3)",
            suggestions=("did you mean `flask`?", "or pin a version that exists: pip index flaks"),
            detail=("ERROR: No matching distribution found for flaks==3.0",),
        ),
        Step.BUILD,
    )
    s.end(Step.BUILD, 0, outcome=StepOutcome.FAILED, took=2.8)
    s.finish(Outcome.FAILED, failed=Step.BUILD, why="RUN exited 1")

    s.begin("sample_app/app.py")
    s.step(Step.BUILD, 0.9)
    s.step(Step.PUSH, 0.1)
    s.step(Step.DEPLOY, 0.1)
    s.start(Step.ROLLOUT)
    s.log("NameError: name 'ap' is not defined", "web-8d2e-k9k2")
    s.now += timedelta(seconds=10)
    s.problem(
        Diagnosis(
            code=Code.POD_CRASH_LOOP,
            message="container web exited with code 1 after 0.4 s, 2 times in 11 s",
            location=Location(f"{root}/sample_app/app.py", 14),
            cause="NameError: name 'ap' is not defined",
            suggestions=("fix sample_app/app.py:14 and save",),
            detail=(
                "Traceback (most recent call last):",
                '  File "/app/app.py", line 14, in <module>',
                "    print(ap)",
                "NameError: name 'ap' is not defined",
            ),
        ),
        Step.ROLLOUT,
    )
    s.end(Step.ROLLOUT, 0, "web-8d2e-k9k2 restarted 2 times", StepOutcome.FAILED, took=11.3)
    s.finish(Outcome.FAILED, failed=Step.ROLLOUT, why="the container keeps exiting")

    s.begin("sample_app/app.py")
    s.step(Step.BUILD, 0.9)
    for attempt, delay in ((1, 1.0), (2, 2.0)):
        s.start(Step.PUSH)
        s.end(Step.PUSH, 0.1, outcome=StepOutcome.FAILED)
        s.add(
            HoldStarted(
                service="web",
                iter=s.iteration,
                reason="registry localhost:5001 refused the connection",
                code="registry/unreachable",
                until=delay,
                attempt=attempt,
            )
        )
        s.now += timedelta(seconds=delay)
    s.finish(Outcome.CANCELLED, why="superseded by a newer change")

    s.add(
        PodChanged(
            service="web",
            pod="web-7f1a-77aa",
            phase="Running",
            ready=False,
            deleting=False,
            reason="CrashLoopBackOff",
            restarts=2,
        )
    )
    s.begin("c.py")
    s.start(Step.BUILD)
    s.now += timedelta(seconds=0.4)
    s.end(Step.BUILD, 0, outcome=StepOutcome.CANCELLED, took=0.4)
    s.finish(Outcome.CANCELLED, why="stopped by SIGINT", stopped=True)
    s.now += timedelta(hours=2, minutes=14)
    s.add(SessionEnded(exit_code=130, why="stopped by SIGINT"))
    return s.records
