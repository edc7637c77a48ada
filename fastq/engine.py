"""The engine owns the core: it stamps time, batches commands, and answers each when what it says is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from fastq import _core
from fastq.cleaner import Cleaner
from fastq.clock import Clock
from fastq.commands import ERROR_BYTES_KEPT, LEASED_BYTES_MAX, Ack, Connection, Lease, Principal, Submit
from fastq.committer import Committer
from fastq.errors import ApiError, CleanerBehind, CoreFailed, Draining, JobNotFound
from fastq.log import Backup, Log, Opened
from fastq.results import JobStatus, LeasedJob
from fastq.waiters import Waiter, WaitList

SLICE = 1000  # how many leases expire, delayed jobs become due, or finished jobs go, before other work gets its turn
ROOM_BYTES_SMALL = 8192  # enough for any record without a payload or result
EXPIRY_RECORD_BYTES = 272
NEVER_US = 1 << 62
LAG_WAIT_S = 1.0  # how long a submit waits for a cleaner that is behind, before it is refused


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
    retention_acked_ms: int = 24 * 3_600_000
    retention_dead_ms: int = 30 * 24 * 3_600_000
    finished_jobs_max: int = 1_000_000  # of each terminal state
    finished_bytes_max: int = 4 << 30  # of each terminal state, in the log
    log_slack_bytes: int = 256 << 20  # what the log may take beyond twice what is live


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
        self.core.configure(
            lease_ms=options.lease_ms,
            backoff=(options.backoff_base_ms, options.backoff_factor, options.backoff_cap_ms),
        )
        self.options = options
        self.draining = False
        self._log = log
        self._tail = log.tail
        self._jitter = jitter
        self._commits = Committer(log, self._before_commit, self._failed)
        self.cleaner = Cleaner(self.core, log, self._commits, self.now_us, options.log_slack_bytes)
        self._waiters = WaitList()
        self._touched: set[str] = set()  # queues in which jobs are ready that nobody who waits was offered yet
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
        self.core.resume(clock.now_us(), self._opened.epoch)
        await self._commits.settled()
        if self.core.oldest_segment > self._log.oldest_segment:  # a crash came between the record and the deed
            self._log.drop_before(self.core.oldest_segment)
        self._cleaning = self._loop.create_task(self.cleaner.run())
        self._cleaning.add_done_callback(self._cleaner_ended)
        self._tick()

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
        """Take no more work; whoever waits for a job gets none."""
        self.draining = True
        self._waiters.end_all()

    @property
    def failed(self) -> BaseException | None:
        return self._commits.failed

    # --- submit -------------------------------------------------------------------------------------------------------

    async def submit(self, who: Principal, command: Submit) -> str:
        """Store a job; its id, once it is durable."""
        await self._accept_submit(len(command.payload))
        now_us = self._clock.now_us()
        payload, max_retries, priority, run_at_us, queue = self._job_of(command, now_us)
        with self._change():
            job_id, _ = self.core.submit(
                now_us,
                payload,
                owner_id=who.owner_id,
                key_id=who.key_id,
                max_retries=max_retries,
                priority=priority,
                run_at_us=run_at_us,
                queue=queue,
            )
        await self._commits.settled()
        return job_id

    async def submit_many(self, who: Principal, commands: Sequence[Submit]) -> list[str]:
        """Store jobs, all of them or none; their ids in order."""
        await self._accept_submit(sum(len(command.payload) + _core.SUBMIT_RECORD_BYTES for command in commands))
        now_us = self._clock.now_us()
        jobs: list[_core.NewJob] = [(*self._job_of(command, now_us), None) for command in commands]
        with self._change():
            stored = self.core.submit_many(now_us, jobs, owner_id=who.owner_id, key_id=who.key_id)
        await self._commits.settled()
        return [job_id for job_id, _ in stored]

    def _job_of(self, command: Submit, now_us: int) -> tuple[bytes, int, int, int, str]:
        """A job as the core takes it, with what the server decides."""
        run_at_us = command.run_at_us or 0
        if command.delay_ms is not None:
            run_at_us = now_us + command.delay_ms * 1000
        retries = self.options.max_retries if command.max_retries is None else command.max_retries
        return command.payload, retries, command.priority, run_at_us, command.queue

    async def _accept_submit(self, payload_bytes: int) -> None:
        """Raises Draining, DiskFull, Overloaded, CleanerBehind."""
        self._accept_work()
        if self.cleaner.is_behind:
            await self.cleaner.progress(LAG_WAIT_S)
            if self.cleaner.is_behind:
                raise CleanerBehind("the log is being cleaned and does not keep up: submit more slowly")
        self._commits.need_room(payload_bytes + ROOM_BYTES_SMALL, spare_segments=1)

    # --- lease --------------------------------------------------------------------------------------------------------

    async def lease(self, who: Principal, command: Lease, connection: Connection | None = None) -> list[LeasedJob]:
        """Lease jobs; none if there are none, also not within `wait_ms`.

        Args:
            connection: where they go. If it is closed when they are due, they are taken back at once.
        """
        self._accept_work()
        self._serve_waiters()  # whoever waits came first
        leased = self._grant(who, command)
        if not leased and command.wait_ms:
            leased = await self._wait(who, command, connection)
        records = await self._commits.records([lease.place for lease in leased])
        if connection is not None and connection.is_closed and leased:
            self._take_back(leased)
            return []
        return [
            LeasedJob(
                lease.job_id,
                _core.submit_payload(record, lease.job_id),
                lease.token,
                lease.attempt,
                lease.lease_until_us,
                lease.created_us,
                lease.priority,
                lease.max_retries,
                lease.queue,
            )
            for lease, record in zip(leased, records, strict=True)
        ]

    def _grant(self, who: Principal, command: Lease) -> list[_core.Leased]:
        """What is ready now. Raises DiskFull, Overloaded."""
        self._commits.need_room(command.limit * _core.SMALL_RECORD_BYTES + ROOM_BYTES_SMALL, spare_segments=0)
        now_us = self._clock.now_us()
        if command.request_id and (held := self.core.leased_before(now_us, who.key_id, command.request_id)):
            return held
        with self._change():
            return self.core.lease(
                now_us,
                list(command.queues),
                command.limit,
                lease_ms=command.lease_ms or 0,
                key_id=who.key_id,
                worker_id=command.worker_id,
                legacy=not command.had_body,
                request_id=command.request_id,
                bytes_max=LEASED_BYTES_MAX,
            )

    async def _wait(self, who: Principal, command: Lease, connection: Connection | None) -> list[_core.Leased]:
        waiter = Waiter(who, command, self._loop.create_future())
        self._waiters.add(waiter)
        self.core.watching = True
        over = self._loop.call_later(command.wait_ms / 1000, self._waiters.end, waiter, [])
        forget = connection.on_close(lambda: self._waiters.end(waiter, [])) if connection is not None else None
        self._watch_timer()
        try:
            return await waiter.granted
        finally:
            over.cancel()
            self._waiters.end(waiter, [])
            if forget is not None:
                forget()

    def _serve_waiters(self) -> None:
        """Offer the jobs that became ready to those who wait, in the order in which they came."""
        if not self.core.watching:
            return
        self._touched |= self.core.take_touched()
        while self._touched:
            queue = next(iter(self._touched))
            waiter = self._waiters.first(queue)
            if waiter is None:
                self._touched.discard(queue)
                continue
            try:
                leased = self._grant(waiter.who, waiter.command)
            except ApiError:
                return  # no room now: they are offered again with the next batch
            if leased:
                self._waiters.end(waiter, leased)
            else:
                self._touched.discard(queue)
        self.core.watching = self._waiters.count > 0

    def _take_back(self, leased: Sequence[_core.Leased]) -> None:
        """Nobody was there to take them: the next one gets them, and no attempt is lost."""
        now_us = self._clock.now_us()
        with self._change():
            for lease in leased:
                if self._tail.has_room(ROOM_BYTES_SMALL, 0):  # else they run out by themselves
                    self.core.undelivered(now_us, lease.job_id, lease.token)
        self._commits.kick_soon()

    # --- the end of an attempt ----------------------------------------------------------------------------------------

    async def ack(self, who: Principal, command: Ack) -> None:
        """End an attempt. Raises JobNotFound, NotAckable, LeaseLost."""
        (refusal,) = await self.ack_many(who, [command])
        if refusal is not None:
            raise refusal

    async def ack_many(self, who: Principal, commands: Sequence[Ack]) -> list[ApiError | None]:
        """End attempts: those that may end do, together; for each other one, why not."""
        room_bytes = sum(
            len(ack.result or b"") + min(4 * len(ack.error), ERROR_BYTES_KEPT) + _core.CLOSE_RECORD_BYTES
            for ack in commands
        )
        self._commits.need_room(room_bytes + ROOM_BYTES_SMALL, spare_segments=0)
        now_us = self._clock.now_us()
        acks = [self._ack_of(ack) for ack in commands]
        with self._change():
            refusals = self.core.ack_many(now_us, acks, key_id=who.key_id)
        await self._commits.settled()
        return refusals

    def _ack_of(self, ack: Ack) -> _core.Ack:
        """An ack as the core takes it, with the jitter that its retry would need."""
        outcome, wait_ms = "error" if ack.error else "ok", -1 if ack.retry_after_ms is None else ack.retry_after_ms
        jitter = self._jitter() if ack.error and wait_ms < 0 else 0.0
        return ack.job_id, ack.lease_token, outcome, ack.result, ack.error, "", wait_ms, jitter

    async def extend(self, job_id: str, token: str, lease_ms: int) -> int:
        """Let a lease last `lease_ms` from now; its deadline. Raises JobNotFound, LeaseLost."""
        self._commits.need_room(ROOM_BYTES_SMALL, spare_segments=0)
        try:
            with self._change():
                return self.core.extend(self._clock.now_us(), job_id, token, lease_ms)
        finally:
            await self._commits.settled()

    # --- reading ------------------------------------------------------------------------------------------------------

    async def job(self, who: Principal, job_id: str) -> JobStatus:
        """A job as it is. Raises JobNotFound, also for another owner's job."""
        try:
            view = self.core.job(self._clock.now_us(), job_id)
            if self.options.owner_isolation and who.type == "client" and view.owner_id != who.owner_id:
                raise JobNotFound(job_id)
        except JobNotFound:
            await self._commits.settled()
            raise
        expired = view.outcome == "lease_expired"
        result, error = None, "lease_expired" if expired else ""
        if view.close_place is None or expired:
            await self._commits.settled()
        else:
            (record,) = await self._commits.records([view.close_place])
            result, error = _core.close_result(record, job_id)
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
        self._commits.need_room(len(body) + ROOM_BYTES_SMALL, spare_segments=0)
        with self._change():
            self.core.put_document(self._clock.now_us(), kind, name, body, key_id)
        await self._commits.settled()

    async def settled(self) -> None:
        """Return when every change made so far is durable: whoever shows a document waits for it."""
        await self._commits.settled()

    def now_us(self) -> int:
        return self._clock.now_us()

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
        """What goes with every batch: leases for those who wait, and the end of what was kept long enough."""
        self._serve_waiters()
        self._forget_finished()
        self.cleaner.look()
        self._watch_timer()

    def _forget_finished(self) -> None:
        options = self.options
        now_us = self._clock.now_us()
        gone = 0
        for state in ("ACKED", "DEAD", "EXPIRED", "CANCELLED"):
            if not self._tail.has_room(SLICE * 8 + ROOM_BYTES_SMALL, 0):
                return
            kept_ms = options.retention_dead_ms if state == "DEAD" else options.retention_acked_ms
            with self._change():
                gone += self.core.forget(
                    now_us, state, kept_ms, options.finished_jobs_max, options.finished_bytes_max, SLICE
                )
        if gone >= SLICE:
            self._commits.kick_soon()  # there may be more

    # --- time ---------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Do what is due; go on in the next turn of the loop while there is more than a slice of it."""
        self._timer = None
        now_us = self._clock.now_us()
        due_us = now_us if self.core.advance(now_us, SLICE) == SLICE else NEVER_US
        if self._tail.has_room(SLICE * EXPIRY_RECORD_BYTES, 0):
            with self._change():
                self.core.expire(now_us, self._jitter, SLICE)
            due_us = min(due_us, self.core.next_due_us())
        self._commits.kick_soon()
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
