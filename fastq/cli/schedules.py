"""`fastq schedules …`: schedules that submit jobs."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from fastq.cli.groups import Group
from fastq.cli.job_options import given, job_options
from fastq.cli.param_types import DURATION, read_value
from fastq.cli.remote import with_client
from fastq.cli.streams import say, say_json
from fastq.cli.tables import Column, Table, as_json, cell, duration, json_option, lines_option, members, record, show
from fastq.client.schedule_models import Cron, Every, Schedule
from fastq.client.sync_client import Client

EVERY = "@every "
COLUMNS = (
    Column("name", is_whole=True), Column("cron", least=20), Column("timezone", 4, least=16),
    Column("next_at", 1, True),
    Column("last_fired_at", 5, True), Column("last_job_id", 6, True), Column("last_state", 3, True),
    Column("passed", 3, True), Column("missed", 3, True),
    Column("refusal", 2),
    Column("paused", 0, True),
)  # fmt: skip


@click.group(cls=Group)
def schedules() -> None:
    """List, set, pause, run and delete schedules.

    A schedule submits a job at each time of a cron expression.
    """


@schedules.command("list")
@lines_option
@with_client()
def list_command(client: Client, as_json: bool) -> None:
    """List the schedules, with the next time and the last job of each."""
    found = client.schedules()
    if as_json:
        for one in found:
            _show(one, in_json=True)
        return
    table = Table(COLUMNS)
    table.add([_cell(one, column.name) for column in COLUMNS] for one in found)
    table.end()


def _cell(one: Schedule, column: str) -> Any:
    if column == "cron":
        return _times(one)
    if column == "last_state":
        return one.last_run.state if one.last_run else ""
    if column == "missed":
        return one.missed or ""
    return getattr(one, column)


def _times(one: Schedule) -> str:
    """The cron expression, or `@every 90s`."""
    return one.cron if one.every_ms is None else f"@every {duration(one.every_ms)}"


def _show(one: Schedule, in_json: bool) -> None:
    say_json(as_json(one)) if in_json else show(record(members(one)))


@schedules.command("show")
@click.argument("name")
@json_option
@with_client()
def show_command(client: Client, name: str, as_json: bool) -> None:
    """Show the schedule NAME with its job."""
    _show(client.get_schedule(name), as_json)


@schedules.command("set")
@click.argument("name")
@click.argument("cron")
@click.argument("payload")
@click.option("--text", "as_text", is_flag=True, help="PAYLOAD is a string, not JSON.")
@click.option("--timezone", default="UTC", show_default=True, help="The time zone of CRON, such as Europe/Vienna.")
@click.option(
    "--catch-up", type=click.Choice(["skip", "one", "all"]), default="one", show_default=True,
    help="For missed times: submit no job, one job, or one for each.",
)  # fmt: skip
@click.option("--catch-up-max", type=int, help="With --catch-up all: only the last that many.")
@click.option(
    "--overlap", type=click.Choice(["skip", "allow"]), default="skip", show_default=True,
    help="While the last job is unfinished: skip the time, or submit anyway.",
)  # fmt: skip
@job_options
@json_option
@with_client()
def set_command(
    client: Client, name: str, cron: str, payload: str, as_text: bool, timezone: str, catch_up: Any, overlap: Any,
    catch_up_max: int | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Submit a job with the JSON text PAYLOAD (- for standard input) at each time of CRON.

    CRON is minute, hour, day of month, month, day of week, as "30 2 * * MON-FRI"; or "@every 90s". An existing
    schedule NAME is replaced.
    """
    most = msgspec.UNSET if catch_up_max is None else catch_up_max
    when: Cron | Every = Cron(cron, timezone, catch_up, overlap, most)
    if cron.startswith(EVERY):
        if timezone != "UTC":
            raise click.UsageError("--timezone needs a cron expression")
        when = Every(DURATION.convert(cron.removeprefix(EVERY), None, None), catch_up, overlap, most)
    _say(client.put_schedule(name, when, read_value(payload, as_text, "PAYLOAD"), **given(options)), as_json)


def _say(one: Schedule, in_json: bool) -> None:
    if in_json:
        say_json(as_json(one))
    else:
        after = f", next at {cell(one.next_at)}" if one.next_at else ", paused" if one.paused else ", never due"
        say(f"{one.name}: {_times(one)}{' ' if one.timezone else ''}{one.timezone}{after}")


@schedules.command()
@click.argument("name")
@json_option
@with_client()
def pause(client: Client, name: str, as_json: bool) -> None:
    """Submit no job at the times of the schedule NAME until it is resumed. `run` still works."""
    _say(client.pause_schedule(name), as_json)


@schedules.command()
@click.argument("name")
@json_option
@with_client()
def resume(client: Client, name: str, as_json: bool) -> None:
    """Submit jobs of the schedule NAME again, from its next time on. The times while it was paused are skipped."""
    _say(client.resume_schedule(name), as_json)


@schedules.command()
@click.argument("name")
@json_option
@with_client()
def run(client: Client, name: str, as_json: bool) -> None:
    """Submit the job of the schedule NAME now, and print its id. Its times do not change."""
    job_id = client.run_schedule(name)
    say_json(msgspec.json.encode({"job_id": job_id}).decode()) if as_json else say(job_id)


@schedules.command()
@click.argument("name")
@with_client()
def delete(client: Client, name: str) -> None:
    """Delete the schedule NAME. Jobs that it submitted stay."""
    client.delete_schedule(name)
    say(f"{name}: deleted")
