"""`fastq job …`: show jobs, and change one or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

import click
import msgspec

from fastq.cli.errors import Failed
from fastq.cli.groups import Group
from fastq.cli.job_options import given, pace_options, where_options
from fastq.cli.nothing_found import no_job_matches
from fastq.cli.notices import confirm, notice
from fastq.cli.param_types import DURATION, TIME, read_value
from fastq.cli.progress import need_complete, watched
from fastq.cli.remote import with_client
from fastq.cli.streams import say, say_json
from fastq.cli.tables import Column, Table, as_json, cell, json_option, lines_option, members, record, show
from fastq.client.errors import Refused
from fastq.client.models import JobStatus, Submitted
from fastq.client.sync_client import Client
from fastq.server.logs import counted

COLUMNS = (
    Column("job_id", is_whole=True), Column("state", is_whole=True), Column("queue", 1), Column("group", 8),
    Column("priority", 7, True), Column("attempts", 4, True), Column("created_at", 3, True), Column("run_at", 5, True),
    Column("lease_until", 6, True), Column("finished_at", 5, True), Column("error_code", 3), Column("error", 2),
)  # fmt: skip
PAGE = 1000
JOB_LABEL = len("result_error")  # the width of the labels of a job, at least
Action = Literal["cancel", "redrive", "delete"]


@click.group(cls=Group)
def job() -> None:
    """Show, list, edit, cancel, redrive and delete jobs."""


def show_job(job: JobStatus, in_json: bool, is_begun: bool = False) -> None:
    """Print a job. `is_begun`: its id is printed already."""
    if in_json:
        say_json(as_json(job))
    else:
        show(record(_fields(job), JOB_LABEL)[is_begun:])


def _fields(job: JobStatus) -> dict[str, Any]:
    """The members of a job for people: attempts as `1 of 3`, empty members left out."""
    found: dict[str, Any] = members(job)
    attempts, most = found.pop("attempts"), found.pop("max_retries")
    said = {"job_id": found.pop("job_id"), "state": found.pop("state"), "attempts": f"{attempts} of {max(1, most)}"}
    return said | found


def require_success(job: JobStatus) -> None:
    """Raises Failed unless the job is ACKED."""
    if not job.is_successful:
        raise Failed(f"job {job.job_id} is {job.state}" + (f": {job.error}" if job.error else ""))


# --- show -------------------------------------------------------------------------------------------------------------


@job.command("show")
@click.argument("job_id")
@click.option("--payload", "with_payload", is_flag=True, help="Also show the payload.")
@click.option("--attempts", is_flag=True, help="Also show the attempts that have ended.")
@click.option("--history", is_flag=True, help="Also show its events, and the keys that caused them.")
@click.option("--why", is_flag=True, help="Also show why the job is not running.")
@click.option("--wait", is_flag=True, help="Wait for the job's end. Exit code 1 unless it is ACKED.")
@click.option("--timeout", "timeout_ms", type=DURATION, help="With --wait: how long to wait. Exit code 4 after that.")
@json_option
@with_client()
def show_command(
    client: Client, job_id: str, with_payload: bool, attempts: bool, history: bool, why: bool, wait: bool,
    timeout_ms: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Show the job JOB_ID."""
    if wait:
        client.wait_for_completion(job_id, None if timeout_ms is None else timeout_ms / 1000)
    found = client.get(job_id, with_payload=with_payload)
    more: dict[str, list[Any]] = {}
    if why:
        more["why"] = [client.why(job_id)]
    if attempts:
        more["attempts"] = client.attempts(job_id)
    if history:
        more["history"] = client.history(job_id)
    if as_json:
        parts = {name: [members(one) for one in several] for name, several in more.items()}
        parts |= {"why": parts["why"][0]} if why else {}
        if "attempts" in parts:  # `attempts` of a job is their number
            parts["ended_attempts"] = parts.pop("attempts")
        say_json(msgspec.json.encode(members(found) | parts).decode())
    else:
        show_job(found, in_json=False)
        for name, several in more.items():
            _show_part(name, several)
    if wait:
        require_success(found)


def _show_part(name: str, several: list[Any]) -> None:
    say("")
    say(f"{name}:")
    if name == "why":
        show(record({name: value for name, value in members(several[0]).items() if name not in ("job_id", "state")}))
        return
    rows = [members(one) for one in several]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = Table([Column(column, rank) for rank, column in enumerate(columns)])
    if rows:
        table.add([[row.get(column) for column in columns] for row in rows])
    table.end()


@job.command("list")
@where_options
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most that many jobs.")
@click.option("--all", "everything", is_flag=True, help="List all jobs.")
@click.option("--cursor", default="", help="Continue a list at the cursor that it printed.")
@lines_option
@with_client()
def list_command(client: Client, limit: int, everything: bool, cursor: str, as_json: bool, **where: Any) -> None:
    """List the jobs that match all filters, newest first."""
    where, shown, table = given(where), 0, Table(COLUMNS)
    until: datetime | None = None
    while True:
        page = client.list_jobs(limit=PAGE if everything else min(PAGE, limit - shown), cursor=cursor, **where)
        _show_page(page.items, None if as_json else table)
        shown, cursor, until = shown + len(page.items), page.cursor, page.examined_until
        if not cursor or (not everything and shown >= limit):
            break
    table.end()
    if cursor:
        looked_at = "" if until is None else f" before {cell(until)}"
        notice(f"there may be more{looked_at}: --all, or --cursor {cursor}")
    elif not shown:
        notice(no_job_matches(client, where.get("queue")))


def _show_page(jobs: Sequence[JobStatus], table: Table | None) -> None:
    if table is not None and jobs:
        table.add([[getattr(one, column.name) for column in COLUMNS] for one in jobs])
    elif table is None:
        for one in jobs:
            say_json(as_json(one))


# --- change one -------------------------------------------------------------------------------------------------------


@job.command()
@click.argument("job_id")
@click.option("--payload", help="JSON text; - for standard input.")
@click.option("--text", "as_text", is_flag=True, help="The payload is a string, not JSON.")
@click.option("--priority", type=int)
@click.option("--delay", "delay_ms", type=DURATION, help="Time until the job is due, such as 30s.")
@click.option("--run-at", type=TIME, help="Time at which the job is due.")
@click.option("--queue")
@json_option
@with_client()
def edit(client: Client, job_id: str, payload: str | None, as_text: bool, as_json: bool, **changes: Any) -> None:
    """Change the job JOB_ID, which must be waiting or DEAD."""
    changes = given(changes)
    if payload is not None:
        changes["payload"] = read_value(payload, as_text, "--payload")
    if not changes:
        raise click.UsageError("give at least one of --payload, --priority, --delay, --run-at and --queue")
    _show_changed(job_id, client.edit(job_id, **changes), as_json)


def _show_changed(job_id: str, state: str, in_json: bool) -> None:
    if in_json:
        say_json(msgspec.json.encode({"job_id": job_id, "state": state}).decode())
    else:
        say(f"{job_id}  {state}")


@job.command()
@click.argument("job_ids", metavar="JOB_ID...", nargs=-1, required=True)
@click.option("--queue", help="Submit to this queue.")
@click.option("--priority", type=int)
@click.option("--delay", "delay_ms", type=DURATION, help="Time until the new job is due, such as 30s.")
@click.option("--run-at", type=TIME, help="Time at which the new job is due.")
@click.option("--max-retries", type=int, help="Number of attempts.")
@lines_option
@with_client()
def resubmit(client: Client, job_ids: tuple[str, ...], as_json: bool, **changes: Any) -> None:
    """Submit jobs again: new jobs with the payloads and options of JOB_ID, which stay as they are."""

    _each(job_ids, lambda job_id: show_submitted(client.resubmit(job_id, **given(changes)), as_json))


def show_submitted(submitted: Submitted, in_json: bool) -> None:
    say_json(as_json(submitted)) if in_json else say(submitted.job_id)


def _each(job_ids: tuple[str, ...], one: Callable[[str], None]) -> None:
    """Do it for each job. Raises Failed at the end if some were refused."""
    failed = []
    for job_id in job_ids:
        try:
            one(job_id)
        except Refused as refused:
            failed.append(f"{job_id}: {refused}" if job_id not in refused.message else str(refused))
    if failed:
        raise Failed("; ".join(failed))


# --- change one or many -----------------------------------------------------------------------------------------------


def _which(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments that select jobs: ids, or a filter."""
    command = click.option("--yes", is_flag=True, help="With a filter: do not ask.")(command)
    command = click.option("--dry-run", is_flag=True, help="With a filter: only count the jobs.")(command)
    command = pace_options(command)
    return click.argument("job_ids", metavar="[JOB_ID]...", nargs=-1)(where_options(lines_option(command)))


@job.command()
@_which
@click.option("--force", is_flag=True, help="With JOB_ID: end a running job at once.")
@click.option("--wait", is_flag=True, help="With JOB_ID: wait until each job has ended.")
@with_client("30s")
def cancel(
    client: Client, job_ids: tuple[str, ...], force: bool, wait: bool, yes: bool, dry_run: bool, as_json: bool,
    **where: Any,
) -> None:  # fmt: skip
    """Cancel jobs by id, or all that match a filter. A running job ends when its worker learns of it."""
    if (force or wait) and not job_ids:
        raise click.UsageError("--force and --wait need JOB_ID")

    def one(job_id: str) -> str:
        state = client.cancel(job_id, force=force)
        return client.wait_for_completion(job_id).state if wait else state

    _change(client, "cancel", one, job_ids, given(where), yes, dry_run, as_json)


@job.command()
@_which
@click.option(
    "--wait", is_flag=True, help="With JOB_ID: wait until each job has ended. Exit code 1 unless all are ACKED."
)
@with_client("30s")
def redrive(
    client: Client, job_ids: tuple[str, ...], wait: bool, yes: bool, dry_run: bool, as_json: bool, **where: Any
) -> None:
    """Make DEAD jobs READY again: by id, or all that match a filter."""
    if wait and not job_ids:
        raise click.UsageError("--wait needs JOB_ID")

    def one(job_id: str) -> str:
        return client.redrive(job_id)

    _change(client, "redrive", one, job_ids, given(where), yes, dry_run, as_json)
    if wait:
        for job_id in job_ids:
            found = client.wait_for_completion(job_id)
            _show_changed(job_id, found.state, as_json)
            require_success(found)


@job.command()
@_which
@with_client("30s")
def delete(client: Client, job_ids: tuple[str, ...], yes: bool, dry_run: bool, as_json: bool, **where: Any) -> None:
    """Delete jobs that are not running: by id, or all that match a filter."""

    def one(job_id: str) -> str:
        client.delete(job_id)
        return "deleted"

    _change(client, "delete", one, job_ids, given(where), yes, dry_run, as_json)


def _change(
    client: Client, action: Action, one: Callable[[str], str], job_ids: tuple[str, ...], where: dict[str, Any],
    yes: bool, dry_run: bool, in_json: bool,
) -> None:  # fmt: skip
    if bool(job_ids) == bool(where.keys() - {"pace_per_s", "cursor"}):
        raise click.UsageError("give either JOB_ID or a filter, such as --queue or --state")
    if not job_ids:
        _change_many(client, action, where, yes, dry_run, in_json)
        return
    if dry_run or where:
        raise click.UsageError("--dry-run, --pace and --cursor need a filter")
    _each(job_ids, lambda job_id: _show_changed(job_id, one(job_id), in_json))


def _change_many(
    client: Client, action: Action, where: dict[str, Any], yes: bool, dry_run: bool, in_json: bool
) -> None:
    many = {"cancel": client.cancel_many, "redrive": client.redrive_many, "delete": client.delete_many}[action]
    pace = {name: where.pop(name) for name in ("pace_per_s", "cursor") if name in where}
    matched = None
    if not (yes or dry_run):
        matched = many(dry_run=True, **where).matched
        confirm(f"{action} {counted(matched, 'job')}?", instead="give --yes or --dry-run")
    with watched(matched) as progress:
        done = many(dry_run=dry_run, **where, **pace, on_progress=progress)
    say_json(as_json(done)) if in_json else say(f"{done.matched:,} matched, {done.changed:,} changed")
    if not done.matched:
        notice(no_job_matches(client, where.get("queue")))
    need_complete(done)
