"""The types of `fastq._core` for queues and what happened. `_core.pyi` takes them from here; no such module exists."""

from typing import final

@final
class QueueView:
    """The present state of a queue."""

    @property
    def name(self) -> str: ...
    @property
    def ready(self) -> int:
        """Jobs that are due, RETRY included."""
    @property
    def waiting(self) -> int:
        """Jobs whose run_at is in the future."""
    @property
    def running(self) -> int: ...
    @property
    def finished(self) -> dict[str, int]:
        """The number of finished jobs by terminal state."""
    @property
    def groups(self) -> int: ...
    @property
    def oldest_ready_us(self) -> int:
        """run_at of the job that has been ready for the longest, whatever its priority and group; 0: none is ready.

        Within 3% of its age, or 0.1 s. To an owner: 0.
        """
    @property
    def in_per_s(self) -> float:
        """Jobs submitted and redriven, over the last 10 s. To an owner this and the next two are 0."""
    @property
    def out_per_s(self) -> float:
        """Jobs acked."""
    @property
    def failed_per_s(self) -> float:
        """Attempts that failed: as `Traffic.failed`."""

LATENCY_BOUNDS_US: tuple[int, ...]
"""The upper bounds of the buckets of `Latencies`: 4 steps an octave, from 64 us to more than 7 days."""
WHAT_HAPPENED: tuple[str, ...]
"""What can happen to a job."""

def error_line(error: str) -> str: ...
def latency_bucket(us: int) -> int:
    """The bucket of a duration."""

@final
class Traffic:
    """What happened since `Core.resume`: counts that only rise. Those of a queue end with it and begin again at 0."""

    @property
    def submitted(self) -> int:
        """New jobs. A repeated submit is none, and a replaced job neither."""
    @property
    def redriven(self) -> int: ...
    @property
    def leased(self) -> int: ...
    @property
    def acked(self) -> int:
        """Attempts that ended well."""
    @property
    def failed(self) -> int:
        """Attempts that ended with an error, a discard, an expired lease, as poison, or with an unreadable payload."""
    @property
    def lease_expired(self) -> int:
        """Of those: by an expired lease, poisoned ones included."""
    @property
    def retried(self) -> int:
        """Of those: after which the job waits for another attempt."""
    @property
    def dead(self) -> int:
        """Jobs that became DEAD."""
    @property
    def expired(self) -> int:
        """Jobs that became EXPIRED."""
    @property
    def cancelled(self) -> int:
        """Jobs that became CANCELLED."""
    @property
    def snoozed(self) -> int: ...
    @property
    def released(self) -> int: ...
    @property
    def deleted(self) -> int:
        """Jobs that were removed, by a caller or by retention."""

@final
class Latencies:
    """Durations since `Core.resume`, counted by bucket.

    A bucket counts what is above the bound before it, up to its own in `LATENCY_BOUNDS_US`; the last one has no bound.
    """

    @property
    def wait(self) -> tuple[int, ...]:
        """From when a job was ready, again after a retry or release, to its lease."""
    @property
    def run(self) -> tuple[int, ...]:
        """From a lease to its ack with outcome ok."""
    @property
    def wait_sum_us(self) -> int: ...
    @property
    def run_sum_us(self) -> int: ...

@final
class JobChange:
    """Something that happened to a job, and what the job was after it."""

    @property
    def seq(self) -> int:
        """Of the change. Numbers rise, over restarts too; a server's own have no gaps."""
    @property
    def frame(self) -> int:
        """The frame of the log that holds it."""
    @property
    def at_us(self) -> int: ...
    @property
    def job_id(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def queue(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def owner_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def what(self) -> str:
        """One of `WHAT_HAPPENED`."""

@final
class FailureGroup:
    """Failed attempts of one owner in one queue, with the same error code and first line of the error."""

    def __init__(
        self,
        *,
        queue: str,
        owner_id: str,
        error_code: str,
        error: str,
        count: int,
        first_us: int,
        last_us: int,
        job_id: str,
    ) -> None: ...
    @property
    def queue(self) -> str: ...
    @property
    def owner_id(self) -> str: ...
    @property
    def error_code(self) -> str: ...
    @property
    def error(self) -> str:
        """The first line, at most 200 bytes of UTF-8. Of an end without a text its outcome, unless that is `error`."""
    @property
    def count(self) -> int: ...
    @property
    def first_us(self) -> int: ...
    @property
    def last_us(self) -> int: ...
    @property
    def job_id(self) -> str:
        """The job of the last one."""
