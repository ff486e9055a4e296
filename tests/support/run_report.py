"""What pytest reports to `script/test`: the test files that it collected, and how its tests ended.

`script/test` runs pytest more than once and counts everything together. Whoever spreads a run over
processes collects in the workers; their files come to the controller with what else they report.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

# Names the file to write; without it nothing is reported.
VARIABLE = "DEVLOOP_TEST_REPORT"
OUTCOMES = ("failed", "passed", "skipped", "xfailed", "xpassed", "warnings", "error")


class RunReport:
    """A plugin that writes `{"collected": [path...], "counts": {outcome: number}, "failed": [id of
    a test...], "seconds": {path: seconds that its tests took}}` at the end.

    A file that holds no test counts as not collected; one that is skipped or broken as a whole, or
    whose tests are all deselected, as collected.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._collected: set[str] = set()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.nodeid.endswith(".py") and (report.result or not report.passed):
            self._collected.add(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid.partition("::")[0]] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["collected"] = sorted(self._collected)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._collected.update(getattr(node, "workeroutput", {}).get("collected", ()))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        stats = terminalreporter.stats
        counts = {name: len(stats[name]) for name in OUTCOMES if stats.get(name)}
        seconds = {file: round(seconds, 2) for file, seconds in self._seconds.items()}
        bad = [report.nodeid for name in ("failed", "error") for report in stats.get(name, ())]
        found = {
            "collected": sorted(self._collected),
            "counts": counts,
            "failed": sorted(set(bad)),
            "seconds": seconds,
        }
        self._place.write_text(json.dumps(found))


def register(config: pytest.Config) -> None:
    """Report this run if somebody asks for it."""
    if place := os.environ.get(VARIABLE):
        config.pluginmanager.register(RunReport(Path(place)))
