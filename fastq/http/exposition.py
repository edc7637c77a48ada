"""The metrics as Prometheus reads them, over the counters that the engine keeps.

prometheus-client encodes them. Thousands of queues are taken and encoded in slices. At most QUEUES_MAX queues have
series of their own: those that were made first. The others are summed under OTHER.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from fastq import __version__
from fastq._core import ALL, FINISHED, LATENCY_BOUNDS_US
from fastq.engine import Engine
from fastq.services.statistics import Statistics, memory_bytes

if TYPE_CHECKING:
    from fastq._core import Latencies, QueueView, Traffic

QUEUES_MAX = 1_000
OTHER = "(other)"  # no queue can have this name
SLICE_QUEUES, SLICE_PLACES, SLICE_SAMPLES = 50, 2_000, 200
QUEUE_BOUNDS_US = frozenset(1_024 * 4**n for n in range(13))  # 1 ms to 4.8 h
LOG_BOUNDS_US = frozenset(128 * 2**n for n in range(17))  # 0.1 ms to 8 s
COUNTERS = (
    ("submitted", "fastq_jobs_submitted", "Jobs submitted."),
    ("redriven", "fastq_jobs_redriven", "Dead jobs made ready again."),
    ("leased", "fastq_leases", "Leases granted."),
    ("acked", "fastq_jobs_acked", "Jobs acked."),
    ("failed", "fastq_attempts_failed", "Attempts that failed, expired leases included."),
    ("lease_expired", "fastq_leases_expired", "Leases that expired."),
    ("dead", "fastq_jobs_died", "Jobs that became DEAD."),
)
END = b"# EOF\n"

Histogram = tuple[Sequence[int], int]
"""(counts by the buckets of LATENCY_BOUNDS_US, their sum in microseconds)"""


@dataclass(frozen=True, slots=True)
class Sources:
    """What the metrics are made of.

    Args:
        requests: answers by route, status class.
        short_requests: how many requests the lane answered by the short way.
        streams: how many event streams are open.
        key_store_up: whether keys can be checked.
        paused: the names of the paused queues.
    """

    engine: Engine
    statistics: Statistics
    requests: dict[tuple[str, int], int]
    short_requests: Callable[[], int]
    streams: Callable[[], int]
    key_store_up: Callable[[], bool]
    paused: Callable[[], list[str]]


async def exposed(sources: Sources, accept: str, pause: Callable[[], Any]) -> tuple[bytes, str]:
    """The metrics and their media type, in the format that the header Accept asks for.

    Args:
        pause: awaited after each slice.
    """
    encode, media_type = choose_encoder(accept)
    pieces: list[bytes] = []
    async for family in _families(sources, pause):
        for n, part in enumerate(_parts(family)):
            text = encode(_Collected(part)).removesuffix(END)
            pieces.append(text if n == 0 else _samples_only(text))
            if len(part.samples) == SLICE_SAMPLES:
                await pause()
    return b"".join(pieces) + (END if "openmetrics" in media_type else b""), media_type


class _Collected:
    """What an encoder reads: a family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _parts(family: Metric) -> Iterator[Metric]:
    """The family in pieces of SLICE_SAMPLES samples."""
    samples = family.samples
    for at in range(0, max(1, len(samples)), SLICE_SAMPLES):
        part = Metric(family.name, family.documentation, family.type, family.unit)
        part.samples = samples[at : at + SLICE_SAMPLES]
        yield part


def _samples_only(text: bytes) -> bytes:
    return b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"# "))


# --- families ---------------------------------------------------------------------------------------------------------


async def _families(sources: Sources, pause: Callable[[], Any]) -> AsyncIterator[Metric]:
    for family in _of_server(sources):
        yield family
    per_queue = _PerQueue()
    async for views in _views(sources.engine, pause):
        for view in views:
            per_queue.add(view, sources.engine)
    per_queue.add_others(sources.engine)
    for family in per_queue.families(sources.engine.now_us()):
        yield family


async def _views(engine: Engine, pause: Callable[[], Any]) -> AsyncIterator[list[QueueView]]:
    """The first QUEUES_MAX queues, in slices."""
    left = QUEUES_MAX
    for first in range(0, engine.queue_places, SLICE_PLACES):
        names = engine.queues_in(ALL, first, first + SLICE_PLACES, "")[:left]
        left -= len(names)
        for at in range(0, len(names), SLICE_QUEUES):
            yield [engine.queue(ALL, name) for name in names[at : at + SLICE_QUEUES]]
            await pause()
        if left == 0:
            return


def _of_server(sources: Sources) -> Iterator[Metric]:
    """What is about the whole server."""
    engine, statistics, gauge, counter = sources.engine, sources.statistics, GaugeMetricFamily, CounterMetricFamily
    yield InfoMetricFamily("fastq", "The server.", {"version": __version__, "role": "single"})
    yield gauge("fastq_uptime_seconds", "Since the start.", round(statistics.uptime_s, 3))
    yield gauge("process_resident_memory_bytes", "Memory in RAM.", memory_bytes())
    yield gauge("fastq_accepting", "Whether it accepts work: it neither stops nor has a full disk.",
                float(not engine.draining and not engine.disk_full))  # fmt: skip
    yield gauge("fastq_disk_full", "Whether the disk of the log is full.", float(engine.disk_full))
    yield gauge("fastq_key_store_up", "Whether keys can be checked.", float(sources.key_store_up()))
    yield gauge("fastq_event_streams", "Open streams of GET /events.", sources.streams())
    yield gauge("fastq_queues", "Queues with jobs or settings.", engine.queue_count)
    paused = gauge("fastq_queue_paused", "Queues that are paused.", labels=("queue",))
    for name in sources.paused()[:QUEUES_MAX]:
        paused.add_metric((name,), 1)
    yield paused
    yield gauge("fastq_wal_bytes", "The space that the log takes.", engine.log_bytes)
    tail = engine.tail
    yield counter("fastq_wal_written_bytes", "Written to the log.", tail.closed_bytes)
    yield counter("fastq_wal_batches", "Batches that one sync each makes durable.", tail.closed_batches)
    yield counter("fastq_wal_records", "Records in these batches.", tail.closed_records)
    commits = engine.commits.durations
    durations = (commits.counts, commits.sum_us)
    yield _of_log("fastq_commit_seconds", "From a batch's first change until it is durable.", durations)
    if (syncs := engine.sync_durations) is not None:
        yield _of_log("fastq_fsync_seconds", "How long a sync of the log took.", syncs)
    requests = counter(
        "fastq_http_requests",
        "Answers by route and status class, but for those that the lane answered.",
        labels=("route", "status"),
    )
    for (route, status), count in list(sources.requests.items()):
        requests.add_metric((route, f"{status}xx"), count)
    yield requests
    yield counter("fastq_http_short_way_requests", "Plain requests that the lane answered.", sources.short_requests())


class _PerQueue:
    """The families with a queue's name as label."""

    def __init__(self) -> None:
        labels = ("queue",)
        self._jobs = GaugeMetricFamily("fastq_jobs", "Jobs by queue and state.", labels=("queue", "state"))
        self._oldest = GaugeMetricFamily(
            "fastq_oldest_ready_seconds", "How long the oldest ready job has been due; 0: none is ready.", labels=labels
        )
        self._counters = {name: CounterMetricFamily(shown, about, labels=labels) for name, shown, about in COUNTERS}
        self._waits: list[tuple[Sequence[str], Histogram]] = []
        self._runs: list[tuple[Sequence[str], Histogram]] = []
        self._views: list[QueueView] = []
        self._counted: dict[str, int] = dict.fromkeys(self._counters, 0)

    def add(self, view: QueueView, engine: Engine) -> None:
        self._views.append(view)
        traffic, durations = engine.traffic(view.name), engine.latencies(view.name)
        self._count((view.name,), {name: getattr(traffic, name) for name in self._counters})
        if durations is not None:
            self._add_durations((view.name,), durations)

    def _count(self, labels: Sequence[str], counted: dict[str, int]) -> None:
        for name, count in counted.items():
            self._counters[name].add_metric(labels, count)
            self._counted[name] += count

    def _add_durations(self, labels: Sequence[str], durations: Latencies) -> None:
        self._waits.append((labels, (durations.wait, durations.wait_sum_us)))
        self._runs.append((labels, (durations.run, durations.run_sum_us)))

    def add_others(self, engine: Engine) -> None:
        """Add the sums of all other queues, and of queues that are gone."""
        counts, traffic = engine.counts(), engine.traffic()
        waiting = counts["READY"] + counts["RETRY"]
        of_all = {"ready": waiting - counts["delayed"], "scheduled": counts["delayed"], "running": counts["RUNNING"]}
        of_all |= {state.lower(): counts[state] for state in sorted(FINISHED)}
        shown = dict.fromkeys(of_all, 0)
        for view in self._views:
            for state, count in _states(view).items():
                self._jobs.add_metric((view.name, state), count)
                shown[state] += count
        for state, count in of_all.items():
            self._jobs.add_metric((OTHER, state), max(0, count - shown[state]))
        self._count_others(traffic)
        durations = engine.latencies()
        assert durations is not None, "those of all queues are always kept"
        self._waits.append(((OTHER,), _rest((durations.wait, durations.wait_sum_us), self._waits)))
        self._runs.append(((OTHER,), _rest((durations.run, durations.run_sum_us), self._runs)))

    def _count_others(self, traffic: Traffic) -> None:
        self._count((OTHER,), {name: max(0, getattr(traffic, name) - self._counted[name]) for name in self._counters})

    def families(self, now_us: int) -> Iterator[Metric]:
        for view in self._views:
            age_us = max(0, now_us - view.oldest_ready_us) if view.oldest_ready_us else 0
            self._oldest.add_metric((view.name,), age_us / 1e6)
        yield self._jobs
        yield self._oldest
        yield from self._counters.values()
        yield _of_queues("fastq_wait_seconds", "From when a job was ready to its lease.", self._waits)
        yield _of_queues("fastq_run_seconds", "From a lease to its ack.", self._runs)


def _states(view: QueueView) -> dict[str, int]:
    live = {"ready": view.ready, "scheduled": view.waiting, "running": view.running}
    return live | {state.lower(): count for state, count in view.finished.items()}


def _rest(whole: Histogram, parts: list[tuple[Sequence[str], Histogram]]) -> Histogram:
    """What is in none of the parts."""
    counts, sum_us = list(whole[0]), whole[1]
    for _, (of_part, part_sum_us) in parts:
        counts = [count - less for count, less in zip(counts, of_part, strict=True)]
        sum_us -= part_sum_us
    return [max(0, count) for count in counts], max(0, sum_us)


def _of_log(name: str, about: str, durations: Histogram) -> Metric:
    family = HistogramMetricFamily(name, about, labels=())
    family.add_metric((), list(_buckets(durations[0], LOG_BOUNDS_US)), durations[1] / 1e6)
    return family


def _of_queues(name: str, about: str, durations: list[tuple[Sequence[str], Histogram]]) -> Metric:
    family = HistogramMetricFamily(name, about, labels=("queue",))
    for labels, (counts, sum_us) in durations:
        family.add_metric(labels, list(_buckets(counts, QUEUE_BOUNDS_US)), sum_us / 1e6)
    return family


def _buckets(counts: Sequence[int], bounds_us: frozenset[int]) -> Iterator[tuple[str, float]]:
    """Cumulative counts up to each of these bounds, and up to none."""
    total = 0
    for bound_us, count in zip(LATENCY_BOUNDS_US, counts, strict=False):
        total += count
        if bound_us in bounds_us:
            yield f"{bound_us / 1e6}", total
    yield "+Inf", total + counts[-1]
