"""Errors of the operation that a request asks for."""

from __future__ import annotations

from fastq.errors.kinds import ApiError, shown

# --- while a job changes ----------------------------------------------------------------------------------------------


class JobNotFound(ApiError):
    """No such job, or another owner's job: both get the same answer."""

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
    """An ack without a token names a job that is not running."""

    status = 400
    code = "not_running"

    def __init__(self, state: str) -> None:
        super().__init__(f"job cannot be acked in state: {state}")
        self.state = state

    def fields(self) -> dict[str, str]:
        return {"state": self.state}


class LeaseLost(ApiError):
    """The token is not the current lease's, and the ack is no repetition of an earlier one."""

    status = 409
    code = "lease_lost"

    def __init__(self, state: str) -> None:
        super().__init__(f"lease lost: the job is in state: {state}")
        self.state = state

    def fields(self) -> dict[str, str]:
        return {"state": self.state}


class JobRunning(ApiError):
    """The operation is not allowed on a running job."""

    status = 409
    code = "job_running"

    def __init__(self) -> None:
        super().__init__("the job is running")

    def fields(self) -> dict[str, str]:
        return {"state": "RUNNING"}


class JobFinished(ApiError):
    """The operation is not allowed on a job in a terminal state."""

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
    """An idempotency key was used before with another request."""

    status = 422
    code = "idempotency_mismatch"

    def __init__(self) -> None:
        super().__init__("idempotency_key: was used with another request before")


class Refused(ApiError):
    """A refusal in the original service's form: what failed, a colon, and why."""

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
    """A queue with unfinished jobs keeps its settings."""

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
    """The server keeps no more of these. Nothing was changed."""

    status = 409
    code = "too_many"

    def __init__(self, what: str, count_max: int) -> None:
        super().__init__(f"there may be at most {count_max} {what}")


# --- a backup ---------------------------------------------------------------------------------------------------------


class BackupRefused(ApiError):
    """Another backup is in progress, or this server's log is not in files."""

    status = 409
    code = "backup_refused"
