"""`script/test`: no test file is passed over, and its closing line counts all parts together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support import run_report
from tests.support.machine import checks, shares, venv
from tests.support.machine.checks import Outcome, Part

if TYPE_CHECKING:
    from pathlib import Path


def test_both_sides_name_the_report_alike() -> None:
    assert checks.REPORT == run_report.VARIABLE


@pytest.mark.parametrize(("cores", "processes"), [(1, 2), (2, 3), (4, 6), (64, 8)])
def test_there_are_more_processes_than_cores(cores: int, processes: int) -> None:
    assert checks.processes(cores) == processes


def test_the_whole_tree_runs_in_rounds_and_named_tests_at_once() -> None:
    shared, [waiting], machine, [alone] = checks.rounds(["-x"], unit=False, coverage=True)
    files = checks.files_beside_others(venv.ROOT)
    before = (*checks.BESIDE_OTHERS, *checks.COVERAGE, "-x")
    assert all(part.arguments[: len(before)] == before for part in shared)
    assert sorted(file for part in shared for file in part.arguments[len(before) :]) == files
    realtime = checks.marked_files(venv.ROOT, checks.REALTIME_MARK)
    assert waiting == Part((*checks.REALTIME_SPREAD, *checks.REALTIME, "-x", *realtime))
    of_row = (*checks.MACHINE, "-x")
    assert len(machine) == checks.MACHINE_ROWS
    assert all(part.arguments[: len(of_row)] == of_row for part in machine)
    rows = [part.arguments[len(of_row) :] for part in machine]
    assert sorted(file for row in rows for file in row) == checks.machine_files(venv.ROOT)
    builders = [[file for file in row if "integration/builders" in file] for row in rows]
    assert sum(map(bool, builders)) == 1
    exclusive = checks.marked_files(venv.ROOT, checks.EXCLUSIVE_MARK)
    assert alone == Part((*checks.EXCLUSIVE, "-x", *exclusive))
    [unit] = checks.rounds(["-x"], unit=True, coverage=True)
    of_units = sorted(file for part in unit for file in part.arguments[len(before) :])
    assert of_units == [file for file in files if file.startswith(checks.UNIT_DIRECTORY)]
    for named in (("tests/unit",), ("tests/conftest.py::test_x",), ("-m", "kind")):
        assert checks.rounds(named, unit=False, coverage=False) == [[Part(named)]]
        [[one]] = checks.rounds(named, unit=True, coverage=True)
        assert one == Part((*checks.UNIT_ONLY, *checks.COVERAGE, *named))


def test_only_files_that_are_of_another_part_as_a_whole_are_left_to_it(tmp_path: Path) -> None:
    for name, text in {
        "tests/integration/test_machine.py": "pytestmark = [pytest.mark.kind, pytest.mark.docker]",
        "tests/integration/test_some.py": "@pytest.mark.docker\ndef test_one(): pass\n",
        "tests/e2e/test_all.py": "def test_one(): pass\n",
        "tests/unit/test_late.py": "pytestmark = pytest.mark.realtime",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = checks.files_beside_others(tmp_path)
    assert set(checks.test_files(tmp_path)) - set(found) == {
        "tests/integration/test_machine.py",
        "tests/e2e/test_all.py",
        "tests/unit/test_late.py",
    }


def test_shares_take_about_as_long_as_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVLOOP_TEST_CACHE", str(tmp_path / "cache"))
    files = [f"{name}.py" for name in "abcdef"]
    for name in files:
        (tmp_path / name).write_bytes(b"#" * 100_000)
    assert shares.divide(tmp_path, files, 3) == [
        ["a.py", "f.py"],
        ["b.py", "e.py"],
        ["c.py", "d.py"],
    ]
    shares.remember({"a.py": 9.0, "b.py": 3.0})
    shares.remember({"b.py": 4.0, "gone.py": 50.0})
    assert shares.divide(tmp_path, files, 2) == [["a.py"], ["b.py", "c.py", "d.py", "e.py", "f.py"]]
    assert shares.divide(tmp_path, ["a.py"], 3) == [["a.py"]]
    pairs = shares.divide(tmp_path, files, 3, lambda name: "ab" if name < "c" else "cdef")
    assert pairs == [["a.py", "b.py"], ["c.py", "d.py", "e.py", "f.py"]]
    (tmp_path / "cache/test-seconds.json").write_text("[nonsense")
    assert shares.seconds_of() == {}


def test_files_that_mark_a_test_are_found(tmp_path: Path) -> None:
    (tmp_path / "tests/unit").mkdir(parents=True)
    mark = f"import pytest\npytestmark = {checks.REALTIME_MARK}\n"
    (tmp_path / "tests/unit/test_late.py").write_text(mark)
    (tmp_path / "tests/unit/late.py").write_text(mark)
    assert checks.marked_files(tmp_path, checks.REALTIME_MARK) == ["tests/unit/test_late.py"]
    assert checks.marked_files(tmp_path, checks.EXCLUSIVE_MARK) == []


LATE = "tests/e2e/test_hot.py::test_late"


def test_a_few_failures_are_looked_at_again() -> None:
    fine = Outcome(status=0, counts=Counter(passed=10))
    late = Outcome(status=1, counts=Counter(passed=7, failed=1), failed=(LATE,))
    assert checks.worth_another_look([fine, late]) == (LATE,)
    assert checks.worth_another_look([fine]) == ()
    many = replace(late, failed=tuple(f"{LATE}{n}" for n in range(checks.MOST_AGAIN + 1)))
    assert checks.worth_another_look([many]) == ()
    broken = Outcome(status=4, counts=Counter(error=1))
    assert checks.worth_another_look([late, broken]) == ()


def test_what_passes_the_second_time_is_counted_as_rerun_and_what_fails_as_failed() -> None:
    fine = Outcome(status=0, counts=Counter(passed=10))
    late = Outcome(status=1, counts=Counter(passed=7, failed=1), failed=(LATE,))
    again = Outcome(status=0, counts=Counter(passed=1))
    after = checks.after_another_look([fine, late], again)
    assert checks.tests_status(after) == 0
    total = sum((outcome.counts for outcome in after), Counter[str]())
    assert total == Counter(passed=18, rerun=1)
    assert checks.closing_line(total, 1.0).strip("=") == " 18 passed, 1 rerun in 1.00s "
    worse = Outcome(status=1, counts=Counter(failed=1), failed=(LATE,))
    after = checks.after_another_look([fine, late], worse)
    assert checks.tests_status(after) == 1
    assert sum((outcome.counts for outcome in after), Counter[str]()) == Counter(
        passed=17, failed=1
    )


def test_only_paths_of_unit_tests_need_no_machine() -> None:
    assert checks.need_no_machine(["tests/unit/support", "-x"])
    assert not checks.need_no_machine(["tests/unit/support", "tests/e2e"])
    assert not checks.need_no_machine(["tests"])
    assert not checks.need_no_machine(["-x"])


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [((0, 0), 0), ((5, 0), 0), ((0, 5), 0), ((5, 5), 5), ((1, 0), 1), ((0, 3), 3), ((5, 1), 1)],
)
def test_a_failure_in_either_part_is_the_status(statuses: tuple[int, int], expected: int) -> None:
    assert checks.tests_status([Outcome(status=status) for status in statuses]) == expected


@pytest.mark.parametrize(
    ("counts", "seconds", "text"),
    [
        ({"skipped": 12, "passed": 3000}, 59.5, "3000 passed, 12 skipped in 59.50s"),
        (
            {"error": 2, "warnings": 1, "passed": 1, "failed": 3},
            3661.25,
            "3 failed, 1 passed, 1 warning, 2 errors in 3661.25s (1:01:01)",
        ),
        ({"error": 1}, 1.0, "1 error in 1.00s"),
        ({}, 0.1, "no tests ran in 0.10s"),
    ],
)
def test_the_closing_line_reads_like_that_of_pytest(
    counts: dict[str, int], seconds: float, text: str
) -> None:
    assert checks.closing_line(Counter(counts), seconds).strip("=") == f" {text} "
