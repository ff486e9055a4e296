"""What a benchmark found, as a table, as JSON and as a plot. Pure: figures in, text out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Figures", "Report", "Sample", "as_json", "as_svg", "as_table", "percentile"]

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
    """`floor` holds what the same cluster needs, in the same run and without devloop's loop, to
    replace the image in the way named by `floor_name`; empty when it could not be measured, and
    `floor_reason` is why."""

    service: str
    file: str
    samples: tuple[Sample, ...]
    floor: tuple[float, ...] = ()
    floor_name: str = ""
    floor_reason: str = ""

    @property
    def ratio(self) -> float | None:
        """The median edit over the median floor."""
        if not self.floor:
            return None
        return Figures.of([s.total for s in self.samples]).p50 / Figures.of(self.floor).p50

    @property
    def rows(self) -> list[tuple[str, Figures]]:
        rows: list[tuple[str, Figures]] = []
        for stage in _STAGES:
            values = [s.stages[stage] for s in self.samples if stage in s.stages]
            if values:
                rows.append((stage, Figures.of(values)))
        rows.append(("total", Figures.of([s.total for s in self.samples])))
        if self.floor:
            rows.append(("floor", Figures.of(self.floor)))
        return rows


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
        lines += [
            "",
            f"total is {report.ratio:.2f} x the floor: {report.floor_name}, images pushed before",
        ]
    else:
        lines += ["", f"no floor: {report.floor_reason}"]
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
        "floor": {
            "name": report.floor_name,
            "reason": report.floor_reason,
            "samples": [round(ms, 1) for ms in report.floor],
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


_COLOURS = {
    "detect": "#4c78a8",
    "sync": "#72b7b2",
    "build": "#f58518",
    "push": "#eeca3b",
    "deploy": "#b279a2",
    "rollout": "#54a24b",
}
_WIDTH, _BAR, _LEFT, _TOP = 760, 18, 48, 56


def as_svg(report: Report) -> str:
    """One stacked bar an edit, and the floor's median as a line."""
    most = max([*(s.total for s in report.samples), *report.floor, 1.0])
    scale = (_WIDTH - _LEFT - 70) / most
    height = _TOP + len(report.samples) * (_BAR + 4) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="18">{escape(report.service)}: save to ready, ms</text>',
    ]
    used = [stage for stage in _STAGES if any(stage in s.stages for s in report.samples)]
    for number, stage in enumerate(used):
        at = _LEFT + number * 90
        parts.append(f'<rect x="{at}" y="30" width="12" height="12" fill="{_COLOURS[stage]}"/>')
        parts.append(f'<text x="{at + 16}" y="40">{stage}</text>')
    for number, sample in enumerate(report.samples):
        y = _TOP + number * (_BAR + 4)
        parts.append(f'<text x="8" y="{y + 13}">#{number + 1}</text>')
        x = float(_LEFT)
        for stage in used:
            width = sample.stages.get(stage, 0.0) * scale
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" '
                f'fill="{_COLOURS[stage]}"/>'
            )
            x += width
        end = _LEFT + sample.total * scale
        if end > x:
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{end - x:.1f}" height="{_BAR}" fill="#ddd"/>'
            )
        parts.append(f'<text x="{max(x, end) + 6:.1f}" y="{y + 13}">{sample.total:.0f}</text>')
    if report.floor:
        x = _LEFT + Figures.of(report.floor).p50 * scale
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height - 12}" '
            'stroke="#d62728" stroke-dasharray="4 3"/>'
            f'<text x="{x + 4:.1f}" y="{height - 4}" fill="#d62728">floor</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
