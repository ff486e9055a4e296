"""The benchmark's figures and their two forms."""

from __future__ import annotations

import pytest

from devloop.app.bench_report import Figures, Report, Sample, as_json, as_table, percentile


def report(*, baseline: tuple[float, ...] = (400.0, 500.0, 600.0)) -> Report:
    return Report(
        service="web",
        file="app.py",
        samples=(
            Sample(total=550.0, stages={"detect": 25.0, "build": 10.0, "push": 15.0}, how="delta"),
            Sample(total=650.0, stages={"detect": 35.0, "sync": 9.0}),
        ),
        baseline=baseline,
        baseline_how="in-place" if baseline else "",
        baseline_reason="" if baseline else "there is no registry",
    )


@pytest.mark.parametrize(
    ("values", "percent", "wanted"),
    [([7.0], 95, 7.0), ([1.0, 3.0], 50, 2.0), ([float(n) for n in range(101)], 95, 95.0)],
)
def test_percentile(values: list[float], percent: float, wanted: float) -> None:
    assert percentile(values, percent) == wanted


def test_figures_do_not_need_order() -> None:
    assert Figures.of([3.0, 1.0, 2.0]) == Figures(n=3, p50=2.0, p95=2.9, least=1.0, most=3.0)


def test_the_table_has_a_row_a_stage_and_the_ratio_to_the_baseline() -> None:
    lines = as_table(report()).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line[:1].isalpha()}
    assert rows["detect"] == ["30", "34", "25", "35", "2"]
    assert rows["sync"] == ["9", "9", "9", "9", "1"]
    assert rows["baseline"] == ["500", "590", "400", "600", "3"]
    assert lines[-1].startswith("total is 1.20 x the baseline: in-place")
    assert "deploy" not in rows
    assert as_table(report(baseline=())).splitlines()[-1] == "no baseline: there is no registry"


def test_json_holds_every_sample() -> None:
    found = as_json(report())
    assert [s["total"] for s in found["samples"]] == [550.0, 650.0]
    assert found["ratio"] == 1.2
    assert as_json(report(baseline=()))["ratio"] is None
