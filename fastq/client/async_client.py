"""The client for programs that run in an event loop."""

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
    """What `Client` is, for one event loop; closed by `close` or `async with`."""

    def __init__(
        self, url: str | None = None, key: str | None = None, *, retries: Retries | None = None, codec: Codec = CODEC,
        tls: ssl.SSLContext | None = None, transport: AsyncTransport | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            url, key: else FASTQ_URL (http://127.0.0.1:8080) and FASTQ_KEY of the environment.
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
        """Calls that wait for their next try end with ServerUnreachable."""
        self._is_closed = True
        await self._transport.close()

    def trying(self, retries: Retries) -> AsyncClient:
        """The same client, on the same connections, with other retries."""
        return AsyncClient(retries=retries, codec=self._codec, transport=self._transport)

    # --- submit -------------------------------------------------------------------------------------------------------

    async def submit(self, payload: Any, **options: Unpack[JobOptions]) -> Submitted:
        """Store a job; it is on stable storage when this returns."""
        return await self.call(calls.submit(NewJob(payload=payload, **options), self._codec))

    async def submit_many(self, jobs: Iterable[Any]) -> list[Submitted]:
        """Store up to 10,000 jobs, payloads or `NewJob`s, all of them or none, and in order."""
        return await self.call(calls.submit_many(calls.new_jobs(jobs), self._codec))

    async def submit_and_wait(
        self, payload: Any, *, timeout_s: float | None = None, **options: Unpack[JobOptions]
    ) -> JobStatus:
        """Raises NotFinished: the job goes on all the same."""
        return await self.run(
            calls.submit_and_wait(NewJob(payload=payload, **options), self._codec, timeout_s, self._retries)
        )

    # --- look and change ----------------------------------------------------------------------------------------------

    async def get(self, job_id: str, *, with_payload: bool = False) -> JobStatus:
        """Raises NotFound."""
        return await self.call(calls.get(job_id, with_payload=with_payload))

    get_status = get

    async def wait_for_completion(self, job_id: str, timeout_s: float | None = None) -> JobStatus:
        """Until the job has ended, one way or another. The server tells; nothing is polled. Raises NotFinished."""
        return await self.run(calls.until_complete(job_id, timeout_s, self._retries))

    async def list_jobs(self, *, limit: int = 100, cursor: str = "", **where: Unpack[JobFilter]) -> Page[JobStatus]:
        """A page of the jobs that fit, the newest first, without payloads and results. See `jobs` for all of them."""
        return await self.call(calls.list_jobs(where, limit, cursor))

    def jobs(self, **where: Unpack[JobFilter]) -> AsyncIterator[JobStatus]:
        """All jobs that fit, the newest first, asked for page by page; one that does not change is seen once."""
        return self._all(lambda cursor: calls.list_jobs(where, operator_calls.PAGE, cursor))

    async def attempts(self, job_id: str) -> list[Attempt]:
        """Those that have ended, the newest first; the last 20 are kept. Raises NotFound."""
        return await self.call(calls.attempts(job_id))

    async def history(self, job_id: str) -> list[Event]:
        """What was done to it, the newest first; the last 50 events are kept, and the submit. Raises NotFound."""
        return await self.call(calls.history(job_id))

    async def why(self, job_id: str) -> Why:
        """Why it does not run now. Raises NotFound."""
        return await self.call(calls.why(job_id))

    async def cancel(self, job_id: str, *, force: bool = False) -> str:
        """The state: CANCELLED, or RUNNING and its worker is told; with `force` it ends at once. Raises Conflict."""
        return await self.call(calls.cancel(job_id, force))

    async def redrive(self, job_id: str) -> str:
        """Let a dead letter run again. Raises Conflict."""
        return await self.call(calls.redrive(job_id))

    async def delete(self, job_id: str) -> None:
        """Raises Conflict while it runs."""
        await self.call(calls.delete(job_id))

    async def edit(self, job_id: str, **changes: Unpack[JobChanges]) -> str:
        """Change a job that waits, or a dead letter; its state. Raises Conflict."""
        return await self.call(calls.edit(job_id, changes, self._codec))

    async def cancel_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Cancel the jobs that fit, in slices while other work goes on. Of what runs the workers are told."""
        return await self.call(calls.change_many("cancel", where, dry_run))

    async def redrive_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Let the dead letters that fit run again."""
        return await self.call(calls.change_many("redrive", where, dry_run))

    async def delete_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Remove the jobs that fit and do not run."""
        return await self.call(calls.change_many("delete", where, dry_run))

    # --- work ---------------------------------------------------------------------------------------------------------

    async def lease(
        self, queues: Sequence[str] | Mapping[str, int] = ("default",), *, limit: int = 1, wait_ms: int = 0,
        lease_ms: int | None = None, worker_id: str = "", request_id: str | None = None,
    ) -> list[LeasedJob]:  # fmt: skip
        """Up to `limit` jobs, perhaps none, of queues in strict order, or by weight."""
        request_id = request_id or new_key()
        return await self.call(calls.lease(queues, limit, wait_ms, lease_ms, worker_id, request_id))

    async def ack(self, job: LeasedJob, result: Any = None) -> None:
        """The job is done. Raises LeaseLost."""
        await self.call(calls.ack(Ack.ok(job, result), self._codec))

    async def fail(
        self, job: LeasedJob, error: str, *, code: str | None = None, retry_after_ms: int | None = None,
        discard: bool = False,
    ) -> None:  # fmt: skip
        """The attempt failed; with `discard` the job is DEAD. Raises LeaseLost."""
        ack = Ack.error(job, error, code=code, retry_after_ms=retry_after_ms, discard=discard)
        await self.call(calls.ack(ack, self._codec))

    async def ack_many(self, acks: Sequence[Ack]) -> list[Acked]:
        """Each is answered for itself; what was accepted is one change."""
        return await self.call(calls.ack_many([calls.ack_body(ack, self._codec) for ack in acks]))

    async def extend(self, job: LeasedJob, lease_ms: int | None = None) -> Held:
        """Raises LeaseLost."""
        return await self.call(calls.extend(Extend.of(job, lease_ms)))

    async def heartbeat(self, worker_id: str, jobs: Sequence[LeasedJob], lease_ms: int | None = None) -> list[Held]:
        """Extend all of them, each answered for itself."""
        return await self.call(calls.heartbeat(worker_id, jobs, lease_ms))

    async def progress(self, job: LeasedJob, percent: int, note: str = "") -> bool:
        """Whether the job is wanted no more. Raises LeaseLost."""
        return await self.call(calls.progress(job, percent, note))

    async def transaction(self, ops: Sequence[Ack | Extend | NewJob], idempotency_key: str | None = None) -> list[Done]:
        """All of it happens, or nothing. Raises LeaseLost."""
        return await self.call(calls.transaction(ops, self._codec, idempotency_key))

    # --- queues: changes need an admin's key, or one that has queues:manage -------------------------------------------

    def queues(self) -> AsyncIterator[Queue]:
        """Those that have jobs or settings, by name."""
        return self._all(operator_calls.list_queues)

    async def get_queue(self, name: str) -> Queue:
        """Raises NotFound."""
        return await self.call(operator_calls.get_queue(name))

    async def put_queue(self, name: str, settings: QueueSettings) -> Queue:
        """Serve it like this from now on; all settings at once."""
        return await self.call(operator_calls.put_queue(name, settings))

    async def pause_queue(self, name: str) -> Queue:
        """Nothing of it is leased any more; what runs goes on."""
        return await self.call(operator_calls.pause_queue(name))

    async def resume_queue(self, name: str) -> Queue:
        """Raises NotFound."""
        return await self.call(operator_calls.resume_queue(name))

    async def purge_queue(self, name: str) -> ChangedMany:
        """Remove the jobs that wait in it. Raises NotFound."""
        return await self.call(operator_calls.purge_queue(name))

    async def delete_queue(self, name: str) -> None:
        """Forget its settings. Raises Conflict while jobs of it are not finished, NotFound."""
        await self.call(operator_calls.delete_queue(name))

    # --- schedules: with an admin's key, or one that has schedules:manage ---------------------------------------------

    def schedules(self) -> AsyncIterator[Schedule]:
        """By name, without their jobs."""
        return self._all(operator_calls.list_schedules)

    async def put_schedule(self, name: str, cron: Cron, payload: Any, **options: Unpack[JobOptions]) -> Schedule:
        """Submit such a job at each time of `cron`, from now on; the same again changes nothing."""
        return await self.call(operator_calls.put_schedule(name, cron, NewJob(payload=payload, **options), self._codec))

    async def get_schedule(self, name: str) -> Schedule:
        """Raises NotFound."""
        return await self.call(operator_calls.get_schedule(name))

    async def run_schedule(self, name: str) -> str:
        """Submit its job now; the job's id. Raises NotFound."""
        return await self.call(operator_calls.run_schedule(name))

    async def delete_schedule(self, name: str) -> None:
        """The jobs that it has submitted stay. Raises NotFound."""
        await self.call(operator_calls.delete_schedule(name))

    # --- keys, workers, the server ------------------------------------------------------------------------------------

    async def create_key(self, name: str, owner_id: str, kind: KeyKind, **options: Unpack[KeyOptions]) -> Key:
        """A key with its secret, which is never shown again. Not repeated when its answer is lost."""
        return await self.call(operator_calls.create_key(name, owner_id, kind, options))

    async def all_keys(self) -> list[Key]:
        """All keys, masked, the oldest first; with an admin's key."""
        return await self.call(operator_calls.list_keys())

    async def own_keys(self) -> list[Key]:
        """Those of this key's owner, masked."""
        return await self.call(operator_calls.list_own_keys())

    async def revoke_key(self, key_id: str) -> RevokedKey:
        """Raises NotFound, Forbidden."""
        return await self.call(operator_calls.revoke_key(key_id))

    async def rotate_key(self, key_id: str, overlap_ms: int | None = None) -> Key:
        """A new secret; the old one works for `overlap_ms`, left out an hour. Raises NotFound, Conflict."""
        return await self.call(operator_calls.rotate_key(key_id, overlap_ms))

    async def workers(self) -> SeenWorkers:
        """Who holds which jobs, and when each was last heard of."""
        return await self.call(operator_calls.list_workers())

    def audit(self) -> AsyncIterator[AuditEntry]:
        """Who changed keys, queues, schedules and many jobs, the newest first; with an admin's key."""
        return self._all(operator_calls.list_audit)

    async def is_ready(self) -> bool:
        """Whether the server takes work now; one try. Raises ServerUnreachable."""
        try:
            await self.run(carried_out(operator_calls.ready(), replace(self._retries, for_s=0.0)))
        except Busy:
            return False
        return True

    # --- driving ------------------------------------------------------------------------------------------------------

    async def call(self, call: Call[T]) -> T:
        """Carry out a request that was made elsewhere."""
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
        """Carry out a plan: see `fastq.client.protocol`."""
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
