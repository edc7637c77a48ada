"""What is done to a job from outside: cancel, redrive, edit, delete. One job at a time."""

from __future__ import annotations

from fastq.engine.commands import Edit, Principal
from fastq.engine.life import ROOM_BYTES_SMALL, Life


class Changing(Life):
    """A caller changes its own owner's jobs, an admin all; any other is answered as one that is not there."""

    async def cancel(self, who: Principal, job_id: str, force: bool = False) -> str:
        """End a job that is wanted no more; its state then: CANCELLED, or RUNNING if its worker is to be told.

        Raises:
            JobNotFound, JobFinished.
        """
        self._commits.need_room(ROOM_BYTES_SMALL, spare_segments=0)
        async with self._commits:
            self._own_job(who, job_id)
            with self._change():
                return self.core.cancel(self._clock.now_us(), job_id, force=force, key_id=who.key_id)

    async def redrive(self, who: Principal, job_id: str) -> str:
        """Let a DEAD job run again at once, its attempts counted from 0; its state then.

        Raises:
            JobNotFound, NotDead, JobDuplicate.
        """
        self._accept_work()
        self._commits.need_room(ROOM_BYTES_SMALL, spare_segments=1)
        async with self._commits:
            self._own_job(who, job_id)
            with self._change():
                self.core.redrive(self._clock.now_us(), job_id, key_id=who.key_id)
            return self.core.job(self._clock.now_us(), job_id).state

    async def edit(self, who: Principal, job_id: str, edit: Edit) -> str:
        """Change a job that does not run and is not finished, or is DEAD; its state then.

        Raises:
            JobNotFound, JobRunning, JobFinished, JobDuplicate, QueueFull.
        """
        self._accept_work()
        async with self._commits:
            while True:
                place = self._own_job(who, job_id).place
                (record,) = await self._commits.records([place])
                room_bytes = len(record) + len(edit.payload or b"") + ROOM_BYTES_SMALL
                self._commits.need_room(room_bytes, spare_segments=1)
                now_us = self._clock.now_us()
                run_at_us = edit.run_at_us if edit.delay_ms is None else now_us + edit.delay_ms * 1000
                with self._change():
                    edited = self.core.edit(
                        now_us,
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
                    return self.core.job(now_us, job_id).state

    async def delete(self, who: Principal, job_id: str) -> None:
        """Remove a job. Raises JobNotFound, JobRunning."""
        self._commits.need_room(ROOM_BYTES_SMALL, spare_segments=0)
        async with self._commits:
            self._own_job(who, job_id)
            with self._change():
                self.core.delete(self._clock.now_us(), [job_id])
