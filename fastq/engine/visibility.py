"""Which jobs a caller may see. Any other job is answered with JobNotFound, as if it did not exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastq import _core
from fastq.engine.commands import Principal
from fastq.errors import JobNotFound


class Visibility:
    def __init__(self, core: _core.Core, now_us: Callable[[], int], owner_isolation: bool) -> None:
        """
        Args:
            owner_isolation: client keys see only their owner's jobs.
        """
        self._core, self._now_us = core, now_us
        self.owner_isolation = owner_isolation

    def is_bounded(self, who: Principal) -> bool:
        """Whether there may be jobs that this caller must not see."""
        return who.queues is not None or (who.type == "client" and self.owner_isolation)

    def may_see(self, who: Principal, job: _core.JobView) -> bool:
        if who.queues is not None and job.queue not in who.queues:
            return False
        return who.type != "client" or not self.owner_isolation or job.owner_id == who.owner_id

    def visible_job(self, who: Principal, job_id: str) -> _core.JobView:
        """A job that this caller may see. Raises JobNotFound."""
        job = self._core.job(self._now_us(), job_id)
        if not self.may_see(who, job):
            raise JobNotFound(job_id)
        return job

    def owned_job(self, who: Principal, job_id: str) -> _core.JobView:
        """A job that this caller may change: its owner's, or any for an admin. Raises JobNotFound."""
        job = self.visible_job(who, job_id)
        if not who.is_admin and job.owner_id != who.owner_id:
            raise JobNotFound(job_id)
        return job

    def hidden(self, who: Principal, job_ids: Sequence[str]) -> frozenset[str]:
        """The jobs among `job_ids` that exist and that this caller must not see."""
        if not self.is_bounded(who):
            return frozenset()
        now_us = self._now_us()
        found = set()
        for job_id in job_ids:
            try:
                if not self.may_see(who, self._core.job(now_us, job_id)):
                    found.add(job_id)
            except JobNotFound:
                pass
        return frozenset(found)
