"""`fastq workers`, `fastq audit` and `fastq status`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import click
import msgspec

from fastq.cli.errors import Failed
from fastq.cli.notices import notice
from fastq.cli.remote import with_client
from fastq.cli.streams import say_json
from fastq.cli.tables import Column, Table, as_json, json_option, lines_option, record, show
from fastq.client.operator_models import SeenWorker
from fastq.client.sync_client import Client
from fastq.clock import wall_us
from fastq.server.logs import counted

WORKER_COLUMNS = (
    Column("worker_id", is_whole=True), Column("last_seen_at", 2, True), Column("queues"),
    Column("version", 6), Column("host", 7),
    Column("job_id", 1, True), Column("leased_at", 4, True), Column("lease_until", 3, True),
    Column("cancel_requested", 5),
)  # fmt: skip
OF_A_LEASE = [column.name for column in WORKER_COLUMNS[5:]]
LIVE = timedelta(seconds=90)  # a worker asks at least every minute: the longest wait for a job
ENTRY_COLUMNS = (
    Column("number", is_whole=True), Column("at", 1, True), Column("action", 0, True), Column("target", least=20),
    Column("key_id", 2, True), Column("owner_id", 4), Column("details", 3),
)  # fmt: skip


@click.command()
@click.option("--all", "everyone", is_flag=True, help="Also list workers that stopped within the last hour.")
@lines_option
@with_client()
def workers(client: Client, everyone: bool, as_json: bool) -> None:
    """List the workers, the queues that each leases from, and their leases.

    A worker is listed while it holds a lease, and for 90 seconds after its last request.
    """
    found = client.workers()
    since = datetime.fromtimestamp(wall_us() // 10**6, UTC) - LIVE
    live = [one for one in found.workers if everyone or one.leases or one.last_seen_at >= since]
    if as_json:
        _print_each(live)
    else:
        table = Table(WORKER_COLUMNS)
        table.add(row for worker in live for row in _rows(worker))
        table.end()
    if stopped := len(found.workers) - len(live):
        notice(f"{counted(stopped, 'worker')} stopped within the last hour: --all lists them")
    if not found.complete:
        notice("the list is incomplete: the server shows only a part")


def _print_each(found: Iterable[Any]) -> None:
    for one in found:
        say_json(as_json(one))


def _rows(worker: SeenWorker) -> list[list[Any]]:
    """A row for each lease; one without a lease if there is none."""
    queues = dict.fromkeys([*worker.queues, *(lease.queue for lease in worker.leases)])
    who = [worker.worker_id or "(no id)", worker.last_seen_at, " ".join(queues), worker.version, worker.host]
    if not worker.leases:
        return [[*who, *[None] * len(OF_A_LEASE)]]
    return [[*who, *(getattr(lease, name) for name in OF_A_LEASE)] for lease in worker.leases]


@click.command()
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most that many entries.")
@lines_option
@with_client()
def audit(client: Client, limit: int, as_json: bool) -> None:
    """List changes and the keys that made them, newest first.

    These are changes of keys, queues, schedules, and of many jobs at once. Needs an admin key.
    """
    found = islice(client.audit(), min(limit, sys.maxsize))
    if as_json:
        _print_each(found)
    else:
        table = Table(ENTRY_COLUMNS)
        table.add([[getattr(one, column.name) for column in ENTRY_COLUMNS] for one in found])
        table.end()


@click.command()
@json_option
@with_client()
def status(client: Client, as_json: bool) -> None:
    """Show whether the server takes work, and count its queues and jobs.

    Exit code 1: it takes none.
    """
    ready = client.is_ready()
    jobs = {"ready": 0, "waiting": 0, "running": 0}
    queues = 0
    for queue in client.queues():
        queues += 1
        here = {"ready": queue.ready, "waiting": queue.waiting, "running": queue.running} | queue.finished
        for name, count in here.items():
            jobs[name] = jobs.get(name, 0) + count
    if as_json:
        say_json(msgspec.json.encode({"ready": ready, "queues": queues, "jobs": jobs}).decode())
    else:
        counts = ", ".join(f"{count:,} {name}" for name, count in jobs.items() if count)
        show(record({"server": "takes work" if ready else "takes no work", "queues": queues, "jobs": counts or "none"}))
    if not ready:
        raise Failed("the server takes no work: it is stopping, or its disk is full")
