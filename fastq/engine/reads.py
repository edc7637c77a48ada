"""Reads: one job, its end, why it does not run, and lists of jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

from fastq import _core
from fastq._core import FINISHED, Access, JobView
from fastq.engine.admission import Admission
from fastq.engine.commands import PAGE_EXAMINED_MAX, Connection, Find, Principal
from fastq.engine.commits import Commits
from fastq.engine.leases import Leases
from fastq.engine.payloads import Payloads
from fastq.engine.results import JobsPage, JobStatus, Why
from fastq.engine.waiting import EndWaiters
from fastq.errors import JobNotFound

POSITION_MAX = 10_000
NO_WORKER_AFTER_US = 60_000_000  # without a lease request for this long, a queue has no worker
SEARCHED_BYTES_MAX = 8 << 20  # payload bytes that one page searches, unless one payload alone is larger
SEARCHED_JOBS_MAX = 1_000
SLICE_JOBS, SLICE_EXAMINED = 50, 1_000  # of a piece of a page
SLICE_BYTES = 512 << 10  # payload bytes that a piece searches, unless one payload alone is larger
OUTCOMES_AS_ERROR = frozenset({"lease_expired", "poisoned", "discarded"})  # shown as the error if there is no text


class Reads:
    def __init__(
        self,
        core: _core.Core,
        commits: Commits,
        payloads: Payloads,
        admission: Admission,
        leases: Leases,
        now_us: Callable[[], int],
    ) -> None:
        self._core, self._commits, self._admission = core, commits, admission
        self._payloads, self._leases, self._now_us = payloads, leases, now_us
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
        payload = _core.submit_payload(records.pop(), job_id) if with_payload else None
        result, error = _core.close_result(records[0], job_id) if records else (None, "")
        if not error and view.outcome in OUTCOMES_AS_ERROR:
            error = view.outcome
        return _status(view, result, error, payload)

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
        workers = self._leases.waiters.waiting_for(job.queue)
        asked_us = self._leases.asked_us(job.queue)
        reason = "next"
        if not due:
            reason = "finished" if job.state in FINISHED else "running" if job.state == "RUNNING" else "not_due"
        elif blocked := self._core.blocked_by(now_us, job.queue, job.group):
            reason = blocked
        elif not workers and asked_us < now_us - NO_WORKER_AFTER_US:
            reason = "no_worker"
        elif is_behind:
            reason = "behind"
        return Why(
            job_id=job.job_id,
            state=job.state,
            reason=reason,
            queue=job.queue,
            group=job.group,
            run_at_us=job.run_at_us if reason == "not_due" else 0,
            rate_due_us=self._core.rate_due_us(job.queue) if reason == "rate_limit" else 0,
            position=position,
            waiting_workers=workers,
            asked_us=asked_us,
        )

    # --- many jobs ----------------------------------------------------------------------------------------------------

    async def pages(self, who: Principal, find: Find) -> AsyncIterator[JobsPage]:
        """Yield the pieces of a page of jobs that match, newest first. Each takes about a millisecond.

        A page may hold fewer than `find.limit`: it examines PAGE_EXAMINED_MAX jobs at most; with `find.text`, which it
        searches in payloads, SEARCHED_JOBS_MAX and SEARCHED_BYTES_MAX of payloads.
        """
        left, examined, before = find.limit, 0, find.before
        searched_jobs = searched_bytes = 0
        while True:
            wanted = SLICE_JOBS if find.text else min(left, SLICE_JOBS)
            jobs, before = self._find(who, find, before, wanted)
            examined += SLICE_EXAMINED if len(jobs) < wanted else 0
            is_last = before == 0 or examined >= PAGE_EXAMINED_MAX
            pieces = self._matching(jobs, before, find.text, left) if find.text else _whole(jobs, before)
            async for page, read_bytes in pieces:
                yield page
                left -= len(page.jobs)
                searched_bytes += read_bytes
                if left == 0 or searched_bytes > SEARCHED_BYTES_MAX:
                    return
            searched_jobs += len(jobs)
            if is_last or (find.text and searched_jobs >= SEARCHED_JOBS_MAX):
                return

    async def _matching(
        self, jobs: list[JobView], before: int, text: str, limit: int
    ) -> AsyncIterator[tuple[JobsPage, int]]:
        """Yield the jobs whose payload contains `text`, at most `limit`, in pieces, each with the bytes it read."""
        wanted = text.encode()
        for piece, is_last in _by_bytes(jobs):
            found: list[JobView] = []
            cut, unreadable = False, 0
            payloads = await self._payloads.texts(piece)
            for job, payload in zip(piece, payloads, strict=True):
                if len(found) == limit:
                    cut = True
                    break
                unreadable += payload is None
                if payload is not None and wanted in payload:
                    found.append(job)
            limit -= len(found)
            next_before = self._number(found[-1]) if cut else before if is_last else self._number(piece[-1])
            yield JobsPage(found, next_before, unreadable), sum(job.place.bytes for job in piece)

    def _find(self, who: Principal, find: Find, before: int, limit: int) -> tuple[list[JobView], int]:
        wanted = _core.Filter(
            state=find.state,
            queue=find.queue,
            group=find.group,
            tag=find.tag,
            since_us=find.since_us,
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


async def _whole(jobs: list[JobView], before: int) -> AsyncIterator[tuple[JobsPage, int]]:
    yield JobsPage(jobs, before), 0


def _by_bytes(jobs: list[JobView]) -> Iterator[tuple[list[JobView], bool]]:
    """Split jobs into pieces of at most SLICE_BYTES of records, or of one job; each with whether it is the last one."""
    piece: list[JobView] = []
    piece_bytes = 0
    for job in jobs:
        if piece and piece_bytes + job.place.bytes > SLICE_BYTES:
            yield piece, False
            piece, piece_bytes = [], 0
        piece.append(job)
        piece_bytes += job.place.bytes
    yield piece, True
