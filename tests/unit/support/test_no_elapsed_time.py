"""What a test may not do: a busy machine would fail it, whatever the code does."""

from __future__ import annotations

import re

import pytest

from tests.support.machine import venv

ELAPSED = re.compile(
    r"\bassert\b.*\b(monotonic|perf_counter|process_time)\(\)\s*-"
    r"|[<>]=?\s*(time\.)?(monotonic|perf_counter|process_time)\(\)\s*-"
)


def test_no_test_asserts_how_long_something_took() -> None:
    """Benchmarks measure; tests inject a clock, or let what is too slow end in another way."""
    found = [
        f"{file.relative_to(venv.ROOT)}:{number}"
        for directory in ("tests", "sample_app/tests")
        for file in (venv.ROOT / directory).rglob("*.py")
        if "bench" not in file.parts and file.name != "test_no_elapsed_time.py"
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if ELAPSED.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("assert time.monotonic() - began < 1", True),
        ("assert 0.2 < perf_counter() - since", True),
        ("assert time.monotonic() < deadline", False),
        ("deadline = time.monotonic() + 5", False),
        ("while (left := deadline - time.monotonic()) > 0:", False),
    ],
)
def test_such_an_assertion_is_recognised(line: str, is_one: bool) -> None:
    assert bool(ELAPSED.search(line)) == is_one
