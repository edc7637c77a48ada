"""The methods of the blocking client for operators: queues, schedules, keys, workers and the server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, TypeVar, Unpack

from fastq.client import operator_calls
from fastq.client.calls import changed_in_parts
from fastq.client.codec import Codec
from fastq.client.models import BulkOptions, ChangedMany, JobOptions, NewJob, Page
from fastq.client.operator_models import (
    AuditEntry,
    Failures,
    Key,
    KeyKind,
    KeyOptions,
    Queue,
    QueueSettings,
    RevokedKey,
    SeenWorkers,
)
from fastq.client.protocol import Call, Plan, Retries
from fastq.client.schedule_models import Cron, Every, Schedule
from fastq.client.stats_models import Stats

T = TypeVar("T")


class OperatorMethods(ABC):
    """A part of `Client`."""

    _codec: Codec
    _retries: Retries

    @abstractmethod
    def run(self, plan: Plan[T]) -> T: ...

    @abstractmethod
    def call(self, call: Call[T], timeout_s: float | None = None) -> T: ...

    def _all(self, page_at: Callable[[str], Call[Page[T]]]) -> Iterator[T]:
        cursor = ""
        while True:
            page = self.call(page_at(cursor))
            yield from page.items
            cursor = page.cursor
            if not cursor:
                return

    # --- queues: changes need the scope queues:manage -----------------------------------------------------------------

    def queues(self) -> Iterator[Queue]:
        """All queues with jobs or settings, ordered by name."""
        return self._all(operator_calls.list_queues)

    def get_queue(self, name: str) -> Queue:
        """The settings and counts of a queue. Raises NotFound."""
        return self.call(operator_calls.get_queue(name))

    def put_queue(self, name: str, settings: QueueSettings) -> Queue:
        """Replace all settings of a queue. Returns the queue."""
        return self.call(operator_calls.put_queue(name, settings))

    def pause_queue(self, name: str, *, create: bool = False, reason: str = "", until: datetime | None = None) -> Queue:
        """Stop leasing jobs of the queue. Running jobs continue.

        Args:
            create: also if it has neither jobs nor settings yet.
            reason: shown to whoever asks why its jobs wait.
            until: when the server resumes it; None: never.
        Raises:
            NotFound: it has neither.
        """
        return self.call(operator_calls.pause_queue(name, create, reason, until))

    def resume_queue(self, name: str) -> Queue:
        """Lease jobs of a paused queue again. Raises NotFound."""
        return self.call(operator_calls.resume_queue(name))

    def purge_queue(self, name: str, **options: Unpack[BulkOptions]) -> ChangedMany:
        """Delete the waiting jobs of the queue.

        Args:
            options: see `BulkOptions`.
        Raises:
            NotFound.
        """
        return self.run(changed_in_parts(partial(operator_calls.purge_queue, name), options, self._retries))

    def delete_queue(self, name: str) -> None:
        """Delete the settings of the queue. Raises Conflict while it has unfinished jobs, NotFound."""
        self.call(operator_calls.delete_queue(name))

    # --- schedules: need the scope schedules:manage -------------------------------------------------------------------

    def schedules(self) -> Iterator[Schedule]:
        """All schedules, ordered by name, without their jobs."""
        return self._all(operator_calls.list_schedules)

    def put_schedule(self, name: str, cron: Cron | Every, payload: Any, **options: Unpack[JobOptions]) -> Schedule:
        """Create or replace a schedule: it submits the job at each time of `cron`.

        Args:
            payload, options: the job, as for `submit`.
        """
        return self.call(operator_calls.put_schedule(name, cron, NewJob(payload=payload, **options), self._codec))

    def get_schedule(self, name: str) -> Schedule:
        """A schedule with its job. Raises NotFound."""
        return self.call(operator_calls.get_schedule(name))

    def run_schedule(self, name: str) -> str:
        """Submit the schedule's job now. Returns its id. Not retried after a lost answer. Raises NotFound."""
        return self.call(operator_calls.run_schedule(name))

    def pause_schedule(self, name: str) -> Schedule:
        """Submit no job at its times until it is resumed. `run_schedule` still works. Raises NotFound."""
        return self.call(operator_calls.pause_schedule(name))

    def resume_schedule(self, name: str) -> Schedule:
        """Submit jobs again, from the next time on. Times while it was paused are skipped. Raises NotFound."""
        return self.call(operator_calls.resume_schedule(name))

    def delete_schedule(self, name: str) -> None:
        """Delete a schedule. Jobs that it submitted stay. Raises NotFound."""
        self.call(operator_calls.delete_schedule(name))

    # --- keys, workers, the server ------------------------------------------------------------------------------------

    def create_key(self, name: str, owner_id: str, kind: KeyKind, **options: Unpack[KeyOptions]) -> Key:
        """Create an API key. The answer alone has its secret. Not retried after a lost answer.

        Args:
            options: see `KeyOptions`.
        """
        return self.call(operator_calls.create_key(name, owner_id, kind, options))

    def all_keys(self) -> list[Key]:
        """All keys, oldest first, secrets masked. Needs an admin key."""
        return list(self._all(operator_calls.list_keys))

    def own_keys(self) -> list[Key]:
        """The keys of this key's owner, oldest first, secrets masked."""
        return list(self._all(operator_calls.list_own_keys))

    def revoke_key(self, key_id: str) -> RevokedKey:
        """Revoke a key. Raises NotFound, Forbidden."""
        return self.call(operator_calls.revoke_key(key_id))

    def rotate_key(self, key_id: str, overlap_ms: int | None = None) -> Key:
        """Give a key a new secret. Not retried after a lost answer.

        Args:
            overlap_ms: milliseconds for which the old secret still works. Default: an hour.
        Raises:
            NotFound: there is no such key. Conflict: it is revoked.
        """
        return self.call(operator_calls.rotate_key(key_id, overlap_ms))

    def failures(self, queue: str = "", *, since: datetime | None = None, limit: int = 100) -> Failures:
        """Failed attempts, grouped by queue and error: those that were seen last, since a time, in one queue or all."""
        return self.call(operator_calls.list_failures(queue, since, limit))

    def workers(self) -> SeenWorkers:
        """The workers, their leases, and when each last sent a request."""
        return self.call(operator_calls.list_workers())

    def stats(self) -> Stats:
        """How many jobs there are and how fast they move, at most two seconds old. Needs jobs:read."""
        return self.call(operator_calls.stats())

    def audit(self) -> Iterator[AuditEntry]:
        """The audit log, newest first: changes of keys, queues, schedules and many jobs. Needs an admin key."""
        return self._all(operator_calls.list_audit)
