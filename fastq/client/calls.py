"""One function for each request about jobs: it takes the arguments and returns a `Call` or a `Plan`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import UNSET, Raw, UnsetType

from fastq.client.codec import Codec, encoded, encoded_body
from fastq.client.errors import ClientError, NotFinished, Refused
from fastq.client.models import (
    Ack,
    Acked,
    Attempt,
    ChangedMany,
    Done,
    Event,
    Extend,
    Held,
    JobStatus,
    LeasedJob,
    NewJob,
    Page,
    Submitted,
    Why,
)
from fastq.client.protocol import Call, Pause, Plan, Retries, carried_out
from fastq.client.randomness import jitter, new_key
from fastq.client.tracing import in_trace
from fastq.clock import monotonic_us

T = TypeVar("T")
WAIT_MS_MAX = 60_000
WAIT_MS = 20_000  # of one long poll for a job's end
EARLY_S = 0.5  # after a shorter empty long poll the client pauses before the next


class _Stored(msgspec.Struct):
    job_ids: list[str]
    duplicates: list[int] = []


def reader(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)


def wrapped(name: str, kind: Any) -> Callable[[bytes], Any]:
    """A reader of the one member `name` of an answer."""
    decoder = msgspec.json.Decoder(msgspec.defstruct("Wrapped", [(name, kind)]))
    return lambda body: getattr(decoder.decode(body), name)


def paged(name: str, kind: type[T]) -> Callable[[bytes], Page[T]]:
    """A reader of a page whose items are in the member `name`."""
    items: Any = list[kind]  # type: ignore[valid-type] # a type that is a value here
    decoder: Any = msgspec.json.Decoder(msgspec.defstruct("Paged", [
        (name, items), ("cursor", str | int, ""), ("examined_until", datetime | None, None)
    ]))  # fmt: skip

    def read(body: bytes) -> Page[T]:
        page = decoder.decode(body)
        return Page(getattr(page, name), str(page.cursor), page.examined_until)

    return read


PROGRESS_MS = 1_000  # how long one request works if somebody watches
BULK_OPTIONS = frozenset({"pace_per_s", "cursor", "on_progress"})

_SUBMITTED = reader(Submitted)
_STORED = reader(_Stored)
_LEASED: Callable[[bytes], list[LeasedJob]] = wrapped("jobs", list[LeasedJob])
_STATUS = reader(JobStatus)
_ACKED: Callable[[bytes], list[Acked]] = wrapped("results", list[Acked])
_HELD = reader(Held)
_HELD_ALL: Callable[[bytes], list[Held]] = wrapped("leases", list[Held])
_DONE: Callable[[bytes], list[Done]] = wrapped("results", list[Done])
_CHANGED: Callable[[bytes], str] = wrapped("state", str)
_NOTED: Callable[[bytes], bool] = wrapped("cancel_requested", bool)
_ATTEMPTS: Callable[[bytes], list[Attempt]] = wrapped("attempts", list[Attempt])
_EVENTS: Callable[[bytes], list[Event]] = wrapped("events", list[Event])
_WHY = reader(Why)
_JOBS = paged("jobs", JobStatus)
changed_many = reader(ChangedMany).decode


def _path(job_id: str, more: str = "") -> str:
    return f"/jobs/{quote(job_id, safe='')}{more}"


def nothing(_body: bytes) -> None:
    return None


def query(**members: Any) -> str:
    """A query string, `?a=1&b=2`, of the members that are neither None nor empty."""
    given = {name: msgspec.to_builtins(value) for name, value in members.items() if value not in (None, "")}
    return f"?{urlencode(given)}" if given else ""


# --- submit -----------------------------------------------------------------------------------------------------------


def job_body(job: NewJob, codec: Codec, within: str = "") -> Raw:
    """The body of POST /jobs. Raises NotJSON: the payload cannot be encoded. within: its place in a larger request."""
    payload = encoded(codec, job.payload, f"{within}payload")
    return Raw(encoded_body(msgspec.structs.replace(job, payload=payload), within))


def new_jobs(jobs: Iterable[Any]) -> list[NewJob]:
    """Each payload as a `NewJob`; a `NewJob` unchanged."""
    return [job if isinstance(job, NewJob) else NewJob(payload=job) for job in jobs]


def submit(job: NewJob, codec: Codec) -> Call[Submitted]:
    """Submit one job. The idempotency key is in the body: parsing a header would cost the server more than the rest."""
    if job.idempotency_key is UNSET:
        job = msgspec.structs.replace(job, idempotency_key=new_key())
    return Call("POST", "/jobs", _SUBMITTED.decode, bytes(job_body(in_trace(job), codec)), of_old=_of_old)


def submit_many(jobs: Sequence[NewJob], codec: Codec) -> Call[list[Submitted]]:
    """Submit many jobs. One key covers the batch; if a job has its own key, each job gets one."""
    own_keys = any(job.idempotency_key is not UNSET for job in jobs)
    if own_keys:
        jobs = [
            msgspec.structs.replace(job, idempotency_key=new_key()) if job.idempotency_key is UNSET else job
            for job in jobs
        ]
    bodies = [job_body(in_trace(job), codec, f"jobs[{number}].") for number, job in enumerate(jobs)]
    body = encoded_body({"jobs": bodies})
    return Call("POST", "/jobs/batch", _read_stored, body, "" if own_keys else new_key(), of_old=_all_of_old)


def _of_old(submitted: Submitted) -> Submitted:
    return msgspec.structs.replace(submitted, duplicate=True)


def _all_of_old(submitted: list[Submitted]) -> list[Submitted]:
    return [_of_old(one) for one in submitted]


def _read_stored(body: bytes) -> list[Submitted]:
    stored = _STORED.decode(body)
    duplicates = set(stored.duplicates)
    return [Submitted(job_id, i in duplicates) for i, job_id in enumerate(stored.job_ids)]


# --- look and change --------------------------------------------------------------------------------------------------


def get(job_id: str, wait_ms: int = 0, with_payload: bool = False) -> Call[JobStatus]:
    more = query(wait_ms=wait_ms or None, include="payload" if with_payload else "")
    return Call("GET", _path(job_id, more), _STATUS.decode, wait_ms=wait_ms)


def list_jobs(where: Mapping[str, Any], limit: int, cursor: str = "") -> Call[Page[JobStatus]]:
    """`where`: see `JobFilter`."""
    return Call("GET", f"/jobs{query(**where, limit=limit, cursor=cursor)}", _JOBS)


def attempts(job_id: str) -> Call[list[Attempt]]:
    return Call("GET", _path(job_id, "/attempts"), _ATTEMPTS)


def history(job_id: str) -> Call[list[Event]]:
    return Call("GET", _path(job_id, "/history"), _EVENTS)


def why(job_id: str) -> Call[Why]:
    return Call("GET", _path(job_id, "/why"), _WHY.decode)


def until_complete(
    job_id: str, timeout_s: float | None, retries: Retries, begun_us: int | None = None
) -> Plan[JobStatus]:  # fmt: skip
    """Poll until the job has ended. Raises NotFinished after `timeout_s`, counted from `begun_us`. Default: now."""
    begun_us = monotonic_us() if begun_us is None else begun_us
    until_us = None if timeout_s is None else begun_us + int(timeout_s * 1e6)
    while True:
        asked_us, wait_ms = monotonic_us(), WAIT_MS
        if timeout_s is not None:
            wait_ms = min(WAIT_MS, max(0, int(timeout_s * 1000 - (asked_us - begun_us) / 1000)))
        job = yield from carried_out(get(job_id, wait_ms), retries, until_us)
        if job.is_complete:
            return job
        now_us = monotonic_us()
        if timeout_s is not None and (wait_ms == 0 or now_us - begun_us >= timeout_s * 1e6):
            raise NotFinished(f"job {job_id} is {job.state} after {timeout_s:g} s")
        if now_us - asked_us < min(EARLY_S * 1e6, wait_ms * 1000):  # a stopping server answers long polls at once
            yield Pause(EARLY_S * jitter())


def submit_and_wait(
    job: NewJob, codec: Codec, timeout_s: float | None, retries: Retries, waiting: Retries
) -> Plan[JobStatus]:  # fmt: skip
    """`timeout_s` is for both together. waiting: the retries of the wait."""
    begun_us = monotonic_us()
    until_us = None if timeout_s is None else begun_us + int(timeout_s * 1e6)
    submitted = yield from carried_out(submit(job, codec), retries, until_us)
    return (yield from until_complete(submitted.job_id, timeout_s, waiting, begun_us))


def cancel(job_id: str, force: bool) -> Call[str]:
    """Returns the state: CANCELLED, or RUNNING until its worker stops."""
    return Call("POST", _path(job_id, "/cancel"), _state_of("CANCELLED"), encoded_body({"force": force}),
                happened=lambda refused: refused.code == "job_finished" and refused.state == "CANCELLED")  # fmt: skip


def redrive(job_id: str) -> Call[str]:
    """Not repeated after a lost answer: the job may have run and died again since."""
    return Call("POST", _path(job_id, "/redrive"), _state_of("READY"), repeatable=False)


def resubmit(job_id: str, changes: Mapping[str, Any]) -> Call[Submitted]:
    """`changes`: see `ResubmitChanges`."""
    return Call("POST", _path(job_id, "/resubmit"), _SUBMITTED.decode, encoded_body(dict(changes)), new_key(),
                of_old=_of_old)  # fmt: skip


def delete(job_id: str) -> Call[None]:
    return Call("DELETE", _path(job_id), nothing, happened=lambda refused: refused.code == "job_not_found")


def edit(job_id: str, changes: Mapping[str, Any], codec: Codec) -> Call[str]:
    """`changes`: see `JobChanges`. Raises NotJSON: the payload cannot be encoded."""
    body = dict(changes)
    if "payload" in body:
        body["payload"] = encoded(codec, body["payload"], "payload")
    return Call("PATCH", _path(job_id), _CHANGED, encoded_body(body))


def change_many(
    action: Literal["cancel", "redrive", "delete"], where: Mapping[str, Any], dry_run: bool
) -> Callable[[Mapping[str, Any]], Call[ChangedMany]]:
    """A redrive is not repeated after a lost answer: jobs that died again since would run again."""
    chosen = {name: value for name, value in where.items() if name not in BULK_OPTIONS}
    repeatable = dry_run or action != "redrive"

    def part(pace: Mapping[str, Any]) -> Call[ChangedMany]:
        body = encoded_body({"filter": chosen, "dry_run": dry_run, **pace})
        return Call("POST", f"/jobs/{action}", changed_many, body, is_slow=True, repeatable=repeatable)

    return part


def changed_in_parts(
    part: Callable[[Mapping[str, Any]], Call[ChangedMany]], options: Mapping[str, Any], retries: Retries
) -> Plan[ChangedMany]:
    """Send a change of many jobs, and continue it until all were looked at.

    Args:
        part: the call of one request, made from the members that say its pace and where it goes on.
        options: see `BulkOptions`.
    """
    on_progress = options.get("on_progress")
    pace: dict[str, Any] = {"pace_per_s": options["pace_per_s"]} if "pace_per_s" in options else {}
    if on_progress is not None:
        pace["work_ms"] = PROGRESS_MS
    done = ChangedMany(0, 0, False, options.get("cursor", ""))
    is_first = True
    while is_first or (done.cursor and not done.complete):
        try:
            more = yield from carried_out(part(pace | ({"cursor": done.cursor} if done.cursor else {})), retries)
        except ClientError:  # what was done until now is not lost
            if is_first:
                raise
            return done
        done, is_first = done.plus(more), False
        if on_progress is not None:
            on_progress(done)
    return done


def _state_of(if_repeated: str) -> Callable[[bytes], str]:
    return lambda body: _CHANGED(body) if body else if_repeated


# --- work -------------------------------------------------------------------------------------------------------------


def lease(
    queues: Sequence[str] | Mapping[str, int], limit: int, wait_ms: int, lease_ms: int | None, worker_id: str,
    request_id: str,
) -> Call[list[LeasedJob]]:  # fmt: skip
    """A repetition with the same `request_id` gets the same leases, so a lost answer loses none."""
    body: dict[str, Any] = {"queues": queues, "max": limit, "request_id": request_id}
    if wait_ms:
        body["wait_ms"] = min(wait_ms, WAIT_MS_MAX)
    if lease_ms is not None:
        body["lease_ms"] = lease_ms
    if worker_id:
        body["worker_id"] = worker_id
    return Call("POST", "/jobs/lease", _LEASED, encoded_body(body), wait_ms=wait_ms)


def ack_body(ack: Ack, codec: Codec, within: str = "") -> Raw:
    """One ack of POST /jobs/ack. Raises NotJSON: the result cannot be encoded. within: as for `job_body`."""
    return Raw(encoded_body(_with_json(ack, codec, within), within))


def _with_json(ack: Ack, codec: Codec, within: str = "") -> Ack:
    if ack.result is UNSET:
        return ack
    return msgspec.structs.replace(ack, result=encoded(codec, ack.result, f"{within}result"))


def ack_bodies(acks: Sequence[Ack], codec: Codec) -> list[Raw]:
    return [ack_body(ack, codec, f"acks[{number}].") for number, ack in enumerate(acks)]


def ack_many(bodies: Sequence[Raw]) -> Call[list[Acked]]:
    """`bodies`: of `ack_body`."""
    return Call("POST", "/jobs/ack", _ACKED, encoded_body({"acks": bodies}))


def ack(ack: Ack, codec: Codec) -> Call[None]:
    fields = msgspec.structs.asdict(_with_json(ack, codec))
    body = {name: value for name, value in fields.items() if name != "job_id" and value is not UNSET}
    return Call("POST", _path(ack.job_id, "/ack"), nothing, encoded_body(body))


def extend(one: Extend) -> Call[Held]:
    body = {"lease_token": one.lease_token} | (
        {} if isinstance(one.lease_ms, UnsetType) else {"lease_ms": one.lease_ms}
    )
    return Call("POST", _path(one.job_id, "/extend"), _HELD.decode, encoded_body(body))


def heartbeat(
    worker_id: str, jobs: Sequence[LeasedJob], lease_ms: int | None, host: str = "", version: str = ""
) -> Call[list[Held]]:
    leases = [{"job_id": job.job_id, "lease_token": job.lease_token} for job in jobs]
    body: dict[str, Any] = {"worker_id": worker_id, "leases": leases}
    body |= {name: value for name, value in (("lease_ms", lease_ms), ("host", host), ("version", version)) if value}
    return Call("POST", "/workers/heartbeat", _HELD_ALL, encoded_body(body))


def progress(job: LeasedJob, percent: int, note: str) -> Call[bool]:
    """Returns whether a cancel was requested."""
    body = encoded_body({"lease_token": job.lease_token, "percent": percent, "note": note})
    return Call("POST", _path(job.job_id, "/progress"), _NOTED, body)


def transaction(ops: Sequence[Ack | Extend | NewJob], codec: Codec, idempotency_key: str | None) -> Call[list[Done]]:
    body = encoded_body({"ops": [_op(op, codec, f"ops[{number}].") for number, op in enumerate(ops)]})
    return Call("POST", "/transactions", _DONE, body, idempotency_key or new_key())


def _op(op: Ack | Extend | NewJob, codec: Codec, within: str) -> dict[str, Any]:
    if isinstance(op, Ack):
        return {"ack": ack_body(op, codec, within)}
    if isinstance(op, NewJob):
        return {"submit": job_body(in_trace(op), codec, within)}
    return {"extend": op}


def is_lease_lost(refused: Refused) -> bool:
    """Whether an ack or extend was refused because the lease is no longer valid."""
    return refused.code in ("lease_lost", "job_not_found", "not_running")
