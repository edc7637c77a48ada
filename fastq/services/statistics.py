"""Figures about the whole queue: counts, rates, durations, and the queues whose jobs are ready the longest.

The core counts what happens. The only work here that nobody asks for is a sample of these counts once a second. A sweep
over queues runs in slices, on demand, and its outcome is kept for two seconds.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from array import array
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from fastq._core import FINISHED, LATENCY_BOUNDS_US, Access, QueueView, Traffic
from fastq.engine import Engine
from fastq.engine.commands import Principal

SAMPLE_S = 1.0
SAMPLES = 61  # a minute, and where it began
KEPT_US = 2_000_000  # how long the outcome of a sweep is shown
KEPT_MAX = 1_000  # outcomes: each owner has one
WORST_MAX = 100  # queues in an overview
SLICE_PLACES, SLICE_HOLDINGS, SLICE_NAMES = 20_000, 20_000, 2_000
COUNTED = ("submitted", "redriven", "leased", "acked", "failed", "lease_expired", "dead")
QUANTILES = (0.5, 0.95, 0.99)
WAITING_STATES = ("READY", "RETRY")


@dataclass(frozen=True, slots=True)
class Totals:
    """Jobs that are counted for a caller.

    Args:
        runnable: due, and not leased. scheduled: with a later run_at, retries included.
        states: jobs by stored state; READY includes SCHEDULED.
        queues: how many queues there are.
    """

    runnable: int
    running: int
    scheduled: int
    dead: int
    states: dict[str, int]
    queues: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What a sweep found.

    Args:
        queues: up to WORST_MAX: those with the oldest ready job first, to an owner those with the most ready jobs; then
            those without ready jobs.
        oldest_ready_us: of all queues; 0: no job is ready, or it is not known to the caller.
    """

    totals: Totals
    queues: list[QueueView]
    oldest_ready_us: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What was counted until then.

    `histograms`: by name, counts by bucket of LATENCY_BOUNDS_US.
    """

    at_us: int
    counted: tuple[int, ...]
    histograms: dict[str, array[int]]
    batches: int
    records: int


@dataclass(frozen=True, slots=True)
class LogFigures:
    """The log over the last minute. A batch is what one sync makes durable."""

    bytes: int
    batches_per_s: float
    records_per_batch: float


@dataclass(slots=True)
class _Sweep:
    begun_us: int
    task: asyncio.Task[Overview]


class Statistics:
    """Call `start` in the event loop, and `stop` at the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._timer: asyncio.TimerHandle | None = None
        self._sweeps: OrderedDict[tuple[str | None, frozenset[str] | None], _Sweep] = OrderedDict()
        self._began_us = 0
        self.failures_since_us = 0  # failures are counted since then

    def start(self) -> None:
        self._began_us = self.failures_since_us = self._engine.now_us()
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for sweep in self._sweeps.values():
            sweep.task.cancel()

    # --- over the last minute -----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.sample()
        self._timer = asyncio.get_running_loop().call_later(SAMPLE_S, self._tick)

    def sample(self) -> None:
        """Take a sample. The timer does it once a second."""
        durations, syncs = self._engine.latencies(), self._engine.sync_durations
        assert durations is not None, "those of all queues are always kept"
        traffic = self._engine.traffic()
        self._samples.append(
            Sample(
                self._engine.now_us(),
                tuple([getattr(traffic, name) for name in COUNTED]),
                {
                    "wait": array("Q", durations.wait),
                    "run": array("Q", durations.run),
                    "durable": array("Q", self._engine.commits.durations.counts),
                    "sync": array("Q", syncs[0] if syncs else [0] * (len(LATENCY_BOUNDS_US) + 1)),
                },
                self._engine.tail.closed_batches,
                self._engine.tail.closed_records,
            )
        )

    def _since(self, seconds: int) -> tuple[Sample, Sample]:
        """The sample of so many seconds ago, or the oldest, and the last one."""
        return self._samples[max(0, len(self._samples) - 1 - seconds)], self._samples[-1]

    def rates(self, seconds: int) -> dict[str, float]:
        """How many a second of each of COUNTED, over the last `seconds`."""
        return _rates(*self._since(seconds))

    def by_second(self) -> list[dict[str, float]]:
        """`rates` of each of the last 60 seconds, the latest last; fewer after a start."""
        return [_rates(*pair) for pair in pairwise(self._samples)]

    def durations_us(self, name: str) -> tuple[float | None, ...]:
        """QUANTILES of a duration over the last minute, microseconds. None: there was none.

        Args:
            name: `wait`: ready until leased; `run`: leased until acked; `durable`: submitted until durable; `sync`: of
                the log.
        """
        first, last = self._since(SAMPLES)
        counts = [now - before for before, now in zip(first.histograms[name], last.histograms[name], strict=True)]
        return tuple(quantile(counts, share) for share in QUANTILES)

    def log(self) -> LogFigures:
        first, last = self._since(SAMPLES)
        batches, elapsed_s = last.batches - first.batches, (last.at_us - first.at_us) / 1e6
        return LogFigures(
            self._engine.log_bytes,
            batches / elapsed_s if elapsed_s > 0 else 0.0,
            (last.records - first.records) / batches if batches else 0.0,
        )

    def traffic(self) -> Traffic:
        """What happened since the start."""
        return self._engine.traffic()

    @property
    def uptime_s(self) -> float:
        return (self._engine.now_us() - self._began_us) / 1e6

    # --- now ----------------------------------------------------------------------------------------------------------

    async def totals(self, who: Principal) -> Totals:
        """The jobs that `who` sees counted. For a caller that does not see all, at most two seconds old."""
        if who.oversees.is_all:
            return self._all()
        return (await self.overview(who)).totals

    async def worst(self, who: Principal, n: int) -> list[QueueView]:
        """The first `n` queues of `overview`, at most WORST_MAX."""
        return (await self.overview(who)).queues[:n]

    async def overview(self, who: Principal) -> Overview:
        """What a sweep finds for `who`, at most two seconds old. All that ask at the same time share a sweep."""
        access, now_us = who.oversees, self._engine.now_us()
        key = access.owner_id, access.queues
        sweep = self._sweeps.get(key)
        if sweep is None or now_us - sweep.begun_us >= KEPT_US or _failed(sweep.task):
            if sweep is not None and not sweep.task.done():
                return await asyncio.shield(sweep.task)
            sweep = _Sweep(now_us, asyncio.create_task(self._sweep(access)))
            self._sweeps[key] = sweep
            self._sweeps.move_to_end(key)
            if len(self._sweeps) > KEPT_MAX:
                self._sweeps.popitem(last=False)[1].task.cancel()
        found = await asyncio.shield(sweep.task)
        return Overview(self._all(), found.queues, found.oldest_ready_us) if access.is_all else found

    # --- a sweep ------------------------------------------------------------------------------------------------------

    async def _sweep(self, access: Access) -> Overview:
        async with self._engine.turns.of(f"statistics of {access.owner_id or 'all'}") as turn:
            finding = _Finding()
            async for _ in self._find(access, finding):
                await turn.pause()
        queues = [*finding.worst, *finding.others][:WORST_MAX]
        oldest = [view.oldest_ready_us for view in finding.worst if view.oldest_ready_us]
        return Overview(finding.totals or self._all(), queues, min(oldest, default=0))

    async def _find(self, access: Access, finding: _Finding) -> AsyncIterator[None]:
        """Fill `finding`, a slice at a time."""
        if access.queues is not None:
            views = [self._engine.queue(access, name) for name in sorted(access.queues)]
            finding.totals = _summed(views)
            finding.add(access, views)
            return
        if access.owner_id is not None:
            async for _ in self._find_owned(access, access.owner_id, finding):
                yield
        else:
            for first in range(0, self._engine.queue_places, SLICE_NAMES):
                names = self._engine.queues_in(access, first, first + SLICE_NAMES, "")
                finding.add(access, [self._engine.queue(access, name) for name in names[:WORST_MAX]])
                yield
                if len(finding.others) + len(finding.worst) >= WORST_MAX:
                    break
        finding.worst = []
        for first in range(0, self._engine.queue_places, SLICE_PLACES):
            names = self._engine.worst_queues(access, first, first + SLICE_PLACES, WORST_MAX)
            finding.add(access, [self._engine.queue(access, name) for name in names])
            yield

    async def _find_owned(self, access: Access, owner_id: str, finding: _Finding) -> AsyncIterator[None]:
        """Count an owner's jobs, and find some of its queues."""
        summed: dict[str, int] = {}
        for first in range(0, max(1, self._engine.holding_places), SLICE_HOLDINGS):
            counts, names = self._engine.holdings(owner_id, first, first + SLICE_HOLDINGS, WORST_MAX)
            summed = {state: summed.get(state, 0) + count for state, count in counts.items()}
            finding.add(access, [self._engine.queue(access, name) for name in names])
            yield
        due, queues = summed.pop("due"), summed.pop("queues")
        finding.totals = _totals(summed, sum(summed[state] for state in WAITING_STATES) - due, queues)

    def _all(self) -> Totals:
        counts = self._engine.counts()
        del counts["jobs"]
        return _totals(counts, counts.pop("delayed"), self._engine.queue_count)


@dataclass(slots=True)
class _Finding:
    totals: Totals | None = None
    worst: list[QueueView] = field(default_factory=list)
    others: list[QueueView] = field(default_factory=list)  # without ready jobs

    def add(self, access: Access, views: list[QueueView]) -> None:
        """Add queues, and keep the WORST_MAX worst of either kind. A queue is added once to each kind."""
        ready = [view for view in views if view.ready]
        if ready:
            self.worst = sorted([*self.worst, *ready], key=_by_count if access.owner_id is not None else _by_age)
            del self.worst[WORST_MAX:]
        if len(self.others) < WORST_MAX:
            self.others += [view for view in views if not view.ready and _exists(view)]
            self.others.sort(key=lambda view: view.name)
            del self.others[WORST_MAX:]


def _by_age(view: QueueView) -> tuple[int, str]:
    return view.oldest_ready_us, view.name


def _by_count(view: QueueView) -> tuple[int, str]:
    return -view.ready, view.name


def _exists(view: QueueView) -> bool:
    return bool(view.waiting or view.running or any(view.finished.values()) or view.groups)


def _failed(task: asyncio.Task[Overview]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _summed(views: list[QueueView]) -> Totals:
    """The totals of some queues. A queue does not count RETRY apart: its waiting jobs are all READY."""
    states = {
        "READY": sum(view.ready + view.waiting for view in views),
        "RUNNING": sum(view.running for view in views),
        **{state: sum(view.finished[state] for view in views) for state in sorted(FINISHED)},
    }
    return _totals(states, sum(view.waiting for view in views), sum(1 for view in views if view.ready or _exists(view)))


def _totals(states: dict[str, int], scheduled: int, queues: int) -> Totals:
    waiting = sum(states.get(state, 0) for state in WAITING_STATES)
    return Totals(waiting - scheduled, states["RUNNING"], scheduled, states["DEAD"], states, queues)


def _rates(first: Sample, last: Sample) -> dict[str, float]:
    elapsed_s = (last.at_us - first.at_us) / 1e6
    if elapsed_s <= 0:
        return dict.fromkeys(COUNTED, 0.0)
    pairs = zip(COUNTED, first.counted, last.counted, strict=True)
    return {name: (now - before) / elapsed_s for name, before, now in pairs}


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The duration, microseconds, that this share of those in the buckets does not exceed. None: there are none.

    Within a bucket they count as even. Those in the last bucket, which has no bound, count as at its beginning.
    """
    rank = sum(counts) * share
    if rank == 0:
        return None
    for bucket, count in enumerate(counts):
        if count and rank <= count:
            below = LATENCY_BOUNDS_US[bucket - 1] if bucket else 0
            above = LATENCY_BOUNDS_US[bucket] if bucket < len(LATENCY_BOUNDS_US) else below
            return below + (above - below) * rank / count
        rank -= count
    return float(LATENCY_BOUNDS_US[-1])


def memory_bytes() -> int:
    """The memory of this process that is in RAM."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the highest so far
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
