"""Programs of a devloop that is killed."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.waiting import runs, until

if TYPE_CHECKING:
    from pathlib import Path

_RUN = """
import sys
from devloop.base.cancel import Cancel
from devloop.base.process import run
run(["sh", "-c", sys.argv[1]], cancel=Cancel(), on_line=print, limit=100.0)
"""


def test_a_program_ends_with_its_children_when_devloop_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"
    with subprocess.Popen([sys.executable, "-c", _RUN, script]) as devloop:
        until(pids.exists)
        devloop.kill()
    until(lambda: not any(runs(int(pid)) for pid in pids.read_text().split()))
