"""`fastq failures`: failed attempts, grouped."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from fastq.cli.notices import notice
from fastq.cli.param_types import PAST
from fastq.cli.remote import with_client
from fastq.cli.streams import say_json
from fastq.cli.tables import Column, Table, ago, as_json, cell, lines_option
from fastq.client.operator_models import Failures
from fastq.client.sync_client import Client
from fastq.clock import wall_us

COLUMNS = (
    Column("queue", is_whole=True), Column("count", is_whole=True), Column("last", 1, True), Column("first", 4, True),
    Column("error_code", 3), Column("error", least=20), Column("job_id", 2, True),
)  # fmt: skip


@click.command()
@click.option("--queue", default="", help="Only failures in this queue.")
@click.option("--since", type=PAST, help="Only failures seen since a time, or since a duration ago, such as 2h.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most that many groups.")
@lines_option
@with_client()
def failures(client: Client, queue: str, since: datetime | None, limit: int, as_json: bool) -> None:
    """List failed attempts, grouped by queue and error, the ones that were seen last first.

    `fastq job list --error TEXT --queue QUEUE` lists the jobs of a group.
    """
    found = client.failures(queue, since=since, limit=limit)
    if as_json:
        _print_each(found)
        return
    now, table = datetime.fromtimestamp(wall_us() // 10**6, UTC), Table(COLUMNS)
    table.add(
        [
            group.queue, group.count, ago(group.last_at, now), ago(group.first_at, now), group.error_code, group.error,
            group.job_id,
        ]
        for group in found.groups
    )  # fmt: skip
    table.end()
    notice(f"counted since {cell(found.since)}")


def _print_each(found: Failures) -> None:
    for group in found.groups:
        say_json(as_json(group))
