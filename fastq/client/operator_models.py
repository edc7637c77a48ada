"""What operators see and set: queues, keys, workers, the audit. Spelled as the API spells it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypedDict

import msgspec

from fastq.client.models import Backoff

KeyKind = Literal["client", "worker", "admin"]


class RateLimit(msgspec.Struct, frozen=True):
    """At most `n` leases in `per_ms` milliseconds, evenly."""

    n: int
    per_ms: int


class Retention(msgspec.Struct, frozen=True):
    """How long finished jobs are kept, and how many of each state; None: as the server's settings say.

    `acked_ms` is for CANCELLED and EXPIRED jobs too.
    """

    acked_ms: int | None = None
    dead_ms: int | None = None
    max: int | None = None


class QueueSettings(msgspec.Struct, frozen=True):
    """How a queue is served; None is without limit, or as the server's settings say. docs/queues.md tells the rest."""

    paused: bool = False
    fair: bool = False
    rate_limit: RateLimit | None = None
    concurrency: int | None = None
    group_concurrency: int | None = None
    lease_ms: int | None = None
    backoff: Backoff | None = None
    retention: Retention | None = None
    max_depth: int | None = None


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as it was when the server was asked.

    `ready` jobs are due, `waiting` ones have a run_at ahead. `finished`: how many there are of each state.
    """

    name: str
    settings: QueueSettings
    ready: int
    waiting: int
    running: int
    finished: dict[str, int]
    groups: int
    oldest_ready_at: datetime | None = None


class KeyOptions(TypedDict, total=False):
    """What a new key may have beside its name, owner and type.

    scopes: instead of its type's own. queues: a worker leases from no other. rate_limit: requests a second.
    """

    scopes: list[str]
    queues: list[str]
    rate_limit: int
    expires_at: datetime | str


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. `key` is its secret where it was made or rotated, and masked everywhere else."""

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

    def __repr__(self) -> str:  # the secret is in no log
        return f"<Key {self.key_id} of {self.owner_id}, {self.type}>"


class RevokedKey(msgspec.Struct, frozen=True):
    """`key` is masked."""

    message: str
    key: str
    key_id: str
    revoked_at: datetime


class HeldLease(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    queue: str
    leased_at: datetime
    lease_until: datetime
    cancel_requested: bool


class SeenWorker(msgspec.Struct, frozen=True):
    """`worker_id` is what it calls itself: all that do not say are one, with an empty id."""

    worker_id: str
    last_seen_at: datetime
    leases: list[HeldLease]


class SeenWorkers(msgspec.Struct, frozen=True):
    """By worker_id. Not `complete`: there are more leases, or idle workers, than the server shows."""

    workers: list[SeenWorker]
    complete: bool


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what. `number` counts all entries that were ever written."""

    number: int
    at: datetime
    key_id: str
    owner_id: str
    action: str
    target: str
    details: dict[str, Any]
