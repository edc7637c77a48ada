"""What a success says. The structs are the schemas of it; the functions write it.

Times go out as RFC 3339 in UTC with `Z`, to the microsecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from fastq._core import CREATED, DUPLICATE, REPLACED
from fastq.engine.commands import Ack, Extend, Submit
from fastq.engine.results import LeasedJob
from fastq.errors import ApiError
from fastq.services.keys import KeyRecord

if TYPE_CHECKING:
    from fastq._core import Submitted

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
_EPOCH = datetime(1970, 1, 1)  # without a zone: orjson is told that it is UTC
_AS_UTC = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


class JobCreated(msgspec.Struct, forbid_unknown_fields=True):
    """`duplicate`: an unfinished job with that unique key was there; `replaced`: and has the new payload now."""

    job_id: str
    duplicate: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    replaced: Literal[True] | msgspec.UnsetType = msgspec.UNSET


class JobLeased(msgspec.Struct, forbid_unknown_fields=True):
    """A lease. Asked for without a body, `payload` is always a string: that of the payload, or its JSON text.

    `group`, `tags` and `traceparent` are there if the job has them.
    """

    job_id: str
    payload: msgspec.Raw
    lease_until: Time
    attempt: int
    lease_token: str
    queue: str
    priority: int
    max_retries: int
    created_at: Time
    group: str | msgspec.UnsetType = msgspec.UNSET
    tags: list[str] | msgspec.UnsetType = msgspec.UNSET
    traceparent: str | msgspec.UnsetType = msgspec.UNSET


class JobsCreated(msgspec.Struct, forbid_unknown_fields=True):
    """In the order of the request. `duplicates`: which of them, from 0, were there before."""

    job_ids: list[str]
    duplicates: list[int] | msgspec.UnsetType = msgspec.UNSET


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
    """`cancel_requested`: the job is wanted no more."""

    job_id: str
    lease_until: Time
    cancel_requested: bool


class LeaseAnswered(msgspec.Struct, forbid_unknown_fields=True):
    """Either as of one that is extended, or what that would be refused with."""

    job_id: str
    lease_until: Time | msgspec.UnsetType = msgspec.UNSET
    cancel_requested: bool | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    code: str | msgspec.UnsetType = msgspec.UNSET
    state: str | msgspec.UnsetType = msgspec.UNSET


class LeasesAnswered(msgspec.Struct, forbid_unknown_fields=True):
    """In the order of the request."""

    leases: list[LeaseAnswered]


class ProgressNoted(msgspec.Struct, forbid_unknown_fields=True):
    job_id: str
    cancel_requested: bool


class OpAnswered(msgspec.Struct, forbid_unknown_fields=True):
    """Of an ack `ok`, of an extend `lease_until`, of a submit what a submit is answered with."""

    job_id: str
    ok: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    lease_until: Time | msgspec.UnsetType = msgspec.UNSET
    duplicate: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    replaced: Literal[True] | msgspec.UnsetType = msgspec.UNSET


class TransactionDone(msgspec.Struct, forbid_unknown_fields=True):
    """In the order of the request."""

    results: list[OpAnswered]


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
    job_id: str | msgspec.UnsetType = msgspec.UNSET
    request_id: str | msgspec.UnsetType = msgspec.UNSET


def time_of(unix_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=unix_us)


def encode(answer: Any) -> bytes:
    return orjson.dumps(answer, option=_AS_UTC)


def job_created(stored: Submitted) -> bytes:
    return encode(_stored(stored))


def _stored(stored: Submitted) -> dict[str, Any]:
    job_id, how = stored
    if how == DUPLICATE:
        return {"job_id": job_id, "duplicate": True}
    if how == REPLACED:
        return {"job_id": job_id, "duplicate": True, "replaced": True}
    return {"job_id": job_id}


def jobs_created(stored: Sequence[Submitted]) -> bytes:
    answer: dict[str, Any] = {"job_ids": [job_id for job_id, _ in stored]}
    if there_before := [i for i, (_, how) in enumerate(stored) if how != CREATED]:
        answer["duplicates"] = there_before
    return encode(answer)


def job_leased(job: LeasedJob, payload_as_string: bool) -> bytes:
    return encode(_leased(job, payload_as_string))


def jobs_leased(jobs: list[LeasedJob]) -> bytes:
    return encode({"jobs": [_leased(job, False) for job in jobs]})


def acks_answered(job_ids: Sequence[str], refusals: Sequence[ApiError | None]) -> bytes:
    return encode(
        {
            "results": [
                {"job_id": job_id, "ok": True} if refusal is None else _refused(job_id, refusal)
                for job_id, refusal in zip(job_ids, refusals, strict=True)
            ]
        }
    )


def _refused(job_id: str, refusal: ApiError) -> dict[str, Any]:
    return {"job_id": job_id, "error": str(refusal), "code": refusal.code, **refusal.fields()}


def lease_extended(job_id: str, extended: tuple[int, bool]) -> bytes:
    return encode(_extended(job_id, extended))


def _extended(job_id: str, extended: tuple[int, bool]) -> dict[str, Any]:
    return {"job_id": job_id, "lease_until": time_of(extended[0]), "cancel_requested": extended[1]}


def leases_answered(job_ids: Sequence[str], answered: Sequence[tuple[int, bool] | ApiError]) -> bytes:
    return encode(
        {
            "leases": [
                _refused(job_id, one) if isinstance(one, ApiError) else _extended(job_id, one)
                for job_id, one in zip(job_ids, answered, strict=True)
            ]
        }
    )


def progress_noted(job_id: str, cancel_requested: bool) -> bytes:
    return encode({"job_id": job_id, "cancel_requested": cancel_requested})


def transaction_done(ops: Sequence[Ack | Extend | Submit], answered: Sequence[int | Submitted | None]) -> bytes:
    results = []
    for op, answer in zip(ops, answered, strict=True):
        if isinstance(op, Submit):
            assert isinstance(answer, tuple)
            results.append(_stored(answer))
        elif isinstance(answer, int):
            results.append({"job_id": op.job_id, "lease_until": time_of(answer)})
        else:
            results.append({"job_id": op.job_id, "ok": True})
    return encode({"results": results})


def _leased(job: LeasedJob, payload_as_string: bool) -> dict[str, Any]:
    payload: Any = orjson.Fragment(job.payload)
    if payload_as_string and not job.payload.startswith(b'"'):
        payload = job.payload.decode()
    answer = {
        "job_id": job.job_id,
        "payload": payload,
        "lease_until": time_of(job.lease_until_us),
        "attempt": job.attempt,
        "lease_token": job.token,
        "queue": job.queue,
        "priority": job.priority,
        "max_retries": job.max_retries,
        "created_at": time_of(job.created_us),
    }
    if job.group:
        answer["group"] = job.group
    if job.tags:
        answer["tags"] = job.tags
    if job.traceparent:
        answer["traceparent"] = job.traceparent
    return answer


def _key(record: KeyRecord, key: str) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "key": key,
        "key_id": record.key_id,
        "name": record.name,
        "owner_id": record.owner_id,
        "type": record.type,
        "scopes": record.scopes,
        "created_at": time_of(record.created_us),
        "last_used_at": time_of(record.last_used_us),
    }
    if record.revoked_us is not None:
        answer["revoked_at"] = time_of(record.revoked_us)
    if record.expires_us is not None:
        answer["expires_at"] = time_of(record.expires_us)
    if record.queues is not None:
        answer["queues"] = sorted(record.queues)
    if record.rate_limit is not None:
        answer["rate_limit"] = record.rate_limit
    return answer


def key_with_secret(secret: str, record: KeyRecord) -> bytes:
    return encode(_key(record, secret))


def keys_listed(records: list[KeyRecord]) -> bytes:
    return encode([_key(record, record.masked) for record in records])


def key_revoked(record: KeyRecord) -> bytes:
    assert record.revoked_us is not None, "a key store gave back a key that it did not revoke"
    return encode(
        {
            "message": "Key revoked successfully",
            "key": record.masked,
            "key_id": record.key_id,
            "revoked_at": time_of(record.revoked_us),
        }
    )


def ready() -> bytes:
    return encode({"status": "ready"})
