"""What a worker says about a job that it has: how the attempt ended, or that it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from fastq import _core
from fastq.engine.commands import ERROR_BYTES_KEPT, Ack, Principal
from fastq.engine.life import ROOM_BYTES_SMALL, Life
from fastq.errors import ApiError, JobNotFound

EXTEND_RECORD_BYTES = 64


class Acking(Life):
    async def ack(self, who: Principal, command: Ack) -> None:
        """End an attempt. Raises JobNotFound, NotAckable, LeaseLost."""
        (refusal,) = await self.ack_many(who, [command])
        if refusal is not None:
            raise refusal

    async def ack_many(self, who: Principal, commands: Sequence[Ack]) -> list[ApiError | None]:
        """End attempts: those that may end do, together; for each other one, why not."""
        self._commits.need_room(acks_bytes(commands) + ROOM_BYTES_SMALL, spare_segments=0)
        hidden = self._hidden(who, [ack.job_id for ack in commands]) if self.is_bounded(who) else None
        acks = [self._ack_of(ack) for ack in commands if not hidden or ack.job_id not in hidden]
        with self._change():
            refusals = self.core.ack_many(self._clock.now_us(), acks, key_id=who.key_id)
        await self._commits.settled()
        if not hidden:
            return refusals
        answered = iter(refusals)
        return [JobNotFound(ack.job_id) if ack.job_id in hidden else next(answered) for ack in commands]

    async def extend(
        self, who: Principal, leases: Sequence[tuple[str, str]], lease_ms: int = 0
    ) -> list[tuple[int, bool] | ApiError]:
        """Let leases (job_id, token) last `lease_ms` from now, or as long as each was granted.

        Returns:
            For each its deadline and whether the job is to be cancelled; or JobNotFound, LeaseLost.
        """
        self._commits.need_room(len(leases) * EXTEND_RECORD_BYTES + ROOM_BYTES_SMALL, spare_segments=0)
        hidden = self._hidden(who, [job_id for job_id, _ in leases]) if self.is_bounded(who) else frozenset()
        shown = [lease for lease in leases if lease[0] not in hidden]
        with self._change():
            extended = self.core.extend_many(self._clock.now_us(), shown, lease_ms)
        await self._commits.settled()
        answered = iter(extended)
        return [JobNotFound(job_id) if job_id in hidden else next(answered) for job_id, _ in leases]

    async def report(self, who: Principal, job_id: str, token: str, percent: int, note: str) -> bool:
        """How far an attempt has come; whether the job is to be cancelled. Raises JobNotFound, LeaseLost."""
        self._commits.need_room(ROOM_BYTES_SMALL, spare_segments=0)
        async with self._commits:
            job = self._job_seen(who, job_id)
            with self._change():
                self.core.report(self._clock.now_us(), job_id, token, percent, note)
            return job.cancel_requested

    def _ack_of(self, ack: Ack) -> _core.Ack:
        """An ack as the core takes it. The original's: an error text makes it an error."""
        outcome = ack.outcome or ("error" if ack.error else "ok")
        if outcome == "ok":
            return ack.job_id, ack.lease_token, outcome, ack.result, ack.error, "", -1, 0.0
        wait_ms = ack.delay_ms if ack.retry_after_ms is None else ack.retry_after_ms
        jitter = self._jitter() if wait_ms is None else 0.0
        return (
            ack.job_id, ack.lease_token, outcome, ack.result, ack.error, ack.error_code,
            -1 if wait_ms is None else wait_ms, jitter,
        )  # fmt: skip

    def _hidden(self, who: Principal, job_ids: Sequence[str]) -> frozenset[str]:
        """Those jobs that do not exist for this caller, though they do."""
        now_us = self._clock.now_us()
        hidden = set()
        for job_id in job_ids:
            try:
                if not self._sees(who, self.core.job(now_us, job_id)):
                    hidden.add(job_id)
            except JobNotFound:
                pass
        return frozenset(hidden)


def acks_bytes(commands: Sequence[Ack]) -> int:
    """What the records of acks take at most."""
    return sum(
        len(ack.result or b"") + min(4 * len(ack.error), ERROR_BYTES_KEPT) + _core.CLOSE_RECORD_BYTES
        for ack in commands
    )
