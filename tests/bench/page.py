"""The session's page in a real Chromium: how soon it shows what happens, what a flood of log lines
does to it, what it needs; and pictures of it to look at.

    python -m tests.bench.page measure [--services 100] [--lines 100000] [--rate 10000]
    python -m tests.bench.page pictures DIRECTORY

The session is scripted: a bus, a history and the page's server as in `devloop dev`, without a
cluster. `paint` is from the publishing of an event to the frame after the one that shows it;
`behind` how many seconds later than published the newest line on the page is, during a flood;
`loop` from a save's hint to the end of its iteration in a real engine whose ports are scripted, and
whose pods log 2,000 lines a second, with the page open and without.
Without Chromium (Debian: `apt-get install chromium`) it says so and ends with 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from devloop.control.history import History
from devloop.engine.bus import EventBus
from devloop.engine.loop import Engine
from devloop.engine.tasks import ServicePorts
from devloop.errors import Code, Location
from devloop.events import (
    DiagnosticRaised,
    Event,
    ForwardChanged,
    HoldStarted,
    IterationFinished,
    IterationStarted,
    LogLine,
    PodChanged,
    Record,
    Serving,
    SessionPaused,
    SessionStarted,
    StepFinished,
    StepProgress,
    StepStarted,
    Trigger,
)
from devloop.model import Outcome, Step, StepOutcome
from devloop.web.server import PageServer
from tests.support.browser import Browser, chromium
from tests.unit.engine.test_loop import PROJECT, Running, ScriptedHints, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUNDS = 60
STEPS = ((Step.BUILD, 0.9), (Step.PUSH, 0.1), (Step.DEPLOY, 0.1), (Step.ROLLOUT, 0.8))
LEVELS = ("INFO", "DEBUG", "INFO", "WARNING", "INFO", "ERROR", "INFO", "INFO")
DOCKERFILE = """FROM python:3.13
WORKDIR /app
COPY requirements.txt .
RUN pip install -r requirements.txt
COPY . .
CMD ["python", "app.py"]
"""


class Session:
    """A session without a cluster; its clock can be moved ahead of the real one."""

    def __init__(self, root: Path, services: Sequence[str], *, page: bool = True) -> None:
        self.root, self.services = root, tuple(services)
        self.shift = 0.0
        self.bus = EventBus(clock=lambda: time.time() + self.shift)
        self.history = History()
        self.server = serve(self) if page else None
        self.bus.subscribe("control", lambda record: self.take([record]), batch=self.take)
        self.iteration = -1

    def take(self, records: Sequence[Record]) -> None:
        self.history.extend(records)
        if self.server is not None:
            self.server.notify()

    def close(self) -> None:
        self.bus.close()
        if self.server is not None:
            self.server.close(0.2)

    def begin(self) -> None:
        self.bus.publish(
            SessionStarted(
                version="0.4.0",
                mode="dev",
                project="shop",
                root=str(self.root),
                context="kind-dev",
                namespace="default",
                registry="localhost:5001",
                services=self.services,
                pid=7,
            )
        )

    def iterate(
        self,
        service: str,
        *paths: str,
        fails: Step | None = None,
        last: Step | None = None,
        scale: float = 1.0,
    ) -> None:
        """One iteration; `last` is a step that it does not come to the end of."""
        self.iteration += 1
        n, publish = self.iteration, self.bus.publish
        kind = Trigger(kind="files", paths=paths, count=len(paths))
        publish(
            IterationStarted(
                iter=n, service=service, trigger=kind if paths else Trigger(kind="start")
            )
        )
        total = 0.0
        for step, seconds in STEPS:
            publish(StepStarted(iter=n, service=service, step=step))
            if step is last:
                text = "RUN pip install -r requirements.txt"
                publish(
                    StepProgress(
                        iter=n, service=service, step=step, message=text, current=4, total=12
                    )
                )
                return
            self.shift += seconds * scale
            total += seconds * scale * 1000
            outcome = StepOutcome.FAILED if step is fails else StepOutcome.DONE
            detail = {Step.BUILD: "12 steps, 9 cached", Step.ROLLOUT: "1/1 ready"}.get(step, "")
            publish(
                StepFinished(
                    iter=n,
                    service=service,
                    step=step,
                    outcome=outcome,
                    ms=seconds * scale * 1000,
                    detail=detail,
                )
            )
            if step is fails:
                self.fail(service, n, step)
                break
        digest = f"sha256:{n * 7919 % 0xFFFFFF:06x}{'0' * 58}"
        publish(
            IterationFinished(
                iter=n,
                service=service,
                outcome=Outcome.FAILED if fails else Outcome.READY,
                ms=total,
                digest=digest,
                serving=Serving(iter=max(0, n - 1) if fails else n, image="x:1", digest=digest),
                why="RUN exited 1: pip install -r requirements.txt" if fails else "",
                failed_step=fails,
            )
        )

    def fail(self, service: str, number: int, step: Step) -> None:
        self.bus.publish(
            DiagnosticRaised(
                code=Code.BUILD_RUN_FAILED,
                message="RUN exited 1: pip install -r requirements.txt",
                location=Location("Dockerfile", 4, 1),
                cause="pip could not find `flaks` (requirements.txt:3)",
                suggestions=("did you mean `flask`?",),
                detail=("ERROR: No matching distribution found for flaks==3.0",),
                iter=number,
                service=service,
                step=step,
            )
        )

    def serve(self, service: str, port: int) -> None:
        self.bus.publish(
            PodChanged(
                service=service,
                pod=f"{service}-6c9d7-x2x7q",
                phase="Running",
                ready=True,
                deleting=False,
            )
        )
        self.bus.publish(ForwardChanged(service=service, local=port, port=80, state="ready"))

    def log(self, service: str, number: int) -> None:
        level = LEVELS[number % len(LEVELS)]
        text = f"{level} request {number} GET /api/items/{number % 97} 200 in {number % 40} ms"
        if number % 50 == 7:
            text = f"\x1b[33m{text}\x1b[0m user=\x1b[1mada\x1b[0m"
        self.bus.publish(
            LogLine(service=service, pod=f"{service}-6c9d7-x2x7q", container="app", text=text)
        )


def serve(made: Session) -> PageServer:
    facts = {"services": made.services, "requests": ("trigger", "rollback", "pause", "resume")}
    return PageServer(0, made.history, lambda _: b'{"ok":true}', facts=lambda: facts)


@contextlib.contextmanager
def session(*services: str, page: bool = True) -> Iterator[Session]:
    with tempfile.TemporaryDirectory() as place:
        Path(place, "Dockerfile").write_text(DOCKERFILE)
        made = Session(Path(place), services, page=page)
        try:
            yield made
        finally:
            made.close()


# --- figures --------------------------------------------------------------------------------------

PAINTED = """new Promise((resolve) => {
  const look = () => {
    const items = document.querySelectorAll('#services .why');
    for (const item of items)
      if (item.textContent.includes(%s))
        return requestAnimationFrame(() => resolve(Date.now()));
    requestAnimationFrame(look);
  };
  look();
})"""
NEWEST = """(() => {
  const rows = [...document.querySelectorAll('#logs .line:not([hidden]) .text')];
  const found = rows.map((r) => /newest (\\d+)/.exec(r.textContent)).filter(Boolean);
  return found.length ? Number(found[found.length - 1][1]) : 0;
})()"""


def measure(browser: Browser, services: int, lines: int, rate: int) -> dict[str, object]:
    names = [f"service-{n:03}" for n in range(services)]
    with session(*names) as made:
        assert made.server is not None
        made.begin()
        for name in names:
            made.iterate(name)
        made.shift = 0.0
        browser.look(1280, 900)
        browser.open(made.server.url)
        browser.until(f"document.querySelectorAll('#services .service').length === {services}")
        paints = [paint(browser, made, names[n % 5], n) for n in range(ROUNDS)]
        before = browser.heap()
        behind, took = flood(browser, made, names, lines, rate)
        kept = browser.run("document.getElementById('lines').textContent")
        rows = browser.run("document.querySelectorAll('#logs .line').length")
        typed = search(browser)
        heap = browser.heap()
        flooded = [paint(browser, made, names[n % 5], ROUNDS + n) for n in range(20)]
        flood(browser, made, names, lines, rate * 2)
        twice = browser.heap()
    return {
        "paint_ms": round(statistics.median(paints), 1),
        "paint_ms_worst": round(max(paints), 1),
        "paint_ms_with_lines": round(statistics.median(flooded), 1),
        "behind_s": round(max(behind), 2) if behind else None,
        "flood_s": round(took, 1),
        "kept": kept,
        "rows": rows,
        "search_ms": typed,
        "heap_mb": [round(before, 1), round(heap, 1), round(twice, 1)],
        "loop_ms": loop(browser),
        "errors": [each for each in browser.said if "exceptionDetails" in each],
    }


def paint(browser: Browser, made: Session, service: str, number: int) -> float:
    text = f"round {number} of it"
    browser.call("Runtime.evaluate", expression=f"window.painted = {PAINTED % json.dumps(text)}")
    time.sleep(0.05)
    began = time.time() * 1000
    made.bus.publish(
        HoldStarted(service=service, iter=number, reason=text, code="", until=None, attempt=1)
    )
    return float(browser.run("window.painted")) - began


def flood(
    browser: Browser, made: Session, names: Sequence[str], lines: int, rate: int
) -> tuple[list[float], float]:
    """Publish at that rate; how far behind the page was at each look, and how long all took."""
    began, sent = time.time(), 0
    times: list[float] = []
    behind = []
    look = began + 0.5
    while sent < lines:
        due = min(lines, int((time.time() - began) * rate))
        for number in range(sent, due):
            name = names[number % len(names)]
            text = f"INFO newest {number} of a request that took as long as ever GET /api 200"
            made.bus.publish(LogLine(service=name, pod=f"{name}-1-ab", container="c", text=text))
            times.append(time.time())
        sent = max(sent, due)
        if time.time() > look:
            newest = int(browser.run(NEWEST))
            behind.append(time.time() - times[min(newest, len(times) - 1)])
            look = time.time() + 0.25
        time.sleep(0.005)
    browser.until(f"({NEWEST}) === {lines - 1}", 60)
    return behind, time.time() - began


def search(browser: Browser) -> float:
    """Milliseconds from a key in the search to the lines that it leaves, all of them."""
    return float(
        browser.run("""new Promise((resolve) => {
          const field = document.getElementById('search');
          const began = performance.now();
          field.value = 'newest 77';
          field.dispatchEvent(new Event('input'));
          let last = '';
          const look = () => {
            const text = document.getElementById('lines').textContent;
            if (text === last && text.includes(' of ')) {
              const took = performance.now() - began;
              field.value = '';
              field.dispatchEvent(new Event('input'));
              return resolve(Math.round(took));
            }
            last = text;
            setTimeout(look, 60);
          };
          look();
        })""")
    )


def loop(browser: Browser) -> dict[str, float]:
    """The median of each, in turns: first without, then with, and again."""
    found: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(2):
        for kind, times in found.items():
            with session("web", page=kind == "with") as made:
                if made.server is not None:
                    browser.open(made.server.url)
                    browser.until("document.getElementById('connection').dataset.is !== 'lost'")
                times.extend(saves(made))
    return {kind: round(statistics.median(times), 2) for kind, times in found.items()}


def saves(made: Session) -> list[float]:
    """Milliseconds of each save."""
    world, hints = World(), ScriptedHints()
    ended = threading.Event()

    def publish(event: Event) -> None:
        made.bus.publish(event)
        if isinstance(event, IterationFinished):
            ended.set()

    made.begin()
    ports = ServicePorts(source=world, builder=world, deployer=world)
    running = Running(
        Engine({"web": ports}, mode="dev", root=PROJECT, publish=publish, hints=hints)
    )
    ended.wait(30)
    times = []
    for n in range(30):
        for number in range(400):
            made.log("web", number)
        time.sleep(0.2)
        ended.clear()
        world.content = str(n)
        began = time.perf_counter()
        hints.give(frozenset({PROJECT / "app.py"}))
        ended.wait(30)
        times.append((time.perf_counter() - began) * 1000)
    running.stop()
    return times


# --- pictures -------------------------------------------------------------------------------------


def quiet(made: Session) -> None:
    """Nothing has happened yet."""


def ordinary(made: Session) -> None:
    made.begin()
    made.shift = -90.0
    for n, name in enumerate(made.services):
        made.iterate(name, scale=6)
        made.serve(name, 8080 + n)
    for n in range(60):
        made.log(made.services[n % len(made.services)], n)
    made.iterate("web", "app.py")
    for n in range(60, 90):
        made.log("web", n)
    made.iterate("api", "templates/index.html", "static/a-name-that-is-quite-long/style.css")


def failing(made: Session) -> None:
    ordinary(made)
    made.iterate("web", "requirements.txt", fails=Step.BUILD)
    made.bus.publish(
        DiagnosticRaised(
            code=Code.POD_CRASH_LOOP,
            message="container api exited with code 1 after 0.4 s",
            location=Location("app.py", 14, 1),
            detail=('  File "/app/app.py", line 14, in <module>', "NameError: name 'ap'"),
            suggestions=("fix app.py:14 and save",),
            iter=made.iteration,
            service="api",
        )
    )
    made.bus.publish(
        HoldStarted(
            service="worker",
            iter=made.iteration,
            reason="registry localhost:5001 refused the connection",
            code="registry/unreachable",
            until=4.0,
            attempt=3,
        )
    )


def paused(made: Session) -> None:
    ordinary(made)
    made.bus.publish(SessionPaused(reason="paused: p or `devloop resume` goes on"))
    made.bus.publish(
        HoldStarted(service="web", iter=None, reason="a change waits", code="", until=None)
    )


def many(made: Session) -> None:
    made.begin()
    made.shift = -300.0
    for n, name in enumerate(made.services):
        fails = Step.BUILD if n % 17 == 3 else None
        last = Step.BUILD if n % 29 == 5 else None
        made.iterate(name, *(() if n % 3 else ("app.py",)), fails=fails, last=last, scale=1 + n % 5)
        made.serve(name, 9000 + n)
    for n in range(9000):
        made.log(made.services[n % len(made.services)], n)


SCENES = {"empty": quiet, "ordinary": ordinary, "failing": failing, "paused": paused, "many": many}


def pictures(browser: Browser, place: Path, only: Sequence[str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, scene in SCENES.items():
        if only and name not in only:
            continue
        services = [f"service-{n:03}" for n in range(100)] if name == "many" else []
        with session(*(services or ("web", "api", "worker"))) as made:
            assert made.server is not None
            scene(made)
            for width, height in ((360, 740), (768, 1024), (1280, 800)):
                for dark in (False, True):
                    browser.look(width, height, dark=dark, phone=width < 500)
                    browser.open(made.server.url)
                    browser.until("document.getElementById('connection').dataset.is !== 'lost'")
                    time.sleep(0.4)
                    shade = "dark" if dark else "light"
                    browser.picture(place / f"{name}-{width}-{shade}.png", whole=width < 900)
    if errors := [each for each in browser.said if "exceptionDetails" in each]:
        print(json.dumps(errors)[:4000])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    figures = commands.add_parser("measure")
    figures.add_argument("--services", type=int, default=100)
    figures.add_argument("--lines", type=int, default=100_000)
    figures.add_argument("--rate", type=int, default=10_000)
    looks = commands.add_parser("pictures")
    looks.add_argument("directory", type=Path)
    looks.add_argument("scenes", nargs="*")
    options = parser.parse_args()
    program = chromium()
    if program is None:
        print("skipped: there is no Chromium here (Debian: apt-get install chromium)")
        sys.exit(0)
    # As in a session: a thread that wakes for a save must not wait 5 ms for each that is busy.
    sys.setswitchinterval(0.001)
    with Browser(program) as browser:
        if options.command == "pictures":
            pictures(browser, options.directory, options.scenes)
        else:
            print(json.dumps(measure(browser, options.services, options.lines, options.rate)))


if __name__ == "__main__":
    main()
