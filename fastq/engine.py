"""The engine owns the core: it stamps time, batches commands, and answers each when what it says is durable."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastq import _core
from fastq.clock import Clock
from fastq.commands import Ack, Lease, Principal, Submit
from fastq.errors import CoreFailed, DiskFull, Draining, JobNotFound, NoJobsAvailable, Overloaded
from fastq.log import Log, Opened

UNSYNCED_BYTES_MAX = 64 << 20  # past this, commands are refused with 503 until the disk has caught up
SLICE = 1000  # how many leases expire, or delayed jobs become due, before other work gets its turn
ROOM_BYTES_SMALL = 8192  # enough for any record without a payload or result
EXPIRY_RECORD_BYTES = 64
NEVER_US = 1 << 62


@dataclass(frozen=True)
class EngineOptions:
    """What the settings decide. Times in the units of their names."""

    lease_ms: int = 30_000
    lease_check_ms: int = 5_000
    max_retries: int = 3
    backoff_base_ms: int = 1_000
    backoff_factor: float = 2.0
    backoff_cap_ms: int = 3_600_000
    owner_isolation: bool = True


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A lease and what to work on. `payload` is JSON text."""

    job_id: str
    payload: bytes
    token: str
    attempt: int
    lease_until_us: int
    created_us: int
    priority: int
    max_retries: int
    queue: str


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as a reader sees it. `result` is JSON text; `error` is the last attempt's, empty if it had none."""

    job_id: str
    state: str
    attempts: int
    max_retries: int
    priority: int
    queue: str
    created_us: int
    run_at_us: int
    lease_until_us: int | None
    result: bytes | None
    error: str


class Engine:
    """Commands in, durable answers out. All methods belong to the event loop's thread.

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
        self._log = log
        self._tail = log.tail
        self._jitter = jitter
        self._clock: Clock
        self._opened: Opened
        self._loop: asyncio.AbstractEventLoop
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._kick_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0
        self.draining = False
        self.failed: BaseException | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> Opened:
        """Recover the log. Blocking; the event loop need not run yet. Raises what `Log.open` raises."""
        self._opened = self._log.open(self.core.replay)
        return self._opened

    async def start(self, clock: Clock, on_failed: Callable[[BaseException], None]) -> None:
        """Say in the log that the server serves again, and return when that is durable.

        Args:
            on_failed: called once if a write or sync fails. Nothing is answered from then on; the process must end.
        """
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._on_failed = on_failed
        self._log.start(self._durable, self._failed)
        if not self.core.database_id:
            self.core.genesis(self._opened.database_id, secrets.token_bytes(16))
        self.core.resume(clock.now_us(), self._opened.epoch)
        await self._settled()
        self._tick()

    async def stop(self) -> None:
        """Take no more work, commit what is in flight, close the log."""
        self.draining = True
        if self._timer is not None:
            self._timer.cancel()
        if self.failed is None:
            await self._settled()
            await self._log.close()

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def submit(self, who: Principal, command: Submit) -> str:
        """Store a job; its id, once it is durable."""
        self._accept_work()
        self._need_room(len(command.payload) + ROOM_BYTES_SMALL, spare_segments=1)
        now_us = self._clock.now_us()
        run_at_us = command.run_at_us or 0
        if command.delay_ms is not None:
            run_at_us = now_us + command.delay_ms * 1000
        retries = command.max_retries
        with self._change():
            job_id = self.core.submit(
                now_us,
                command.payload,
                owner_id=who.owner_id,
                key_id=who.key_id,
                max_retries=self.options.max_retries if retries is None else retries,
                priority=command.priority,
                run_at_us=run_at_us,
            )
        await self._settled()
        return job_id

    async def lease(self, who: Principal, command: Lease) -> LeasedJob:
        """Lease the next job. Raises NoJobsAvailable."""
        self._accept_work()
        self._need_room(ROOM_BYTES_SMALL, spare_segments=0)
        with self._change():
            leased = self.core.lease(
                self._clock.now_us(),
                lease_ms=command.lease_ms or self.options.lease_ms,
                key_id=who.key_id,
                worker_id=command.worker_id,
                legacy=not command.had_body,
            )
        if leased is None:
            await self._settled()
            raise NoJobsAvailable
        record = await self._record(leased.place)
        return LeasedJob(
            leased.job_id,
            _core.submit_payload(record, leased.job_id),
            leased.token,
            leased.attempt,
            leased.lease_until_us,
            leased.created_us,
            leased.priority,
            leased.max_retries,
            leased.queue,
        )

    async def ack(self, who: Principal, command: Ack) -> None:
        """End an attempt. Raises JobNotFound, NotAckable, LeaseLost."""
        self._need_room(len(command.result or b"") + ROOM_BYTES_SMALL, spare_segments=0)
        now_us = self._clock.now_us()
        wait_ms = command.retry_after_ms

        def retry_at(attempt: int) -> int:
            return self._retry_at(now_us, attempt) if wait_ms is None else now_us + wait_ms * 1000

        try:
            with self._change():
                self.core.ack(
                    now_us,
                    command.job_id,
                    command.lease_token,
                    key_id=who.key_id,
                    result=command.result,
                    error=command.error,
                    retry_at=retry_at,
                )
        finally:
            await self._settled()

    async def job(self, who: Principal, job_id: str) -> JobStatus:
        """A job as it is. Raises JobNotFound, also for another owner's job."""
        try:
            view = self.core.job(self._clock.now_us(), job_id)
        except JobNotFound:
            await self._settled()
            raise
        if self.options.owner_isolation and who.type == "client" and view.owner_id != who.owner_id:
            await self._settled()
            raise JobNotFound(job_id)
        result, error = None, "lease_expired" if view.expired else ""
        if view.close_place is None or view.expired:
            await self._settled()
        else:
            result, error = _core.close_result(await self._record(view.close_place), job_id)
        return JobStatus(
            view.job_id,
            view.state,
            view.attempts,
            view.max_retries,
            view.priority,
            view.queue,
            view.created_us,
            view.run_at_us,
            view.lease_until_us,
            result,
            error,
        )

    # --- documents ----------------------------------------------------------------------------------------------------

    def documents(self, kind: int) -> dict[str, bytes]:
        """What is kept under `kind`, by name: at a start, before anything changes, all of it is durable."""
        return self.core.documents(kind)

    async def put_document(self, kind: int, name: str, body: bytes, key_id: str = "") -> None:
        """Keep `body` under (kind, name), in place of what was there; returns when it is durable."""
        self._need_room(len(body) + ROOM_BYTES_SMALL, spare_segments=0)
        with self._change():
            self.core.put_document(self._clock.now_us(), kind, name, body, key_id)
        await self._settled()

    async def settled(self) -> None:
        """Return when every change made so far is durable: before an answer that shows what was read here."""
        await self._settled()

    def now_us(self) -> int:
        return self._clock.now_us()

    @property
    def disk_full(self) -> bool:
        return self._log.disk_full

    # --- commit -------------------------------------------------------------------------------------------------------

    def _accept_work(self) -> None:
        if self.draining:
            raise Draining("the server is stopping")

    def _need_room(self, record_bytes: int, spare_segments: int) -> None:
        """Refuse what could not be stored now. Submits leave a segment untouched when the disk is full, for acks."""
        left = spare_segments if self._log.disk_full else 0
        if not self._tail.has_room(record_bytes, left):
            if self._log.disk_full:
                raise DiskFull("no space left in the data directory")
            raise Overloaded("the log's next segment is not ready yet")
        if self._tail.unsynced_bytes > UNSYNCED_BYTES_MAX:
            raise Overloaded(f"more than {UNSYNCED_BYTES_MAX} bytes wait to be synced")

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Around each call of the core that changes state."""
        try:
            yield
        except CoreFailed as failure:
            self._failed(failure)
            raise

    async def _settled(self) -> None:
        """Return when every change made so far is durable."""
        seq = self._tail.appended_seq
        if seq <= self._tail.durable_seq:
            return
        durable = self._loop.create_future()
        self._waiting.append((seq, durable))
        self._kick_soon()
        await durable

    async def _record(self, place: _core.Place) -> bytes:
        """A record's bytes, when every change made so far is durable: from memory, or read meanwhile."""
        record = self._tail.cached(place)
        if record is not None:
            await self._settled()
            return record
        read = self._loop.create_task(self._log.read(place))
        try:
            await self._settled()
        except BaseException:
            read.cancel()
            raise
        return await read

    def _kick_soon(self) -> None:
        """Commit at the end of this turn of the loop, so that all requests that came together share a batch."""
        if not self._kick_due:
            self._kick_due = True
            self._loop.call_soon(self._kick)

    def _kick(self) -> None:
        self._kick_due = False
        if self.failed is None and self._log.idle and (batch := self._tail.take()) is not None:
            self._log.commit(batch)
        self._watch_timer()

    def _durable(self, seq: int) -> None:
        self._tail.durable(seq)
        self._kick()
        waiting = self._waiting
        while waiting and waiting[0][0] <= seq:
            future = waiting.popleft()[1]
            if not future.done():
                future.set_result(None)

    def _failed(self, error: BaseException) -> None:
        """From here on nothing is committed and nobody is answered."""
        if self.failed is None:
            self.failed = error
            self._on_failed(error)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _retry_at(self, now_us: int, attempt: int) -> int:
        """Exponential backoff with full jitter, capped. The chosen time goes into the record, so a replay is exact."""
        options = self.options
        exponent = min(attempt - 1, 64)
        bound_ms = min(options.backoff_cap_ms, options.backoff_base_ms * options.backoff_factor**exponent)
        return now_us + int(bound_ms * 1000 * self._jitter())

    def _tick(self) -> None:
        """Do what is due; go on in the next turn of the loop while there is more than a slice of it."""
        self._timer = None
        now_us = self._clock.now_us()
        due_us = now_us if self.core.advance(now_us, SLICE) == SLICE else NEVER_US
        if self._tail.has_room(SLICE * EXPIRY_RECORD_BYTES, 0):
            with self._change():
                self.core.expire(now_us, lambda attempt: self._retry_at(now_us, attempt), SLICE)
            due_us = min(due_us, self.core.next_due_us())
            self._kick_soon()
        self._arm(due_us, now_us)  # without room, expiry is tried again after the check interval

    def _watch_timer(self) -> None:
        due_us = self.core.next_due_us()
        if self._timer is not None and due_us < self._timer_us:
            self._timer.cancel()
            self._arm(due_us, self._clock.now_us())

    def _arm(self, due_us: int, now_us: int) -> None:
        wait_us = min(max(0, due_us - now_us), self.options.lease_check_ms * 1000)
        self._timer_us = now_us + wait_us
        self._timer = self._loop.call_later(wait_us / 1e6, self._tick)
