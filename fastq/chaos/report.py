"""The report of a run: one HTML file that loads nothing."""

from __future__ import annotations

from html import escape
from itertools import pairwise

from fastq.chaos.accounting import Kill, percentile
from fastq.chaos.verdict import FAILED, ZERO_LOSS, Outcome

WIDTH, HEIGHT, LEFT, BOTTOM = 900, 260, 60, 30  # of a chart, pixels
STEPS = 180  # a chart's columns
GRID = 4

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
.good { color: #17692f } .bad { color: #b3261e }
table { border-collapse: collapse } td, th { text-align: left; padding: .2em 1.5em .2em 0; vertical-align: top }
svg { width: 100%; height: auto } svg text { font-size: 12px; fill: #666 }
pre { white-space: pre-wrap; background: #f6f6f6; padding: 1em }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #ddd } pre { background: #222 }
  .good { color: #6fcf87 } .bad { color: #ff8a80 } svg text { fill: #999 } }
"""


def html(outcome: Outcome) -> str:
    """The report."""
    good = outcome.is_zero_loss
    figures = outcome.figures().items()
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in figures)
    problems = "" if good else f"<h2>What is wrong</h2><pre>{escape(chr(10).join(outcome.problems))}</pre>"
    plan = outcome.plan
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fastq chaos: {"zero loss" if good else "failed"}</title>
<style>{STYLE}</style></head><body>
<h1 class="{"good" if good else "bad"}">{ZERO_LOSS if good else FAILED}</h1>
<p>{plan.jobs:,} jobs, {plan.workers} workers in {plan.processes} processes, {plan.kills} kills.</p>
<table>{rows}</table>{problems}
<h2>Jobs acked a second, and the kills</h2>{_rate_chart(outcome)}
<h2>Time from submit to ack: share of jobs within a time</h2>{_latency_chart(outcome)}
<h2>Kills</h2>{_kill_table(outcome)}
</body></html>
"""


def _svg(inner: str, title: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{inner}</svg>'


def _x(share: float) -> float:
    return LEFT + (WIDTH - LEFT - 10) * share


def _y(share: float) -> float:
    return (HEIGHT - BOTTOM) * (1 - share) + 10 * share


def _grid(most_x: float, unit_x: str, most_y: float, unit_y: str) -> str:
    lines = []
    for part in range(GRID + 1):
        share = part / GRID
        x, y = _x(share), _y(share)
        lines.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{most_y * share:,.0f}{unit_y}</text>')
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{most_x * share:,.1f} {unit_x}</text>')
    return "".join(lines)


def _rate_chart(outcome: Outcome) -> str:
    span_us = max(1, outcome.ended_us - outcome.begun_us)
    counts = [0] * STEPS
    for at_us in outcome.accounts.acked.values():
        counts[min(STEPS - 1, (at_us - outcome.begun_us) * STEPS // span_us)] += 1
    step_s = span_us / 1e6 / STEPS
    most = max(1, *counts)
    width = (WIDTH - LEFT - 10) / STEPS
    bars = "".join(
        f'<rect x="{_x(n / STEPS):.1f}" y="{_y(count / most):.1f}" width="{width:.2f}" '
        f'height="{_y(0) - _y(count / most):.1f}" fill="#3b7dd8"/>'
        for n, count in enumerate(counts)
        if count
    )
    kills = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="10" y2="{_y(0):.1f}" stroke="#c62828" stroke-dasharray="3 3"/>'
        for x in (_x((kill.begun_us - outcome.begun_us) / span_us) for kill in outcome.accounts.kills)
    )
    return _svg(_grid(span_us / 1e6, "s", most / step_s, "/s") + bars + kills, "jobs acked a second over time")


def _latency_chart(outcome: Outcome) -> str:
    """The scale ends at the 99th percentile: the slowest percent would hide the rest."""
    ascending = outcome.latencies_ms
    if not ascending:
        return "<p>No job was acked.</p>"
    most_ms = max(1.0, percentile(ascending, 0.99))
    shares = [(n + 1) / STEPS for n in range(STEPS)]
    points = [
        (_x(min(1.0, ascending[min(len(ascending) - 1, int(share * len(ascending)))] / most_ms)), _y(share))
        for share in shares
    ]
    path = "".join(
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#3b7dd8" stroke-width="2"/>'
        for (x1, y1), (x2, y2) in pairwise(points)
    )
    return _svg(_grid(most_ms, "ms", 100, "%") + path, "distribution of latencies")


def _kill_table(outcome: Outcome) -> str:
    def row(number: int, kill: Kill) -> str:
        at_s = (kill.begun_us - outcome.begun_us) / 1e6
        processes = f"{escape(kill.instance_before)} → {escape(kill.instance_after or 'none')}"
        return f"<tr><td>{number}</td><td>{at_s:,.1f} s</td><td>{kill.in_flight}</td><td>{processes}</td></tr>"

    rows = "".join(row(number, kill) for number, kill in enumerate(outcome.accounts.kills, 1))
    return f"<table><tr><th></th><th>when</th><th>requests cut off</th><th>process</th></tr>{rows}</table>"
