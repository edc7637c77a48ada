"""The blocking client."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    ResubmitChanges,
    Submitted,
    Why,
)
from fastq.client.protocol import WAITING, Answer, Call, Pause, Plan, Retries, carried_out, retries_of
from fastq.client.randomness import new_key
from fastq.client.sync_operator import OperatorMethods
from fastq.client.sync_transport import SocketTransport, Transport
from fastq.client.wire import Address

T = TypeVar("T")
URL = "http://127.0.0.1:8080"


def address_of(url: str | None, key: str | None) -> Address:
    """The arguments, else FASTQ_URL and FASTQ_KEY of the environment. Raises ValueError: either is malformed."""
    return Address.of(url or os.environ.get("FASTQ_URL") or URL, key or os.environ.get("FASTQ_KEY") or "")


class Client(OperatorMethods):
    """A blocking client of a fastq server. It is thread-safe. Close it with `close` or a `with` block.

    A request that fails on the network is sent again (see `Retries`). That is safe: a submit carries an idempotency
    key and an ack carries its lease token. Queues are named by `[A-Za-z0-9._-]{1,64}`; times are aware datetimes.

    Raises:
        Refused: the server answered with an error; each method names the subclasses that it adds.
        ServerUnreachable: no answer came in 10 s, or in `timeout_s`.
        NotJSON: JSON cannot carry a payload or result. It is a ValueError and a TypeError.
    """

    def __init__(
        self, url: str | None = None, key: str | None = None, *, timeout_s: float | None = None,
        retries: Retries | None = None, codec: Codec = CODEC, tls: ssl.SSLContext | None = None,
        transport: Transport | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            url: http://host:port or https://host:port. Default: FASTQ_URL, else http://127.0.0.1:8080.
            key: an API key. Default: FASTQ_KEY.
            timeout_s: seconds until a call gives up, its retries included. Default: 10.
            retries: the same, and more about how a request is tried.
            codec: converts payloads and results to JSON.
            tls: used with https. Default: the system's certificates.
            transport: sends the requests instead of sockets; for tests.
        Raises:
            ValueError: the URL is malformed, or there is no key.
        """
        self._codec, self._retries = codec, retries_of(timeout_s, retries)
        self._waiting = self._retries if timeout_s or retries else WAITING
        self._transport = transport or SocketTransport(address_of(url, key), tls)
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Calls that wait before a retry raise ServerUnreachable."""
        self._closed.set()
        self._transport.close()

    def within(self, timeout_s: float) -> Client:
        """A client that shares the connections of this one, and whose calls give up after `timeout_s` seconds."""
        retries = retries_of(timeout_s, self._retries)
        return Client(retries=retries, codec=self._codec, transport=self._transport)

    # --- submit -------------------------------------------------------------------------------------------------------

    def submit(
        self, payload: Any, *, timeout_s: float | None = None, **options: Unpack[JobOptions]
    ) -> Submitted:  # fmt: skip
        """Submit a job. It is on stable storage when this returns.

        Args:
            payload: any value that the codec encodes; not null; at most 1 MiB of JSON text.
            timeout_s: seconds until the call gives up. Default: that of the client.
            options: see `JobOptions`. Without an `idempotency_key` the client makes one.
        Raises:
            BadRequest: an option is out of range, or the idempotency key belongs to a different submit.
            Busy: the queue, the owner or the disk is full.
        """
        return self.call(calls.submit(NewJob(payload=payload, **options), self._codec), timeout_s)

    def submit_many(self, jobs: Iterable[Any], *, timeout_s: float | None = None) -> list[Submitted]:
        """Submit up to 10,000 jobs, all or none of them. The answers are in the order of `jobs`.

        Args:
            jobs: payloads, or `NewJob`s for jobs with options.
            timeout_s: as for `submit`.
        Raises:
            BadRequest: a job is invalid. The message names its index.
        """
        return self.call(calls.submit_many(calls.new_jobs(jobs), self._codec), timeout_s)

    def submit_and_wait(
        self, payload: Any, *, timeout_s: float | None = None, **options: Unpack[JobOptions]
    ) -> JobStatus:
        """Submit a job and wait for its end.

        Args:
            timeout_s: seconds for the submit and the wait together. Default: the wait has no limit.
        Raises:
            NotFinished: the job had not ended after `timeout_s`. It stays submitted.
        """
        job = NewJob(payload=payload, **options)
        return self.run(calls.submit_and_wait(job, self._codec, timeout_s, self._retries, self._waiting))

    # --- look and change ----------------------------------------------------------------------------------------------

    def get(
        self, job_id: str, *, with_payload: bool = False, timeout_s: float | None = None
    ) -> JobStatus:  # fmt: skip
        """The job, with its result, and its payload if asked for. Raises NotFound."""
        return self.call(calls.get(job_id, with_payload=with_payload), timeout_s)

    get_status = get

    def wait_for_completion(self, job_id: str, timeout_s: float | None = None) -> JobStatus:
        """Wait until the job is ACKED, DEAD, EXPIRED or CANCELLED. Requests are long polls.

        Args:
            timeout_s: seconds to wait. Default: without limit.
        Raises:
            NotFinished: the job had not ended after `timeout_s`.
            NotFound: there is no such job.
        """
        return self.run(calls.until_complete(job_id, timeout_s, self._waiting))

    def list_jobs(self, *, limit: int = 100, cursor: str = "", **where: Unpack[JobFilter]) -> Page[JobStatus]:
        """One page of the jobs that match, newest first, without payloads and results. `jobs` reads all pages.

        Args:
            limit: jobs in the page, 1 to 1,000.
            cursor: `Page.cursor` of the page before.
            where: see `JobFilter`.
        """
        return self.call(calls.list_jobs(where, limit, cursor))

    def jobs(self, **where: Unpack[JobFilter]) -> Iterator[JobStatus]:
        """All jobs that match, newest first, read page by page. A job that does not change meanwhile appears once."""
        return self._all(lambda cursor: calls.list_jobs(where, operator_calls.PAGE, cursor))

    def attempts(self, job_id: str) -> list[Attempt]:
        """The attempts that have ended, newest first. The server keeps the last 20. Raises NotFound."""
        return self.call(calls.attempts(job_id))

    def history(self, job_id: str) -> list[Event]:
        """The events of a job, newest first. The server keeps the last 50 and the submit. Raises NotFound."""
        return self.call(calls.history(job_id))

    def why(self, job_id: str) -> Why:
        """Why the job is not running now. Raises NotFound."""
        return self.call(calls.why(job_id))

    def cancel(self, job_id: str, *, force: bool = False) -> str:
        """Cancel a job.

        Args:
            force: end a running job at once and invalidate its lease.
        Returns:
            CANCELLED; or RUNNING, and the worker is asked to stop at its next heartbeat.
        Raises:
            Conflict: the job has ended. NotFound.
        """
        return self.call(calls.cancel(job_id, force))

    def redrive(self, job_id: str) -> str:
        """Make a DEAD job READY again, with attempts from 0. Returns the state. Raises Conflict, NotFound."""
        return self.call(calls.redrive(job_id))

    def resubmit(self, job_id: str, **changes: Unpack[ResubmitChanges]) -> Submitted:
        """Submit a job again, in any state: a new job with its payload and options, but not its unique key.

        Raises:
            NotFound.
        """
        return self.call(calls.resubmit(job_id, changes))

    def delete(self, job_id: str) -> None:
        """Delete a job. Raises Conflict while it is running."""
        self.call(calls.delete(job_id))

    def edit(self, job_id: str, **changes: Unpack[JobChanges]) -> str:
        """Change a waiting or DEAD job. Returns its state.

        Args:
            changes: see `JobChanges`.
        Raises:
            Conflict: the job is running, or has ended otherwise. NotFound.
        """
        return self.call(calls.edit(job_id, changes, self._codec))

    def cancel_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Cancel all jobs that match, in slices. The workers of running jobs are asked to stop.

        Args:
            dry_run: only count the jobs.
            where: see `ManyFilter`.
        """
        return self.run(calls.changed_in_parts(calls.change_many("cancel", where, dry_run), where, self._retries))

    def redrive_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Make all DEAD jobs that match READY again. Arguments as for `cancel_many`."""
        return self.run(calls.changed_in_parts(calls.change_many("redrive", where, dry_run), where, self._retries))

    def delete_many(self, *, dry_run: bool = False, **where: Unpack[ManyFilter]) -> ChangedMany:
        """Delete all jobs that match and are not running. Arguments as for `cancel_many`."""
        return self.run(calls.changed_in_parts(calls.change_many("delete", where, dry_run), where, self._retries))

    # --- work ---------------------------------------------------------------------------------------------------------

    def lease(
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
        return self.call(calls.lease(queues, limit, wait_ms, lease_ms, worker_id, request_id))

    def ack(self, job: LeasedJob, result: Any = None) -> None:
        """End the attempt with success: the job is ACKED. Raises LeaseLost."""
        self.call(calls.ack(Ack.ok(job, result), self._codec))

    def fail(
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
        self.call(calls.ack(ack, self._codec))

    def ack_many(self, acks: Sequence[Ack]) -> list[Acked]:
        """End up to 10,000 attempts in one request. Each has its own result; the valid ones are applied together."""
        return self.call(calls.ack_many(calls.ack_bodies(acks, self._codec)))

    def extend(self, job: LeasedJob, lease_ms: int | None = None) -> Held:
        """Move a deadline to `lease_ms` from now, never earlier. Default: the granted length. Raises LeaseLost."""
        return self.call(calls.extend(Extend.of(job, lease_ms)))

    def heartbeat(
        self, worker_id: str, jobs: Sequence[LeasedJob], lease_ms: int | None = None, *, host: str = "",
        version: str = "",
    ) -> list[Held]:  # fmt: skip
        """Extend up to 10,000 leases in one request. Each has its own result. Arguments as for `extend`.

        Args:
            host, version: of the worker, shown in the list of workers.
        """
        return self.call(calls.heartbeat(worker_id, jobs, lease_ms, host, version))

    def progress(self, job: LeasedJob, percent: int, note: str = "") -> bool:
        """Report progress. Returns whether a cancel was requested.

        Args:
            percent: 0 to 100.
            note: text for people, at most 200 bytes.
        Raises:
            LeaseLost: the lease expired or was taken back.
        """
        return self.call(calls.progress(job, percent, note))

    def transaction(self, ops: Sequence[Ack | Extend | NewJob], idempotency_key: str | None = None) -> list[Done]:
        """Apply all operations or none. The results are in the order of `ops`. Raises LeaseLost."""
        return self.call(calls.transaction(ops, self._codec, idempotency_key))

    # --- sending ------------------------------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether the server takes work now. Sends one request. Raises ServerUnreachable."""
        try:
            self.run(carried_out(operator_calls.ready(), self._retries.once()))
        except Busy:
            return False
        return True

    def call(self, call: Call[T], timeout_s: float | None = None) -> T:
        """Send a request, with retries. Raises Refused, ServerUnreachable."""
        return self.run(carried_out(call, retries_of(timeout_s, self._retries)))

    def run(self, plan: Plan[T]) -> T:
        """Drive a plan: send what it yields, wait when it says so. See `fastq.client.protocol`."""
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
