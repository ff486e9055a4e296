"""`script/test`: no test file is passed over, and its closing line counts all parts together."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support import run_report
from tests.support.machine import checks, venv
from tests.support.machine.checks import Outcome

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


@pytest.mark.parametrize("spread", [(), ("-p", "xdist", "-n", "1")])
def test_a_test_file_that_is_not_collected_is_found(tree: Path, spread: tuple[str, ...]) -> None:
    arguments = ["-q", "-k", "not machine", "-p", "no:cacheprovider", *spread]
    outcome = checks.tests([*arguments, "tests", "sample_app/tests"], ENV)
    assert outcome.status == 1
    assert outcome.counts == Counter(passed=3, failed=1, skipped=1)
    assert checks.uncollected(tree, [outcome]) == [
        "tests/build/test_lost.py",
        "tests/unit/test_empty.py",
    ]


def test_a_run_without_a_summary_is_an_error(tree: Path) -> None:
    outcome = checks.tests(["--no-such-option"], ENV)
    assert outcome == Outcome(status=4, counts=Counter(error=1))


def test_both_sides_name_the_report_alike() -> None:
    assert checks.REPORT == run_report.VARIABLE


@pytest.mark.parametrize(("cores", "processes"), [(1, "2"), (2, "3"), (4, "6"), (64, "8")])
def test_there_are_more_processes_than_cores(cores: int, processes: str) -> None:
    assert checks.spread_over(cores)[:2] == ("-n", processes)


def test_the_whole_tree_runs_in_parts_and_named_tests_in_one() -> None:
    spread, waiting, machine = checks.parts([], unit=False, coverage=False)
    files = checks.realtime_files(venv.ROOT)
    assert spread == [*checks.spread_over(os.cpu_count() or 1), *checks.BESIDE_OTHERS]
    assert waiting == [*checks.REALTIME_SPREAD, *checks.REALTIME, *files]
    assert machine == [*checks.ALONE]
    assert checks.parts([], unit=True, coverage=False) == [spread, waiting]
    assert checks.parts(["-x"], unit=False, coverage=True) == [
        [*spread, *checks.COVERAGE, "-x"],
        [*checks.REALTIME_SPREAD, *checks.REALTIME, "-x", *files],
        [*machine, "-x"],
    ]
    for named in (["tests/unit"], ["tests/conftest.py::test_x"], ["-m", "kind"]):
        assert checks.parts(named, unit=False, coverage=False) == [named]
        assert checks.parts(named, unit=True, coverage=True) == [
            [*checks.UNIT_ONLY, *checks.COVERAGE, *named]
        ]


def test_files_with_a_realtime_test_are_found(tree: Path) -> None:
    mark = f"import pytest\npytestmark = {checks.REALTIME_MARK}\n"
    (tree / "tests/unit/test_late.py").write_text(mark)
    (tree / "tests/unit/late.py").write_text(mark)
    assert checks.realtime_files(tree) == ["tests/unit/test_late.py"]


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
