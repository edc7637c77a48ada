"""What a job that is submitted may say beside its payload, as options; and which jobs are meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from fastq.cli.param_types import BACKOFF, DURATION, PAST, TIME
from fastq.client.models import State

Function = TypeVar("Function", bound=Callable[..., None])

STATES = click.Choice(get_args(State), case_sensitive=False)

_OF_A_JOB = (
    click.option("--queue", help="Left out: default."),
    click.option("--group", help="Its group in the queue."),
    click.option("--priority", type=int, help="Higher ones go first; left out: 0."),
    click.option("--max-retries", type=int, help="How many attempts it has."),
    click.option("--lease", "lease_ms", type=DURATION, help="How long its leases last."),
    click.option("--backoff", type=BACKOFF, help="The waits between its attempts, as 1s,2,1h."),
    click.option("--expires", "expires_ms", type=DURATION, help="If it still waits after so long it is EXPIRED."),
    click.option("--unique-key", help="At most one unfinished job of its queue has it."),
    click.option(
        "--on-duplicate", type=click.Choice(["keep", "replace"]), help="What happens to the job that has that key."
    ),
    click.option("--tag", "tags", multiple=True, help="To find it by. May be repeated."),
)
_OF_A_SUBMIT = (
    click.option("--delay", "delay_ms", type=DURATION, help="It is not leased before, as 30s."),
    click.option("--run-at", type=TIME, help="The same as a time."),
    click.option("--expires-at", type=TIME, help="As --expires, as a time."),
    click.option("--traceparent", help="W3C Trace Context."),
)
_WHERE = (
    click.option("--state", type=STATES, help="In this state."),
    click.option("--queue", help="Of this queue."),
    click.option("--group", help="Of this group."),
    click.option("--tag", help="With this tag."),
    click.option("--match", "q", metavar="TEXT", help="With this text in the payload's JSON."),
    click.option("--since", type=PAST, help="Submitted then or later: a time, or how long ago, as 2h."),
)


def _with(options: tuple[Callable[[Function], Function], ...], command: Function) -> Function:
    for option in reversed(options):
        command = option(command)
    return command


def job_options(command: Function) -> Function:
    """Of every job."""
    return _with(_OF_A_JOB, command)


def submit_options(command: Function) -> Function:
    """Of a job that is submitted once."""
    return _with((*_OF_A_JOB, *_OF_A_SUBMIT), command)


def where_options(command: Function) -> Function:
    """Which jobs: those that fit all that is given."""
    return _with(_WHERE, command)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Those that were."""
    found = {name: value for name, value in options.items() if value is not None and value != ()}
    return found | ({"tags": list(found["tags"])} if "tags" in found else {})
