"""Looking at jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastq import _core
from fastq._core import Event, JobView
from fastq.engine.commands import PAGE_EXAMINED_MAX, Connection, Find, Principal
from fastq.engine.history import history_records
from fastq.engine.leasing import Leasing
from fastq.engine.options import EngineOptions
from fastq.engine.results import JobHistory, JobsPage, JobStatus, Why
from fastq.log.protocol import Log

FINISHED = frozenset({"ACKED", "DEAD", "EXPIRED", "CANCELLED"})
HISTORY_TRIES = 3  # before a file that is not there is a fault
POSITION_MAX = 10_000
NOBODY_ASKS_US = 60_000_000  # so long after the last request nobody is taken to ask
SEARCHED_BYTES_MAX = 8 << 20  # of payloads that one page looks through, unless one alone is larger
SEARCHED_JOBS_MAX = 1_000
SPOKEN_FOR = frozenset({"lease_expired", "poisoned", "discarded"})  # outcomes that stand where there is no error text


class Reading(Leasing):
    def __init__(self, log: Log, options: EngineOptions, jitter: Callable[[], float]) -> None:
        super().__init__(log, options, jitter)
        self._ends: dict[str, set[asyncio.Future[None]]] = {}  # who waits for a job to end

    async def job(self, who: Principal, job_id: str, *, with_payload: bool = False) -> JobStatus:
        """A job as it is. Raises JobNotFound, also for another owner's job."""
        async with self._commits:
            view = self._job_seen(who, job_id)
        places = [] if view.close_place is None else [view.close_place]
        if with_payload:
            places.append(view.place)
        records = await self._commits.records(places)
        payload = _core.submit_payload(records.pop(), job_id) if with_payload else None
        result, error = _core.close_result(records[0], job_id) if records else (None, "")
        if not error and view.outcome in SPOKEN_FOR:
            error = view.outcome
        return _status(view, result, error, payload)

    async def job_at_end(
        self, who: Principal, job_id: str, wait_ms: int, connection: Connection | None, *, with_payload: bool = False
    ) -> JobStatus:
        """The same as soon as the job is finished, or after `wait_ms`, as it is then."""
        async with self._commits:
            finished = self._job_seen(who, job_id).state in FINISHED
        if not finished and not self.draining:
            await self._end(job_id, wait_ms, connection)
        return await self.job(who, job_id, with_payload=with_payload)

    async def _end(self, job_id: str, wait_ms: int, connection: Connection | None) -> None:
        ended: asyncio.Future[None] = self._loop.create_future()
        waiting = self._ends.setdefault(job_id, set())
        waiting.add(ended)
        self.core.watch_end(job_id)
        over = self._loop.call_later(wait_ms / 1000, _finish, ended)
        forget = None if connection is None else connection.on_close(lambda: _finish(ended))
        try:
            await ended
        finally:
            over.cancel()
            if forget is not None:
                forget()
            waiting.discard(ended)
            if not waiting and self._ends.get(job_id) is waiting:
                del self._ends[job_id]
                self.core.unwatch_end(job_id)

    async def page(self, who: Principal, find: Find) -> JobsPage:
        """Jobs that fit, the newest first; fewer than asked for, also none, if much was looked at for them."""
        if not find.text:
            jobs, before = self._find(who, find, find.before, find.limit)
            await self._commits.settled()
            return JobsPage(jobs, before)
        return await self._search(who, find)

    def _find(self, who: Principal, find: Find, before: int, limit: int) -> tuple[list[JobView], int]:
        return self.core.page(
            self._clock.now_us(),
            before,
            limit,
            PAGE_EXAMINED_MAX,
            state=find.state,
            queue=find.queue,
            group=find.group,
            tag=find.tag,
            owner_id=who.owner_id if who.type == "client" and self.options.owner_isolation else None,
            since_us=find.since_us,
            queues=who.queues,
        )

    async def _search(self, who: Principal, find: Find) -> JobsPage:
        """A page by what payloads hold: they are read meanwhile, so many bytes at most."""
        candidates, before = self._find(who, find, find.before, SEARCHED_JOBS_MAX)
        searched_bytes = 0
        for i, job in enumerate(candidates):
            searched_bytes += job.place[2]
            if i and searched_bytes > SEARCHED_BYTES_MAX:
                before = self._number(candidates[i - 1])
                candidates = candidates[:i]
                break
        records = await self._commits.records([job.place for job in candidates])
        wanted = find.text.encode()
        found: list[JobView] = []
        for job, record in zip(candidates, records, strict=True):
            if len(found) == find.limit:
                return JobsPage(found, self._number(found[-1]))
            if wanted in _core.submit_payload(record, job.job_id):
                found.append(job)
        return JobsPage(found, before)

    def _number(self, job: JobView) -> int:
        return _core.job_number(job.job_id, self.core.database_id)

    def running(self, who: Principal, examined_max: int) -> tuple[list[JobView], bool]:
        """Jobs that run, of those that exist for this caller; False if more run than were looked at."""
        jobs = self.core.running(examined_max + 1)
        return [job for job in jobs[:examined_max] if self._sees(who, job)], len(jobs) <= examined_max

    async def history(self, who: Principal, job_id: str) -> JobHistory:
        """What happened to a job. Raises JobNotFound."""
        for _ in range(HISTORY_TRIES):
            try:
                return await self._history(who, job_id)
            except FileNotFoundError:  # the cleaner has moved the job, and with it its history, between two reads
                continue
        return await self._history(who, job_id)

    async def _history(self, who: Principal, job_id: str) -> JobHistory:
        async with self._commits:
            view = self._job_seen(who, job_id)
        places = [view.place] if view.history_place is None else [view.place, view.history_place]
        submit, *newest = await self._commits.records(places)
        records = await history_records(self._commits, newest[0] if newest else None)
        events: list[Event] = [_core.read_event(record) for record in records]
        return JobHistory(job_id, events, view.created_us, _core.submit_facts(submit, job_id).key_id)

    async def why(self, who: Principal, job_id: str) -> Why:
        """Why a job does not run now. Raises JobNotFound."""
        async with self._commits:
            return self._why(self._job_seen(who, job_id))

    def _why(self, job: JobView) -> Why:
        now_us = self._clock.now_us()
        due = job.state not in FINISHED and job.state != "RUNNING" and job.run_at_us <= now_us
        position = self.core.position(job.job_id, POSITION_MAX) if due else 0
        workers = self._waiters.waiting_for(job.queue)
        asked_us = self._asked_us.get(job.queue, 0)
        reason = "next"
        if not due:
            reason = "finished" if job.state in FINISHED else "running" if job.state == "RUNNING" else "not_due"
        elif blocked := self.core.blocked_by(now_us, job.queue, job.group):
            reason = blocked
        elif not workers and asked_us < now_us - NOBODY_ASKS_US:
            reason = "no_worker"
        elif position:
            reason = "behind"
        return Why(
            job_id=job.job_id,
            state=job.state,
            reason=reason,
            queue=job.queue,
            group=job.group,
            run_at_us=job.run_at_us if reason == "not_due" else 0,
            rate_due_us=self.core.rate_due_us(job.queue) if reason == "rate_limit" else 0,
            position=position,
            waiting_workers=workers,
            asked_us=asked_us,
        )

    # --- with the rest of the engine's life ---------------------------------------------------------------------------

    def drain(self) -> None:
        """Whoever waits for an end is told how the job is now."""
        super().drain()
        for waiting in self._ends.values():
            for ended in waiting:
                _finish(ended)

    def _before_commit(self) -> None:
        super()._before_commit()
        if self._ends:
            for job_id in self.core.take_ended():
                for ended in self._ends.pop(job_id, ()):
                    _finish(ended)


def _finish(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _status(view: JobView, result: bytes | None, error: str, payload: bytes | None) -> JobStatus:
    return JobStatus(
        job_id=view.job_id,
        state=view.state,
        attempts=view.attempts,
        max_retries=view.max_retries,
        priority=view.priority,
        queue=view.queue,
        group=view.group,
        tags=view.tags,
        created_us=view.created_us,
        run_at_us=view.run_at_us,
        expires_us=view.expires_us,
        lease_until_us=view.lease_until_us,
        worker_id=view.worker_id,
        outcome=view.outcome,
        cancel_requested=view.cancel_requested,
        progress=view.progress,
        result=result,
        error=error,
        payload=payload,
    )
