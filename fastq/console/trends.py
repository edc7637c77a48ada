"""The charts of a queue, or of all queues, over an hour to a week."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from fastq.console.charts import Axis, Label, Series, chart, scale, time_scale
from fastq.console.render import count_text, rate_text, span_text
from fastq.services.trends import HOUR_S, Trends, step_of

SPANS_H = {"1h": 1, "6h": 6, "24h": 24, "7d": 168}
DEFAULT = "1h"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart with its caption and the names of its lines."""

    caption: str
    names: tuple[str, ...]
    svg: Markup


async def charts_of(trends: Trends, queue: str | None, span: str, now_us: int) -> list[Drawn]:
    """Draw what the ring file has of a queue, None for all queues. Empty before the first points.

    The lines break where the server was idle or did not run: then there are no points.
    """
    hours = SPANS_H.get(span, SPANS_H[DEFAULT])
    points = await trends.points(queue, hours)
    if not points:
        return []
    is_long = hours > 24
    gap_us = 2.5e6 * step_of(hours * HOUR_S)

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

    def drawn(lines: list[Series], text: Label, axis: Axis = scale) -> Markup:
        return chart(times_us, lines, text, time_text, axis, now_us, gap_us)

    return [
        Drawn("Jobs a second", ("in", "done", "failed"), drawn(rates, rate_text)),
        Drawn("Unfinished jobs", (), drawn(depth, lambda value: count_text(round(value)))),
        Drawn("Wait from ready to leased", ("half of the jobs", "95 of 100"), drawn(waits, _span, time_scale)),
        Drawn("Age of the oldest ready job", (), drawn(oldest, _span, time_scale)),
    ]


def _ms(values: Sequence[float | None]) -> list[float | None]:
    """Milliseconds as microseconds."""
    return [None if value is None else value * 1000 for value in values]


def _span(us: float) -> str:
    return span_text(us) if us else "0"
