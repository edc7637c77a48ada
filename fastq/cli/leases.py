"""`fastq lease`, `extend` and `ack`: the work of a worker, by hand or in a script."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click
import msgspec
from msgspec import UNSET

from fastq.cli.errors import Failed, TimedOut
from fastq.cli.nothing_found import no_job_ready
from fastq.cli.param_types import DURATION, read_value
from fastq.cli.remote import with_client
from fastq.cli.streams import say, say_json, text_lines
from fastq.cli.tables import as_json, cell, json_option, lines_option, record, show
from fastq.client import calls
from fastq.client.codec import CODEC
from fastq.client.models import Ack, Extend, Held, LeasedJob
from fastq.client.sync_client import Client

WAIT_MS_MAX = calls.WAIT_MS_MAX
NO_TOKEN = click.UsageError("TOKEN is missing: give the lease_token that `fastq lease` printed")


class _Lease(msgspec.Struct):
    """The members of `fastq lease --json` that an ack needs."""

    job_id: str
    lease_token: str


# --- lease ------------------------------------------------------------------------------------------------------------


@click.command()
@click.option(
    "--queue", "queues", multiple=True, help="Queue to lease from. If repeated, in strict order. Default: default."
)
@click.option(
    "--max", "limit", type=click.IntRange(1, 1000), default=1, show_default=True, help="At most that many jobs."
)
@click.option("--wait", "wait_ms", type=DURATION, default="0", help="How long to wait for a job.")
@click.option("--lease", "lease_ms", type=DURATION, help="Length of the leases. Default: that of the job or queue.")
@click.option("--worker-id", default="", help="Name of this worker.")
@lines_option
@with_client()
def lease(
    client: Client, queues: tuple[str, ...], limit: int, wait_ms: int, lease_ms: int | None, worker_id: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Lease the next job. End the lease with `fastq ack JOB_ID LEASE_TOKEN`.

    Exit code 4: no job is ready.
    """
    asked = queues or ("default",)
    while True:
        part_ms = min(wait_ms, WAIT_MS_MAX)
        wait_ms -= part_ms
        jobs = client.lease(asked, limit=limit, wait_ms=part_ms, lease_ms=lease_ms, worker_id=worker_id)
        if jobs or not wait_ms:
            break
    if not jobs:
        raise TimedOut(no_job_ready(client, asked))
    for number, job in enumerate(jobs):
        _show_leased(job, number, as_json)


def _show_leased(job: LeasedJob, number: int, in_json: bool) -> None:
    if in_json:
        say_json(as_json(job))
        return
    if number:
        say("")
    show(record({field.encode_name: getattr(job, field.name) for field in msgspec.structs.fields(job)}))


# --- extend -----------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("job_id")
@click.argument("token")
@click.option("--lease", "lease_ms", type=DURATION, help="Time from now. Default: the granted length.")
@json_option
@with_client()
def extend(client: Client, job_id: str, token: str, lease_ms: int | None, as_json: bool) -> None:
    """Extend the lease of JOB_ID.

    TOKEN is its lease_token.
    """
    held = client.call(calls.extend(Extend(job_id, token, UNSET if lease_ms is None else lease_ms)))
    _show_held(held, as_json)


def _show_held(held: Held, in_json: bool) -> None:
    if in_json:
        say_json(as_json(held))
    else:
        asked = ", a cancel is requested" if held.cancel_requested else ""
        say(f"{held.job_id}: leased until {cell(held.lease_until)}{asked}")


# --- ack --------------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("job_id")
@click.argument("token", required=False)
@click.option("--result", help="JSON text; - for standard input.")
@click.option("--text", "as_text", is_flag=True, help="The result is a string, not JSON.")
@click.option("--error", help="The attempt failed with this text: the job is retried, or DEAD.")
@click.option("--error-code", help="With --error: a code for programs.")
@click.option("--retry-after", "retry_after_ms", type=DURATION, help="With --error: time until the retry.")
@click.option("--discard", is_flag=True, help="With --error: make the job DEAD although attempts are left.")
@click.option(
    "--snooze", "delay_ms", type=DURATION, help="Run the job again after that time. The attempt does not count."
)
@click.option("--release", is_flag=True, help="Make the job READY again. The attempt does not count.")
@lines_option
@with_client()
def ack(
    client: Client, job_id: str, token: str | None, result: str | None, as_text: bool, as_json: bool, **how: Any
) -> None:
    """End the attempt of JOB_ID, with success unless an option says otherwise.

    TOKEN is its lease_token. With - as JOB_ID the leases are read from standard input, as `fastq lease --json` prints
    them.
    """
    outcome = _outcome(**how)
    fields: dict[str, Any] = {name: value for name, value in how.items() if name not in ("error", "discard", "release")}
    sent = {name: value for name, value in fields.items() if value is not None}
    if how["error"] is not None:
        sent["result_error"] = how["error"]
    if result is not None:
        if job_id == "-" == result:
            raise click.UsageError("JOB_ID and --result cannot both be read from standard input")
        sent["result"] = read_value(result, as_text, "--result")
    leases = list(_read_leases()) if job_id == "-" else [_Lease(job_id, token)] if token else None
    if leases is None:
        raise NO_TOKEN
    acks = [Ack(job_id=one.job_id, lease_token=one.lease_token, outcome=outcome, **sent) for one in leases]
    refused = [answer for answer in _acked(client, acks, as_json) if not answer.ok]
    if refused:
        raise Failed("; ".join(f"{one.job_id}: {one.error} ({one.code})" for one in refused))


def _outcome(error: str | None, discard: bool, delay_ms: int | None, release: bool, **beside: Any) -> Any:
    chosen = [error is not None, delay_ms is not None, release]
    if sum(chosen) > 1:
        raise click.UsageError("give at most one of --error, --snooze and --release")
    if error is None and (discard or any(value is not None for value in beside.values())):
        raise click.UsageError("--discard, --error-code and --retry-after need --error")
    if error is not None:
        return "discard" if discard else "error"
    return "snooze" if delay_ms is not None else "release" if release else "ok"


def _read_leases() -> Iterator[_Lease]:
    decoder = msgspec.json.Decoder(_Lease)
    for number, line in text_lines(sys.stdin.buffer):
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError as error:
            raise click.UsageError(f"line {number} is not a lease of `fastq lease --json`: {error}") from None


def _acked(client: Client, acks: list[Ack], in_json: bool) -> Iterator[Any]:
    if not acks:
        return
    for answer in client.call(calls.ack_many([calls.ack_body(ack, CODEC) for ack in acks])):
        if answer.ok:
            say_json(as_json(answer)) if in_json else say(answer.job_id)
        yield answer
