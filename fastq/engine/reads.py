"""Reads: one job, its end, why it does not run, and lists of jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from fastq import _core
from fastq._core import FINISHED, Access, JobView, SubmitFacts
from fastq.engine.admission import Admission
from fastq.engine.commands import PAGE_EXAMINED_MAX, Connection, Find, Principal
from fastq.engine.commits import Commits
from fastq.engine.leases import Leases
from fastq.engine.results import End, HeldBack, JobsPage, JobStatus, Why
from fastq.engine.search import AS_ERROR, Search, pieces, read_bytes
from fastq.engine.waiting import EndWaiters
from fastq.errors import JobNotFound

POSITION_MAX = 10_000
NO_WORKER_AFTER_US = 60_000_000  # without a lease request for this long, a queue has no worker
READ_BYTES_MAX = 8 << 20  # of records for one page, unless one record alone is larger
SEARCHED_JOBS_MAX = 1_000
SLICE_BYTES = 512 << 10  # of records that a piece of a page reads, unless one record alone is larger
SLICE_JOBS, SLICE_EXAMINED = 50, 1_000  # of a piece of a page


class Reads:
    def __init__(
        self,
        core: _core.Core,
        commits: Commits,
        search: Search,
        admission: Admission,
        leases: Leases,
        now_us: Callable[[], int],
    ) -> None:
        self._core, self._commits, self._admission = core, commits, admission
        self._search, self._leases, self._now_us = search, leases, now_us
        self.end_waiters = EndWaiters(core, now_us)

    # --- one job ------------------------------------------------------------------------------------------------------

    async def job(self, who: Principal, job_id: str, *, with_payload: bool = False) -> JobStatus:
        """Read a job and its result. Raises JobNotFound, also if the caller may not see it; RecordUnreadable."""
        return await self._read(self.view(who.sees, job_id), with_payload)

    async def _read(self, view: JobView, with_payload: bool) -> JobStatus:
        job_id = view.job_id
        places = [] if view.close_place is None else [view.close_place]
        if with_payload:
            places.append(view.place)
        records = await self._commits.records(places) if places else []
        facts = _core.submit_facts(records.pop(), job_id) if with_payload else None
        result, end = None, End()
        if records:
            result, _ = _core.close_result(records[0], job_id)
            end = End(*_core.close_error(records[0], job_id))
        error = end.error or (view.outcome if view.outcome in AS_ERROR else "")
        return _status(view, result, error, end.error_code, facts)

    async def job_at_end(
        self, who: Principal, job_id: str, wait_ms: int, connection: Connection | None, *, with_payload: bool = False
    ) -> JobStatus:
        """Wait until a job is finished, at most `wait_ms`, then read it, also if retention has just removed it."""
        ended: JobView | None = None
        try:
            if self.view(who.sees, job_id).state not in FINISHED and not self._admission.draining:
                ended = await self.end_waiters.wait(who, job_id, wait_ms, connection)
        except JobNotFound:
            ended = self.end_waiters.late(job_id, self._now_us())
        if ended is None:
            return await self.job(who, job_id, with_payload=with_payload)
        if not who.sees.has(ended.owner_id, ended.queue):
            raise JobNotFound(job_id)
        try:
            return await self._read(ended, with_payload)
        except FileNotFoundError:  # the cleaner has dropped its records too
            raise JobNotFound(job_id) from None

    def view(self, access: Access, job_id: str) -> JobView:
        """A job without its result and payload. Raises JobNotFound."""
        return self._core.job(self._now_us(), access, job_id)

    def why(self, who: Principal, job_id: str) -> Why:
        """Say why a job does not run now. Raises JobNotFound."""
        job, now_us = self.view(who.sees, job_id), self._now_us()
        due = job.state not in FINISHED and job.state != "RUNNING" and job.run_at_us <= now_us
        is_behind, position = self._core.position(who.sees, job_id, POSITION_MAX) if due else (False, 0)
        held = self.held_back(job.queue, job.group)
        reason = "next"
        if not due:
            reason = "finished" if job.state in FINISHED else "running" if job.state == "RUNNING" else "not_due"
        elif held.reason:
            reason = held.reason
        elif is_behind:
            reason = "behind"
        return Why(
            job_id=job.job_id,
            state=job.state,
            reason=reason,
            queue=job.queue,
            group=job.group,
            run_at_us=job.run_at_us if reason == "not_due" else 0,
            rate_due_us=held.rate_due_us if reason == "rate_limit" else 0,
            position=position,
            waiting_workers=held.waiting_workers,
            asked_us=held.asked_us,
        )

    def held_back(self, queue: str, group: str | None = None) -> HeldBack:
        """Say what keeps the ready jobs of a group, or of the whole queue, from being leased."""
        now_us = self._now_us()
        workers, asked_us = self._leases.waiters.waiting_for(queue), self._leases.asked_us(queue)
        reason = self._core.blocked_by(now_us, queue, group)
        if not reason and not workers and asked_us < now_us - NO_WORKER_AFTER_US:
            reason = "no_worker"
        rate_due_us = self._core.rate_due_us(queue) if reason == "rate_limit" else 0
        return HeldBack(reason, rate_due_us, workers, asked_us)

    # --- many jobs ----------------------------------------------------------------------------------------------------

    async def pages(self, who: Principal, find: Find) -> AsyncIterator[JobsPage]:
        """Yield the pieces of a page of jobs that match, newest first. Each takes about a millisecond.

        A page may hold fewer than `find.limit`: it examines PAGE_EXAMINED_MAX jobs and reads READ_BYTES_MAX of records
        at most. A search in records examines the records of SEARCHED_JOBS_MAX jobs.
        """
        left, examined, before = find.limit, 0, find.before
        searched_jobs = read = 0
        is_search = bool(find.text or find.of_end)
        while True:
            wanted = SLICE_JOBS if is_search else min(left, SLICE_JOBS)
            jobs, before = self._find(who, find, before, wanted)
            examined += SLICE_EXAMINED if len(jobs) < wanted else 0
            is_last = before == 0 or examined >= PAGE_EXAMINED_MAX
            async for page, piece_bytes in self._read_pieces(jobs, before, find, left):
                yield page
                left -= len(page.jobs)
                read += piece_bytes
                if left == 0 or read > READ_BYTES_MAX:
                    return
            searched_jobs += len(jobs)
            if is_last or (is_search and searched_jobs >= SEARCHED_JOBS_MAX):
                return

    async def _read_pieces(
        self, jobs: list[JobView], before: int, find: Find, limit: int
    ) -> AsyncIterator[tuple[JobsPage, int]]:
        """Yield the jobs whose records match, at most `limit`, in pieces, each with the bytes of records it read.

        Args:
            before: where the list goes on after the last of `jobs`.
        """
        split = list(pieces(jobs, lambda job: read_bytes(job, find), SLICE_BYTES)) or [[]]
        for piece in split:
            matching = await self._search.matching(piece, find)
            found = matching.jobs[:limit]
            next_before = before if piece is split[-1] else self._number(piece[-1])
            if len(found) < len(matching.jobs):
                next_before = self._number(found[-1])
            limit -= len(found)
            yield (
                JobsPage(found, next_before, matching.ends, matching.unreadable),
                sum(read_bytes(job, find) for job in piece),
            )

    def looked_until_us(self, before: int) -> int:
        """When the oldest job with a number from `before` on was submitted; 0: there is none."""
        until = self._core.next_number
        oldest, _ = self._core.rising(self._now_us(), _core.ALL, _core.Filter(), before - 1, until, 1, 1)
        return oldest[0].created_us if oldest else 0

    def _find(self, who: Principal, find: Find, before: int, limit: int) -> tuple[list[JobView], int]:
        wanted = _core.Filter(
            state=find.state,
            queue=find.queue,
            group=find.group,
            tag=find.tag,
            since_us=find.since_us,
            begun=bool(find.worker),
            failed=bool(find.error or find.error_code),
        )
        return self.views(who.sees, wanted, before, limit, SLICE_EXAMINED)

    def _number(self, job: JobView) -> int:
        return _core.job_number(job.job_id, self._core.database_id)

    def views(
        self, access: Access, wanted: _core.Filter, before: int, limit: int, examined_max: int
    ) -> tuple[list[JobView], int]:
        """List jobs that match, newest first: see `Core.page`."""
        return self._core.page(self._now_us(), access, wanted, before, limit, examined_max)

    def rising(
        self, access: Access, wanted: _core.Filter, after: int, until: int, limit: int, examined_max: int
    ) -> tuple[list[JobView], int]:
        """List jobs that match, in the order of their submits: see `Core.rising`."""
        return self._core.rising(self._now_us(), access, wanted, after, until, limit, examined_max)

    def running(self, who: Principal, first: int, end: int) -> list[JobView]:
        """Running jobs that the caller may see, of those in places `first` to `end` - 1: see `Core.running`."""
        return self._core.running(who.sees, first, end)


def _status(view: JobView, result: bytes | None, error: str, error_code: str, facts: SubmitFacts | None) -> JobStatus:
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
        error_code=error_code,
        ended_us=view.ended_us,
        payload=None if facts is None else facts.payload,
        traceparent="" if facts is None else facts.traceparent,
    )
