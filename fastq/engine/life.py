"""What every part of the engine stands on: core, log and clock; a start, a stop, and what is due between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastq import _core
from fastq.clock import Clock
from fastq.engine.cleaner import Cleaner
from fastq.engine.commands import Principal
from fastq.engine.commits import Committer
from fastq.engine.options import EngineOptions
from fastq.engine.workers import LastSeen
from fastq.errors import CoreFailed, Draining, JobNotFound
from fastq.log.protocol import Backup, Log, Opened

if TYPE_CHECKING:
    from fastq._core import Place

SLICE = 1000  # how many leases expire, delayed jobs become due, or finished jobs go, before other work gets its turn
EXPIRY_PIECE = 20  # how many leases expire between two looks at whether there is room
ROOM_BYTES_SMALL = 8192  # enough for any record without a payload or result


class Life:
    """The core and its surroundings. All methods belong to the event loop's thread.

    Every answer, also a refusal, waits until the last change made before it is on stable storage: nothing that a crash
    could take back is ever shown.
    """

    def __init__(self, log: Log, options: EngineOptions, jitter: Callable[[], float]) -> None:
        """
        Args:
            jitter: draws from [0, 1): the share of the retry wait's upper bound.
        """
        self.core = _core.Core(log.tail)
        self.options = options
        self.draining = False
        self.last_seen = LastSeen()
        self._log = log
        self._tail = log.tail
        self._jitter = jitter
        self._commits = Committer(log, self._before_commit, self._failed)
        self.cleaner = Cleaner(self.core, log, self._commits, self.now_us, options.log_slack_bytes)
        self._clock: Clock
        self._opened: Opened
        self._loop: asyncio.AbstractEventLoop
        self._cleaning: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0

    # --- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> Opened:
        """Recover the log. Blocking; the event loop need not run yet. Raises what `Log.open` raises."""
        self._opened = self._log.open(self.core)
        self.core.fence(self._opened.fence)
        return self._opened

    async def start(self, clock: Clock, on_failed: Callable[[BaseException], None]) -> None:
        """Say in the log that the server serves again, and return when that is durable.

        Args:
            on_failed: called once if a write or sync fails. Nothing is answered from then on; the process must end.
        """
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._on_failed = on_failed
        self._commits.start()
        self._configure()
        self.core.resume(clock.now_us(), self._opened.epoch)
        await self._commits.settled()
        if self.core.oldest_segment > self._log.oldest_segment:  # a crash came between the record and the deed
            self._log.drop_before(self.core.oldest_segment)
        self._cleaning = self._loop.create_task(self.cleaner.run())
        self._cleaning.add_done_callback(self._cleaner_ended)
        self._tick()

    def _configure(self) -> None:
        options = self.options
        self.core.configure(
            lease_ms=options.lease_ms,
            backoff=(options.backoff_base_ms, options.backoff_factor, options.backoff_cap_ms),
            poison_expiries=options.poison_expiries,
            idempotency_us=options.idempotency_ms * 1000,
            idempotency_keys_max=options.idempotency_keys_max,
            owner_depth_max=options.owner_depth_max,
        )

    async def stop(self) -> None:
        """Take no more work, commit what is in flight, close the log."""
        self.drain()
        if self._timer is not None:
            self._timer.cancel()
        if self._cleaning is not None:
            self._cleaning.cancel()
        if self.failed is None:
            await self._commits.settled()
            await self._log.close()

    def drain(self) -> None:
        """Take no more work."""
        self.draining = True

    @property
    def failed(self) -> BaseException | None:
        return self._commits.failed

    def now_us(self) -> int:
        return self._clock.now_us()

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def takes_everything(self) -> bool:
        """Whether there is no reason to keep any new job waiting, or to refuse it."""
        return not (self.draining or self.failed or self._log.disk_full or self.cleaner.is_behind)

    @property
    def tail(self) -> _core.Tail:
        return self._tail

    @property
    def commits(self) -> Committer:
        return self._commits

    @property
    def record_bytes_max(self) -> int:
        """The largest record that a segment takes."""
        return self._tail.record_bytes_max

    @property
    def disk_full(self) -> bool:
        return self._log.disk_full

    def backup(self) -> Backup:
        """A copy of everything that was answered so far. Raises Draining, BackupRefused."""
        self._accept_work()
        return self._log.backup()

    # --- documents ----------------------------------------------------------------------------------------------------

    def documents(self, kind: int) -> dict[str, bytes]:
        """What is kept under `kind`, by name: at a start, before anything changes, all of it is durable."""
        return self.core.documents(kind)

    async def put_document(self, kind: int, name: str, body: bytes, key_id: str = "") -> None:
        """Keep `body` under (kind, name), in place of what was there; returns when it is durable."""
        self._commits.need_room(len(body) + ROOM_BYTES_SMALL, spare_segments=0)
        with self._change():
            self.core.put_document(self._clock.now_us(), kind, name, body, key_id)
        await self._commits.settled()

    @contextmanager
    def together(self, record_bytes: int, spare_segments: int = 0) -> Iterator[int]:
        """What the core is told within is one record: all of it happens or nothing. Gives the time.

        Whatever may be refused comes first: what was appended before a refusal happens.

        Args:
            record_bytes, spare_segments: see `Committer.need_room`.
        Raises:
            DiskFull, Overloaded.
        """
        self._commits.need_room(record_bytes + ROOM_BYTES_SMALL, spare_segments)
        with self._change():
            self.core.begin_group(record_bytes + ROOM_BYTES_SMALL)
            try:
                yield self._clock.now_us()
            finally:
                self.core.end_group()
        self._commits.kick_soon()

    async def records(self, places: Sequence[Place]) -> list[bytes]:
        """Records by their places, when every change made so far is durable."""
        return await self._commits.records(places)

    async def settled(self) -> None:
        """Return when every change made so far is durable: whoever shows a document waits for it."""
        await self._commits.settled()

    # --- who may ------------------------------------------------------------------------------------------------------

    def is_bounded(self, who: Principal) -> bool:
        """Whether there are jobs that do not exist for this caller."""
        return who.queues is not None or (who.type == "client" and self.options.owner_isolation)

    def _sees(self, who: Principal, job: _core.JobView) -> bool:
        if who.queues is not None and job.queue not in who.queues:
            return False
        return who.type != "client" or not self.options.owner_isolation or job.owner_id == who.owner_id

    def _job_seen(self, who: Principal, job_id: str) -> _core.JobView:
        """Raises JobNotFound, also for a job that does not exist for this caller."""
        job = self.core.job(self._clock.now_us(), job_id)
        if not self._sees(who, job):
            raise JobNotFound(job_id)
        return job

    def _own_job(self, who: Principal, job_id: str) -> _core.JobView:
        """A job that this caller may change: its owner's, or any for an admin. Raises JobNotFound."""
        job = self._job_seen(who, job_id)
        if not who.is_admin and job.owner_id != who.owner_id:
            raise JobNotFound(job_id)
        return job

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _accept_work(self) -> None:
        if self.draining:
            raise Draining("the server is stopping")

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Around each call of the core that changes state."""
        try:
            yield
        except CoreFailed as failure:
            self._commits.fail(failure)
            raise

    def _failed(self, error: BaseException) -> None:
        self._on_failed(error)

    def _cleaner_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._commits.fail(error)

    def _before_commit(self) -> None:
        """What goes with every batch: the end of what was kept long enough."""
        self._forget_finished()
        self.cleaner.look()
        self._watch_timer()

    def _forget_finished(self) -> None:
        if not self.core.finished_jobs:
            return
        options = self.options
        now_us = self._clock.now_us()
        acked_ms, dead_ms = options.retention_acked_ms, options.retention_dead_ms
        kept = (("ACKED", acked_ms), ("DEAD", dead_ms), ("EXPIRED", acked_ms), ("CANCELLED", acked_ms))
        gone = 0
        with self._change():
            for state, kept_ms in kept:
                if not self._tail.has_room(SLICE * 8 + ROOM_BYTES_SMALL, 0):
                    return
                gone += self.core.forget(
                    now_us, state, kept_ms, options.finished_jobs_max, options.finished_bytes_max, SLICE
                )
        if gone >= SLICE:
            self._commits.kick_soon()  # there may be more

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def due_us(self) -> int:
        """When something is due next, as far as is known now."""
        return self._next_due_us()

    def look(self) -> None:
        """Do at once what is due: for whoever moves the clock by hand, of which the loop's timers know nothing."""
        if self._timer is not None:
            self._timer.cancel()
        self._tick()

    def _next_due_us(self) -> int:
        return self.core.next_due_us()

    def _tick(self) -> None:
        """Do what is due; go on in the next turn of the loop while there is more than a slice of it."""
        self._timer = None
        now_us = self._clock.now_us()
        there_is_more = self.core.advance(now_us, SLICE) == SLICE
        has_room = self._expire(now_us)
        self._commits.kick_soon()
        if there_is_more:
            self._arm(now_us, now_us)
        else:  # without room, expiry is tried again after the check interval
            self._arm(self._next_due_us() if has_room else now_us + self.options.lease_check_ms * 1000, now_us)

    def _expire(self, now_us: int) -> bool:
        """End up to a slice of leases and jobs whose time is over. False: there was no room for all of them."""
        with self._change():
            for _ in range(SLICE // EXPIRY_PIECE):
                if not self._tail.has_room(EXPIRY_PIECE * _core.CLOSE_RECORD_BYTES, 0):
                    return False
                if self.core.expire(now_us, self._jitter, EXPIRY_PIECE) < EXPIRY_PIECE:
                    break
        return True

    def _watch_timer(self) -> None:
        due_us = self._next_due_us()
        if self._timer is not None and due_us < self._timer_us:
            self._timer.cancel()
            self._arm(due_us, self._clock.now_us())

    def _arm(self, due_us: int, now_us: int) -> None:
        wait_us = min(max(0, due_us - now_us), self.options.lease_check_ms * 1000)
        self._timer_us = now_us + wait_us
        self._timer = self._loop.call_later(wait_us / 1e6, self._tick)
