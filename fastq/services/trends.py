"""Rates, depths and waits of the last days, for charts, and groups of failures over restarts: in a small file.

The file is no part of what is durable: it is never synced, a damaged one is made anew, and without one the server runs
on. One thread of its own reads and writes it. Its size is bounded: points of three resolutions replace each other, of
all queues together and of at most QUEUES_MAX queues each.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fastq._core import ALL, FailureGroup
from fastq.engine import Engine
from fastq.services.statistics import Statistics, quantile

if TYPE_CHECKING:
    from fastq.services.trends_file import TrendsFile

_log = logging.getLogger("fastq.trends")

STEP_S = 30
RESOLUTIONS = ((STEP_S, 3_600), (300, 86_400), (3_600, 32 * 86_400))  # a step, how long its points are kept; seconds
QUEUES_MAX = 1_000  # those with the latest traffic
SLICE_QUEUES = 50
FAILURES_MAX = 10_000
HOUR_S = 3_600

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Point:
    """A queue, or all queues, from `at_s` (Unix seconds) on for one step of its resolution.

    Args:
        depth: ready, waiting and running jobs at its end. In coarser points the mean, as the rates, of those that
            there are: none is written while the server is idle.
        oldest_s: how long the oldest ready job was due; the highest.
        wait_p50_ms, wait_p95_ms: from ready to leased; the highest. None: no job was leased.
    """

    at_s: int
    in_per_s: float
    out_per_s: float
    failed_per_s: float
    depth: float
    oldest_s: float
    wait_p50_ms: float | None
    wait_p95_ms: float | None


def step_of(span_s: int) -> int:
    """The seconds between the points of a span: the finest that are kept for so long."""
    return next((step_s for step_s, kept_s in RESOLUTIONS if span_s <= kept_s), RESOLUTIONS[-1][0])


@dataclass(slots=True)
class _Seen:
    """What was counted of a queue at the last step."""

    counted: tuple[int, int, int] = (0, 0, 0)
    waits: tuple[int, ...] = field(default=())


class Trends:
    """Call `start` in the event loop, and `stop` at the end."""

    def __init__(self, engine: Engine, statistics: Statistics, path: Path | None) -> None:
        """
        Args:
            path: of the file; None: there are no trends.
        """
        self._engine, self._statistics, self._path = engine, statistics, path
        self._thread = ThreadPoolExecutor(1, "fastq-trends")
        self._file: TrendsFile
        self._task: asyncio.Task[None] | None = None
        self._all = _Seen()
        self._queues: OrderedDict[str, _Seen] = OrderedDict()  # the one with the latest traffic last
        self._has_evicted = False
        self._is_idle = False  # the last point says so
        self._failures_until_us = 0  # those seen before are in the file

    async def start(self) -> None:
        """Open the file, and give the groups of failures in it to the engine."""
        if self._path is None:
            return
        now_us, path = self._engine.now_us(), self._path
        self._failures_until_us = now_us
        since_us, groups = await self._in_thread(lambda: self._open(path, now_us))
        self._engine.add_failures(groups)
        self._statistics.failures_since_us = since_us
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Remember the last failures, and close the file."""
        if self._task is not None:
            self._task.cancel()
            failures = self._new_failures()
            await self._in_thread(lambda: self._file.write((), failures, self._engine.now_us() // 1_000_000))
            await self._in_thread(self._file.close)
        self._thread.shutdown()

    async def points(self, queue: str | None, hours: int) -> list[Point]:
        """The points of a queue, or of all queues together, over the last hours, the oldest first.

        They are 30 s apart for up to an hour, 5 minutes for up to a day, else an hour.
        """
        if self._task is None:
            return []
        since_s = self._engine.now_us() // 1_000_000 - hours * HOUR_S
        rows = await self._in_thread(lambda: self._file.read(queue or "", hours * HOUR_S, since_s))
        return [Point(*row) for row in rows]

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self, path: Path, now_us: int) -> tuple[int, list[FailureGroup]]:
        from fastq.services.trends_file import TrendsFile  # noqa: PLC0415 - SQLite is loaded off the loop

        self._file = TrendsFile(path)
        return self._file.open(now_us)

    # --- a step -------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            try:
                await self.step()
            except Exception:  # noqa: BLE001 - a defect of the charts ends neither them nor the server
                _log.exception("a step of the trends failed")

    async def step(self) -> None:
        """Write the points of now, and the failures since the last step. An idle server writes only its first point."""
        now_s = self._engine.now_us() // 1_000_000
        at_s = now_s - now_s % STEP_S
        counts = self._engine.counts()
        depth = counts["READY"] + counts["RETRY"] + counts["RUNNING"]
        points = [("", self._point(None, self._all, at_s, depth, 0))]
        for queue in self._engine.active_queues(QUEUES_MAX):
            if queue not in self._queues:
                self._queues[queue] = self._first_seen(queue)
            self._queues.move_to_end(queue)
        while len(self._queues) > QUEUES_MAX:
            self._queues.popitem(last=False)
            self._has_evicted = True
        for n, (queue, seen) in enumerate(list(self._queues.items())):
            if n % SLICE_QUEUES == SLICE_QUEUES - 1:
                await asyncio.sleep(0)
            view = self._engine.queue(ALL, queue)
            depth = view.ready + view.waiting + view.running
            points.append((queue, self._point(queue, seen, at_s, depth, view.oldest_ready_us)))
            if not (depth or view.groups or any(view.finished.values())):
                del self._queues[queue]
        oldest_s = max([point.oldest_s for _, point in points])
        points[0] = "", _with_oldest(points[0][1], oldest_s)
        failures = self._new_failures()
        whole = points[0][1]
        is_idle = not (whole.depth or whole.in_per_s or whole.out_per_s or whole.failed_per_s or failures)
        was_idle, self._is_idle = self._is_idle, is_idle
        if is_idle and was_idle:
            return
        await self._in_thread(lambda: self._file.write(points, failures, now_s))

    def _first_seen(self, queue: str) -> _Seen:
        """What was counted of a queue before: nothing, unless it was among these queues and left."""
        return _Seen(*self._counted(queue)) if self._has_evicted else _Seen()

    def _counted(self, queue: str | None) -> tuple[tuple[int, int, int], tuple[int, ...]]:
        """What was counted of a queue, or of all, since the start: as in `_Seen`."""
        traffic, durations = self._engine.traffic(queue), self._engine.latencies(queue)
        counted = traffic.submitted + traffic.redriven, traffic.acked, traffic.failed
        return counted, durations.wait if durations is not None else ()

    def _point(self, queue: str | None, seen: _Seen, at_s: int, depth: int, oldest_us: int) -> Point:
        counted, waits = self._counted(queue)
        new = [now - before if now >= before else now for now, before in zip(counted, seen.counted, strict=True)]
        before = seen.waits or (0,) * len(waits)
        new_waits = [now - old for now, old in zip(waits, before, strict=False)]
        if any(count < 0 for count in new_waits):  # the queue ended, and began again
            new_waits = list(waits)
        seen.counted, seen.waits = counted, waits
        age_s = max(0, self._engine.now_us() - oldest_us) / 1e6 if oldest_us else 0.0
        p50, p95 = (quantile(new_waits, share) for share in (0.5, 0.95))
        rates = [count / STEP_S for count in new]
        return Point(at_s, rates[0], rates[1], rates[2], depth, age_s, _ms(p50), _ms(p95))

    def _new_failures(self) -> list[FailureGroup]:
        since_us, self._failures_until_us = self._failures_until_us, self._engine.now_us()
        return self._engine.failures(ALL, None, since_us, FAILURES_MAX)


def _with_oldest(point: Point, oldest_s: float) -> Point:
    return Point(
        point.at_s, point.in_per_s, point.out_per_s, point.failed_per_s, point.depth, oldest_s, point.wait_p50_ms,
        point.wait_p95_ms,
    )  # fmt: skip


def _ms(us: float | None) -> float | None:
    return None if us is None else us / 1000
