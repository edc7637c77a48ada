"""Errors of a server that has too much to do, or too little room."""

from __future__ import annotations

from fastq.errors.roots import ApiError


class Overloaded(ApiError):
    """Too much waits to be synced, the next segment is not ready, or connections take what there is for them."""

    code = "overloaded"
    retry_after_s = 1


class CleanerBehind(ApiError):
    """The log takes more of the disk than it may, and the cleaner does not keep up."""

    code = "cleaner_behind"
    retry_after_s = 2

    def __init__(self) -> None:
        super().__init__("the log is being cleaned and does not keep up: submit more slowly")


class IdempotencyFull(ApiError):
    """The maximum of idempotency keys is remembered, and the oldest is too young to be forgotten."""

    code = "idempotency_full"
    retry_after_s = 10

    def __init__(self) -> None:
        super().__init__("idempotency_key: no more can be remembered now; submit more slowly, or without one")


class QueueFull(ApiError):
    """A queue has its maximum of unfinished jobs."""

    code = "queue_full"
    retry_after_s = 5

    def __init__(self, queue: str, depth_max: int) -> None:
        super().__init__(f"queue: '{queue}' may have at most {depth_max} unfinished jobs; submit again when some ended")


class OwnerFull(ApiError):
    """An owner has its maximum of unfinished jobs."""

    code = "owner_full"
    retry_after_s = 5

    def __init__(self, depth_max: int) -> None:
        super().__init__(f"an owner may have at most {depth_max} unfinished jobs; submit again when some ended")


class TooManyStreams(ApiError):
    """There is the maximum of event streams."""

    code = "too_many_streams"
    retry_after_s = 10

    def __init__(self, streams_max: int) -> None:
        super().__init__(f"at most {streams_max} event streams may be open: try again later")


class QueuesFull(ApiError):
    """There is the maximum of queues."""

    code = "queues_full"
    retry_after_s = 5

    def __init__(self, queues_max: int) -> None:
        super().__init__(f"queue: there may be at most {queues_max} queues; submit to one of them, or when some ended")


class Draining(ApiError):
    """The server is stopping and takes no more work."""

    code = "draining"
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("the server is stopping: try again when it is back")


class DiskFull(ApiError):
    """No segment can be made ready. The room that is left is for acks."""

    code = "disk_full"

    def __init__(self) -> None:
        super().__init__("no space left in the data directory: free some on the server's disk")


class RecordUnreadable(ApiError):
    """One record of the log cannot be read back, or is not as it was written. Others can be read."""

    code = "record_unreadable"

    def __init__(self, reason: str, job_id: str = "") -> None:
        """
        Args:
            job_id: the job's, if it is known where the error is found.
        """
        super().__init__(f"a record of this job cannot be read from the log: {reason}")
        self.reason, self.job_id = reason, job_id


class LogUnreadable(ApiError):
    """Nothing can be read from the log now: the disk fails as a whole, or the process has no descriptor left."""

    code = "log_unreadable"
    retry_after_s = 1

    def __init__(self, reason: str) -> None:
        super().__init__(f"the log cannot be read now: {reason}: try again")
