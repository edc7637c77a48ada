"""A worker acks a job, extends its lease, or reports progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastq import _core
from fastq.engine.commands import ERROR_BYTES_KEPT, Ack, Principal
from fastq.engine.commits import ROOM_BYTES_SMALL, Commits
from fastq.errors import ApiError

EXTEND_RECORD_BYTES = 64


class Acks:
    def __init__(
        self,
        core: _core.Core,
        commits: Commits,
        now_us: Callable[[], int],
        jitter: Callable[[], float],
    ) -> None:
        """
        Args:
            jitter: draws from [0, 1); a retry waits this share of its upper bound.
        """
        self._core, self._commits = core, commits
        self._now_us, self._jitter = now_us, jitter

    def ack(self, who: Principal, command: Ack) -> None:
        """End an attempt. Raises JobNotFound, NotAckable, LeaseLost."""
        (refusal,) = self.ack_many(who, [command])
        if refusal is not None:
            raise refusal

    def ack_many(self, who: Principal, commands: Sequence[Ack]) -> list[ApiError | None]:
        """End attempts. Those that may end are logged together.

        Returns:
            For each command, in order: None, or the error that refuses it.
        """
        self._commits.need_room(acks_bytes(commands) + ROOM_BYTES_SMALL, spare_segments=0)
        acks = [self.ack_of(ack) for ack in commands]
        with self._commits.change:
            return self._core.ack_many(self._now_us(), who.sees, acks, key_id=who.key_id)

    def extend(
        self, who: Principal, leases: Sequence[tuple[str, str]], lease_ms: int = 0
    ) -> list[tuple[int, bool] | ApiError]:
        """Move the deadlines of leases (job_id, token) to `lease_ms` from now.

        Args:
            lease_ms: 0: as long as each lease was granted for.
        Returns:
            For each lease, in order: its deadline in Unix microseconds and whether a cancel was requested; or
            JobNotFound, LeaseLost.
        """
        self._commits.need_room(len(leases) * EXTEND_RECORD_BYTES + ROOM_BYTES_SMALL, spare_segments=0)
        extends = [_core.Extend(job_id, token, lease_ms) for job_id, token in leases]
        with self._commits.change:
            return self._core.extend_many(self._now_us(), who.sees, extends)

    def report(self, who: Principal, job_id: str, token: str, percent: int, note: str) -> bool:
        """Store an attempt's progress. Returns whether a cancel was requested. Raises JobNotFound, LeaseLost."""
        self._commits.need_room(ROOM_BYTES_SMALL, spare_segments=0)
        now_us = self._now_us()
        with self._commits.change:
            self._core.report(now_us, who.sees, job_id, token, percent, note)
        return self._core.job(now_us, who.sees, job_id).cancel_requested

    def ack_of(self, ack: Ack) -> _core.Ack:
        """An ack in the core's form. Without an outcome, an error text makes it an error, as the original does."""
        outcome = ack.outcome or ("error" if ack.error else "ok")
        if outcome == "ok":
            return _core.Ack(ack.job_id, ack.lease_token, outcome, ack.result, ack.error)
        wait_ms = ack.delay_ms if ack.retry_after_ms is None else ack.retry_after_ms
        if wait_ms is None:
            wait_ms, jitter = -1, self._jitter()
        else:
            jitter = 0.0
        return _core.Ack(ack.job_id, ack.lease_token, outcome, ack.result, ack.error, ack.error_code, wait_ms, jitter)


def acks_bytes(commands: Sequence[Ack]) -> int:
    """An upper bound of the bytes that the records of acks take."""
    return sum(
        len(ack.result or b"")
        + min(len(ack.error.encode(errors="surrogatepass")), ERROR_BYTES_KEPT)
        + _core.CLOSE_RECORD_BYTES
        for ack in commands
    )
