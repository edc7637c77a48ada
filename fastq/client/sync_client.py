"""The client that blocks."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from fastq.client import calls, operator_calls
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
from fastq.client.sync_transport import SocketTransport, Transport
from fastq.client.wire import Address

T = TypeVar("T")
URL = "http://127.0.0.1:8080"


def address_of(url: str | None, key: str | None) -> Address:
    """Left out: FASTQ_URL and FASTQ_KEY of the environment. Raises ValueError."""
    return Address.of(url or os.environ.get("FASTQ_URL") or URL, key or os.environ.get("FASTQ_KEY") or "")


class Client:
    """Everything a program asks of a server. Safe to use from several threads; closed by `close` or `with`.

    Whatever fails on the way is tried again (see `Retries`): each submit has an idempotency key and each ack its lease
    token, so nothing happens twice. Methods raise `Refused` for an answer other than success, `ServerUnreachable` if
    none came, and what the codec raises for a value that has no JSON.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, retries: Retries | None = None, codec: Codec = CODEC,
        tls: ssl.SSLContext | None = None, transport: Transport | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            url, key: else FASTQ_URL (http://127.0.0.1:8080) and FASTQ_KEY of the environment.
        """
        self._codec, self._retries = codec, retries or Retries()
        self._transport = transport or SocketTransport(address_of(url, key), tls)
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Calls that wait for their next try end with ServerUnreachable."""
        self._closed.set()
        self._transport.close()

    # --- submit -------------------------------------------------------------------------------------------------------

    def submit(self, payload: Any, **options: Unpack[JobOptions]) -> Submitted:
        """Store a job; it is on stable storage when this returns."""
        return self.call(calls.submit(NewJob(payload=payload, **options), self._codec))

    def submit_many(self, jobs: Iterable[Any]) -> list[Submitted]:
        """Store up to 10,000 jobs, payloads or `NewJob`s, all of them or none, and in order."""
        return self.call(calls.submit_many(calls.new_jobs(jobs), self._codec))

    def submit_and_wait(
        self, payload: Any, *, timeout_s: float | None = None, **options: Unpack[JobOptions]
    ) -> JobStatus:
        """Raises NotFinished: the job goes on all the same."""
        return self.run(
            calls.submit_and_wait(NewJob(payload=payload, **options), self._codec, timeout_s, self._retries)
        )

    # --- look and change ----------------------------------------------------------------------------------------------

    def get(self, job_id: str, *, with_payload: bool = False) -> JobStatus:
        """Raises NotFound."""
        return self.call(calls.get(job_id, with_payload=with_payload))

    get_status = get

    def wait_for_completion(self, job_id: str, timeout_s: float | None = None) -> JobStatus:
        """Until the job has ended, one way or another. The server tells; nothing is polled. Raises NotFinished."""
        return self.run(calls.until_complete(job_id, timeout_s, self._retries))

    def list_jobs(self, *, limit: int = 100, cursor: str = "", **where: Unpack[JobFilter]) -> Page[JobStatus]:
        """A page of the jobs that fit, the newest first, without payloads and results. See `jobs` for all of them."""
        return self.call(calls.list_jobs(where, limit, cursor))

    def jobs(self, **where: Unpack[JobFilter]) -> Iterator[JobStatus]:
        """All jobs that fit, the newest first, asked for page by page; one that does not change is seen once."""
        return self._all(lambda cursor: calls.list_jobs(where, operator_calls.PAGE, cursor))

    def attempts(self, job_id: str) -> list[Attempt]:
        """Those that have ended, the newest first; the last 20 are kept. Raises NotFound."""
        return self.call(calls.attempts(job_id))

    def history(self, job_id: str) -> list[Event]:
        """What was done to it, the newest first; the last 50 events are kept, and the submit. Raises NotFound."""
        return self.call(calls.history(job_id))

    def why(self, job_id: str) -> Why:
        """Why it does not run now. Raises NotFound."""
        return self.call(calls.why(job_id))

    def cancel(self, job_id: str, *, force: bool = False) -> str:
        """The state: CANCELLED, or RUNNING and its worker is told; with `force` it ends at once. Raises Conflict."""
        return self.call(calls.cancel(job_id, force))

    def redrive(self, job_id: str) -> str:
        """Let a dead letter run again. Raises Conflict."""
        return self.call(calls.redrive(job_id))

    def delete(self, job_id: str) -> None:
        """Raises Conflict while it runs."""
        self.call(calls.delete(job_id))

    def edit(self, job_id: str, **changes: Unpack[JobChanges]) -> str:
        """Change a job that waits, or a dead letter; its state. Raises Conflict."""
        return self.call(calls.edit(job_id, changes, self._codec))

    def cancel_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Cancel the jobs that fit, in slices while other work goes on. Of what runs the workers are told."""
        return self.call(calls.change_many("cancel", where, dry_run))

    def redrive_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Let the dead letters that fit run again."""
        return self.call(calls.change_many("redrive", where, dry_run))

    def delete_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Remove the jobs that fit and do not run."""
        return self.call(calls.change_many("delete", where, dry_run))

    # --- work ---------------------------------------------------------------------------------------------------------

    def lease(
        self, queues: Sequence[str] | Mapping[str, int] = ("default",), *, limit: int = 1, wait_ms: int = 0,
        lease_ms: int | None = None, worker_id: str = "", request_id: str | None = None,
    ) -> list[LeasedJob]:  # fmt: skip
        """Up to `limit` jobs, perhaps none, of queues in strict order, or by weight."""
        request_id = request_id or new_key()
        return self.call(calls.lease(queues, limit, wait_ms, lease_ms, worker_id, request_id))

    def ack(self, job: LeasedJob, result: Any = None) -> None:
        """The job is done. Raises LeaseLost."""
        self.call(calls.ack(Ack.ok(job, result), self._codec))

    def fail(
        self, job: LeasedJob, error: str, *, code: str | None = None, retry_after_ms: int | None = None,
        discard: bool = False,
    ) -> None:  # fmt: skip
        """The attempt failed; with `discard` the job is DEAD. Raises LeaseLost."""
        ack = Ack.error(job, error, code=code, retry_after_ms=retry_after_ms, discard=discard)
        self.call(calls.ack(ack, self._codec))

    def ack_many(self, acks: Sequence[Ack]) -> list[Acked]:
        """Each is answered for itself; what was accepted is one change."""
        return self.call(calls.ack_many([calls.ack_body(ack, self._codec) for ack in acks]))

    def extend(self, job: LeasedJob, lease_ms: int | None = None) -> Held:
        """Raises LeaseLost."""
        return self.call(calls.extend(Extend.of(job, lease_ms)))

    def heartbeat(self, worker_id: str, jobs: Sequence[LeasedJob], lease_ms: int | None = None) -> list[Held]:
        """Extend all of them, each answered for itself."""
        return self.call(calls.heartbeat(worker_id, jobs, lease_ms))

    def progress(self, job: LeasedJob, percent: int, note: str = "") -> bool:
        """Whether the job is wanted no more. Raises LeaseLost."""
        return self.call(calls.progress(job, percent, note))

    def transaction(self, ops: Sequence[Ack | Extend | NewJob], idempotency_key: str | None = None) -> list[Done]:
        """All of it happens, or nothing. Raises LeaseLost."""
        return self.call(calls.transaction(ops, self._codec, idempotency_key))

    # --- queues: changes need an admin's key, or one that has queues:manage -------------------------------------------

    def queues(self) -> Iterator[Queue]:
        """Those that have jobs or settings, by name."""
        return self._all(operator_calls.list_queues)

    def get_queue(self, name: str) -> Queue:
        """Raises NotFound."""
        return self.call(operator_calls.get_queue(name))

    def put_queue(self, name: str, settings: QueueSettings) -> Queue:
        """Serve it like this from now on; all settings at once."""
        return self.call(operator_calls.put_queue(name, settings))

    def pause_queue(self, name: str) -> Queue:
        """Nothing of it is leased any more; what runs goes on."""
        return self.call(operator_calls.pause_queue(name))

    def resume_queue(self, name: str) -> Queue:
        """Raises NotFound."""
        return self.call(operator_calls.resume_queue(name))

    def purge_queue(self, name: str) -> ChangedMany:
        """Remove the jobs that wait in it. Raises NotFound."""
        return self.call(operator_calls.purge_queue(name))

    def delete_queue(self, name: str) -> None:
        """Forget its settings. Raises Conflict while jobs of it are not finished, NotFound."""
        self.call(operator_calls.delete_queue(name))

    # --- schedules: with an admin's key, or one that has schedules:manage ---------------------------------------------

    def schedules(self) -> Iterator[Schedule]:
        """By name, without their jobs."""
        return self._all(operator_calls.list_schedules)

    def put_schedule(self, name: str, cron: Cron, payload: Any, **options: Unpack[JobOptions]) -> Schedule:
        """Submit such a job at each time of `cron`, from now on; the same again changes nothing."""
        return self.call(operator_calls.put_schedule(name, cron, NewJob(payload=payload, **options), self._codec))

    def get_schedule(self, name: str) -> Schedule:
        """Raises NotFound."""
        return self.call(operator_calls.get_schedule(name))

    def run_schedule(self, name: str) -> str:
        """Submit its job now; the job's id. Raises NotFound."""
        return self.call(operator_calls.run_schedule(name))

    def delete_schedule(self, name: str) -> None:
        """The jobs that it has submitted stay. Raises NotFound."""
        self.call(operator_calls.delete_schedule(name))

    # --- keys, workers, the server ------------------------------------------------------------------------------------

    def create_key(self, name: str, owner_id: str, kind: KeyKind, **options: Unpack[KeyOptions]) -> Key:
        """A key with its secret, which is never shown again. Not repeated when its answer is lost."""
        return self.call(operator_calls.create_key(name, owner_id, kind, options))

    def all_keys(self) -> list[Key]:
        """All keys, masked, the oldest first; with an admin's key."""
        return self.call(operator_calls.list_keys())

    def own_keys(self) -> list[Key]:
        """Those of this key's owner, masked."""
        return self.call(operator_calls.list_own_keys())

    def revoke_key(self, key_id: str) -> RevokedKey:
        """Raises NotFound, Forbidden."""
        return self.call(operator_calls.revoke_key(key_id))

    def rotate_key(self, key_id: str, overlap_ms: int | None = None) -> Key:
        """A new secret; the old one works for `overlap_ms`, left out an hour. Raises NotFound, Conflict."""
        return self.call(operator_calls.rotate_key(key_id, overlap_ms))

    def workers(self) -> SeenWorkers:
        """Who holds which jobs, and when each was last heard of."""
        return self.call(operator_calls.list_workers())

    def audit(self) -> Iterator[AuditEntry]:
        """Who changed keys, queues, schedules and many jobs, the newest first; with an admin's key."""
        return self._all(operator_calls.list_audit)

    def is_ready(self) -> bool:
        """Whether the server takes work now; one try. Raises ServerUnreachable."""
        try:
            self.run(carried_out(operator_calls.ready(), replace(self._retries, for_s=0.0)))
        except Busy:
            return False
        return True

    # --- driving ------------------------------------------------------------------------------------------------------

    def call(self, call: Call[T]) -> T:
        """Carry out a request that was made elsewhere."""
        return self.run(carried_out(call, self._retries))

    def _all(self, page_at: Callable[[str], Call[Page[T]]]) -> Iterator[T]:
        cursor = ""
        while True:
            page = self.call(page_at(cursor))
            yield from page.items
            cursor = page.cursor
            if not cursor:
                return

    def run(self, plan: Plan[T]) -> T:
        """Carry out a plan: see `fastq.client.protocol`."""
        outcome: Answer | ServerUnreachable | None = None
        try:
            while True:
                step = plan.send(outcome)
                if isinstance(step, Pause):
                    outcome = None
                    if self._closed.wait(step.seconds):
                        raise ServerUnreachable("the client was closed", sent=True)
                    continue
                try:
                    outcome = self._transport.send(step.call, step.timeout_s)
                except ServerUnreachable as error:
                    outcome = error
        except StopIteration as end:
            result: T = end.value
            return result
