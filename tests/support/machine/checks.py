"""`script/test`: every check of the project, the tests last, so that their summary ends it.

The tests run in rounds of pytest runs side by side. First those that need neither Docker nor a
cluster, shared out to several processes; then the few that would be late beside these. Then those
that share one machine's Docker and one cluster, in three rows. Last, alone, those that take from
others what they need. What all of them did is counted together in a closing line that reads like
pytest's own.

A few tests that failed in a run of everything are run once more, alone: that tells what is broken
from what was late on a busy machine. Both are shown, and counted as `rerun`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

from . import cache, console, shares, shell, venv

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LINTERS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    # Its cache has shown imports that were gone.
    ("lint-imports", "--no-cache"),
)
LINT_SECONDS = 600
# A run that hangs must still show in CI which test did; every test has its own, shorter limit.
TESTS_SECONDS = 3600
UNIT_ONLY = ("-m", "not docker and not kind")
# What may run beside anything, what is late unless the machine is there for it at once, what needs
# Docker or a cluster, and what nothing else may run beside.
BESIDE_OTHERS = ("-m", "not docker and not kind and not realtime")
REALTIME = ("-m", "realtime and not docker and not kind")
MACHINE = ("-m", "(docker or kind) and not exclusive")
EXCLUSIVE = ("-m", "exclusive")
# Of more processes each would import much for few tests.
MOST_PROCESSES = 8
# These sleep most of the time, on any number of cores.
REALTIME_SPREAD = ("-n", "4", "--dist", "worksteal")
REALTIME_MARK = "pytest.mark.realtime"
EXCLUSIVE_MARK = "pytest.mark.exclusive"
MACHINE_MARK = re.compile(r"\bmark\.(docker|kind)\b")
# A file of which all tests are of another part.
OTHER_PART = re.compile(r"^pytestmark = .*\b(docker|kind|realtime)\b", re.MULTILINE)
MACHINE_ONLY_DIRECTORY = "tests/e2e/"
# Those that need Docker or a cluster mostly wait for it: so many rows leave two cores a reserve.
MACHINE_ROWS = 3
# The tests of single parts: all that `--unit` runs. Parts that are programs or run them, or whose
# work is to watch, to wait or to be drawn on a terminal, have theirs among the integration tests.
UNIT_DIRECTORY = "tests/unit/"
COVERAGE = ("--cov=devloop", "--cov-report=")
TEST_DIRECTORIES = ("tests", "sample_app/tests")
REPORT = "DEVLOOP_TEST_REPORT"  # read by tests/support/run_report.py

# What pytest counts, in its order, with its word for more than one.
OUTCOMES = {
    "failed": "failed",
    "passed": "passed",
    "skipped": "skipped",
    "xfailed": "xfailed",
    "xpassed": "xpassed",
    "warnings": "warnings",
    "error": "errors",
    "rerun": "rerun",
}
# Of a command that is longer the rest is file names.
MOST_WORDS = 12
# More of them are no accident.
MOST_AGAIN = 5
# pytest's exit statuses
FAILED = 1
INTERRUPTED = 2
NO_TESTS = 5


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How one run of pytest ended: its exit status, its counts, the tests that `failed`, the test
    files it collected and how many seconds the tests of each took."""

    status: int
    counts: Counter[str] = field(default_factory=Counter)
    failed: tuple[str, ...] = ()
    collected: frozenset[str] = frozenset()
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """One run of pytest."""

    arguments: tuple[str, ...]


def run(
    pytest_args: list[str], found: dict[str, str], *, unit: bool, lint: bool, coverage: bool
) -> int:
    """Run the checks with the variables that were found; return the first bad status, or 0."""
    began = time.monotonic()
    env = {**os.environ, **found}
    if unit:
        env = {name: value for name, value in env.items() if not name.startswith("DEVLOOP_TEST_")}
    env["PATH"] = venv.path()
    # Rewriting the assertions of all test modules takes longer than running most of them.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["PYTHONPYCACHEPREFIX"] = str(cache.home() / "bytecode")
    env["MYPY_CACHE_DIR"] = str(cache.home() / "mypy")
    # Each process of a fresh checkout would look for constants in all of devloop's source, for
    # seconds; examples that failed are kept there, too.
    env["HYPOTHESIS_STORAGE_DIRECTORY"] = str(cache.home() / "hypothesis")
    failed: list[tuple[str, int]] = []
    for argv in LINTERS if lint else ():
        status = call(list(argv), env, LINT_SECONDS)
        if status != 0:
            failed.append((" ".join(argv), status))
    outcomes: list[Outcome] = []
    for parts in rounds(pytest_args, unit=unit, coverage=coverage):
        outcomes += tests(parts, env)
        if any(outcome.status in (INTERRUPTED, 130) for outcome in outcomes):
            break
    for outcome in outcomes if not pytest_args else ():
        shares.remember(outcome.seconds)
    if not pytest_args and (late := worth_another_look(outcomes)):
        console.say(f"script/test: {len(late)} failed, see above; once more, alone:")
        outcomes = after_another_look(outcomes, *tests([Part(late)], env))
    wanted = unit_files(venv.ROOT) if unit else test_files(venv.ROOT)
    missing = [] if pytest_args else uncollected(wanted, outcomes)
    for name, _ in failed:
        console.say(f"script/test: {name} failed, see above")
    for path in missing:
        console.say(f"script/test: {path} was not collected by pytest, or holds no test")
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    counts["error"] += len(missing)
    print(closing_line(counts, time.monotonic() - began), flush=True)
    statuses = [status for _, status in failed] + [tests_status(outcomes)] + [1] * bool(missing)
    return next((status for status in statuses if status != 0), 0)


def rounds(pytest_args: Sequence[str], *, unit: bool, coverage: bool) -> list[list[Part]]:
    """Return the runs of pytest, round by round.

    Who names paths or markers wants a few tests soon: they run in one process.
    """
    given = tuple(pytest_args)
    measured = COVERAGE if coverage else ()
    if "-m" in given or any(names_a_path(argument) for argument in given):
        return [[Part((*(UNIT_ONLY if unit else ()), *measured, *given))]]
    # Files are named: to collect all tests takes a process longer than to run its part of them.
    files = unit_files(venv.ROOT) if unit else files_beside_others(venv.ROOT)
    shared = [
        Part((*BESIDE_OTHERS, *measured, *given, *share))
        for share in shares.divide(venv.ROOT, files, processes(os.cpu_count() or 1))
    ]
    if unit:
        return [shared]
    waiting = Part((*REALTIME_SPREAD, *REALTIME, *given, *marked_files(venv.ROOT, REALTIME_MARK)))
    of_machine = machine_files(venv.ROOT)
    rows = [
        Part((*MACHINE, *given, *share))
        for share in shares.divide(
            venv.ROOT, of_machine, MACHINE_ROWS, together, shares.A_MACHINE_BYTE
        )
    ]
    alone = Part((*EXCLUSIVE, *given, *marked_files(venv.ROOT, EXCLUSIVE_MARK)))
    return [shared, [waiting], rows, [alone]]


def processes(cores: int) -> int:
    """Return how many processes use all cores: a third of the time a test waits for a process, a
    socket or a timer, so that there are half as many again."""
    return min(max(2, cores * 3 // 2), MOST_PROCESSES)


def files_beside_others(root: Path) -> list[str]:
    """Return the test files that may hold a test which needs neither Docker nor a cluster."""
    return [
        file
        for file in test_files(root)
        if not file.startswith(MACHINE_ONLY_DIRECTORY)
        and not OTHER_PART.search((root / file).read_text("utf-8"))
    ]


def unit_files(root: Path) -> list[str]:
    """Return the test files that `--unit` runs, relative to `root`."""
    return [file for file in files_beside_others(root) if file.startswith(UNIT_DIRECTORY)]


def marked_files(root: Path, mark: str) -> list[str]:
    """Return the test files that mark a test with `mark`, relative to `root`."""
    return [file for file in test_files(root) if mark in (root / file).read_text("utf-8")]


def machine_files(root: Path) -> list[str]:
    """Return the test files of whole sessions, and those that mark a test `docker` or `kind`."""
    return [
        file
        for file in test_files(root)
        if file.startswith(MACHINE_ONLY_DIRECTORY)
        or MACHINE_MARK.search((root / file).read_text("utf-8"))
    ]


def together(file: str) -> str:
    """Name those that stay in one row with a test file: whole sessions share nothing, the parts of
    one in a directory its fixtures, and what these tidy up."""
    return file if file.startswith(MACHINE_ONLY_DIRECTORY) else Path(file).parent.as_posix()


def test_files(root: Path) -> list[str]:
    """Return the test files of the tree, relative to `root` and sorted."""
    return sorted(
        file.relative_to(root).as_posix()
        for directory in TEST_DIRECTORIES
        for file in (root / directory).rglob("test_*.py")
    )


def names_a_path(argument: str) -> bool:
    """Tell whether an argument of pytest is a path, or a test in one."""
    path, _, _ = argument.partition("::")
    return not argument.startswith("-") and (venv.ROOT / path).exists()


def need_no_machine(pytest_args: Sequence[str]) -> bool:
    """Tell whether paths are named and none of them is of a test that needs Docker or a cluster."""
    paths = [Path(argument) for argument in pytest_args if names_a_path(argument)]
    return bool(paths) and all(path.parts[:2] == ("tests", "unit") for path in paths)


def tests(parts: Sequence[Part], env: dict[str, str]) -> list[Outcome]:
    """Run pytest side by side and return how each ended, and print how much of devloop they ran if
    asked. What the first prints is seen as it comes, what the others print when they have ended."""
    with tempfile.TemporaryDirectory(prefix="devloop-tests-") as directory:
        places = [Path(directory) / str(number) for number in range(len(parts))]
        running: list[Running] = []
        for part, place in zip(parts, places, strict=True):
            place.mkdir()
            own = {
                REPORT: str(place / "report.json"),
                "COVERAGE_FILE": f"{directory}/.coverage.{place.name}",
            }
            if sys.version_info >= (3, 12):
                own["COVERAGE_CORE"] = "sysmon"
            output = None if not running else (place / "output").open("wb")
            running.append(Running(["pytest", *part.arguments], {**env, **own}, output))
        statuses = [one.wait(TESTS_SECONDS) for one in running]
        if any(COVERAGE[0] in part.arguments for part in parts):
            say_coverage(directory, env)
        return [outcome(status, place) for status, place in zip(statuses, places, strict=True)]


def outcome(status: int, place: Path) -> Outcome:
    """Return how a run of pytest ended by the report that it left in `place`."""
    try:
        report = json.loads((place / "report.json").read_text())
    except (OSError, ValueError):  # it came to no summary
        return Outcome(status=status or 1, counts=Counter(error=1))
    return Outcome(
        status=status,
        counts=Counter[str](report["counts"]),
        failed=tuple(report["failed"]),
        collected=frozenset(report["collected"]),
        seconds=report["seconds"],
    )


def worth_another_look(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Return the tests that failed, if they are few."""
    if any(outcome.status not in (0, FAILED, NO_TESTS) for outcome in outcomes):
        return ()
    failed = tuple(test for outcome in outcomes for test in outcome.failed)
    return failed if len(failed) <= MOST_AGAIN else ()


def after_another_look(outcomes: Sequence[Outcome], again: Outcome) -> list[Outcome]:
    """Return how the runs ended when `again`, of all tests that had failed, is taken for them."""
    if again.status != 0:
        return list(outcomes)
    passed = []
    for outcome in outcomes:
        fine = Counter(outcome.counts)
        del fine["failed"], fine["error"]
        status = 0 if outcome.failed else outcome.status
        passed.append(replace(outcome, status=status, counts=fine))
    late = again.counts["passed"]
    return [*passed, Outcome(status=0, counts=Counter(passed=late, rerun=late))]


def say_coverage(directory: str, env: dict[str, str]) -> None:
    """Print how much of devloop the processes ran that left their data in `directory`."""
    own = {**env, "COVERAGE_FILE": f"{directory}/.coverage"}
    program = str(venv.BIN / "coverage")
    shell.output([program, "combine", "--quiet", directory], timeout=60, env=own, cwd=venv.ROOT)
    covered = shell.output(
        [program, "report", "--format=total"], timeout=60, env=own, cwd=venv.ROOT
    )
    print(f"{covered or '?'} % of devloop's lines ran in these tests", flush=True)


def tests_status(outcomes: Sequence[Outcome]) -> int:
    """Return the first bad status; a part without tests is none where another part has some."""
    statuses = [outcome.status for outcome in outcomes]
    bad = [status for status in statuses if status not in (0, NO_TESTS)]
    return bad[0] if bad else min(statuses)


def uncollected(files: Iterable[str], outcomes: Iterable[Outcome]) -> list[str]:
    """Return those of `files` that no run of pytest collected.

    pytest passes over directories of some names (`build`, `dist`) without a word.
    """
    collected = frozenset[str]().union(*(outcome.collected for outcome in outcomes))
    return [file for file in files if file not in collected]


def closing_line(counts: Counter[str], seconds: float) -> str:
    """Return what pytest would print at the end: `== 1 failed, 2 passed in 3.21s ==`."""
    words = [
        f"{counts[name]} {name.rstrip('s') if counts[name] == 1 else plural}"
        for name, plural in OUTCOMES.items()
        if counts[name]
    ]
    clock = f" ({timedelta(seconds=int(seconds))})" if seconds >= 60 else ""
    return f" {', '.join(words) or 'no tests ran'} in {seconds:.2f}s{clock} ".center(80, "=")


def call(argv: list[str], env: dict[str, str], seconds: float) -> int:
    """Run one tool of the virtual environment in front of the user; return its status."""
    return Running(argv, env).wait(seconds)


class Running:
    """One tool of the virtual environment at work, in front of the user or, with `output`, a file
    of what it prints that the user sees at its end."""

    def __init__(
        self,
        argv: Sequence[str],
        env: dict[str, str],
        output: IO[bytes] | None = None,
    ) -> None:
        print("$", *(argv if len(argv) < MOST_WORDS else [*argv[:MOST_WORDS], "…"]), flush=True)
        self._name = argv[0]
        self._output = output
        self._process = subprocess.Popen(
            [str(venv.BIN / argv[0]), *argv[1:]],
            cwd=venv.ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
        )

    def wait(self, seconds: float) -> int:
        """Return its status at its end, or after so many seconds."""
        status = self._wait(seconds)
        if self._output is not None:
            self._output.close()
            with Path(self._output.name).open("rb") as said:
                sys.stdout.flush()
                shutil.copyfileobj(said, sys.stdout.buffer)
            sys.stdout.flush()
        return status

    def _wait(self, seconds: float) -> int:
        process = self._process
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # pytest then says what it was at
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            console.say(f"script/test: {self._name} was stopped after {console.duration(seconds)}")
            return 124
        except KeyboardInterrupt:
            process.wait()  # the terminal sent it Ctrl-C too
            return 130
