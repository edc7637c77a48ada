"""Storing jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastq import _core
from fastq.engine.commands import JobOptions, Principal, Submit
from fastq.engine.life import ROOM_BYTES_SMALL, Life
from fastq.errors import CleanerBehind

if TYPE_CHECKING:
    from fastq._core import NewJob, Submitted

LAG_WAIT_S = 1.0  # how long a submit waits for a cleaner that is behind, before it is refused
OPTION_BYTES_MAX = 2048  # what records of one job take at most because of its options
REPLACE_BYTES_MAX = 8192  # and if it may replace another one's payload


class Submitting(Life):
    """Each answer is (job_id, how): see `_core.CREATED` and what follows there."""

    async def submit(self, who: Principal, command: Submit) -> Submitted:
        """Store a job.

        Raises:
            Draining, DiskFull, Overloaded, CleanerBehind; IdempotencyMismatch, IdempotencyFull, QueueFull, OwnerFull.
        """
        await self._accept_submit(bytes_of(command))
        now_us = self._clock.now_us()
        async with self._commits:
            with self._change():
                return self.submit_within(now_us, command, who.owner_id, who.key_id)

    def submit_within(self, now_us: int, command: Submit, owner_id: str, key_id: str) -> Submitted:
        """Store a job as a part of a change that has made sure of the room. Raises what the core does."""
        payload, max_retries, priority, run_at_us, queue, options = self._job_of(command, now_us)
        return self.core.submit(
            now_us,
            payload,
            owner_id=owner_id,
            key_id=key_id,
            max_retries=max_retries,
            priority=priority,
            run_at_us=run_at_us,
            queue=queue,
            options=options,
        )

    async def submit_many(
        self, who: Principal, commands: Sequence[Submit], idempotency_key: str = "", body_digest: int = 0
    ) -> tuple[list[Submitted], bool]:
        """Store jobs, all of them or none, in order; and whether that was answered before. Raises as `submit`.

        Args:
            idempotency_key: of the whole; the jobs have none of their own then.
        """
        await self._accept_submit(sum(bytes_of(command) for command in commands))
        now_us = self._clock.now_us()
        jobs = [self._job_of(command, now_us) for command in commands]
        async with self._commits:
            with self._change():
                if not idempotency_key:
                    return self.core.submit_many(now_us, jobs, owner_id=who.owner_id, key_id=who.key_id), False
                _, stored, repeated = self.core.transact(
                    now_us,
                    [],
                    [],
                    jobs,
                    owner_id=who.owner_id,
                    key_id=who.key_id,
                    idempotency_key=idempotency_key,
                    body_digest=body_digest,
                )
                return stored, repeated

    def _job_of(self, command: Submit, now_us: int) -> NewJob:
        """A job as the core takes it, with what the server decides."""
        run_at_us = command.run_at_us or 0
        if command.delay_ms is not None:
            run_at_us = now_us + command.delay_ms * 1000
        retries = self.options.max_retries if command.max_retries is None else command.max_retries
        options = None if command.options is None else _options_of(command.options, now_us)
        return command.payload, retries, command.priority, run_at_us, command.queue, options

    async def _accept_submit(self, record_bytes: int) -> None:
        """Raises Draining, DiskFull, Overloaded, CleanerBehind."""
        self._accept_work()
        if self.cleaner.is_behind:
            await self.cleaner.progress(LAG_WAIT_S)
            if self.cleaner.is_behind:
                raise CleanerBehind("the log is being cleaned and does not keep up: submit more slowly")
        self._commits.need_room(record_bytes + ROOM_BYTES_SMALL, spare_segments=1)


def bytes_of(command: Submit) -> int:
    """What the job's records take at most."""
    record_bytes = len(command.payload) + _core.SUBMIT_RECORD_BYTES
    if command.options is not None:
        record_bytes += OPTION_BYTES_MAX + (REPLACE_BYTES_MAX if command.options.replace else 0)
    return record_bytes


def _options_of(options: JobOptions, now_us: int) -> _core.SubmitOptions:
    return _core.SubmitOptions(
        group=options.group,
        lease_ms=options.lease_ms,
        backoff=options.backoff,
        expires_us=options.expires_us or (now_us + options.expires_ms * 1000 if options.expires_ms else 0),
        unique_key=options.unique_key,
        replace=options.replace,
        tags=options.tags,
        traceparent=options.traceparent,
        idempotency_key=options.idempotency_key,
        body_digest=options.body_digest,
    )
