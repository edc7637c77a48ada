"""A client submits jobs: one, or many together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastq import _core
from fastq.engine.admission import Admission
from fastq.engine.commands import JobOptions, Principal, Resubmit, Submit
from fastq.engine.commits import Commits
from fastq.engine.records import Records, sound
from fastq.errors import JobNotFound, QueueForbidden

if TYPE_CHECKING:
    from fastq._core import Submitted


class Submits:
    """Each answer is (job_id, how), `how` one of `_core.CREATED` and the constants beside it."""

    def __init__(
        self,
        core: _core.Core,
        commits: Commits,
        records: Records,
        admission: Admission,
        now_us: Callable[[], int],
        max_retries: int,
    ) -> None:
        """
        Args:
            max_retries: for jobs that do not set it.
        """
        self._core, self._commits, self._admission, self._now_us = core, commits, admission, now_us
        self._records = records
        self._max_retries = max_retries

    def submit(self, who: Principal, command: Submit, owner_id: str | None = None) -> Submitted:
        """Store a job.

        Args:
            owner_id: whose job it is, if not the caller's.
        Raises:
            Draining, DiskFull, Overloaded, CleanerBehind; IdempotencyMismatch, IdempotencyFull, QueueFull, OwnerFull,
            QueuesFull; QueueForbidden: see `need_queue`.
        """
        need_queue(who, command)
        now_us = self._now_us()
        owner_id = who.owner_id if owner_id is None else owner_id
        job = self.job_of(command, now_us)
        self._admission.need_job_room(
            _core.new_jobs_bytes([job]), lambda: self._are_repeats(now_us, owner_id, [command])
        )
        with self._commits.change:
            return self._core.submit(now_us, job, owner_id=owner_id, key_id=who.key_id)

    async def copy_of(self, who: Principal, command: Resubmit) -> tuple[Submit, str]:
        """The job that a resubmit stores, and its owner, which is the other job's. Reads the other job's payload.

        Not copied: its unique key, its idempotency key and when it was due. An expiry is as far ahead as it was at the
        submit of the other job.
        Raises:
            JobNotFound, also if the caller does not own it; RecordUnreadable, LogUnreadable.
        """
        view = self._core.job(self._now_us(), who.owns, command.job_id)
        (record,) = await self._records.submits([view])
        if record is None:
            raise JobNotFound(command.job_id)
        facts = _core.submit_facts(sound(record), command.job_id)
        lasts_us = view.expires_us - view.created_us if view.expires_us else 0
        options = JobOptions(
            group=view.group,
            lease_ms=facts.lease_ms,
            backoff=facts.backoff,
            expires_ms=max(1, lasts_us // 1000) if view.expires_us else 0,
            tags=facts.tags,
            traceparent=command.traceparent or facts.traceparent,
            idempotency_key=command.idempotency_key,
            body_digest=command.body_digest,
        )
        submit = Submit(
            facts.payload,
            view.max_retries if command.max_retries is None else command.max_retries,
            view.priority if command.priority is None else command.priority,
            command.delay_ms,
            command.run_at_us,
            view.queue if command.queue is None else command.queue,
            options,
        )
        return submit, view.owner_id

    def store(self, now_us: int, command: Submit, owner_id: str, key_id: str) -> Submitted:
        """Store a job within a change. The caller has checked the room. Raises what `Core.submit` raises."""
        return self._core.submit(now_us, self.job_of(command, now_us), owner_id=owner_id, key_id=key_id)

    def submit_many(
        self, who: Principal, commands: Sequence[Submit], idempotency_key: str = "", body_digest: int = 0
    ) -> tuple[list[Submitted], bool]:
        """Store jobs in order, all of them or none.

        Args:
            idempotency_key: of the whole batch; its jobs then have none of their own.
        Returns:
            An answer for each job, and whether they repeat the answer to an earlier request with the same key.
        Raises:
            What `submit` raises.
        """
        for command in commands:
            need_queue(who, command)
        now_us = self._now_us()
        jobs = [self.job_of(command, now_us) for command in commands]
        remembered_bytes = _core.remembered_bytes(len(jobs)) if idempotency_key else 0
        self._admission.need_job_room(
            _core.new_jobs_bytes(jobs) + remembered_bytes,
            lambda: (
                self._core.remembers(now_us, who.owner_id, idempotency_key)
                if idempotency_key
                else self._are_repeats(now_us, who.owner_id, commands)
            ),
        )
        with self._commits.change:
            if not idempotency_key:
                return self._core.submit_many(now_us, jobs, owner_id=who.owner_id, key_id=who.key_id), False
            _, stored, repeated = self._core.transact(
                now_us,
                who.sees,
                [],
                [],
                jobs,
                owner_id=who.owner_id,
                key_id=who.key_id,
                idempotency_key=idempotency_key,
                body_digest=body_digest,
            )
            return stored, repeated

    def _are_repeats(self, now_us: int, owner_id: str, commands: Sequence[Submit]) -> bool:
        """Whether each command has an idempotency key whose answer is remembered."""
        return bool(commands) and all(
            command.options is not None
            and command.options.idempotency_key
            and self._core.remembers(now_us, owner_id, command.options.idempotency_key)
            for command in commands
        )

    def job_of(self, command: Submit, now_us: int) -> _core.NewJob:
        """A job in the core's form, with the server's defaults filled in."""
        run_at_us = command.run_at_us or 0
        if command.delay_ms is not None:
            run_at_us = now_us + command.delay_ms * 1000
        retries = self._max_retries if command.max_retries is None else command.max_retries
        options = None if command.options is None else _options_of(command.options, now_us)
        return _core.NewJob(command.payload, retries, command.priority, run_at_us, command.queue, options)


def need_queue(who: Principal, command: Submit) -> None:
    """Check that a submit neither shows nor changes a job of a queue that the caller is not bound to.

    A bound key adds new jobs to any queue. The answer to a unique key tells of the job that has it.
    Raises QueueForbidden.
    """
    if command.options is not None and command.options.unique_key and not who.sees.has_queue(command.queue):
        raise QueueForbidden(command.queue, "use unique_key in")


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
