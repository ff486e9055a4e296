"""`script/test`: no test file is passed over, and its closing line counts all parts together."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support import run_report
from tests.support.machine import checks, shares, venv
from tests.support.machine.checks import Outcome, Part

if TYPE_CHECKING:
    from pathlib import Path

ENV = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
FILES = {
    "pytest.ini": f"[pytest]\naddopts = --import-mode=importlib\npythonpath = {venv.ROOT}\n",
    "conftest.py": "from tests.support.run_report import register as pytest_configure\n",
    "tests/unit/test_good.py": "def test_one(): pass\ndef test_two(): pass\n",
    "tests/unit/test_bad.py": "def test_bad(): assert 0\n",
    "tests/unit/test_deselected.py": "def test_machine(): pass\n",
    "tests/unit/test_skipped.py": "import pytest\npytest.skip('here', allow_module_level=True)\n",
    "tests/unit/test_empty.py": "def check(): pass\n",
    "tests/build/test_lost.py": "def test_lost(): pass\n",
    "sample_app/tests/test_app.py": "def test_app(): pass\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a test file in a directory that pytest passes over."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(venv, "ROOT", tmp_path)
    return tmp_path


def test_a_test_file_that_is_not_collected_is_found(
    tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("-q", "-k", "not machine", "-p", "no:cacheprovider")
    parts = [
        Part((*arguments, "tests")),
        Part((*arguments, "-p", "xdist", "-n", "1", "sample_app/tests")),
        Part(("--no-such-option",)),
    ]
    good, app, bad = checks.tests(parts, ENV)
    assert (good.status, app.status) == (1, 0)
    assert good.counts == Counter(passed=2, failed=1, skipped=1)
    assert app.counts == Counter(passed=1)
    assert set(good.seconds) == {"tests/unit/test_good.py", "tests/unit/test_bad.py"}
    assert checks.uncollected(checks.test_files(tree), [good, app]) == [
        "tests/build/test_lost.py",
        "tests/unit/test_empty.py",
    ]
    # One that came to no summary is an error; what those beside the first print is not lost.
    assert bad == Outcome(status=4, counts=Counter(error=1))
    said = capfd.readouterr().out
    assert said.index("test_bad.py") < said.index("1 passed") < said.index("--no-such-option", 200)


def test_both_sides_name_the_report_alike() -> None:
    assert checks.REPORT == run_report.VARIABLE


@pytest.mark.parametrize(("cores", "processes"), [(1, 2), (2, 3), (4, 6), (64, 8)])
def test_there_are_more_processes_than_cores(cores: int, processes: int) -> None:
    assert checks.processes(cores) == processes


def test_the_whole_tree_runs_in_rounds_and_named_tests_at_once() -> None:
    shared, [waiting], machine, alone = checks.rounds(["-x"], unit=False, coverage=True)
    files = checks.files_beside_others(venv.ROOT)
    before = (*checks.BESIDE_OTHERS, *checks.COVERAGE, "-x")
    assert all(part.arguments[: len(before)] == before for part in shared)
    assert sorted(file for part in shared for file in part.arguments[len(before) :]) == files
    realtime = checks.realtime_files(venv.ROOT)
    assert waiting == Part((*checks.REALTIME_SPREAD, *checks.REALTIME, "-x", *realtime))
    parts = checks.machine_files(venv.ROOT)
    own = [checks.MACHINE_ONLY_DIRECTORY]
    assert machine == [Part((*checks.MACHINE, "-x", *files)) for files in (own, parts)]
    assert alone == [Part((*checks.EXCLUSIVE, "-x"))]
    [unit] = checks.rounds(["-x"], unit=True, coverage=True)
    of_units = sorted(file for part in unit for file in part.arguments[len(before) :])
    assert of_units == [file for file in files if file.startswith(checks.UNIT_DIRECTORIES)]
    for named in (("tests/unit",), ("tests/conftest.py::test_x",), ("-m", "kind")):
        assert checks.rounds(named, unit=False, coverage=False) == [[Part(named)]]
        [[one]] = checks.rounds(named, unit=True, coverage=True)
        assert one == Part((*checks.UNIT_ONLY, *checks.COVERAGE, *named))


def test_only_files_that_are_of_another_part_as_a_whole_are_left_to_it(tree: Path) -> None:
    for name, text in {
        "tests/integration/test_machine.py": "pytestmark = [pytest.mark.kind, pytest.mark.docker]",
        "tests/integration/test_some.py": "@pytest.mark.docker\ndef test_one(): pass\n",
        "tests/e2e/test_all.py": "def test_one(): pass\n",
        "tests/unit/test_late.py": "pytestmark = pytest.mark.realtime",
    }.items():
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(text)
    found = checks.files_beside_others(tree)
    assert set(checks.test_files(tree)) - set(found) == {
        "tests/integration/test_machine.py",
        "tests/e2e/test_all.py",
        "tests/unit/test_late.py",
    }


def test_shares_take_about_as_long_as_each_other(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVLOOP_TEST_CACHE", str(tree / "cache"))
    files = [f"{name}.py" for name in "abcdef"]
    for name in files:
        (tree / name).write_bytes(b"#" * 100_000)
    assert shares.divide(tree, files, 3) == [["a.py", "f.py"], ["b.py", "e.py"], ["c.py", "d.py"]]
    shares.remember({"a.py": 9.0, "b.py": 3.0})
    shares.remember({"b.py": 4.0, "gone.py": 50.0})
    assert shares.divide(tree, files, 2) == [["a.py"], ["b.py", "c.py", "d.py", "e.py", "f.py"]]
    assert shares.divide(tree, ["a.py"], 3) == [["a.py"]]
    (tree / "cache/test-seconds.json").write_text("[nonsense")
    assert shares.seconds_of() == {}


def test_files_with_a_realtime_test_are_found(tree: Path) -> None:
    mark = f"import pytest\npytestmark = {checks.REALTIME_MARK}\n"
    (tree / "tests/unit/test_late.py").write_text(mark)
    (tree / "tests/unit/late.py").write_text(mark)
    assert checks.realtime_files(tree) == ["tests/unit/test_late.py"]


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
