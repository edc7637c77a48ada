"""What a caller asks of the engine, once it has been read and checked; and who asks.

A command holds only values that the engine can use as they are: no field of it is looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# The limits of semantics that a request is held against. Passing one is a 400 that names the field and the limit.
PAYLOAD_BYTES_MAX = 1 << 20
RESULT_BYTES_MAX = 1 << 20
ERROR_BYTES_KEPT = 2048
MAX_RETRIES_MAX = 1000
PRIORITY_MIN, PRIORITY_MAX = -(1 << 31), (1 << 31) - 1
LEASE_MS_MIN, LEASE_MS_MAX = 1_000, 12 * 3_600_000
RUN_AT_AHEAD_US_MAX = 3653 * 86_400 * 1_000_000
WORKER_ID_BYTES_MAX = 200
OWNER_ID_BYTES_MAX = 128
KEY_NAME_BYTES_MAX = 200
DEFAULT_QUEUE = "default"
QUEUES_MAX = 64  # that one lease asks for
LEASES_MAX = 1000  # that one request gets
LEASED_BYTES_MAX = 8 << 20  # of the payloads that one request gets, unless one alone is larger
WAIT_MS_MAX = 60_000
REQUEST_ID_BYTES_MAX = 200
BATCH_JOBS_MAX = 10_000
BATCH_BYTES_MAX = 8 << 20
KEY_QUEUES_MAX = 100  # that a key may be bound to
KEY_RATE_MAX = 1_000_000  # requests a second
OVERLAP_MS_DEFAULT, OVERLAP_MS_MAX = 3_600_000, 30 * 24 * 3_600_000  # of two secrets of one key


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request: the key that was shown, its owner, and what it may do."""

    key_id: str
    owner_id: str
    type: str  # client, worker or admin
    scopes: frozenset[str]
    queues: frozenset[str] | None = None  # the only ones that it may lease from; None: all

    @property
    def is_admin(self) -> bool:
        return self.type == "admin"


@dataclass(frozen=True, slots=True)
class Submit:
    """A job to store. `payload` is the JSON text of its value, kept byte for byte.

    At most one of `delay_ms` and `run_at_us` (Unix microseconds) is given. `max_retries` None is the server's default.
    """

    payload: bytes
    max_retries: int | None = None
    priority: int = 0
    delay_ms: int | None = None
    run_at_us: int | None = None
    queue: str = DEFAULT_QUEUE


@dataclass(frozen=True, slots=True)
class Lease:
    """A request for the next jobs, at most `limit`: of the first queue that has some, then of the second, and so on.

    `had_body` False is the original's client: it acks without a token. Without a job it waits up to `wait_ms` for one.
    The same `request_id` (empty: none) within a minute gets the same leases.
    """

    lease_ms: int | None = None
    worker_id: str = ""
    had_body: bool = False
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    limit: int = 1
    wait_ms: int = 0
    request_id: str = ""


class Connection(Protocol):
    """Where an answer goes: a lease must not be granted to somebody who is gone."""

    @property
    def is_closed(self) -> bool: ...

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called once when it closes; what this returns takes that back."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The end of an attempt. `result` is JSON text, kept byte for byte; `error` is text, empty for success."""

    job_id: str
    lease_token: str | None = None
    result: bytes | None = None
    error: str = ""
    retry_after_ms: int | None = None
