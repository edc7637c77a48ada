"""Queues: their settings, stored in the log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Annotated

import msgspec
from msgspec import Meta

from fastq._core import ALL, QueueView
from fastq._core import QueueSettings as CoreSettings
from fastq.engine import Engine
from fastq.engine.commands import LEASE_MS_MAX, LEASE_MS_MIN, Principal
from fastq.engine.documents import DocumentKind
from fastq.errors import ApiError, QueueForbidden, QueueHasJobs, QueueNotFound, TooMany
from fastq.services.alarm import Alarm
from fastq.services.audit import ENTRY_BYTES, Audit

LOG = logging.getLogger("fastq.queues")

SLICE_PLACES, SLICE_QUEUES = 2_000, 50  # that a piece of a page looks at, and has
CONFIGURED_MAX = 10_000  # queues with settings
DOCUMENT_BYTES = 2048
COUNT_MAX = 1_000_000_000
RATE_MAX = 1_000_000
DAY_MS = 86_400_000
BACKOFF_BASE_MS_MAX, BACKOFF_CAP_MS_MAX = DAY_MS, 30 * DAY_MS
YEAR_MS = 365 * DAY_MS

PAUSE_REASON_BYTES_MAX = 200
STALE_MAX = 100  # entries of the heap
RESUMED_MAX = 50  # queues, before the loop does other work
RETRY_US = 5_000_000  # after a resume that was refused: a full disk
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SERVER = Principal("system", "", "admin", frozenset())  # resumes queues

Count = Annotated[int, Meta(ge=1, le=COUNT_MAX)]
KeptMs = Annotated[int, Meta(ge=0, le=10 * YEAR_MS)]


class RateLimit(msgspec.Struct, frozen=True):
    """At most `n` leases in `per_ms` milliseconds, spread evenly.

    It is a bucket of n tokens, empty when the server starts.
    """

    n: Annotated[int, Meta(ge=1, le=RATE_MAX)]
    per_ms: Annotated[int, Meta(ge=1, le=DAY_MS)]


class Backoff(msgspec.Struct, frozen=True):
    """After attempt n a job waits a random time of at most base_ms * factor ** (n - 1), limited to cap_ms."""

    base_ms: Annotated[int, Meta(ge=1, le=BACKOFF_BASE_MS_MAX)] = 1_000
    factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    cap_ms: Annotated[int, Meta(ge=1, le=BACKOFF_CAP_MS_MAX)] = 3_600_000


class Retention(msgspec.Struct, frozen=True):
    """How long finished jobs are kept, and how many of each state. The defaults are the server's settings.

    `acked_ms` also applies to CANCELLED and EXPIRED jobs.
    """

    acked_ms: KeptMs | None = None
    dead_ms: KeptMs | None = None
    max: Annotated[int, Meta(ge=0, le=COUNT_MAX)] | None = None


class QueueSettings(msgspec.Struct, frozen=True):
    """The settings of a queue. A member that is None means no limit, or the server's setting.

    They are stored as JSON in a document under the queue's name. A later version may add members with defaults.

    Args:
        paused: no job is leased.
        pause_reason, pause_until: why, and the time (RFC 3339, UTC) at which the server resumes it; only while paused.
        fair: groups take turns; otherwise the first job of all groups is leased.
        concurrency, group_concurrency: running jobs of the queue, and of each group.
        lease_ms: the lease time if neither the request nor the job has one.
        max_depth: unfinished jobs; above it submits are refused.
    """

    paused: bool = False
    pause_reason: str | None = None
    pause_until: str | None = None
    fair: bool = False
    rate_limit: RateLimit | None = None
    concurrency: Count | None = None
    group_concurrency: Count | None = None
    lease_ms: Annotated[int, Meta(ge=LEASE_MS_MIN, le=LEASE_MS_MAX)] | None = None
    backoff: Backoff | None = None
    retention: Retention | None = None
    max_depth: Count | None = None

    @property
    def resume_us(self) -> int | None:
        """When the server resumes the queue, Unix microseconds."""
        if not self.paused or self.pause_until is None:
            return None
        return (datetime.fromisoformat(self.pause_until) - EPOCH) // timedelta(microseconds=1)

    def for_core(self) -> CoreSettings:
        rate, backoff, kept = self.rate_limit, self.backoff, self.retention or Retention()
        return CoreSettings(
            paused=self.paused,
            fair=self.fair,
            concurrency=self.concurrency or 0,
            group_concurrency=self.group_concurrency or 0,
            rate_n=rate.n if rate else 0,
            rate_per_ms=rate.per_ms if rate else 0,
            lease_ms=self.lease_ms or 0,
            backoff=(backoff.base_ms, backoff.factor, backoff.cap_ms) if backoff else None,
            retention_acked_ms=-1 if kept.acked_ms is None else kept.acked_ms,
            retention_dead_ms=-1 if kept.dead_ms is None else kept.dead_ms,
            finished_max=-1 if kept.max is None else kept.max,
            max_depth=self.max_depth or 0,
        )


DEFAULT = QueueSettings()
Shown = tuple[QueueView, QueueSettings]


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a page of queues, and the next page's `after`, "" without one."""

    queues: list[Shown]
    after: str = ""


class Queues:
    """The settings of all queues. All methods run in the event loop's thread."""

    def __init__(self, engine: Engine, audit: Audit) -> None:
        """Read the settings in the log. `configure` applies them."""
        self._engine, self._audit = engine, audit
        self._settings = {
            name: msgspec.json.decode(body, type=QueueSettings)
            for name, body in engine.documents(DocumentKind.QUEUE).items()
        }
        self._resumes: list[tuple[int, str]] = []  # a heap of paused queues; an entry that differs from them is stale
        self._alarm: Alarm | None = None

    def configure(self, now_us: int) -> None:
        """Give the settings to the core: at a start, before a job is leased or removed."""
        for name, settings in self._settings.items():
            self._engine.configure_queue(name, settings.for_core(), now_us)

    # --- pauses that end by themselves --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to resume queues whose pause is over. What is due is resumed when the loop goes on."""
        self._alarm = Alarm(self._engine.now_us, self.resume_due)
        self._order()
        self._arm()

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.stop()

    def resume_due(self) -> None:
        """Resume the queues whose pause is over, a slice of them. Tests call it after they move the clock."""
        now_us, left = self._engine.now_us(), RESUMED_MAX
        while self._resumes and self._resumes[0][0] <= now_us and left and not self._engine.draining:
            due_us, name = heappop(self._resumes)
            settings = self._settings.get(name, DEFAULT)
            if settings.resume_us != due_us:
                continue
            left -= 1
            try:
                self._put(SERVER, name, _resumed(settings), "queue.resume")
            except ApiError as error:
                LOG.warning("queue %s stays paused for now: %s", name, error)
                heappush(self._resumes, (due_us, name))
                self._arm(now_us + RETRY_US)
                return
        self._arm()

    def _order(self) -> None:
        due = ((settings.resume_us, name) for name, settings in self._settings.items())
        self._resumes = [(due_us, name) for due_us, name in due if due_us is not None]
        heapify(self._resumes)

    def _arm(self, earliest_us: int = 0) -> None:
        if self._alarm is not None and not self._engine.draining:
            self._alarm.set(max(self._resumes[0][0], earliest_us) if self._resumes else None)

    # --- reads --------------------------------------------------------------------------------------------------------

    async def pages(self, who: Principal, after: str, limit: int) -> AsyncIterator[Page]:
        """Yield pieces of at most `limit` queues that exist for `who`, by name. Each takes about a millisecond.

        Args:
            after: the last name of the previous page.
        """
        names: list[str] = []  # the first ones, and one more if there are more
        for first in range(0, self._engine.queue_places, SLICE_PLACES):
            found = self._engine.queues_in(who.oversees, first, first + SLICE_PLACES, after)
            if len(names) > limit:
                found = [name for name in found if name < names[-1]]
            names = sorted(names + found)[: limit + 1]
            yield Page([])
        more, names = len(names) > limit, names[:limit]
        for at in range(0, len(names), SLICE_QUEUES):
            piece = names[at : at + SLICE_QUEUES]
            shown = [self._shown(who, name) for name in piece if self._exists(who, name)]
            yield Page(shown, piece[-1] if more and at + SLICE_QUEUES >= len(names) else "")

    def paused(self) -> list[str]:
        """The names of all paused queues."""
        return [name for name, settings in self._settings.items() if settings.paused]

    def show(self, who: Principal, name: str) -> Shown:
        """Return a queue. Raises QueueNotFound, also for a queue that does not exist for `who`."""
        if not self._exists(who, name):
            raise QueueNotFound(name)
        return self._shown(who, name)

    def settings_of(self, name: str) -> QueueSettings:
        """The settings of a queue, the defaults without any. Ask `show` whether the queue exists for a caller."""
        return self._settings.get(name, DEFAULT)

    def pause_of(self, name: str) -> tuple[str | None, str | None]:
        """Why the queue is paused, and until when, RFC 3339."""
        settings = self._settings.get(name, DEFAULT)
        return settings.pause_reason, settings.pause_until

    # --- changes ------------------------------------------------------------------------------------------------------

    def need(self, who: Principal, name: str, *, is_known: bool = False) -> None:
        """Check that `who` may change the queue.

        Args:
            is_known: it existed when the change began; it may be gone by now.
        Raises:
            QueueForbidden, QueueNotFound.
        """
        _need(who, name)
        if not is_known:
            self.show(who, name)

    def put(self, who: Principal, name: str, settings: QueueSettings) -> Shown:
        """Set a queue's settings. Raises QueueForbidden, TooMany, DiskFull, Overloaded."""
        _need(who, name)
        return self._put(who, name, settings, "queue.put")

    def pause(
        self, who: Principal, name: str, create: bool = False, reason: str | None = None, until: str | None = None
    ) -> Shown:
        """Lease none of the queue's jobs; running jobs go on. Replaces the reason and the end of an earlier pause.

        Args:
            create: pause a queue before its first job.
            until: when the server resumes it, RFC 3339 in UTC; None: never.
        Raises:
            QueueNotFound, QueueForbidden, TooMany, DiskFull, Overloaded.
        """
        _need(who, name)
        if not create and not self._exists(who, name):
            raise QueueNotFound(name, "; create=true pauses a queue before its first job")
        settings = msgspec.structs.replace(
            self._settings.get(name, DEFAULT), paused=True, pause_reason=reason, pause_until=until
        )
        return self._put(who, name, settings, "queue.pause")

    def resume(self, who: Principal, name: str) -> Shown:
        """Lease the queue's jobs again. Raises QueueNotFound, QueueForbidden, DiskFull, Overloaded."""
        _need(who, name)
        if name not in self._settings:
            return self.show(who, name)
        return self._put(who, name, _resumed(self._settings[name]), "queue.resume")

    def _put(self, who: Principal, name: str, settings: QueueSettings, action: str) -> Shown:
        known = self._settings.get(name)
        if known is None and len(self._settings) >= CONFIGURED_MAX:
            raise TooMany("queues with settings", CONFIGURED_MAX)
        if settings != known:
            body = msgspec.json.encode(settings)
            with self._engine.group(DOCUMENT_BYTES + ENTRY_BYTES) as group:
                group.put_document(DocumentKind.QUEUE, name, body, who.key_id)
                self._audit.write(group, who, action, name, settings=msgspec.to_builtins(settings))
            self._settings[name] = settings
            self._engine.configure_queue(name, settings.for_core(), group.now_us)
            if (due_us := settings.resume_us) is not None:
                heappush(self._resumes, (due_us, name))
                if len(self._resumes) > 2 * len(self._settings) + STALE_MAX:
                    self._order()
                self._arm()
        return self._shown(who, name)

    def delete(self, who: Principal, name: str) -> None:
        """Delete the settings of a queue without unfinished jobs.

        Raises:
            QueueNotFound, QueueForbidden, QueueHasJobs, DiskFull, Overloaded.
        """
        _need(who, name)
        if not self._exists(who, name):
            raise QueueNotFound(name)
        view = self._engine.queue(ALL, name)
        if unfinished := view.ready + view.waiting + view.running:
            raise QueueHasJobs(name, unfinished)
        if name in self._settings:
            with self._engine.group(DOCUMENT_BYTES + ENTRY_BYTES) as group:
                group.drop_document(DocumentKind.QUEUE, name, who.key_id)
                self._audit.write(group, who, "queue.delete", name)
            del self._settings[name]
            self._engine.configure_queue(name, None, group.now_us)

    def _exists(self, who: Principal, name: str) -> bool:
        """Whether the queue has jobs that `who` sees counted, or settings that `who` may see."""
        view = self._engine.queue(who.oversees, name)
        jobs = view.ready + view.waiting + view.running + sum(view.finished.values())
        return jobs > 0 or (who.oversees.owner_id is None and who.oversees.has_queue(name) and name in self._settings)

    def _shown(self, who: Principal, name: str) -> Shown:
        return self._engine.queue(who.oversees, name), self._settings.get(name, DEFAULT)


def _resumed(settings: QueueSettings) -> QueueSettings:
    return msgspec.structs.replace(settings, paused=False, pause_reason=None, pause_until=None)


def _need(who: Principal, name: str) -> None:
    """Raise QueueForbidden if the key is bound to other queues."""
    if not who.oversees.has_queue(name):
        raise QueueForbidden(name, "manage")
