"""Handing jobs out: now, or as soon as there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from fastq import _core
from fastq.engine.commands import LEASED_BYTES_MAX, Connection, Lease, Principal
from fastq.engine.life import ROOM_BYTES_SMALL, Life
from fastq.engine.options import EngineOptions
from fastq.engine.results import LeasedJob
from fastq.engine.waiting import Waiter, WaitList
from fastq.errors import ApiError, JobNotFound, QueueForbidden, WorkersOnly
from fastq.log.protocol import Log

ASKED_QUEUES_MAX = 10_000  # of how many queues it is known when somebody last asked for their jobs


class Leasing(Life):
    def __init__(self, log: Log, options: EngineOptions, jitter: Callable[[], float]) -> None:
        super().__init__(log, options, jitter)
        self._waiters = WaitList()
        self._touched: set[str] = set()  # queues in which jobs are ready that nobody who waits was offered yet
        self._rate_due: dict[str, int] = {}  # queues somebody waits for: when their rate limit lets the next lease go
        self._asked_us: dict[str, int] = {}  # queues: when a lease last asked for them

    async def lease(self, who: Principal, command: Lease, connection: Connection | None = None) -> list[LeasedJob]:
        """Lease jobs; none if there are none, also not within `wait_ms`.

        Args:
            connection: where they go. If it is closed when they are due, they are taken back at once.
        Raises:
            WorkersOnly, QueueForbidden; Draining, DiskFull, Overloaded.
        """
        self._accept_work()
        if who.type == "client" and self.options.owner_isolation:
            raise WorkersOnly()
        self.last_seen.note(command.worker_id, self._clock.now_us())
        if who.queues is not None:
            for queue in command.queues:
                if queue not in who.queues:
                    raise QueueForbidden(queue)
        self.serve_waiters()  # whoever waits came first
        granted = self._grant(who, command)
        if not granted and command.wait_ms:
            granted = await self._wait(who, command, connection)
        return await self.deliver(granted, connection)

    async def deliver(self, leased: list[_core.Leased], connection: Connection | None = None) -> list[LeasedJob]:
        """Leases with what their jobs have, or none if they can not be brought to where they go."""
        records = await self._commits.records([lease.place for lease in leased])
        if connection is not None and connection.is_closed and leased:
            self.take_back(leased)
            return []
        return [_leased_job(lease, record) for lease, record in zip(leased, records, strict=True)]

    def _grant(self, who: Principal, command: Lease) -> list[_core.Leased]:
        """What is ready now. Raises DiskFull, Overloaded."""
        self._commits.need_room(command.limit * _core.SMALL_RECORD_BYTES + ROOM_BYTES_SMALL, spare_segments=0)
        now_us = self._clock.now_us()
        if command.request_id and (held := self.core.leased_before(now_us, who.key_id, command.request_id)):
            return held
        self.note_asked(command, now_us)
        weights = command.weights
        with self._change():
            return self.core.lease(
                now_us,
                dict(zip(command.queues, weights, strict=True)) if weights else list(command.queues),
                command.limit,
                lease_ms=command.lease_ms or 0,
                key_id=who.key_id,
                worker_id=command.worker_id,
                legacy=not command.had_body,
                request_id=command.request_id,
                bytes_max=LEASED_BYTES_MAX,
            )

    def note_asked(self, command: Lease, now_us: int) -> None:
        """Somebody asks for jobs of these queues."""
        if len(self._asked_us) > ASKED_QUEUES_MAX:
            self._asked_us.clear()
        for queue in command.queues:
            self._asked_us[queue] = now_us

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def _wait(self, who: Principal, command: Lease, connection: Connection | None) -> list[_core.Leased]:
        waiter = Waiter(who, command, self._loop.create_future())
        self._waiters.add(waiter)
        self.core.watching = True
        over = self._loop.call_later(command.wait_ms / 1000, self._waiters.end, waiter, [])
        forget = connection.on_close(lambda: self._waiters.end(waiter, [])) if connection is not None else None
        for queue in command.queues:
            self._note_rate(queue)
        self._watch_timer()
        try:
            return await waiter.granted
        finally:
            over.cancel()
            self._waiters.end(waiter, [])
            if forget is not None:
                forget()

    def serve_waiters(self) -> None:
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
                self._note_rate(queue)
        self.core.watching = self._waiters.count > 0

    def _note_rate(self, queue: str) -> None:
        """Have the timer look at a queue again when its rate limit lets the next lease go."""
        if due_us := self.core.rate_due_us(queue):
            self._rate_due[queue] = due_us

    def take_back(self, leased: Sequence[_core.Leased | LeasedJob]) -> None:
        """Nobody was there to take them: the next one gets them, and no attempt is lost."""
        now_us = self._clock.now_us()
        with self._change():
            for lease in leased:
                if self._tail.has_room(ROOM_BYTES_SMALL, 0):  # else they run out by themselves
                    with suppress(JobNotFound):  # it was cancelled and removed meanwhile
                        self.core.undelivered(now_us, lease.job_id, lease.token)
        self._commits.kick_soon()

    # --- with the rest of the engine's life ---------------------------------------------------------------------------

    def drain(self) -> None:
        """Whoever waits for a job gets none."""
        super().drain()
        self._waiters.end_all()

    def _before_commit(self) -> None:
        self.serve_waiters()
        super()._before_commit()

    def _next_due_us(self) -> int:
        due_us = super()._next_due_us()
        return min(due_us, *self._rate_due.values()) if self._rate_due else due_us

    def _tick(self) -> None:
        if self._rate_due:
            now_us = self._clock.now_us()
            for queue in [queue for queue, due_us in self._rate_due.items() if due_us <= now_us]:
                del self._rate_due[queue]
                self._touched.add(queue)
        super()._tick()


def _leased_job(lease: _core.Leased, record: bytes) -> LeasedJob:
    facts = _core.submit_facts(record, lease.job_id)
    return LeasedJob(
        lease.job_id,
        facts.payload,
        lease.token,
        lease.attempt,
        lease.lease_until_us,
        lease.created_us,
        lease.priority,
        lease.max_retries,
        lease.queue,
        lease.group,
        facts.tags,
        facts.traceparent,
    )
