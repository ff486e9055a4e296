"""What a benchmark found, as a table and as JSON. Pure: figures in, text out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from devloop.base.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence


_STAGES = ("detect", "sync", "build", "push", "deploy", "rollout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One edit: milliseconds from the save to the end of each stage's work and of the whole."""

    total: float
    stages: dict[str, float]
    how: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one column, in milliseconds."""

    n: int
    p50: float
    p95: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figures:
        ordered = sorted(values)
        return cls(
            n=len(ordered),
            p50=percentile(ordered, 50),
            p95=percentile(ordered, 95),
            least=ordered[0],
            most=ordered[-1],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`baseline` holds what it takes, in the same run, to replace the image by one that is pushed
    already, in the way named by `baseline_how`; empty when it could not be measured, and
    `baseline_reason` is why."""

    service: str
    file: str
    samples: tuple[Sample, ...]
    baseline: tuple[float, ...] = ()
    baseline_how: str = ""
    baseline_reason: str = ""

    @property
    def ratio(self) -> float | None:
        """The median edit over the median baseline."""
        if not self.baseline:
            return None
        return Figures.of([s.total for s in self.samples]).p50 / Figures.of(self.baseline).p50

    @property
    def rows(self) -> list[tuple[str, Figures]]:
        columns: dict[str, Sequence[float]] = {
            stage: [s.stages[stage] for s in self.samples if stage in s.stages] for stage in _STAGES
        }
        columns |= {"total": [s.total for s in self.samples], "baseline": self.baseline}
        return [(name, Figures.of(values)) for name, values in columns.items() if values]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of a sorted, non-empty sequence; between two values by their distance."""
    place = (len(ordered) - 1) * percent / 100
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def as_table(report: Report) -> str:
    lines = [
        f"{report.service}: {len(report.samples)} edits of {report.file}, save to ready pod, ms",
        "",
        f"{'':<8}{'p50':>8}{'p95':>8}{'min':>8}{'max':>8}{'n':>5}",
    ]
    for name, f in report.rows:
        if name == "total":
            lines.append("-" * 45)
        lines.append(f"{name:<8}{f.p50:>8.0f}{f.p95:>8.0f}{f.least:>8.0f}{f.most:>8.0f}{f.n:>5}")
    if report.ratio is not None:
        how = f"{report.baseline_how}, images pushed before"
        lines += ["", f"total is {report.ratio:.2f} x the baseline: {how}"]
    else:
        lines += ["", f"no baseline: {report.baseline_reason}"]
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, Any]:
    """Milliseconds; the samples in order."""
    return {
        "service": report.service,
        "file": report.file,
        "unit": "ms",
        "samples": [
            {"total": round(s.total, 1), "how": s.how}
            | {stage: round(ms, 1) for stage, ms in s.stages.items()}
            for s in report.samples
        ],
        "baseline": {
            "how": report.baseline_how,
            "reason": report.baseline_reason,
            "samples": [round(ms, 1) for ms in report.baseline],
        },
        "summary": {
            name: {
                "p50": round(f.p50, 1),
                "p95": round(f.p95, 1),
                "min": round(f.least, 1),
                "max": round(f.most, 1),
                "n": f.n,
            }
            for name, f in report.rows
        },
        "ratio": round(report.ratio, 3) if report.ratio is not None else None,
    }
