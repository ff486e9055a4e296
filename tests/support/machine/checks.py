"""`script/test`: every check of the project, the tests last, so that their summary ends it.

The tests that need neither Docker nor a cluster are spread over processes: first those that keep
the machine busy, then those that mostly wait and would be late beside the others. The rest share
one machine's Docker and one cluster, and run one after the other. What the parts did is counted
together in a closing line that reads like pytest's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from . import cache, console, shell, venv

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
# What may run beside anything, what only beside its like, and what needs Docker or a cluster.
BESIDE_OTHERS = ("-m", "not docker and not kind and not realtime")
REALTIME = ("-m", "realtime and not docker and not kind")
ALONE = ("-m", "docker or kind")
# More processes than this spend their time on collecting the same tests.
MOST_PROCESSES = 8
# These sleep most of the time, on any number of cores.
REALTIME_SPREAD = ("-n", "4", "--dist", "worksteal")
REALTIME_MARK = "pytest.mark.realtime"
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
}
# pytest's exit statuses
INTERRUPTED = 2
NO_TESTS = 5


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How one run of pytest ended: its exit status, its counts, the test files it collected."""

    status: int
    counts: Counter[str] = field(default_factory=Counter)
    collected: frozenset[str] = frozenset()


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
    failed: list[tuple[str, int]] = []
    for argv in LINTERS if lint else ():
        status = call(list(argv), env, LINT_SECONDS)
        if status != 0:
            failed.append((" ".join(argv), status))
    outcomes: list[Outcome] = []
    for arguments in parts(pytest_args, unit=unit, coverage=coverage):
        outcomes.append(tests(arguments, env))
        if outcomes[-1].status in (INTERRUPTED, 130):
            break
    missing = [] if pytest_args else uncollected(venv.ROOT, outcomes)
    for name, _ in failed:
        console.say(f"script/test: {name} failed, see above")
    for path in missing:
        console.say(f"script/test: {path} was not collected by pytest, or holds no test")
    counts = sum((outcome.counts for outcome in outcomes), Counter[str]())
    counts["error"] += len(missing)
    print(closing_line(counts, time.monotonic() - began), flush=True)
    statuses = [status for _, status in failed] + [tests_status(outcomes)] + [1] * bool(missing)
    return next((status for status in statuses if status != 0), 0)


def parts(pytest_args: Sequence[str], *, unit: bool, coverage: bool) -> list[list[str]]:
    """Return the arguments of each run of pytest.

    Who names paths or markers wants a few tests soon: they run in one process.
    """
    measured = COVERAGE if coverage else ()
    if "-m" in pytest_args or any(names_a_path(argument) for argument in pytest_args):
        return [[*(UNIT_ONLY if unit else ()), *measured, *pytest_args]]
    spread = [*spread_over(os.cpu_count() or 1), *BESIDE_OTHERS, *measured, *pytest_args]
    # Their files are named: to collect all tests takes each process longer than to run its part.
    waiting = [*REALTIME_SPREAD, *REALTIME, *pytest_args, *realtime_files(venv.ROOT)]
    return [spread, waiting, *([] if unit else [[*ALONE, *pytest_args]])]


def spread_over(cores: int) -> tuple[str, ...]:
    """Return the arguments that use all cores: a third of the time a test waits for a process, a
    socket or a timer, so that there are half as many processes again."""
    processes = min(max(2, cores * 3 // 2), MOST_PROCESSES)
    return "-n", str(processes), "--dist", "worksteal"


def realtime_files(root: Path) -> list[str]:
    """Return the test files that mark a test `realtime`, relative to `root`."""
    return [file for file in test_files(root) if REALTIME_MARK in (root / file).read_text("utf-8")]


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


def tests(arguments: Sequence[str], env: dict[str, str]) -> Outcome:
    """Run pytest once and return how it ended, and print how much of devloop it ran if asked."""
    with tempfile.TemporaryDirectory(prefix="devloop-tests-") as directory:
        place = Path(directory) / "report.json"
        own = {REPORT: str(place), "COVERAGE_FILE": str(Path(directory) / "coverage")}
        if sys.version_info >= (3, 12):
            own["COVERAGE_CORE"] = "sysmon"
        status = call(["pytest", *arguments], {**env, **own}, TESTS_SECONDS)
        if COVERAGE[0] in arguments:
            total = [str(venv.BIN / "coverage"), "report", "--format=total"]
            covered = shell.output(total, timeout=60, env=own, cwd=venv.ROOT)
            print(f"{covered or '?'} % of devloop's lines ran in these tests", flush=True)
        try:
            report = json.loads(place.read_text())
        except (OSError, ValueError):  # it came to no summary
            return Outcome(status=status or 1, counts=Counter(error=1))
    counts, collected = Counter[str](report["counts"]), frozenset(report["collected"])
    return Outcome(status=status, counts=counts, collected=collected)


def tests_status(outcomes: Sequence[Outcome]) -> int:
    """Return the first bad status; a part without tests is none where another part has some."""
    statuses = [outcome.status for outcome in outcomes]
    bad = [status for status in statuses if status not in (0, NO_TESTS)]
    return bad[0] if bad else min(statuses)


def uncollected(root: Path, outcomes: Iterable[Outcome]) -> list[str]:
    """Return the test files of the tree that no run of pytest collected, relative to `root`.

    pytest passes over directories of some names (`build`, `dist`) without a word.
    """
    collected = frozenset[str]().union(*(outcome.collected for outcome in outcomes))
    return [file for file in test_files(root) if file not in collected]


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
    print("$", *argv, flush=True)
    process = subprocess.Popen(
        [str(venv.BIN / argv[0]), *argv[1:]], cwd=venv.ROOT, env=env, stdin=subprocess.DEVNULL
    )
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then says what it was at
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        console.say(f"script/test: {argv[0]} was stopped after {console.duration(seconds)}")
        return 124
    except KeyboardInterrupt:
        process.wait()  # the terminal sent it Ctrl-C too
        return 130
