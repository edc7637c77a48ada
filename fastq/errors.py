"""Every error that fastq raises on purpose, grouped by when it occurs.

An `ApiError` is an answer: its `status` and `code` go to the client together with its message. A `StartError` ends the
start with its `exit_code`. Nothing else in the project defines an exception.
"""

from __future__ import annotations

ECHO_MAX = 200  # characters of a caller's text that a message repeats


def shown(text: str) -> str:
    """A caller's text as it may stand in a message: not without end."""
    return text if len(text) <= ECHO_MAX else text[:ECHO_MAX] + "…"


class FastqError(Exception):
    """The root of all of them."""


class ApiError(FastqError):
    """An answer other than success. `code` is a stable word that programs may test; the message is for people."""

    status = 500
    code = "internal"

    def fields(self) -> dict[str, str]:
        """Further members of the answer's JSON object."""
        return {}

    def headers(self) -> dict[str, str]:
        """Further headers of the answer."""
        return {}


# --- while a request is read ------------------------------------------------------------------------------------------


class InvalidRequest(ApiError):
    """The body, path or query is not what the endpoint takes. The message names the field and its limit."""

    status = 400
    code = "invalid_request"


class BodyTooLarge(ApiError):
    status = 413
    code = "body_too_large"


class UnsupportedEncoding(ApiError):
    status = 415
    code = "unsupported_encoding"


class PathNotFound(ApiError):
    status = 404
    code = "path_not_found"


class MethodNotAllowed(ApiError):
    status = 405
    code = "method_not_allowed"

    def __init__(self, allowed: list[str]) -> None:
        super().__init__("method not allowed")
        self.allowed = allowed

    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(self.allowed)}


class ConnectionRefused(ApiError):
    """What comes on a connection is not HTTP as it is taken here. This is answered, then the connection is closed."""

    code = "bad_http"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# --- while the caller is identified -----------------------------------------------------------------------------------


class Unauthenticated(ApiError):
    status = 401
    code = "unauthenticated"

    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(ApiError):
    status = 403
    code = "forbidden"


class QueueForbidden(ApiError):
    """The key may lease, but not from this queue."""

    status = 403
    code = "queue_forbidden"

    def __init__(self, queue: str) -> None:
        super().__init__(f"queues: this key may not lease from '{queue}'")


class TooManyFailures(ApiError):
    """Too many requests from this address came with a wrong key. Keys that are in use go on working from there."""

    status = 429
    code = "too_many_failures"

    def __init__(self, wait_us: int) -> None:
        super().__init__("too many requests from this address came without a valid key")
        self.wait_us = wait_us

    def headers(self) -> dict[str, str]:
        return {"Retry-After": _whole_seconds(self.wait_us)}


class RateLimited(ApiError):
    """The key made more requests a second than it may. Nothing was changed."""

    status = 429
    code = "rate_limited"

    def __init__(self, per_second: int, wait_us: int) -> None:
        super().__init__(f"this key may make {per_second} requests a second")
        self.wait_us = wait_us

    def headers(self) -> dict[str, str]:
        return {"Retry-After": _whole_seconds(self.wait_us)}


class KeyStoreUnavailable(ApiError):
    """The key store does not answer, or is not the one that it was. Nothing was changed. `detail` is for our log."""

    status = 503
    code = "key_store_unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__("the key store cannot be relied on at the moment: only keys that were used lately work")
        self.detail = detail

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"}


def _whole_seconds(wait_us: int) -> str:
    return str(max(1, -(-wait_us // 1_000_000)))


# --- while a job changes ----------------------------------------------------------------------------------------------


class JobNotFound(ApiError):
    """No such job, or one of another owner: the two are answered with the same bytes."""

    status = 404
    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job not found: {shown(job_id)}")
        self.job_id = job_id


class NoJobsAvailable(ApiError):
    status = 404
    code = "no_jobs"

    def __init__(self) -> None:
        super().__init__("no jobs available")


class NotAckable(ApiError):
    """An ack without a token met a job that is not running."""

    status = 400
    code = "not_running"

    def __init__(self, state: str) -> None:
        super().__init__(f"job cannot be acked in state: {state}")
        self.state = state

    def fields(self) -> dict[str, str]:
        return {"state": self.state}


class LeaseLost(ApiError):
    """The token is not the current lease's, and no closing that it made can be repeated."""

    status = 409
    code = "lease_lost"

    def __init__(self, state: str) -> None:
        super().__init__(f"lease lost: the job is in state: {state}")
        self.state = state

    def fields(self) -> dict[str, str]:
        return {"state": self.state}


class JobRunning(ApiError):
    """What was asked for cannot be done to a job while a worker has it."""

    status = 409
    code = "job_running"

    def __init__(self) -> None:
        super().__init__("the job is running")

    def fields(self) -> dict[str, str]:
        return {"state": "RUNNING"}


class JobFinished(ApiError):
    """What was asked for cannot be done to a job in a terminal state."""

    status = 409
    code = "job_finished"

    def __init__(self, state: str) -> None:
        super().__init__(f"the job is finished: {state}")
        self.state = state

    def fields(self) -> dict[str, str]:
        return {"state": self.state}


class NotDead(ApiError):
    """Only a dead letter can be redriven."""

    status = 409
    code = "not_dead"

    def __init__(self, state: str) -> None:
        super().__init__(f"only a DEAD job can be redriven, this one is {state}")
        self.state = state

    def fields(self) -> dict[str, str]:
        return {"state": self.state}


class JobDuplicate(ApiError):
    """Another unfinished job has the unique key that this one would take again."""

    status = 409
    code = "duplicate"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"another unfinished job has its unique key: {job_id}")
        self.job_id = job_id

    def fields(self) -> dict[str, str]:
        return {"job_id": self.job_id}


class IdempotencyMismatch(ApiError):
    """An idempotency key came again with another request."""

    status = 422
    code = "idempotency_mismatch"

    def __init__(self) -> None:
        super().__init__("idempotency_key: was used with another request before")


class Refused(ApiError):
    """What was refused, in the words of the original: what failed, a colon, and why."""

    def __init__(self, what: str, cause: ApiError, status: int | None = None) -> None:
        super().__init__(f"{what}: {cause}")
        self.status = cause.status if status is None else status
        self.code = cause.code
        self._cause = cause

    def fields(self) -> dict[str, str]:
        return self._cause.fields()

    def headers(self) -> dict[str, str]:
        return self._cause.headers()


# --- while a key changes ----------------------------------------------------------------------------------------------


class KeyNotFound(ApiError):
    status = 404
    code = "key_not_found"

    def __init__(self) -> None:
        super().__init__("key not found")


class NotKeyOwner(ApiError):
    status = 403
    code = "not_owner"

    def __init__(self) -> None:
        super().__init__("access denied: not the owner")


class KeyIsRevoked(ApiError):
    """A revoked key gets no new secret."""

    status = 409
    code = "key_revoked"

    def __init__(self) -> None:
        super().__init__("the key is revoked: make a new one")


# --- while a queue or a schedule changes ------------------------------------------------------------------------------


class QueueNotFound(ApiError):
    """A queue without jobs and without settings."""

    status = 404
    code = "queue_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"queue not found: {name}")


class QueueHasJobs(ApiError):
    """A queue's settings cannot go while jobs of it are not finished."""

    status = 409
    code = "queue_has_jobs"

    def __init__(self, name: str, unfinished: int) -> None:
        super().__init__(f"queue {name} has {unfinished} unfinished jobs")


class ScheduleNotFound(ApiError):
    """No such schedule, or one of another owner."""

    status = 404
    code = "schedule_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"schedule not found: {name}")


class NameTaken(ApiError):
    status = 409
    code = "name_taken"

    def __init__(self, name: str) -> None:
        super().__init__(f"another owner has a schedule of this name: {name}")


class TooMany(ApiError):
    """As many are there as the server keeps. Nothing was changed."""

    status = 409
    code = "too_many"

    def __init__(self, what: str, count_max: int) -> None:
        super().__init__(f"there may be at most {count_max} {what}")


# --- when there is too much -------------------------------------------------------------------------------------------


class Overloaded(ApiError):
    """More is unsynced than may be, or the next segment is not ready yet. Nothing was changed."""

    status = 503
    code = "overloaded"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "1"}


class CleanerBehind(ApiError):
    """The log takes more of the disk than it may, and cleaning does not keep up. Nothing was changed."""

    status = 429
    code = "cleaner_behind"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"}


class IdempotencyFull(ApiError):
    """As many idempotency keys are remembered as may be, and the oldest is too young to go. Nothing was changed."""

    status = 429
    code = "idempotency_full"

    def __init__(self) -> None:
        super().__init__("idempotency_key: too many are remembered; submit more slowly, or without")

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "10"}


class QueueFull(ApiError):
    """A queue has as many unfinished jobs as its max_depth allows. Nothing was changed."""

    status = 429
    code = "queue_full"

    def __init__(self, queue: str, depth_max: int) -> None:
        super().__init__(f"queue: '{queue}' may have at most {depth_max} unfinished jobs")

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class OwnerFull(ApiError):
    """An owner has as many unfinished jobs as is allowed. Nothing was changed."""

    status = 429
    code = "owner_full"

    def __init__(self, depth_max: int) -> None:
        super().__init__(f"an owner may have at most {depth_max} unfinished jobs")

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class Draining(ApiError):
    """The server is stopping and takes no more work. Nothing was changed."""

    status = 503
    code = "draining"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class DiskFull(ApiError):
    """No segment can be made ready: what is left of the disk is for acks. Nothing was changed."""

    status = 507
    code = "disk_full"


# --- a backup ---------------------------------------------------------------------------------------------------------


class BackupRefused(ApiError):
    """Another backup is under way, or this server's log is not in files."""

    status = 409
    code = "backup_refused"


# --- at the start -----------------------------------------------------------------------------------------------------


class StartError(FastqError):
    """The server does not start. The message says what to do about it."""

    exit_code = 1


class BadSetting(StartError):
    """An environment variable has a value that cannot be used. The message begins with the variable's name."""

    exit_code = 78


class DirectoryLocked(StartError):
    """Another server uses the data directory."""

    exit_code = 75


class DirectoryFailed(StartError):
    """The data directory could not be read or written: the device failed, or is full."""

    exit_code = 74


class LogDamaged(StartError):
    """Acknowledged data is damaged or missing. The message names the file, the offset and the sequences.

    Args:
        segment: where it is; 0 if it is no segment that is damaged.
        sound_seq: frames up to this one can be read, in their order. None: it is not known.
        durable_seq: frames up to this one are known to have been durable.
    """

    exit_code = 65

    def __init__(
        self, message: str, *, segment: int = 0, offset: int = 0, sound_seq: int | None = None, durable_seq: int = 0
    ) -> None:
        super().__init__(message)
        self.segment, self.offset, self.sound_seq, self.durable_seq = segment, offset, sound_seq, durable_seq


class BackupDamaged(StartError):
    """An archive is no backup, was not finished, or is not what was written. The message says which."""

    exit_code = 65


class RepairRefused(StartError):
    """There is nothing to repair, or not in this way. The message says what would be."""

    exit_code = 65


class WouldOverwrite(StartError):
    """A command would write over what is there."""

    exit_code = 73


class UnsupportedFormat(StartError):
    """The log was written by a later version. The message names the version that is needed."""

    exit_code = 65


class ClockBehindLog(StartError):
    """The wall clock is more than an hour behind the log's last time."""

    exit_code = 78


# --- while running ----------------------------------------------------------------------------------------------------


class LogFailed(FastqError):
    """A write or a sync failed. The process answers nobody any more and ends with this exit code."""

    exit_code = 70


class CoreFailed(FastqError):
    """A record was appended that cannot be applied: a bug of ours, or no memory. The process ends as above."""

    exit_code = 70


class RecordTooLarge(FastqError):
    """A record does not fit into one segment: a limit of ours is wrong."""
