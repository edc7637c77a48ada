"""One function for each request about queues, schedules, keys, workers and the server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import UNSET

from fastq.client.calls import changed_many, nothing, paged, query, reader
from fastq.client.calls import job_body as job_json
from fastq.client.codec import Codec, encoded_body
from fastq.client.models import ChangedMany, NewJob, Page, Submitted
from fastq.client.operator_models import AuditEntry, Failures, Key, Queue, QueueSettings, RevokedKey, SeenWorkers
from fastq.client.protocol import Call
from fastq.client.schedule_models import Cron, Every, Schedule
from fastq.client.stats_models import Stats, read_stats

T = TypeVar("T")
PAGE = 1000  # items in a page when a whole list is read

_QUEUE = reader(Queue)
_SCHEDULE = reader(Schedule)
_SUBMITTED = reader(Submitted)
_KEY = reader(Key)
_KEYS = reader(list[Key])
_REVOKED = reader(RevokedKey)
_WORKERS = reader(SeenWorkers)
_FAILURES = reader(Failures)
_QUEUES = paged("queues", Queue)
_SCHEDULES = paged("schedules", Schedule)
_AUDIT = paged("entries", AuditEntry)


def _below(root: str, name: str, more: str = "") -> str:
    return f"/{root}/{quote(name, safe='')}{more}"


# --- queues -----------------------------------------------------------------------------------------------------------


def list_queues(cursor: str = "", limit: int = PAGE) -> Call[Page[Queue]]:
    return Call("GET", f"/queues{query(limit=limit, cursor=cursor)}", _QUEUES)


def get_queue(name: str) -> Call[Queue]:
    return Call("GET", _below("queues", name), _QUEUE.decode)


def put_queue(name: str, settings: QueueSettings) -> Call[Queue]:
    return Call("PUT", _below("queues", name), _QUEUE.decode, encoded_body(settings))


def pause_queue(name: str, create: bool, reason: str, until: datetime | None) -> Call[Queue]:
    said = {"reason": reason, "until": until}
    body = encoded_body({member: value for member, value in said.items() if value}) if reason or until else b""
    return Call("POST", _below("queues", name, "/pause" + ("?create=true" if create else "")), _QUEUE.decode, body)


def resume_queue(name: str) -> Call[Queue]:
    return Call("POST", _below("queues", name, "/resume"), _QUEUE.decode)


def purge_queue(name: str, pace: Mapping[str, Any]) -> Call[ChangedMany]:
    body = encoded_body(pace) if pace else b""
    return Call("POST", _below("queues", name, "/purge"), changed_many, body, is_slow=True)


def delete_queue(name: str) -> Call[None]:
    return Call("DELETE", _below("queues", name), nothing, happened=lambda refused: refused.code == "queue_not_found")


# --- schedules --------------------------------------------------------------------------------------------------------


def list_schedules(cursor: str = "", limit: int = PAGE) -> Call[Page[Schedule]]:
    return Call("GET", f"/schedules{query(limit=limit, cursor=cursor)}", _SCHEDULES)


def put_schedule(name: str, cron: Cron | Every, job: NewJob, codec: Codec) -> Call[Schedule]:
    if not isinstance(cron, Cron | Every):
        raise TypeError(f'cron must be a fastq.Cron, as in Cron("30 2 * * *"), not {cron!r}')
    fields = {name: value for name, value in msgspec.structs.asdict(cron).items() if value is not UNSET}
    body = encoded_body({**fields, "job": job_json(job, codec)})
    return Call("PUT", _below("schedules", name), _SCHEDULE.decode, body)


def get_schedule(name: str) -> Call[Schedule]:
    return Call("GET", _below("schedules", name), _SCHEDULE.decode)


def run_schedule(name: str) -> Call[str]:
    """Not repeated after a lost answer: a repetition would submit another job."""
    path = _below("schedules", name, "/run")
    return Call("POST", path, lambda body: _SUBMITTED.decode(body).job_id, repeatable=False)


def pause_schedule(name: str) -> Call[Schedule]:
    return Call("POST", _below("schedules", name, "/pause"), _SCHEDULE.decode)


def resume_schedule(name: str) -> Call[Schedule]:
    return Call("POST", _below("schedules", name, "/resume"), _SCHEDULE.decode)


def delete_schedule(name: str) -> Call[None]:
    return Call("DELETE", _below("schedules", name), nothing, happened=lambda refused: refused.status == 404)


# --- keys -------------------------------------------------------------------------------------------------------------


def create_key(name: str, owner_id: str, kind: str, options: Mapping[str, Any]) -> Call[Key]:
    """Not repeated after a lost answer: a repetition would create another key."""
    body = encoded_body({"name": name, "owner_id": owner_id, "type": kind, **options})
    return Call("POST", "/admin/keys", _KEY.decode, body, repeatable=False)


def list_keys(cursor: str = "", limit: int = PAGE) -> Call[Page[Key]]:
    return _keys_at("/admin/keys", cursor, limit)


def list_own_keys(cursor: str = "", limit: int = PAGE) -> Call[Page[Key]]:
    return _keys_at("/keys", cursor, limit)


def _keys_at(path: str, cursor: str, limit: int) -> Call[Page[Key]]:
    """The answer is an array, as the original's. The header Link has the next page."""
    return Call("GET", f"{path}{query(limit=limit, cursor=cursor)}", lambda body: Page(_KEYS.decode(body)),
                of_page=lambda page, following: Page(page.items, following))  # fmt: skip


def revoke_key(key_id: str) -> Call[RevokedKey]:
    return Call("DELETE", _below("keys", key_id), _REVOKED.decode)


def rotate_key(key_id: str, overlap_ms: int | None) -> Call[Key]:
    """Not repeated after a lost answer: a repetition would end the old secret at once."""
    body = encoded_body({} if overlap_ms is None else {"overlap_ms": overlap_ms})
    return Call("POST", _below("admin/keys", key_id, "/rotate"), _KEY.decode, body, repeatable=False)


# --- the server -------------------------------------------------------------------------------------------------------


def list_failures(queue: str, since: datetime | None, limit: int) -> Call[Failures]:
    asked = query(queue=queue, since=since, limit=limit)
    return Call("GET", f"/failures{asked}", _FAILURES.decode)


def list_workers() -> Call[SeenWorkers]:
    return Call("GET", "/workers", _WORKERS.decode)


def list_audit(cursor: str = "", limit: int = PAGE) -> Call[Page[AuditEntry]]:
    return Call("GET", f"/admin/audit{query(limit=limit, cursor=cursor)}", _AUDIT)


def stats() -> Call[Stats]:
    return Call("GET", "/stats", read_stats)


def ready() -> Call[None]:
    """Answered with 503 while the server takes no work."""
    return Call("GET", "/ready", nothing)
