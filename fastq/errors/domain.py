"""Errors of what a command asks for."""

from __future__ import annotations

from fastq.errors.roots import ApiError, shown

# --- jobs -------------------------------------------------------------------------------------------------------------


class JobNotFound(ApiError):
    """No such job, or one of another owner: the messages are the same."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job not found: {shown(job_id)}")


class StateError(ApiError):
    """The job's state does not allow the command. `state` is its name."""

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state

    def fields(self) -> dict[str, str]:
        return {"state": self.state}


class NotAckable(StateError):
    """An ack without a token met a job that is not running."""

    code = "not_running"

    def __init__(self, state: str) -> None:
        super().__init__(f"job cannot be acked in state: {state}", state)


class LeaseLost(StateError):
    """The token is not the current lease's, and this is no repetition of the ack that ended its lease."""

    code = "lease_lost"

    def __init__(self, state: str) -> None:
        super().__init__(f"lease lost: the token is not the current lease's, the job is in state: {state}", state)


class JobRunning(StateError):
    """The command is not for a job that a worker has."""

    code = "job_running"

    def __init__(self) -> None:
        super().__init__("the job is running: wait for its end, or cancel it first", "RUNNING")


class JobFinished(StateError):
    """The command is not for a job in a terminal state."""

    code = "job_finished"

    def __init__(self, state: str) -> None:
        super().__init__(f"the job is finished, in state: {state}", state)


class NotDead(StateError):
    """Only a dead letter can be redriven."""

    code = "not_dead"

    def __init__(self, state: str) -> None:
        super().__init__(f"only a DEAD job can be redriven: this one is in state: {state}", state)


class JobDuplicate(ApiError):
    """Another unfinished job has the unique key that this job would take again."""

    code = "duplicate"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"another unfinished job has this job's unique key: {job_id}")
        self.job_id = job_id

    def fields(self) -> dict[str, str]:
        return {"job_id": self.job_id}


class IdempotencyMismatch(ApiError):
    """An idempotency key came again with another request."""

    code = "idempotency_mismatch"

    def __init__(self) -> None:
        super().__init__("idempotency_key: another request had it before; use a new one")


# --- keys -------------------------------------------------------------------------------------------------------------


class KeyNotFound(ApiError):
    code = "key_not_found"

    def __init__(self) -> None:
        super().__init__("key not found")


class NotKeyOwner(ApiError):
    code = "not_owner"

    def __init__(self) -> None:
        super().__init__("access denied: not the owner")


class KeyIsRevoked(ApiError):
    """A revoked key gets no new secret."""

    code = "key_revoked"

    def __init__(self) -> None:
        super().__init__("the key is revoked: make a new one")


# --- queues and schedules ---------------------------------------------------------------------------------------------


class QueueNotFound(ApiError):
    """The queue has neither jobs nor settings."""

    code = "queue_not_found"

    def __init__(self, name: str, advice: str = "") -> None:
        super().__init__(f"queue not found: {name}{advice}")


class QueueHasJobs(ApiError):
    """A queue's settings stay while it has unfinished jobs."""

    code = "queue_has_jobs"

    def __init__(self, name: str, unfinished: int) -> None:
        super().__init__(f"queue {name} has {unfinished} unfinished jobs: purge it first")


class ScheduleNotFound(ApiError):
    """No such schedule, or one of another owner."""

    code = "schedule_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"schedule not found: {name}")


class OperationNotFound(ApiError):
    """No such bulk change that runs in the server, or one of another owner."""

    code = "operation_not_found"

    def __init__(self, operation_id: str) -> None:
        super().__init__(f"operation not found: {operation_id}")


class NameTaken(ApiError):
    code = "name_taken"

    def __init__(self, name: str) -> None:
        super().__init__(f"another owner has a schedule of this name, choose another: {name}")


class TooMany(ApiError):
    """The server keeps no more of these."""

    code = "too_many"

    def __init__(self, what: str, count_max: int) -> None:
        super().__init__(f"there may be at most {count_max} {what}: delete some first")


# --- backups ----------------------------------------------------------------------------------------------------------


class BackupRefused(ApiError):
    """Another backup is running, or this server's log is not in files."""

    code = "backup_refused"
