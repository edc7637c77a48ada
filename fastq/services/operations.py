"""Bulk changes that run in the server: who started them, how far they came, their pace, and how to stop them.

They are in memory only, and end with the server. The audit log says how far each came.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from fastq.engine import Engine
from fastq.engine.commands import Principal
from fastq.errors import ApiError, Forbidden, OperationNotFound, TooMany
from fastq.services.bulk import BEGIN, Bulk, Caller, Order, Work

LOG = logging.getLogger("fastq.operations")

OPERATIONS_KEPT = 100
RUNNING_MAX = 20
KEPT_US = 3_600_000_000  # after its end


@dataclass(slots=True)
class Operation:
    """A bulk change.

    Args:
        key_id, owner_id: who started it.
        pace_per_s: jobs changed in a second, at most; None: as many as can be.
        expected: the jobs that matched when it was started, if they were counted.
        state: `running`; `stopped`: it can be continued; `done`; `failed`: `error` says why, and it can be continued.
        ended_us: 0 while it runs.
    """

    id: str
    order: Order
    key_id: str
    owner_id: str
    pace_per_s: int | None
    expected: int | None
    started_us: int
    work: Work
    state: str = "running"
    error: str = ""
    ended_us: int = 0
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def matched(self) -> int:
        return self.work.progress.matched

    @property
    def changed(self) -> int:
        return self.work.progress.changed


class Operations:
    """All methods run in the event loop's thread."""

    def __init__(self, engine: Engine, bulk: Bulk) -> None:
        self._engine, self._bulk = engine, bulk
        self._number = 0
        self._kept: OrderedDict[str, Operation] = OrderedDict()  # the one that began first is the first

    def start(
        self,
        who: Principal,
        caller: Caller,
        order: Order,
        *,
        pace_per_s: int | None = None,
        expected: int | None = None,
    ) -> Operation:
        """Begin a change. It goes on when the caller has left.

        Args:
            caller: asked before each change; it raises if the key of `who` has ended.
        Raises:
            TooMany: as many as may run do.
        """
        self._need_place()
        work = Work(self._bulk, caller, order, BEGIN, dry_run=False, pace_per_s=pace_per_s)
        now_us = self._engine.now_us()
        self._number += 1
        operation = Operation(
            f"{now_us:x}-{self._number}", order, who.key_id, who.owner_id, pace_per_s, expected, now_us, work
        )
        self._kept[operation.id] = operation
        self._run(operation)
        return operation

    def stop(self, who: Principal, operation_id: str) -> Operation:
        """Stop it after the jobs that are being changed. Raises OperationNotFound."""
        operation = self.show(who, operation_id)
        if operation.state == "running":
            operation.state = "stopped"
        return operation

    def go_on(self, who: Principal, caller: Caller, operation_id: str, pace_per_s: int | None = None) -> Operation:
        """Continue one that was stopped or has failed.

        Raises:
            OperationNotFound, TooMany.
            Forbidden: another key started it, which may own other jobs.
        """
        operation = self.show(who, operation_id)
        if operation.key_id != who.key_id:
            raise Forbidden(f"the key {operation.key_id} started it, and only that key continues it")
        if operation.state not in ("stopped", "failed"):
            return operation
        if operation.task is not None:  # it was stopped just now, and may still change some jobs
            operation.state, operation.pace_per_s = "running", pace_per_s
            return operation
        self._need_place()
        operation.work = Work(
            self._bulk, caller, operation.order, operation.work.progress, dry_run=False, pace_per_s=pace_per_s
        )
        operation.state, operation.error, operation.ended_us = "running", "", 0
        operation.pace_per_s = pace_per_s
        self._run(operation)
        return operation

    def list(self, who: Principal) -> list[Operation]:
        """Those that exist for `who`, the newest first."""
        self._forget()
        return [one for one in reversed(self._kept.values()) if _may_see(who, one)]

    def show(self, who: Principal, operation_id: str) -> Operation:
        """Raises OperationNotFound, also for one that does not exist for `who`."""
        self._forget()
        operation = self._kept.get(operation_id)
        if operation is None or not _may_see(who, operation):
            raise OperationNotFound(operation_id)
        return operation

    async def close(self) -> None:
        """Stop all, and wait until none changes anything."""
        tasks = [one.task for one in self._kept.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- running ------------------------------------------------------------------------------------------------------

    def _run(self, operation: Operation) -> None:
        operation.task = asyncio.get_running_loop().create_task(self._work(operation))
        operation.task.add_done_callback(self._ended(operation))

    async def _work(self, operation: Operation) -> None:
        while operation.state == "running" and not operation.work.is_over and not self._engine.draining:
            await operation.work.step()
        if operation.work.is_complete:
            operation.state = "done"
        elif operation.state == "running":
            operation.state, operation.error = "stopped", "the server stopped, the log was full, or the key ended"

    def _ended(self, operation: Operation) -> Callable[[asyncio.Task[None]], None]:
        def ended(task: asyncio.Task[None]) -> None:
            operation.task, operation.ended_us = None, self._engine.now_us()
            if task.cancelled():
                operation.state = "stopped"
            elif (error := task.exception()) is not None:
                operation.state, operation.error = "failed", str(error)
                if not isinstance(error, ApiError):
                    LOG.error("a bulk change failed", exc_info=error)

        return ended

    def _need_place(self) -> None:
        self._forget()
        if sum(one.task is not None for one in self._kept.values()) >= RUNNING_MAX:
            raise TooMany("running bulk changes", RUNNING_MAX)

    def _forget(self) -> None:
        """Forget those that ended an hour ago, and the oldest ended ones above OPERATIONS_KEPT."""
        now_us = self._engine.now_us()
        over = len(self._kept) - OPERATIONS_KEPT
        for operation in list(self._kept.values()):
            if operation.task is None and (over > 0 or operation.ended_us < now_us - KEPT_US):
                del self._kept[operation.id]
                over -= 1


def _may_see(who: Principal, operation: Operation) -> bool:
    """Whether it exists for `who`. For a key that is bound to queues, only what the key itself began does."""
    is_owner = who.owner_id == operation.owner_id and who.queues is None
    return who.is_admin or is_owner or who.key_id == operation.key_id
