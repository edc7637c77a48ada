"""Changes of one job by a client or operator: cancel, redrive, edit, delete."""

from __future__ import annotations

from collections.abc import Callable

from fastq import _core
from fastq.engine.admission import Admission
from fastq.engine.commands import Edit, Principal
from fastq.engine.commits import ROOM_BYTES_SMALL, Commits
from fastq.errors import QueueForbidden


class Changes:
    """A caller may change the jobs that it owns. Any other job is answered with JobNotFound."""

    def __init__(self, core: _core.Core, commits: Commits, admission: Admission, now_us: Callable[[], int]) -> None:
        self._core, self._commits, self._admission, self._now_us = core, commits, admission, now_us

    def cancel(self, who: Principal, job_id: str, force: bool = False) -> str:
        """Cancel a job.

        Returns:
            CANCELLED; or RUNNING: its worker learns of the request with its next extend or report.
        Raises:
            JobNotFound, JobFinished.
        """
        self._commits.need_room(ROOM_BYTES_SMALL, spare_segments=0)
        with self._commits.change:
            return self._core.cancel(self._now_us(), who.owns, job_id, force=force, key_id=who.key_id)

    def redrive(self, who: Principal, job_id: str) -> str:
        """Make a DEAD job ready again, its attempts counted from 0. Returns its new state.

        Raises:
            JobNotFound, NotDead, JobDuplicate.
        """
        self._admission.need_serving()
        self._commits.need_room(ROOM_BYTES_SMALL, spare_segments=1)
        with self._commits.change:
            self._core.redrive(self._now_us(), who.owns, job_id, key_id=who.key_id)
        return self._core.job(self._now_us(), who.owns, job_id).state

    async def edit(self, who: Principal, job_id: str, edit: Edit) -> str:
        """Change a job that waits or is DEAD. Reads its current payload. Returns its new state.

        Raises:
            JobNotFound, JobRunning, JobFinished, JobDuplicate, QueueFull, QueuesFull.
            QueueForbidden: the job would leave the queues that the caller is bound to.
        """
        self._admission.need_serving()
        while True:
            place = self._core.job(self._now_us(), who.owns, job_id).place
            if edit.queue is not None and not who.owns.has_queue(edit.queue):
                raise QueueForbidden(edit.queue, "move a job to")
            (record,) = await self._commits.records([place])
            room_bytes = len(record) + len(edit.payload or b"") + ROOM_BYTES_SMALL
            self._commits.need_room(room_bytes, spare_segments=1)
            now_us = self._now_us()
            run_at_us = edit.run_at_us if edit.delay_ms is None else now_us + edit.delay_ms * 1000
            with self._commits.change:
                edited = self._core.edit(
                    now_us,
                    who.owns,
                    job_id,
                    place,
                    record,
                    key_id=who.key_id,
                    payload=edit.payload,
                    priority=edit.priority,
                    run_at_us=run_at_us,
                    queue=edit.queue,
                )
            if edited:
                return self._core.job(now_us, who.owns, job_id).state

    def delete(self, who: Principal, job_id: str) -> None:
        """Remove a job. Raises JobNotFound, JobRunning."""
        self._commits.need_room(ROOM_BYTES_SMALL, spare_segments=0)
        with self._commits.change:
            self._core.delete(self._now_us(), who.owns, [job_id])
