"""Command-line options: of a new job, and of a filter for jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from fastq.cli.param_types import BACKOFF, DURATION, PAST, TIME
from fastq.client.models import State

Function = TypeVar("Function", bound=Callable[..., None])

STATES = click.Choice(get_args(State), case_sensitive=False)

_OF_A_JOB = (
    click.option("--queue", help="Its queue. Default: default."),
    click.option("--group", help="Its group in the queue."),
    click.option("--priority", type=int, help="Higher runs first. Default: 0."),
    click.option("--max-retries", "--max-attempts", "max_retries", type=int, help="Number of attempts."),
    click.option("--lease", "lease_ms", type=DURATION, help="Length of its leases."),
    click.option("--backoff", type=BACKOFF, help="Waits between attempts, as base,factor,cap: 1s,2,1h."),
    click.option("--expires", "expires_ms", type=DURATION, help="A job that still waits after that time is EXPIRED."),
    click.option("--unique-key", help="At most one unfinished job of the queue has this key."),
    click.option(
        "--on-duplicate",
        type=click.Choice(["keep", "replace"]),
        help="Keep the job with that key, or replace its payload.",
    ),
    click.option("--tag", "tags", multiple=True, help="A tag for searches. May be repeated."),
)
_OF_A_SUBMIT = (
    click.option("--delay", "delay_ms", type=DURATION, help="Time until the job is due, such as 30s."),
    click.option("--run-at", type=TIME, help="Time at which the job is due."),
    click.option("--expires-at", type=TIME, help="As --expires, but a point in time."),
    click.option("--traceparent", help="W3C traceparent of the submitter."),
)
_WHERE = (
    click.option("--state", type=STATES, help="Jobs in this state."),
    click.option("--queue", help="Jobs of this queue."),
    click.option("--group", help="Jobs of this group."),
    click.option("--tag", help="Jobs with this tag."),
    click.option("--match", "q", metavar="TEXT", help="Jobs with this text in the payload's JSON."),
    click.option("--error", metavar="TEXT", help="Jobs with this text in the last attempt's error."),
    click.option("--error-code", help="Jobs whose last attempt failed with this code."),
    click.option("--worker", metavar="WORKER_ID", help="Jobs that this worker holds, or ended last."),
    click.option("--since", type=PAST, help="Jobs submitted since a time, or since a duration ago, such as 2h."),
)
_PACE = (
    click.option("--pace", "pace_per_s", type=click.IntRange(1), help="Jobs changed in a second, at most."),
    click.option("--cursor", help="Go on where a command with the same filter ended."),
)


def _with(options: tuple[Callable[[Function], Function], ...], command: Function) -> Function:
    for option in reversed(options):
        command = option(command)
    return command


def job_options(command: Function) -> Function:
    """Add the options of every new job."""
    return _with(_OF_A_JOB, command)


def submit_options(command: Function) -> Function:
    """Add the options of a job that is submitted now."""
    return _with((*_OF_A_JOB, *_OF_A_SUBMIT), command)


def where_options(command: Function) -> Function:
    """Add the options of a filter."""
    return _with(_WHERE, command)


def pace_options(command: Function) -> Function:
    """Add the options of a change of many jobs."""
    return _with(_PACE, command)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    found = {name: value for name, value in options.items() if value is not None and value != ()}
    return found | ({"tags": list(found["tags"])} if "tags" in found else {})
