"""`script/test`: its runs of pytest side by side, with real ones."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import checks, venv
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
