"""The asyncio client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from fastq.client import calls, operator_calls
from fastq.client.async_transport import AsyncTransport, LoopTransport
from fastq.client.codec import CODEC, Codec
from fastq.client.errors import Busy, ServerUnreachable
from fastq.client.models import (
    Ack,
    Acked,
    Attempt,
    ChangedMany,
    Cron,
    Done,
    Event,
    Extend,
    Held,
    JobChanges,
    JobFilter,
    JobOptions,
    JobStatus,
    LeasedJob,
    ManyFilter,
    NewJob,
    Page,
    Schedule,
    Submitted,
    Why,
)
from fastq.client.operator_models import (
    AuditEntry,
    Key,
    KeyKind,
    KeyOptions,
    Queue,
    QueueSettings,
    RevokedKey,
    SeenWorkers,
)
from fastq.client.protocol import Answer, Call, Pause, Plan, Retries, carried_out
from fastq.client.randomness import new_key
from fastq.client.sync_client import address_of

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio. Use it in one event loop. Close it with `close` or an `async with` block."""

    def __init__(
        self, url: str | None = None, key: str | None = None, *, retries: Retries | None = None, codec: Codec = CODEC,
        tls: ssl.SSLContext | None = None, transport: AsyncTransport | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            url, key, retries, codec, tls, transport: as for `Client`.
        Raises:
            ValueError: the URL is malformed, or there is no key.
        """
        self._codec, self._retries = codec, retries or Retries()
        self._transport = transport or LoopTransport(address_of(url, key), tls)
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Calls that wait before a retry raise ServerUnreachable."""
        self._is_closed = True
        await self._transport.close()

    def trying(self, retries: Retries) -> AsyncClient:
        """A client that shares the connections of this one and has other retries."""
        return AsyncClient(retries=retries, codec=self._codec, transport=self._transport)

    # --- submit -------------------------------------------------------------------------------------------------------

    async def submit(self, payload: Any, **options: Unpack[JobOptions]) -> Submitted:
        """Submit a job. It is on stable storage when this returns.

        Args:
            payload: any value that the codec encodes; not null; at most 1 MiB of JSON text.
            options: see `JobOptions`. Without an `idempotency_key` the client makes one.
        Raises:
            BadRequest: an option is out of range, or the idempotency key belongs to a different submit.
            Busy: the queue, the owner or the disk is full.
        """
        return await self.call(calls.submit(NewJob(payload=payload, **options), self._codec))

    async def submit_many(self, jobs: Iterable[Any]) -> list[Submitted]:
        """Submit up to 10,000 jobs, all or none of them. The answers are in the order of `jobs`.

        Args:
            jobs: payloads, or `NewJob`s for jobs with options.
        Raises:
            BadRequest: a job is invalid. The message names its index.
        """
        return await self.call(calls.submit_many(calls.new_jobs(jobs), self._codec))

    async def submit_and_wait(
        self, payload: Any, *, timeout_s: float | None = None, **options: Unpack[JobOptions]
    ) -> JobStatus:
        """Submit a job and wait for its end.

        Args:
            timeout_s: seconds to wait. Default: without limit.
        Raises:
            NotFinished: the job had not ended after `timeout_s`. It stays submitted.
        """
        return await self.run(
            calls.submit_and_wait(NewJob(payload=payload, **options), self._codec, timeout_s, self._retries)
        )

    # --- look and change ----------------------------------------------------------------------------------------------

    async def get(self, job_id: str, *, with_payload: bool = False) -> JobStatus:
        """The job, with its result, and its payload if asked for. Raises NotFound."""
        return await self.call(calls.get(job_id, with_payload=with_payload))

    get_status = get

    async def wait_for_completion(self, job_id: str, timeout_s: float | None = None) -> JobStatus:
        """Wait until the job is ACKED, DEAD, EXPIRED or CANCELLED. Requests are long polls.

        Args:
            timeout_s: seconds to wait. Default: without limit.
        Raises:
            NotFinished: the job had not ended after `timeout_s`.
            NotFound: there is no such job.
        """
        return await self.run(calls.until_complete(job_id, timeout_s, self._retries))

    async def list_jobs(self, *, limit: int = 100, cursor: str = "", **where: Unpack[JobFilter]) -> Page[JobStatus]:
        """One page of the jobs that match, newest first, without payloads and results. `jobs` reads all pages.

        Args:
            limit: jobs in the page, 1 to 1,000.
            cursor: `Page.cursor` of the page before.
            where: see `JobFilter`.
        """
        return await self.call(calls.list_jobs(where, limit, cursor))

    def jobs(self, **where: Unpack[JobFilter]) -> AsyncIterator[JobStatus]:
        """All jobs that match, newest first, read page by page. A job that does not change meanwhile appears once."""
        return self._all(lambda cursor: calls.list_jobs(where, operator_calls.PAGE, cursor))

    async def attempts(self, job_id: str) -> list[Attempt]:
        """The attempts that have ended, newest first. The server keeps the last 20. Raises NotFound."""
        return await self.call(calls.attempts(job_id))

    async def history(self, job_id: str) -> list[Event]:
        """The events of a job, newest first. The server keeps the last 50 and the submit. Raises NotFound."""
        return await self.call(calls.history(job_id))

    async def why(self, job_id: str) -> Why:
        """Why the job is not running now. Raises NotFound."""
        return await self.call(calls.why(job_id))

    async def cancel(self, job_id: str, *, force: bool = False) -> str:
        """Cancel a job.

        Args:
            force: end a running job at once and invalidate its lease.
        Returns:
            CANCELLED; or RUNNING, and the worker is asked to stop at its next heartbeat.
        Raises:
            Conflict: the job has ended. NotFound.
        """
        return await self.call(calls.cancel(job_id, force))

    async def redrive(self, job_id: str) -> str:
        """Make a DEAD job READY again, with attempts from 0. Returns the state. Raises Conflict, NotFound."""
        return await self.call(calls.redrive(job_id))

    async def delete(self, job_id: str) -> None:
        """Delete a job. Raises Conflict while it is running."""
        await self.call(calls.delete(job_id))

    async def edit(self, job_id: str, **changes: Unpack[JobChanges]) -> str:
        """Change a waiting or DEAD job. Returns its state.

        Args:
            changes: see `JobChanges`.
        Raises:
            Conflict: the job is running, or has ended otherwise. NotFound.
        """
        return await self.call(calls.edit(job_id, changes, self._codec))

    async def cancel_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Cancel all jobs that match, in slices. The workers of running jobs are asked to stop.

        Args:
            dry_run: only count the jobs.
            where: see `ManyFilter`.
        """
        return await self.call(calls.change_many("cancel", where, dry_run))

    async def redrive_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Make all DEAD jobs that match READY again. Arguments as for `cancel_many`."""
        return await self.call(calls.change_many("redrive", where, dry_run))

    async def delete_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Delete all jobs that match and are not running. Arguments as for `cancel_many`."""
        return await self.call(calls.change_many("delete", where, dry_run))

    # --- work ---------------------------------------------------------------------------------------------------------

    async def lease(
        self, queues: Sequence[str] | Mapping[str, int] = ("default",), *, limit: int = 1, wait_ms: int = 0,
        lease_ms: int | None = None, worker_id: str = "", request_id: str | None = None,
    ) -> list[LeasedJob]:  # fmt: skip
        """Lease up to `limit` jobs. The list is empty if none is ready.

        Args:
            queues: names in strict order, or weights by name.
            limit: jobs, 1 to 1,000.
            wait_ms: how long the server waits for a job, 0 to 60,000 milliseconds.
            lease_ms: milliseconds, 1,000 to 43,200,000. Default: the job's, else the queue's, else the server's.
            worker_id: shown in the list of workers and in the attempts of a job.
            request_id: a repetition with the same id gets the same leases. Default: a random one.
        """
        request_id = request_id or new_key()
        return await self.call(calls.lease(queues, limit, wait_ms, lease_ms, worker_id, request_id))

    async def ack(self, job: LeasedJob, result: Any = None) -> None:
        """End the attempt with success: the job is ACKED. Raises LeaseLost."""
        await self.call(calls.ack(Ack.ok(job, result), self._codec))

    async def fail(
        self, job: LeasedJob, error: str, *, code: str | None = None, retry_after_ms: int | None = None,
        discard: bool = False,
    ) -> None:  # fmt: skip
        """End the attempt with an error: the job is retried, or DEAD after its last attempt.

        Args:
            error: text for people.
            code: a short code for programs, at most 64 characters.
            retry_after_ms: milliseconds until the retry. Default: the job's backoff.
            discard: make the job DEAD although attempts are left.
        Raises:
            LeaseLost: the lease expired or was taken back.
        """
        ack = Ack.error(job, error, code=code, retry_after_ms=retry_after_ms, discard=discard)
        await self.call(calls.ack(ack, self._codec))

    async def ack_many(self, acks: Sequence[Ack]) -> list[Acked]:
        """End up to 10,000 attempts in one request. Each has its own result; the valid ones are applied together."""
        return await self.call(calls.ack_many(calls.ack_bodies(acks, self._codec)))

    async def extend(self, job: LeasedJob, lease_ms: int | None = None) -> Held:
        """Move a deadline to `lease_ms` from now, never earlier. Default: the granted length. Raises LeaseLost."""
        return await self.call(calls.extend(Extend.of(job, lease_ms)))

    async def heartbeat(self, worker_id: str, jobs: Sequence[LeasedJob], lease_ms: int | None = None) -> list[Held]:
        """Extend up to 10,000 leases in one request. Each has its own result. Arguments as for `extend`."""
        return await self.call(calls.heartbeat(worker_id, jobs, lease_ms))

    async def progress(self, job: LeasedJob, percent: int, note: str = "") -> bool:
        """Report progress. Returns whether a cancel was requested.

        Args:
            percent: 0 to 100.
            note: text for people, at most 200 bytes.
        Raises:
            LeaseLost: the lease expired or was taken back.
        """
        return await self.call(calls.progress(job, percent, note))

    async def transaction(self, ops: Sequence[Ack | Extend | NewJob], idempotency_key: str | None = None) -> list[Done]:
        """Apply all operations or none. The results are in the order of `ops`. Raises LeaseLost."""
        return await self.call(calls.transaction(ops, self._codec, idempotency_key))

    # --- queues: changes need the scope queues:manage -----------------------------------------------------------------

    def queues(self) -> AsyncIterator[Queue]:
        """All queues with jobs or settings, ordered by name."""
        return self._all(operator_calls.list_queues)

    async def get_queue(self, name: str) -> Queue:
        """The settings and counts of a queue. Raises NotFound."""
        return await self.call(operator_calls.get_queue(name))

    async def put_queue(self, name: str, settings: QueueSettings) -> Queue:
        """Replace all settings of a queue. Returns the queue."""
        return await self.call(operator_calls.put_queue(name, settings))

    async def pause_queue(self, name: str, *, create: bool = False) -> Queue:
        """Stop leasing jobs of the queue. Running jobs continue.

        Raises:
            NotFound: it has neither jobs nor settings. `create` pauses it before its first job.
        """
        return await self.call(operator_calls.pause_queue(name, create))

    async def resume_queue(self, name: str) -> Queue:
        """Lease jobs of a paused queue again. Raises NotFound."""
        return await self.call(operator_calls.resume_queue(name))

    async def purge_queue(self, name: str) -> ChangedMany:
        """Delete the waiting jobs of the queue. Raises NotFound."""
        return await self.call(operator_calls.purge_queue(name))

    async def delete_queue(self, name: str) -> None:
        """Delete the settings of the queue. Raises Conflict while it has unfinished jobs, NotFound."""
        await self.call(operator_calls.delete_queue(name))

    # --- schedules: need the scope schedules:manage -------------------------------------------------------------------

    def schedules(self) -> AsyncIterator[Schedule]:
        """All schedules, ordered by name, without their jobs."""
        return self._all(operator_calls.list_schedules)

    async def put_schedule(self, name: str, cron: Cron, payload: Any, **options: Unpack[JobOptions]) -> Schedule:
        """Create or replace a schedule: it submits the job at each time of `cron`.

        Args:
            payload, options: the job, as for `submit`.
        """
        return await self.call(operator_calls.put_schedule(name, cron, NewJob(payload=payload, **options), self._codec))

    async def get_schedule(self, name: str) -> Schedule:
        """A schedule with its job. Raises NotFound."""
        return await self.call(operator_calls.get_schedule(name))

    async def run_schedule(self, name: str) -> str:
        """Submit the schedule's job now. Returns its id. Not retried after a lost answer. Raises NotFound."""
        return await self.call(operator_calls.run_schedule(name))

    async def pause_schedule(self, name: str) -> Schedule:
        """Submit no job at its times until it is resumed. `run_schedule` still works. Raises NotFound."""
        return await self.call(operator_calls.pause_schedule(name))

    async def resume_schedule(self, name: str) -> Schedule:
        """Submit jobs again, from the next time on. Times while it was paused are skipped. Raises NotFound."""
        return await self.call(operator_calls.resume_schedule(name))

    async def delete_schedule(self, name: str) -> None:
        """Delete a schedule. Jobs that it submitted stay. Raises NotFound."""
        await self.call(operator_calls.delete_schedule(name))

    # --- keys, workers, the server ------------------------------------------------------------------------------------

    async def create_key(self, name: str, owner_id: str, kind: KeyKind, **options: Unpack[KeyOptions]) -> Key:
        """Create an API key. The answer alone has its secret. Not retried after a lost answer.

        Args:
            options: see `KeyOptions`.
        """
        return await self.call(operator_calls.create_key(name, owner_id, kind, options))

    async def all_keys(self) -> list[Key]:
        """All keys, oldest first, secrets masked. Needs an admin key."""
        return await self.call(operator_calls.list_keys())

    async def own_keys(self) -> list[Key]:
        """The keys of this key's owner, secrets masked."""
        return await self.call(operator_calls.list_own_keys())

    async def revoke_key(self, key_id: str) -> RevokedKey:
        """Revoke a key. Raises NotFound, Forbidden."""
        return await self.call(operator_calls.revoke_key(key_id))

    async def rotate_key(self, key_id: str, overlap_ms: int | None = None) -> Key:
        """Give a key a new secret. Not retried after a lost answer.

        Args:
            overlap_ms: milliseconds for which the old secret still works. Default: an hour.
        Raises:
            NotFound: there is no such key. Conflict: it is revoked.
        """
        return await self.call(operator_calls.rotate_key(key_id, overlap_ms))

    async def workers(self) -> SeenWorkers:
        """The workers, their leases, and when each last sent a request."""
        return await self.call(operator_calls.list_workers())

    def audit(self) -> AsyncIterator[AuditEntry]:
        """The audit log, newest first: changes of keys, queues, schedules and many jobs. Needs an admin key."""
        return self._all(operator_calls.list_audit)

    async def is_ready(self) -> bool:
        """Whether the server takes work now. Sends one request. Raises ServerUnreachable."""
        try:
            await self.run(carried_out(operator_calls.ready(), replace(self._retries, for_s=0.0)))
        except Busy:
            return False
        return True

    # --- sending ------------------------------------------------------------------------------------------------------

    async def call(self, call: Call[T]) -> T:
        """Send a request, with retries. Raises Refused, ServerUnreachable."""
        return await self.run(carried_out(call, self._retries))

    async def _all(self, page_at: Callable[[str], Call[Page[T]]]) -> AsyncIterator[T]:
        cursor = ""
        while True:
            page = await self.call(page_at(cursor))
            for item in page.items:
                yield item
            cursor = page.cursor
            if not cursor:
                return

    async def run(self, plan: Plan[T]) -> T:
        """Drive a plan: send what it yields, wait when it says so. See `fastq.client.protocol`."""
        outcome: Answer | ServerUnreachable | None = None
        try:
            while True:
                step = plan.send(outcome)
                if isinstance(step, Pause):
                    outcome = None
                    await asyncio.sleep(step.seconds)
                    if self._is_closed:
                        raise ServerUnreachable("the client was closed", sent=True)
                    continue
                try:
                    outcome = await self._transport.send(step.call, step.timeout_s)
                except ServerUnreachable as error:
                    outcome = error
        except StopIteration as end:
            result: T = end.value
            return result
