"""The screen of `fastq top`: what the server answered, as lines that fit a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from fastq.cli.tables import Column, aligned, cell, cut, fitted
from fastq.client.operator_models import FailureGroup, Queue
from fastq.client.stats_models import Quantiles, QueueStats, Stats
from fastq.console.render import bytes_text, rate_text, span_text

HELD = frozenset({"paused", "no_worker", "concurrency", "rate_limit", "group_concurrency"})
STALE_S = 60  # a ready job that waits longer makes its queue the headline
HEADLINE_LINES = 2
RATES = ("submitted", "leased", "acked", "failed", "dead")
PERIODS = {"1s": "1 s", "10s": "10 s", "60s": "60 s"}
ROWS_MIN = 3  # of queues; before fewer are shown, the figures are left out
NAME_COLUMNS_MAX = 24
LABEL_COLUMNS, FIGURE_COLUMNS, FIGURES_GAP = 10, 9, 4
COLUMNS = (
    Column("QUEUE", least=16), Column("READY", is_whole=True), Column("OLDEST", 2, True), Column("RUNNING", 5, True),
    Column("IN/S", 4, True), Column("OUT/S", 3, True), Column("FAILED/S", 7, True), Column("DEAD", 6, True),
    Column("WHY", 1, least=34),
)  # fmt: skip
NUMBERS = range(1, len(COLUMNS) - 1)  # aligned to the right


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server answered at one time. queues: the first ones with ready jobs. failures: the last seen first."""

    stats: Stats
    is_ready: bool
    queues: dict[str, Queue] = field(default_factory=dict)
    failures: Sequence[FailureGroup] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What a screen is about. seen: the last answer. trouble: why there is no newer one; empty if there is one."""

    url: str
    seen: Seen | None = None
    trouble: str = ""
    keys: str = ""
    is_paused: bool = False


def screen(view: View, width: int, height: int | None = None) -> list[Text]:
    """The lines of a screen, none wider than `width`; exactly `height` of them, or as many as there are to show."""
    head = [*_title(view, width), *_headline(view, width)]
    foot = [Text(cut(view.keys, width), "dim")] if view.keys else []
    if view.seen is None:
        return _filled(head, foot, height)
    stats = view.seen.stats
    totals = [Text(), _totals(stats, width)]
    figures = [Text(), *_figures(stats, width)] if stats.rates is not None else []
    failures = _failures(view.seen, width)
    room = len(stats.queues)
    if height is not None:
        room = height - len(head) - len(totals) - len(foot) - 2
        for part in (figures, failures):
            if room - len(part) < min(ROWS_MIN, len(stats.queues)):
                part.clear()
            room -= len(part)
    queues = _queues(view.seen, width, max(0, room))
    return _filled([*head, *totals, *figures, *queues, *failures], foot, height)


def _filled(lines: list[Text], foot: list[Text], height: int | None) -> list[Text]:
    if height is None:
        return [*lines, *foot]
    lines = lines[: height - len(foot)]
    return [*lines, *[Text()] * (height - len(foot) - len(lines)), *foot][-height:]


def _title(view: View, width: int) -> list[Text]:
    """Which server this is, and of when the figures are."""
    stats = view.seen.stats if view.seen else None
    parts = [f"fastq {cell(stats.version)}" if stats else "fastq", cell(view.url)]
    if stats:
        parts += [f"up {span_text(stats.uptime_s * 1e6)}"]
        parts += [bytes_text(stats.memory.rss_bytes)] if stats.memory else ["jobs of this key's owner"]
    state = "paused" if view.is_paused else ("no answer" if view.trouble else "")
    right = f"{state + '  ' if state else ''}{stats.at:%H:%M:%S}Z" if stats else state
    left = cut("  ".join(parts), max(0, width - len(right) - 2)) if width > len(right) + 2 else ""
    line = cut(f"{left:<{width - len(right)}}{right}" if left else right, width)
    return [Text(line, "bold")]


# --- the headline -----------------------------------------------------------------------------------------------------


def _headline(view: View, width: int) -> list[Text]:
    text, style = headline(view)
    lines = textwrap.wrap(text, max(1, width), break_on_hyphens=False, drop_whitespace=True)
    if len(lines) > HEADLINE_LINES:
        lines[HEADLINE_LINES - 1 :] = [" ".join(lines[HEADLINE_LINES - 1 :])]
    return [Text(cut(line, width), style) for line in lines]


def headline(view: View) -> tuple[str, str]:
    """Whether work moves, in words, and the style of these."""
    if view.trouble:
        return f"{cell(view.trouble)}. Trying again.", "bold red"
    if view.seen is None:
        return "Asking the server.", "dim"
    if not view.seen.is_ready:
        return "The server takes no work: it is stopping, or its disk is full.", "bold red"
    stuck = [queue for queue in view.seen.stats.queues if _is_stuck(queue, view.seen)]
    if stuck:
        more = f" {_counted(len(stuck) - 1, 'more queue is', 'more queues are')} stuck." if len(stuck) > 1 else ""
        return f"{_stands(stuck[0], view.seen)}.{more}", "bold yellow"
    return _moves(view.seen.stats)


def _is_stuck(queue: QueueStats, seen: Seen) -> bool:
    """Whether its jobs are held back, and for long. A key of one owner does not see for how long."""
    found = seen.queues.get(queue.name)
    if found is None or not queue.runnable or found.why.code not in HELD:
        return False
    return queue.oldest_ready_s is None or queue.oldest_ready_s > STALE_S


def _stands(queue: QueueStats, seen: Seen) -> str:
    waits = _counted(queue.runnable, "waits", "wait")
    oldest = f", the oldest for {span_text(queue.oldest_ready_s * 1e6)}" if queue.oldest_ready_s else ""
    return f"{cell(queue.name)}: {waits}{oldest}: {cell(seen.queues[queue.name].why.words)}"


def _moves(stats: Stats) -> tuple[str, str]:
    if stats.runnable and stats.rates is not None:
        age = span_text(stats.oldest_ready_s * 1e6) if stats.oldest_ready_s else ""
        if not stats.rates["leased"]["10s"]:
            oldest = f", the oldest for {age}" if age else ""
            waits = _counted(stats.runnable, "waits", "wait")
            return f"{waits}{oldest}: none was leased in the last 10 s.", "yellow"
        oldest = f"; the oldest ready job waits for {age}" if age else ""
        rates = {name: rate_text(stats.rates[name]["10s"]) for name in ("submitted", "acked")}
        return f"Work is moving: {rates['submitted']} in and {rates['acked']} done a second{oldest}.", "green"
    if stats.runnable:
        return f"{_counted(stats.runnable, 'of your jobs waits', 'of your jobs wait')}.", ""
    if stats.running:
        return f"No job waits. {_counted(stats.running, 'runs', 'run')}.", "green"
    if not stats.queue_count and not any(stats.states.values()):
        return 'No jobs yet. Submit the first one: fastq submit \'{"to": "ann@example.com"}\' --queue mail', ""
    return "Nothing waits and nothing runs.", "green"


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


# --- figures ----------------------------------------------------------------------------------------------------------


def _totals(stats: Stats, width: int) -> Text:
    """The counts, as many as fit."""
    dead = f" ({stats.rates['dead']['60s'] * min(60, stats.uptime_s):,.0f} in the last minute)" if stats.rates else ""
    pieces = [
        (f"{stats.runnable:,} runnable", ""),
        (f"{stats.running:,} running", ""),
        (f"{stats.scheduled:,} scheduled", ""),
        (f"{stats.dead:,} dead{dead}", "red" if stats.dead else ""),
        (_counted(stats.queue_count, "queue", "queues"), ""),
    ]
    line = Text()
    for text, style in pieces:
        gap = "   " if line else ""
        if line and len(line) + len(gap) + len(text) > width:
            break
        line.append(gap).append(cut(text, width), style)
    return line


def _figures(stats: Stats, width: int) -> list[Text]:
    """Rates, and beside them latencies if there is room."""
    assert stats.rates is not None
    left = [["a second", *PERIODS.values()]]
    left += [[name, *(rate_text(stats.rates[name][period]) for period in PERIODS)] for name in RATES]
    lines = _rows(left)
    if stats.latency_ms is not None and stats.wal is not None:
        found, log = stats.latency_ms, stats.wal
        right = [["to", "p50", "p95", "p99"]]
        right += [
            [name, *_spans(of)] for name, of in (
                ("durable", found.submit_to_durable), ("lease", found.submit_to_lease), ("ack", found.lease_to_ack),
                ("sync", log.fsync_ms),
            )
        ]  # fmt: skip
        about = f"log {bytes_text(log.bytes)}, {rate_text(log.batches_per_s)} batches a second"
        lines = _beside(lines, [*_rows(right), about], width)
    return [Text(cut(line, width), "" if number else "dim") for number, line in enumerate(lines)]


def _rows(rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"{label:<{LABEL_COLUMNS}}" + "".join(f"{one:>{FIGURE_COLUMNS}}" for one in rest) for label, *rest in rows]


def _beside(left: list[str], right: list[str], width: int) -> list[str]:
    """Two blocks beside each other; only the left one if there is no room for both."""
    if len(left[0]) + FIGURES_GAP + len(right[0]) > width:
        return left
    return [f"{one:<{len(left[0])}}{' ' * FIGURES_GAP}{other}" for one, other in zip(left, right, strict=True)]


def _spans(of: Quantiles) -> list[str]:
    return ["-" if ms is None else span_text(ms * 1000) for ms in (of.p50, of.p95, of.p99)]


# --- queues -----------------------------------------------------------------------------------------------------------


def _queues(seen: Seen, width: int, most: int) -> list[Text]:
    """The worst queues first, at most that many, with as many columns as fit."""
    shown = seen.stats.queues[:most]
    if not shown:
        return []
    rows = [[column.name for column in COLUMNS], *(_row(queue, seen, width) for queue in shown)]
    for i in NUMBERS:
        wide = max(len(row[i]) for row in rows)
        for row in rows:
            row[i] = row[i].rjust(wide)
    filled = [i for i in range(len(COLUMNS)) if any(row[i].strip() for row in rows[1:])]
    kept, widths = fitted([COLUMNS[i] for i in filled], [[row[i] for i in filled] for row in rows[1:]], width)
    cells = [[cut(row[filled[i]], wide) for i, wide in zip(kept, widths, strict=True)] for row in rows]
    lines = [aligned(row, widths)[-1] for row in cells]
    styles = ["dim", *("yellow" if _is_stuck(queue, seen) else "" for queue in shown)]
    return [Text(), *(Text(cut(line, width), style) for line, style in zip(lines, styles, strict=True))]


def _row(queue: QueueStats, seen: Seen, width: int) -> list[str]:
    found = seen.queues.get(queue.name)
    rates = [queue.in_per_s, queue.out_per_s, queue.failed_per_s]
    return [
        cut(cell(queue.name), max(1, min(NAME_COLUMNS_MAX, width // 3))),
        f"{queue.runnable:,}",
        span_text(queue.oldest_ready_s * 1e6) if queue.oldest_ready_s else "",
        f"{queue.running:,}",
        *("" if rate is None else rate_text(rate) for rate in rates),
        f"{queue.dead:,}",
        cell(found.why.words) if found else "",
    ]


# --- failures ---------------------------------------------------------------------------------------------------------


def _failures(seen: Seen, width: int) -> list[Text]:
    """The failures that were seen last, a line each."""
    if not seen.failures:
        return []
    lines = ["FAILED      LAST  WHERE AND WHY"]
    for group in seen.failures:
        ago = span_text((seen.stats.at - group.last_at).total_seconds() * 1e6)
        code = (
            f"{cell(group.error_code)}: " if group.error_code and not group.error.startswith(group.error_code) else ""
        )
        lines.append(f"{group.count:>6,}  {ago:>8}  {cell(group.queue)}: {code}{cell(group.error)}")
    return [Text(), *(Text(cut(line, width), "" if number else "dim") for number, line in enumerate(lines))]
