"""Charts as SVG, drawn on the server. They need no script, and take their colours from the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, inf, log10

from markupsafe import Markup

WIDTH, HEIGHT = 640, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 20  # margins
TICKS = 3
TIMES = 5  # labels below
TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)
DAY_US = 86_400e6
CLASSES = ("", " second", " third")

Label = Callable[[float], str]
Axis = Callable[[float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Series:
    """A line. `values`: one for each time, None where nothing is known."""

    name: str
    values: Sequence[float | None]


def chart(
    times_us: Sequence[int],
    series: Sequence[Series],
    value_text: Label,
    time_text: Callable[[int], str],
    axis: Axis | None = None,
    until_us: int = 0,
    gap_us: float = inf,
) -> Markup:
    """Draw lines over time.

    Args:
        times_us: of the points, rising, Unix microseconds.
        value_text: of the labels at the left.
        time_text: of the labels below.
        axis: the top of the axis and the step between its labels, for the highest value; None: `scale`.
        until_us: the end of the axis below; 0: the last point.
        gap_us: a line breaks between points that are further apart.
    """
    known = [value for one in series for value in one.values if value is not None]
    top, step = (axis or scale)(max(known, default=0))
    first, last = (times_us[0], max(times_us[-1], until_us)) if times_us else (0, 1)
    span = max(last - first, 1)

    def x(at_us: int) -> float:
        return LEFT + (at_us - first) / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM)

    said = escape(_spoken(series, value_text))
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">']
    for n in range(round(top / step) + 1):
        at = y(n * step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(value_text(n * step))}</text>')
    for n in range(TIMES if times_us else 0):
        at_us = first + span * n // (TIMES - 1)
        anchor = "start" if n == 0 else "end" if n == TIMES - 1 else "middle"
        parts.append(
            f'<text x="{x(at_us):.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{escape(time_text(at_us))}</text>'
        )
    for number, one in enumerate(series):
        points: list[tuple[float, float] | None] = []
        before_us = first
        for at_us, value in zip(times_us, one.values, strict=True):
            if value is None or at_us - before_us > gap_us:
                points.append(None)
            if value is not None:
                points.append((x(at_us), y(value)))
            before_us = at_us
        for run in _runs(points):
            path = "L".join(f"{at_x:.1f} {at_y:.1f}" for at_x, at_y in run)
            if number == 0 and len(series) == 1:
                parts.append(
                    f'<path class="area" d="M{run[0][0]:.1f} {y(0):.1f}L{path}L{run[-1][0]:.1f} {y(0):.1f}Z"/>'
                )
            parts.append(f'<path class="line{CLASSES[number % 3]}" d="M{path}{"" if len(run) > 1 else "h1"}"/>')
    parts.append("</svg>")
    return Markup("".join(parts))  # noqa: S704 -- each text in it is escaped


def spark(values: Sequence[float], name: str) -> Markup:
    """A small line without axes."""
    top = max(max(values, default=0), 1e-9)
    step = 120 / max(len(values) - 1, 1)
    path = "L".join(f"{n * step:.1f} {22 - value / top * 20:.1f}" for n, value in enumerate(values))
    line = f'<path class="line" d="M{path}"/>' if values else ""
    label = escape(name)
    drawn = f'<svg class="chart spark" viewBox="0 0 120 24" role="img" aria-label="{label}">{line}</svg>'
    return Markup(drawn)  # noqa: S704 -- each text in it is escaped


def scale(highest: float) -> tuple[float, float]:
    """The top of an axis that shows `highest`, and the step between its labels: 1, 2 or 5 times a power of ten."""
    if highest <= 0:
        return 1.0, 1.0
    rough = highest / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999999)
    return step * max(ceil(highest / step - 1e-9), 1), step


def time_scale(highest_us: float) -> tuple[float, float]:
    """As `scale`, for microseconds: the steps are whole seconds, minutes, hours or days from 1 s on."""
    if highest_us <= 2e6:
        return scale(highest_us)
    rough = highest_us / TICKS
    step = next((unit * 1e6 for unit in TIME_STEPS_S if unit * 1e6 >= rough), 0.0)
    if not step:
        days, day_step = scale(highest_us / DAY_US)
        return days * DAY_US, max(day_step, 1) * DAY_US
    return step * max(ceil(highest_us / step - 1e-9), 1), step


def _runs(points: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """The unbroken pieces of a line."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is not None:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _spoken(series: Sequence[Series], value_text: Label) -> str:
    """The chart in words: the last and the highest value of each line."""
    said = []
    for one in series:
        known = [value for value in one.values if value is not None]
        if known:
            said.append(f"{one.name}: now {value_text(known[-1])}, at most {value_text(max(known))}")
    return "; ".join(said) or "nothing is known yet"
