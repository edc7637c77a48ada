"""Changes of many jobs: count them, confirm by typing the number, follow the progress, stop, go on."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from fastq.console.forms import Form
from fastq.console.guard import Page, Visit, need
from fastq.console.parts import Parts
from fastq.engine.commands import MANAGE
from fastq.http.decoding import decode
from fastq.http.resources.bulk import PACE_MAX, JobFilterBody, audited, filter_of
from fastq.http.routes import enforce
from fastq.services.bulk import ACTIONS, WAITING, Filter, Order
from fastq.services.operations import Operation

READ, SUBMIT = "jobs:read", "jobs:submit"
OPERATIONS = "/console/operations"
COUNT_US = 2_000_000  # of a count; then it says "at least"
PURGE = "queue.purge"
FILTERS = tuple(field.name for field in msgspec.structs.fields(JobFilterBody) if field.name != "ids")
_FILTER = msgspec.json.Decoder(JobFilterBody)


class OperationPages:
    def __init__(self, parts: Parts) -> None:
        self._engine, self._queues = parts.engine, parts.queues
        self._bulk, self._operations = parts.bulk, parts.operations

    # --- before -------------------------------------------------------------------------------------------------------

    async def ask(self, visit: Visit) -> None:
        """Count the jobs that match the filter in the URL."""
        given = {name: visit.query(name) for name in FILTERS if visit.query(name)}
        await self._ask(visit, _order(visit.query("action"), given), given)

    async def ask_chosen(self, visit: Visit) -> None:
        """Count the jobs that are ticked in a list."""
        form = await visit.form()
        ids = form.all("ids")
        need(bool(ids), "tick at least one job")
        await self._ask(visit, _order(form.text("action"), {"ids": ids}), {}, ids)

    async def ask_purge(self, visit: Visit, queue: str) -> None:
        """Count the waiting jobs of a queue."""
        self._queues.need(visit.who, queue)
        await self._ask(visit, _purge(queue), {"queue": queue}, target=f"/console/queues/{queue}/purge")

    async def _ask(
        self,
        visit: Visit,
        order: Order,
        given: dict[str, str],
        ids: list[str] | None = None,
        target: str = OPERATIONS,
    ) -> None:
        """Show how many jobs there are, and the form that begins the change."""
        found = await self._bulk.run(visit.caller(_scope(order)), order, dry_run=True, work_us=COUNT_US)
        visit.show(
            "bulk.html",
            order=order,
            count=found.matched,
            is_all=found.complete,
            given=given,
            ids=ids or [],
            target=target,
            pace_max=PACE_MAX,
        )

    # --- begin --------------------------------------------------------------------------------------------------------

    async def start(self, visit: Visit) -> None:
        form = await visit.form()
        given: dict[str, Any] = {name: form.text(name) for name in FILTERS if form.text(name)}
        if ids := form.all("ids"):
            given["ids"] = ids
        self._start(visit, form, _order(form.text("action"), given))

    async def start_purge(self, visit: Visit, queue: str) -> None:
        self._queues.need(visit.who, queue)
        self._start(visit, await visit.form(), _purge(queue))

    def _start(self, visit: Visit, form: Form, order: Order) -> None:
        expected = form.number("expected")
        need(expected is not None and form.number("confirm") == expected, "type the number of jobs to confirm it")
        caller = visit.caller(_scope(order))
        started = self._operations.start(visit.who, caller, order, pace_per_s=_pace(form), expected=expected)
        visit.go(f"{OPERATIONS}/{started.id}")

    # --- after --------------------------------------------------------------------------------------------------------

    async def operations(self, visit: Visit) -> None:
        visit.show("operations.html", operations=self._operations.list(visit.who))

    async def operation(self, visit: Visit, operation_id: str) -> None:
        operation = self._operations.show(visit.who, operation_id)
        until_us = operation.ended_us or self._engine.now_us()
        visit.show(
            "operation.html",
            operation=operation,
            until_us=until_us,
            per_s=operation.changed / max((until_us - operation.started_us) / 1_000_000, 0.001),
            may_change=visit.may(_scope(operation.order)),
            is_own=operation.key_id == visit.who.key_id,
            pace_max=PACE_MAX,
        )

    async def stop(self, visit: Visit, operation_id: str) -> None:
        self._need(visit, operation_id)
        self._operations.stop(visit.who, operation_id)
        visit.go(f"{OPERATIONS}/{operation_id}")

    async def go_on(self, visit: Visit, operation_id: str) -> None:
        operation = self._need(visit, operation_id)
        pace_per_s = _pace(await visit.form())
        self._operations.go_on(visit.who, visit.caller(_scope(operation.order)), operation_id, pace_per_s)
        visit.go(f"{OPERATIONS}/{operation_id}")

    def _need(self, visit: Visit, operation_id: str) -> Operation:
        """Raises OperationNotFound, Forbidden."""
        operation = self._operations.show(visit.who, operation_id)
        enforce(visit.who, _scope(operation.order))
        return operation

    def pages(self) -> list[Page]:
        one, purge = f"{OPERATIONS}/{{operation_id}}", "/console/queues/{queue}/purge"
        return [
            Page("GET", "/console/bulk", SUBMIT, self.ask),
            Page("POST", "/console/bulk", SUBMIT, self.ask_chosen),
            Page("GET", purge, MANAGE, self.ask_purge),
            Page("POST", purge, MANAGE, self.start_purge),
            Page("GET", OPERATIONS, READ, self.operations),
            Page("POST", OPERATIONS, SUBMIT, self.start),
            Page("GET", one, READ, self.operation),
            Page("POST", f"{one}/stop", READ, self.stop),
            Page("POST", f"{one}/continue", READ, self.go_on),
        ]


def _order(action: str, given: dict[str, Any]) -> Order:
    """Make the change of a filter. The API's own checks say what is wrong with it. Raises InvalidRequest."""
    need(action in ACTIONS, f"action must be one of {', '.join(ACTIONS)}")
    fields = decode(orjson.dumps(given), _FILTER)
    return Order(action, filter_of(fields), details={"filter": audited(fields)})


def _purge(queue: str) -> Order:
    return Order("delete", Filter(states=WAITING, queue=queue), PURGE, queue)


def _scope(order: Order) -> str:
    return MANAGE if order.audited_as == PURGE else SUBMIT


def _pace(form: Form) -> int | None:
    pace = form.number("pace")
    need(pace is None or 1 <= pace <= PACE_MAX, f"pace must be between 1 and {PACE_MAX}")
    return pace
