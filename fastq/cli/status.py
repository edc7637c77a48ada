"""`fastq workers`, `fastq audit` and `fastq status`."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click
import msgspec

from fastq.cli.errors import Failed
from fastq.cli.notices import notice
from fastq.cli.remote import with_client
from fastq.cli.tables import as_json, json_option, lines_option, record, show, table
from fastq.client.operator_models import AuditEntry, SeenWorkers
from fastq.client.sync_client import Client

WORKER_COLUMNS = ("worker_id", "last_seen_at", "job_id", "queue", "leased_at", "lease_until", "cancel_requested")
ENTRY_COLUMNS = ("number", "at", "action", "target", "key_id", "owner_id", "details")


@click.command()
@lines_option
@with_client()
def workers(client: Client, as_json: bool) -> None:
    """List the workers and their leases."""
    found = client.workers()
    if as_json:
        _print_each(found.workers)
    else:
        show(table(WORKER_COLUMNS, _rows(found)))
    if not found.complete:
        notice("the list is incomplete: the server shows only a part")


def _print_each(found: list[Any]) -> None:
    for one in found:
        print(as_json(one))


def _rows(found: SeenWorkers) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for worker in found.workers:
        who = [worker.worker_id or "(no id)", worker.last_seen_at]
        if not worker.leases:
            rows.append([*who, *[None] * (len(WORKER_COLUMNS) - 2)])
        rows += [[*who, *(getattr(lease, name) for name in WORKER_COLUMNS[2:])] for lease in worker.leases]
    return rows


@click.command()
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most that many entries.")
@lines_option
@with_client()
def audit(client: Client, limit: int, as_json: bool) -> None:
    """List changes and the keys that made them, newest first.

    These are changes of keys, queues, schedules, and of many jobs at once. Needs an admin key.
    """
    found = list(islice(client.audit(), limit))
    if as_json:
        _print_each(found)
    else:
        show(table(ENTRY_COLUMNS, [_entry(one) for one in found]))


def _entry(one: AuditEntry) -> list[Any]:
    return [getattr(one, column) for column in ENTRY_COLUMNS]


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
        print(msgspec.json.encode({"ready": ready, "queues": queues, "jobs": jobs}).decode())
    else:
        counts = ", ".join(f"{count:,} {name}" for name, count in jobs.items() if count)
        show(record({"server": "takes work" if ready else "takes no work", "queues": queues, "jobs": counts or "none"}))
    if not ready:
        raise Failed("the server takes no work: it is stopping, or its disk is full")
