"""What a success says. The structs are the schemas of it; the functions write it.

Times go out as RFC 3339 in UTC with `Z`, to the microsecond.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from fastq.errors import ApiError
from fastq.keys import KeyRecord
from fastq.results import JobStatus, LeasedJob

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
_EPOCH = datetime(1970, 1, 1)  # without a zone: orjson is told that it is UTC
_AS_UTC = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


class JobCreated(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str


class JobLeased(msgspec.Struct, forbid_unknown_fields=True):
    """A lease. Asked for without a body, `payload` is always a string: that of the payload, or its JSON text."""

    job_id: str
    payload: msgspec.Raw
    lease_until: Time
    attempt: int
    lease_token: str
    queue: str
    priority: int
    max_retries: int
    created_at: Time


class JobsCreated(msgspec.Struct, forbid_unknown_fields=True):
    """In the order of the request."""

    job_ids: list[str]


class JobsLeased(msgspec.Struct, forbid_unknown_fields=True):
    """The answer to a request with `max`: as many leases as there were jobs for."""

    jobs: list[JobLeased]


class AckAnswered(msgspec.Struct, forbid_unknown_fields=True):
    """Either `ok`, or what a single ack would have been refused with."""

    job_id: str
    ok: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType = msgspec.UNSET
    state: str | msgspec.UnsetType = msgspec.UNSET


class AcksAnswered(msgspec.Struct, forbid_unknown_fields=True):
    """In the order of the request."""

    results: list[AckAnswered]


class LeaseExtended(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    lease_until: Time


class JobShown(msgspec.Struct, forbid_unknown_fields=True):
    """A job as it is now. `run_at` is there while it waits for that time."""

    job_id: str
    state: Literal["SCHEDULED", "READY", "RUNNING", "RETRY", "ACKED", "DEAD", "EXPIRED", "CANCELLED"]
    attempts: int
    max_retries: int
    created_at: Time
    priority: int
    queue: str
    run_at: Time | msgspec.UnsetType = msgspec.UNSET
    lease_until: Time | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result_error: str | msgspec.UnsetType = msgspec.UNSET


class KeyShown(msgspec.Struct, forbid_unknown_fields=True):
    """A key. `key` is its secret in the answer that made or rotated it, and masked in every other."""

    key: str
    key_id: str
    name: str
    owner_id: str
    type: Literal["client", "worker", "admin"]
    scopes: list[str]
    created_at: Time
    last_used_at: Time
    revoked_at: Time | msgspec.UnsetType = msgspec.UNSET
    expires_at: Time | msgspec.UnsetType = msgspec.UNSET
    queues: list[str] | msgspec.UnsetType = msgspec.UNSET
    rate_limit: int | msgspec.UnsetType = msgspec.UNSET


class KeyRevoked(msgspec.Struct, forbid_unknown_fields=True):
    message: str
    key: str
    key_id: str
    revoked_at: Time


class Ready(msgspec.Struct, forbid_unknown_fields=True):
    status: Literal["ready"]


class Failure(msgspec.Struct, forbid_unknown_fields=True):
    """`code` is a stable word for programs, `error` a message for people."""

    error: str
    code: str
    state: str | msgspec.UnsetType = msgspec.UNSET
    request_id: str | msgspec.UnsetType = msgspec.UNSET


def _time(unix_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=unix_us)


def _bytes(answer: Any) -> bytes:
    return orjson.dumps(answer, option=_AS_UTC)


def job_created(job_id: str) -> bytes:
    return _bytes({"job_id": job_id})


def jobs_created(job_ids: list[str]) -> bytes:
    return _bytes({"job_ids": job_ids})


def job_leased(job: LeasedJob, payload_as_string: bool) -> bytes:
    return _bytes(_leased(job, payload_as_string))


def jobs_leased(jobs: list[LeasedJob]) -> bytes:
    return _bytes({"jobs": [_leased(job, False) for job in jobs]})


def acks_answered(job_ids: list[str], refusals: list[ApiError | None]) -> bytes:
    return _bytes(
        {
            "results": [
                {"job_id": job_id, "ok": True}
                if refusal is None
                else {"job_id": job_id, "error": str(refusal), "code": refusal.code, **refusal.fields()}
                for job_id, refusal in zip(job_ids, refusals, strict=True)
            ]
        }
    )


def lease_extended(job_id: str, lease_until_us: int) -> bytes:
    return _bytes({"job_id": job_id, "lease_until": _time(lease_until_us)})


def _leased(job: LeasedJob, payload_as_string: bool) -> dict[str, Any]:
    payload: Any = orjson.Fragment(job.payload)
    if payload_as_string and not job.payload.startswith(b'"'):
        payload = job.payload.decode()
    return {
        "job_id": job.job_id,
        "payload": payload,
        "lease_until": _time(job.lease_until_us),
        "attempt": job.attempt,
        "lease_token": job.token,
        "queue": job.queue,
        "priority": job.priority,
        "max_retries": job.max_retries,
        "created_at": _time(job.created_us),
    }


def job_shown(job: JobStatus) -> bytes:
    answer: dict[str, Any] = {
        "job_id": job.job_id,
        "state": job.state,
        "attempts": job.attempts,
        "max_retries": job.max_retries,
        "created_at": _time(job.created_us),
        "priority": job.priority,
        "queue": job.queue,
    }
    if job.state in ("SCHEDULED", "RETRY"):
        answer["run_at"] = _time(job.run_at_us)
    if job.lease_until_us is not None:
        answer["lease_until"] = _time(job.lease_until_us)
    if job.result is not None:
        answer["result"] = orjson.Fragment(job.result)
    if job.error:
        answer["result_error"] = job.error
    return _bytes(answer)


def _key(record: KeyRecord, key: str) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "key": key,
        "key_id": record.key_id,
        "name": record.name,
        "owner_id": record.owner_id,
        "type": record.type,
        "scopes": record.scopes,
        "created_at": _time(record.created_us),
        "last_used_at": _time(record.last_used_us),
    }
    if record.revoked_us is not None:
        answer["revoked_at"] = _time(record.revoked_us)
    if record.expires_us is not None:
        answer["expires_at"] = _time(record.expires_us)
    if record.queues is not None:
        answer["queues"] = sorted(record.queues)
    if record.rate_limit is not None:
        answer["rate_limit"] = record.rate_limit
    return answer


def key_with_secret(secret: str, record: KeyRecord) -> bytes:
    return _bytes(_key(record, secret))


def keys_listed(records: list[KeyRecord]) -> bytes:
    return _bytes([_key(record, record.masked) for record in records])


def key_revoked(record: KeyRecord) -> bytes:
    assert record.revoked_us is not None, "a key store gave back a key that it did not revoke"
    return _bytes(
        {
            "message": "Key revoked successfully",
            "key": record.masked,
            "key_id": record.key_id,
            "revoked_at": _time(record.revoked_us),
        }
    )


def ready() -> bytes:
    return _bytes({"status": "ready"})
