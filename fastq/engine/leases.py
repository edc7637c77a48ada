"""A worker leases jobs: those that are ready now, or the first that become ready."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from fastq import _core
from fastq.engine.admission import Admission
from fastq.engine.commands import LEASED_BYTES_MAX, Connection, Lease, Principal
from fastq.engine.commits import ROOM_BYTES_SMALL, Commits
from fastq.engine.records import Records, sound
from fastq.engine.results import LeasedJob
from fastq.engine.waiting import LeaseWaiters
from fastq.engine.workers import LastSeen
from fastq.errors import JobNotFound, Overloaded, QueueForbidden, RecordUnreadable, WorkersOnly

LOG = logging.getLogger(__name__)

ASKED_QUEUES_MAX = 10_000  # queues whose last lease request is remembered


class Leases:
    def __init__(
        self,
        core: _core.Core,
        commits: Commits,
        records: Records,
        admission: Admission,
        now_us: Callable[[], int],
        on_due_changed: Callable[[], None],
    ) -> None:
        """
        Args:
            on_due_changed: see `LeaseWaiters`.
        """
        self._core, self._commits, self._admission = core, commits, admission
        self._records, self._now_us = records, now_us
        self._asked_us: dict[str, int] = {}
        self.waiters = LeaseWaiters(core, self._grant, self.take_back, now_us, on_due_changed)
        self.last_seen = LastSeen()

    async def lease(
        self, who: Principal, command: Lease, connection: Connection | None = None, log_id: str = ""
    ) -> list[LeasedJob]:
        """Lease jobs and read their payloads. Returns none if no job becomes ready within `wait_ms`.

        Args:
            connection: where the answer goes. If it closes first, the leases are taken back.
            log_id: the request's id in the server's log.
        Raises:
            WorkersOnly, QueueForbidden; Draining, DiskFull, Overloaded, LogUnreadable.
        """
        self._admission.need_serving()
        if who.sees.owner_id is not None:
            raise WorkersOnly()
        self.last_seen.note(command.worker_id, self._now_us(), command.queues)
        for queue in command.queues:
            if not who.sees.has_queue(queue):
                raise QueueForbidden(queue)
        while True:
            may_grant = self.serve_waiters(command)
            granted = await self._granted(who, command) if may_grant else []
            if not granted and command.wait_ms:
                granted = await self.waiters.wait(who, command, connection)
            delivered = await self.deliver(granted, connection, log_id)
            if delivered or not granted or (connection is not None and connection.is_closed):
                return delivered
            # None of them could be read: they are DEAD, and others may be ready.

    async def deliver(
        self, leased: list[_core.Leased], connection: Connection | None = None, log_id: str = ""
    ) -> list[LeasedJob]:
        """Read the payloads of leased jobs. If the connection has closed, take the leases back and return none.

        A job whose payload cannot be read is left out and becomes DEAD.

        Raises:
            LogUnreadable: no payload can be read now; the leases are taken back.
        """
        try:
            records = await self._records.submits(leased)
        except BaseException:
            self.take_back(leased)
            raise
        if connection is not None and connection.is_closed and leased:
            self.take_back(leased)
            return []
        delivered: list[LeasedJob] = []
        for lease, record in zip(leased, records, strict=True):
            try:
                if record is not None:
                    delivered.append(_leased_job(lease, sound(record)))
            except RecordUnreadable as error:
                self._bury(lease, error, log_id)
        return delivered

    def _bury(self, lease: _core.Leased, error: RecordUnreadable, log_id: str) -> None:
        """Make a job DEAD whose payload cannot be read. The attempt does not count."""
        LOG.error(
            "job %s is not delivered: its payload cannot be read: %s", lease.job_id, error.reason,
            extra={"request_id": log_id, "job_id": lease.job_id},
        )  # fmt: skip
        with self._commits.change, suppress(JobNotFound):
            if self._commits.has_room(ROOM_BYTES_SMALL):  # else the lease expires
                self._core.unreadable(
                    self._now_us(), lease.job_id, lease.token, f"the payload cannot be read: {error.reason}"
                )

    def serve_waiters(self, command: Lease) -> bool:
        """Serve requests that wait: they came before `command`. False: some are left, so it has to wait too.

        A request that does not wait may lease before them: their jobs are offered in slices.
        """
        self.waiters.serve()
        return not (command.wait_ms and self.waiters.are_before(command.queues))

    async def _granted(self, who: Principal, command: Lease) -> list[_core.Leased]:
        """As `_grant`, but wait once for a segment that is being made."""
        try:
            return self._grant(who, command)
        except Overloaded:
            await self._admission.caught_up()
            self._admission.need_serving()
            return self._grant(who, command)

    def _grant(self, who: Principal, command: Lease) -> list[_core.Leased]:
        """Lease jobs that are ready now. Raises DiskFull, Overloaded."""
        self._commits.need_room(command.limit * _core.SMALL_RECORD_BYTES + ROOM_BYTES_SMALL, spare_segments=0)
        now_us = self._now_us()
        if command.request_id and (held := self._core.leased_before(now_us, who.key_id, command.request_id)):
            return held
        self.note_asked(command, now_us)
        weights = command.weights
        with self._commits.change:
            return self._core.lease(
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
        """Remember that a worker asked for jobs of these queues."""
        if len(self._asked_us) > ASKED_QUEUES_MAX:
            self._asked_us.clear()
        for queue in command.queues:
            self._asked_us[queue] = now_us

    def asked_us(self, queue: str) -> int:
        """When a worker last asked for jobs of this queue, Unix microseconds; 0: not since the start."""
        return self._asked_us.get(queue, 0)

    def take_back(self, leased: Sequence[_core.Leased | LeasedJob]) -> None:
        """Make jobs ready again whose answer could not be delivered. The attempt does not count."""
        now_us = self._now_us()
        with self._commits.change:
            for lease in leased:
                if self._commits.has_room(ROOM_BYTES_SMALL):  # else the lease expires
                    with suppress(JobNotFound):  # it was cancelled and removed since
                        self._core.undelivered(now_us, lease.job_id, lease.token)


def _leased_job(lease: _core.Leased, record: bytes) -> LeasedJob:
    """Raises RecordUnreadable."""
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
