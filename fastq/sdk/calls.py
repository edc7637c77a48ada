"""One function for each request of the API: its arguments in, a `Call` or a `Plan` out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import UNSET, Raw, UnsetType

from fastq.clock import monotonic_us
from fastq.sdk.chance import new_key, share
from fastq.sdk.codec import Codec
from fastq.sdk.errors import NotFinished, Refused
from fastq.sdk.models import Ack, Acked, Cron, Done, Extend, Held, JobStatus, LeasedJob, NewJob, Schedule, Submitted
from fastq.sdk.protocol import Call, Pause, Plan, Retries, carried_out
from fastq.sdk.tracing import in_trace

T = TypeVar("T")
WAIT_MS_MAX = 60_000
WAIT_MS = 20_000  # of one request while waiting for a job's end
EARLY_S = 0.5  # a wait that was over sooner than this, and without result, is not repeated at once

_encode = msgspec.json.Encoder().encode


class _Stored(msgspec.Struct):
    job_ids: list[str]
    duplicates: list[int] = []


class _Extended(msgspec.Struct):
    job_id: str
    lease_until: Any
    cancel_requested: bool = False


def reader(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


_SUBMITTED = reader(Submitted)
_STORED = reader(_Stored)
_LEASED = msgspec.json.Decoder(msgspec.defstruct("Leased", [("jobs", list[LeasedJob])]))
_STATUS = reader(JobStatus)
_SCHEDULE = reader(Schedule)
_ACKED = msgspec.json.Decoder(msgspec.defstruct("AckedAll", [("results", list[Acked])]))
_HELD = reader(Held)
_HELD_ALL = msgspec.json.Decoder(msgspec.defstruct("HeldAll", [("leases", list[Held])]))
_DONE = msgspec.json.Decoder(msgspec.defstruct("DoneAll", [("results", list[Done])]))
_CHANGED = msgspec.json.Decoder(msgspec.defstruct("Changed", [("state", str)]))
_NOTED = msgspec.json.Decoder(msgspec.defstruct("Noted", [("cancel_requested", bool)]))


def _path(job_id: str, more: str = "") -> str:
    return f"/jobs/{quote(job_id, safe='')}{more}"


def _nothing(_body: bytes) -> None:
    return None


# --- submit -----------------------------------------------------------------------------------------------------------


def job_body(job: NewJob, codec: Codec) -> Raw:
    """As POST /jobs takes it. Raises TypeError or ValueError if the payload has no JSON."""
    return Raw(_encode(msgspec.structs.replace(job, payload=Raw(codec.encode(job.payload)))))


def new_jobs(jobs: Iterable[Any]) -> list[NewJob]:
    """Payloads, and jobs as they are."""
    return [job if isinstance(job, NewJob) else NewJob(payload=job) for job in jobs]


def submit(job: NewJob, codec: Codec) -> Call[Submitted]:
    key = new_key() if job.idempotency_key is UNSET else ""  # then it is in the body
    return Call("POST", "/jobs", _SUBMITTED.decode, bytes(job_body(in_trace(job), codec)), key)


def submit_many(jobs: Sequence[NewJob], codec: Codec) -> Call[list[Submitted]]:
    """One key for the whole, unless jobs have their own: then each has one."""
    own_keys = any(job.idempotency_key is not UNSET for job in jobs)
    if own_keys:
        jobs = [
            msgspec.structs.replace(job, idempotency_key=new_key()) if job.idempotency_key is UNSET else job
            for job in jobs
        ]
    body = _encode({"jobs": [job_body(in_trace(job), codec) for job in jobs]})
    return Call("POST", "/jobs/batch", _read_stored, body, "" if own_keys else new_key())


def _read_stored(body: bytes) -> list[Submitted]:
    stored = _STORED.decode(body)
    duplicates = set(stored.duplicates)
    return [Submitted(job_id, i in duplicates) for i, job_id in enumerate(stored.job_ids)]


# --- look and change --------------------------------------------------------------------------------------------------


def get(job_id: str, wait_ms: int = 0, with_payload: bool = False) -> Call[JobStatus]:
    query = ({"wait_ms": wait_ms} if wait_ms else {}) | ({"include": "payload"} if with_payload else {})
    return Call("GET", _path(job_id, f"?{urlencode(query)}" if query else ""), _STATUS.decode, wait_ms=wait_ms)


def until_complete(job_id: str, timeout_s: float | None, retries: Retries) -> Plan[JobStatus]:
    """Raises NotFinished."""
    begun_us = monotonic_us()
    while True:
        asked_us = monotonic_us()
        wait_ms, within = WAIT_MS, retries
        if timeout_s is not None:
            left_s = max(0.0, timeout_s - (asked_us - begun_us) / 1e6)
            wait_ms = min(WAIT_MS, int(left_s * 1000))
            within = replace(retries, for_s=left_s if retries.for_s is None else min(left_s, retries.for_s))
        job = yield from carried_out(get(job_id, wait_ms), within)
        if job.is_complete:
            return job
        if timeout_s is not None and (wait_ms == 0 or monotonic_us() - begun_us >= timeout_s * 1e6):
            raise NotFinished(f"job {job_id} is {job.state} after {timeout_s:g} s")
        if monotonic_us() - asked_us < min(EARLY_S * 1e6, wait_ms * 1000):  # a server that stops lets nobody wait
            yield Pause(EARLY_S * share())


def submit_and_wait(job: NewJob, codec: Codec, timeout_s: float | None, retries: Retries) -> Plan[JobStatus]:
    submitted = yield from carried_out(submit(job, codec), retries)
    return (yield from until_complete(submitted.job_id, timeout_s, retries))


def cancel(job_id: str, force: bool) -> Call[str]:
    """The state: CANCELLED, or RUNNING while its worker is told."""
    return Call("POST", _path(job_id, "/cancel"), _state_of("CANCELLED"), _encode({"force": force}),
                happened=lambda refused: refused.code == "job_finished" and refused.state == "CANCELLED")  # fmt: skip


def redrive(job_id: str) -> Call[str]:
    """Not repeated when in doubt: it may have run, and died, once more."""
    return Call("POST", _path(job_id, "/redrive"), _state_of("READY"), repeatable=False)


def delete(job_id: str) -> Call[None]:
    return Call("DELETE", _path(job_id), _nothing, happened=lambda refused: refused.code == "job_not_found")


def _state_of(after_doubt: str) -> Any:
    return lambda body: _CHANGED.decode(body).state if body else after_doubt  # type: ignore[attr-defined] # a defstruct


# --- work -------------------------------------------------------------------------------------------------------------


def lease(
    queues: Sequence[str] | Mapping[str, int], limit: int, wait_ms: int, lease_ms: int | None, worker_id: str,
    request_id: str,
) -> Call[list[LeasedJob]]:  # fmt: skip
    """The same request_id gets the same leases: a lost answer costs none."""
    body: dict[str, Any] = {"queues": queues, "max": limit, "request_id": request_id}
    if wait_ms:
        body["wait_ms"] = min(wait_ms, WAIT_MS_MAX)
    if lease_ms is not None:
        body["lease_ms"] = lease_ms
    if worker_id:
        body["worker_id"] = worker_id
    return Call("POST", "/jobs/lease", _read_leased, _encode(body), wait_ms=wait_ms)


def _read_leased(body: bytes) -> list[LeasedJob]:
    jobs: list[LeasedJob] = _LEASED.decode(body).jobs  # type: ignore[attr-defined] # a defstruct
    return jobs


def ack_body(ack: Ack, codec: Codec) -> Raw:
    """As POST /jobs/ack takes it. Raises TypeError or ValueError if the result has no JSON."""
    return Raw(_encode(_with_json(ack, codec)))


def _with_json(ack: Ack, codec: Codec) -> Ack:
    return ack if ack.result is UNSET else msgspec.structs.replace(ack, result=Raw(codec.encode(ack.result)))


def ack_many(bodies: Sequence[Raw]) -> Call[list[Acked]]:
    """Each of what `ack_body` gives."""
    return Call("POST", "/jobs/ack", _read_acked, _encode({"acks": bodies}))


def _read_acked(body: bytes) -> list[Acked]:
    results: list[Acked] = _ACKED.decode(body).results  # type: ignore[attr-defined] # a defstruct
    return results


def ack(ack: Ack, codec: Codec) -> Call[None]:
    fields = msgspec.structs.asdict(_with_json(ack, codec))
    body = {name: value for name, value in fields.items() if name != "job_id" and value is not UNSET}
    return Call("POST", _path(ack.job_id, "/ack"), _nothing, _encode(body))


def extend(one: Extend) -> Call[Held]:
    body = {"lease_token": one.lease_token} | (
        {} if isinstance(one.lease_ms, UnsetType) else {"lease_ms": one.lease_ms}
    )
    return Call("POST", _path(one.job_id, "/extend"), _HELD.decode, _encode(body))


def heartbeat(worker_id: str, jobs: Sequence[LeasedJob], lease_ms: int | None) -> Call[list[Held]]:
    leases = [{"job_id": job.job_id, "lease_token": job.lease_token} for job in jobs]
    body: dict[str, Any] = {"worker_id": worker_id, "leases": leases}
    if lease_ms is not None:
        body["lease_ms"] = lease_ms
    return Call("POST", "/workers/heartbeat", _read_held, _encode(body))


def _read_held(body: bytes) -> list[Held]:
    leases: list[Held] = _HELD_ALL.decode(body).leases  # type: ignore[attr-defined] # a defstruct
    return leases


def progress(job: LeasedJob, percent: int, note: str) -> Call[bool]:
    """Whether the job is wanted no more."""
    body = _encode({"lease_token": job.lease_token, "percent": percent, "note": note})
    return Call("POST", _path(job.job_id, "/progress"), _read_noted, body)


def _read_noted(body: bytes) -> bool:
    cancel_requested: bool = _NOTED.decode(body).cancel_requested  # type: ignore[attr-defined] # a defstruct
    return cancel_requested


def transaction(ops: Sequence[Ack | Extend | NewJob], codec: Codec, idempotency_key: str | None) -> Call[list[Done]]:
    body = _encode({"ops": [_op(op, codec) for op in ops]})
    return Call("POST", "/transactions", _read_done, body, idempotency_key or new_key())


def _op(op: Ack | Extend | NewJob, codec: Codec) -> dict[str, Any]:
    if isinstance(op, Ack):
        return {"ack": ack_body(op, codec)}
    if isinstance(op, NewJob):
        return {"submit": job_body(in_trace(op), codec)}
    return {"extend": op}


def _read_done(body: bytes) -> list[Done]:
    results: list[Done] = _DONE.decode(body).results  # type: ignore[attr-defined] # a defstruct
    return results


# --- schedules --------------------------------------------------------------------------------------------------------


def put_schedule(name: str, cron: Cron, job: NewJob, codec: Codec) -> Call[Schedule]:
    fields = {name: value for name, value in msgspec.structs.asdict(cron).items() if value is not UNSET}
    return Call("PUT", _schedule(name), _SCHEDULE.decode, _encode({**fields, "job": job_body(job, codec)}))


def get_schedule(name: str) -> Call[Schedule]:
    return Call("GET", _schedule(name), _SCHEDULE.decode)


def run_schedule(name: str) -> Call[str]:
    """Not repeated when in doubt: it has no key, and would submit once more."""
    return Call("POST", _schedule(name, "/run"), lambda body: _SUBMITTED.decode(body).job_id, repeatable=False)


def delete_schedule(name: str) -> Call[None]:
    return Call("DELETE", _schedule(name), _nothing, happened=lambda refused: refused.status == 404)


def _schedule(name: str, more: str = "") -> str:
    return f"/schedules/{quote(name, safe='')}{more}"


def is_no_more(refused: Refused) -> bool:
    """Whether a refusal of an ack or extend says that the lease is not ours any more."""
    return refused.code in ("lease_lost", "job_not_found", "not_running")
