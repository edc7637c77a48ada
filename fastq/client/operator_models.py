"""Queues, keys, workers and audit entries. The names are those of the API."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypedDict

import msgspec

from fastq.client.answers import AnswerStruct
from fastq.client.models import Backoff

KeyKind = Literal["client", "worker", "admin"]


class RateLimit(AnswerStruct, frozen=True):
    """At most `n` leases in `per_ms` milliseconds, spread evenly."""

    n: int
    per_ms: int


class Retention(AnswerStruct, frozen=True):
    """How long finished jobs are kept. None means the server's default.

    acked_ms: milliseconds, for ACKED, CANCELLED and EXPIRED jobs. dead_ms: milliseconds, for DEAD jobs. max: jobs kept
    in each final state.
    """

    acked_ms: int | None = None
    dead_ms: int | None = None
    max: int | None = None


class QueueSettings(AnswerStruct, frozen=True):
    """The settings of a queue, described in docs/queues.md. None means no limit, or the server's default.

    pause_reason: why it is paused. pause_until: when the server resumes it. fair: groups take turns. concurrency:
    running jobs. group_concurrency: running jobs of each group. lease_ms: milliseconds. max_depth: unfinished jobs;
    further submits are refused.
    """

    paused: bool = False
    pause_reason: str | None = None
    pause_until: datetime | None = None
    fair: bool = False
    rate_limit: RateLimit | None = None
    concurrency: int | None = None
    group_concurrency: int | None = None
    lease_ms: int | None = None
    backoff: Backoff | None = None
    retention: Retention | None = None
    max_depth: int | None = None


class QueueWhy(AnswerStruct, frozen=True):
    """Why the ready jobs of a queue are not leased now. code: see docs/queues.md. words: the same for a person."""

    code: str = ""
    words: str = ""


class Queue(AnswerStruct, frozen=True, kw_only=True):
    """A queue at the time of the request. A client key sees the jobs of its owner counted, and 0 groups.

    ready: jobs that are due. waiting: jobs whose run_at is in the future. finished: counts by state. groups: the number
    of groups. oldest_ready_at: since when the oldest ready job has been due, oldest_ready_s: for how long; 0: none is.
    in_per_s, out_per_s, failed_per_s: jobs submitted or redriven, jobs acked, attempts that failed, in the last 10 s.
    """

    name: str
    settings: QueueSettings
    ready: int
    waiting: int
    running: int
    finished: dict[str, int]
    groups: int = 0
    oldest_ready_at: datetime | None = None
    oldest_ready_s: float = 0.0
    in_per_s: float = 0.0
    out_per_s: float = 0.0
    failed_per_s: float = 0.0
    why: QueueWhy = QueueWhy()


class KeyOptions(TypedDict, total=False):
    """Options of a new key.

    scopes: default: those of its type. queues: the only ones that a worker key may lease from. rate_limit: requests a
    second.
    """

    scopes: list[str]
    queues: list[str]
    rate_limit: int
    expires_at: datetime | str


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. `key` is the secret in the answer to a create or rotate, and masked elsewhere."""

    key: str
    key_id: str
    name: str
    owner_id: str
    type: str
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    queues: tuple[str, ...] | None = None
    rate_limit: int | None = None

    def __repr__(self) -> str:  # keeps the secret out of logs
        return f"<Key {self.key_id} of {self.owner_id}, {self.type}>"


class RevokedKey(AnswerStruct, frozen=True):
    """A key that is revoked. `key` is masked."""

    message: str
    key: str
    key_id: str
    revoked_at: datetime


class HeldLease(AnswerStruct, frozen=True, kw_only=True):
    """A lease that a worker has."""

    job_id: str
    queue: str
    leased_at: datetime
    lease_until: datetime
    cancel_requested: bool


class SeenWorker(AnswerStruct, frozen=True):
    """A worker. All workers without a `worker_id` are shown as one with an empty id.

    queues: those that it last asked for a job. host, version: what it says about itself.
    """

    worker_id: str
    last_seen_at: datetime
    leases: list[HeldLease]
    queues: tuple[str, ...] = ()
    host: str = ""
    version: str = ""


class SeenWorkers(AnswerStruct, frozen=True):
    """The workers, ordered by worker_id. `complete` is false if the server shows only a part of them."""

    workers: list[SeenWorker]
    complete: bool


class FailureGroup(AnswerStruct, frozen=True, kw_only=True):
    """Attempts of one owner that failed in one queue with the same error. `job_id`: of the last one.

    error: the first line, at most 200 bytes; of an end without a text what happened, such as `lease_expired`.
    """

    queue: str
    owner_id: str
    error_code: str
    error: str
    count: int
    first_at: datetime
    last_at: datetime
    job_id: str


class Failures(AnswerStruct, frozen=True):
    """Groups of failed attempts, the one that was seen last first. They are counted since `since`."""

    groups: list[FailureGroup]
    since: datetime


class AuditEntry(AnswerStruct, frozen=True, kw_only=True):
    """One change and the key that made it. `number` counts all entries, from 1."""

    number: int
    at: datetime
    key_id: str
    owner_id: str
    action: str
    target: str
    details: dict[str, Any]
