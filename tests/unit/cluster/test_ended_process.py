"""What is said of a process that ended while its container goes on."""

from __future__ import annotations

import pytest

from devloop.cluster.rollout.ended_process import process_ended


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("A server is already running. Check /app/tmp/pids/server.pid.", True),
        ("could not create lock: File exists", True),
        ("NameError: name 'x' is not defined", False),
    ],
)
def test_a_process_that_finds_what_its_last_run_left_is_told_a_way_out(
    line: str, *, told: bool
) -> None:
    found = process_ended("web-1", "web", "exited 1", [line], lambda _: {})
    assert any("its last run left" in tip for tip in found.suggestions) is told
