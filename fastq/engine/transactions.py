"""A transaction: several operations in one record, all of them or none."""

from __future__ import annotations

from collections.abc import Callable

from fastq import _core
from fastq.engine.acks import EXTEND_RECORD_BYTES, Acks, acks_bytes
from fastq.engine.admission import Admission
from fastq.engine.commands import Ack, Extend, Principal, Submit, Transaction
from fastq.engine.commits import Commits
from fastq.engine.submits import Submits, need_queue
from fastq.errors import Forbidden


class Transactions:
    def __init__(
        self,
        core: _core.Core,
        commits: Commits,
        admission: Admission,
        submits: Submits,
        acks: Acks,
        now_us: Callable[[], int],
    ) -> None:
        self._core, self._commits, self._admission = core, commits, admission
        self._submits, self._acks, self._now_us = submits, acks, now_us

    def transact(self, who: Principal, transaction: Transaction) -> tuple[list[int | _core.Submitted | None], bool]:
        """Ack, extend and submit together.

        A submit beside an ack needs no scope of its own; the new job belongs to the acked job's owner. Idempotency keys
        are the caller's owner's. A repeated transaction is answered before anything that it names is looked up.

        Returns:
            For each operation, in order: None for an ack, the deadline for an extend, the job for a submit; and
            whether this repeats the answer to an earlier transaction with the same idempotency key.
        Raises:
            The error of the first operation that is refused; Forbidden, InvalidRequest.
        """
        acks = [op for op in transaction.ops if isinstance(op, Ack)]
        extends = [op for op in transaction.ops if isinstance(op, Extend)]
        submits = [op for op in transaction.ops if isinstance(op, Submit)]
        if submits and not acks and not who.is_admin and "jobs:submit" not in who.scopes:
            raise Forbidden("Insufficient permissions", "jobs:submit")
        for submit in submits:
            need_queue(who, submit)
        now_us, key = self._now_us(), transaction.idempotency_key
        jobs = [self._submits.job_of(submit, now_us) for submit in submits]
        self._admission.need_job_room(
            acks_bytes(acks)
            + len(extends) * EXTEND_RECORD_BYTES
            + _core.new_jobs_bytes(jobs)
            + (_core.remembered_bytes(len(extends) + len(jobs)) if key else 0),
            lambda: bool(key) and self._core.remembers(now_us, who.owner_id, key),
        )
        with self._commits.change:
            untils, stored, repeated = self._core.transact(
                now_us,
                who.sees,
                [self._acks.ack_of(ack) for ack in acks],
                [_core.Extend(extend.job_id, extend.lease_token, extend.lease_ms) for extend in extends],
                jobs,
                owner_id=who.owner_id,
                key_id=who.key_id,
                idempotency_key=key,
                body_digest=transaction.body_digest,
            )
        until, job = iter(untils), iter(stored)
        answers: list[int | _core.Submitted | None] = []
        for op in transaction.ops:
            answers.append(None if isinstance(op, Ack) else next(until) if isinstance(op, Extend) else next(job))
        return answers, repeated
