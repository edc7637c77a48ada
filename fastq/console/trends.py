"""The charts of a queue, or of all queues, over an hour to a week."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from fastq.console.charts import Series, chart, time_scale
from fastq.console.render import count_text, rate_text, span_text
from fastq.services.trends import Trends

SPANS_H = {"1h": 1, "6h": 6, "24h": 24, "7d": 168}
DEFAULT = "1h"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart with its caption and the names of its lines."""

    caption: str
    names: tuple[str, ...]
    svg: Markup


async def charts_of(trends: Trends, queue: str | None, span: str) -> list[Drawn]:
    """Draw what the ring file has of a queue, None for all queues. Empty before the first points."""
    points = await trends.points(queue, SPANS_H.get(span, SPANS_H[DEFAULT]))
    if not points:
        return []
    is_long = SPANS_H.get(span, 1) > 24

    def time_text(at_us: int) -> str:
        return f"{datetime.fromtimestamp(at_us / 1e6, UTC):{'%a %H:%M' if is_long else '%H:%M'}}"

    times_us = [point.at_s * 1_000_000 for point in points]
    rates = [
        Series("in", [point.in_per_s for point in points]),
        Series("done", [point.out_per_s for point in points]),
        Series("failed", [point.failed_per_s for point in points]),
    ]
    waits = [
        Series("half of the jobs", _ms([point.wait_p50_ms for point in points])),
        Series("95 of 100", _ms([point.wait_p95_ms for point in points])),
    ]
    depth = [Series("unfinished jobs", [point.depth for point in points])]
    oldest = [Series("the oldest ready job", [point.oldest_s * 1e6 for point in points])]
    return [
        Drawn("Jobs a second", ("in", "done", "failed"), chart(times_us, rates, rate_text, time_text)),
        Drawn("Unfinished jobs", (), chart(times_us, depth, lambda value: count_text(round(value)), time_text)),
        Drawn(
            "Wait from ready to leased",
            ("half of the jobs", "95 of 100"),
            chart(times_us, waits, _span, time_text, time_scale),
        ),
        Drawn("Age of the oldest ready job", (), chart(times_us, oldest, _span, time_text, time_scale)),
    ]


def _ms(values: Sequence[float | None]) -> list[float | None]:
    """Milliseconds as microseconds."""
    return [None if value is None else value * 1000 for value in values]


def _span(us: float) -> str:
    return span_text(us) if us else "0"
