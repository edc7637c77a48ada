"""`fastq queues …`: queues and their settings."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import click
import msgspec

from fastq.cli.errors import Failed
from fastq.cli.groups import Group
from fastq.cli.job_options import given, pace_options
from fastq.cli.nothing_found import no_such_queue
from fastq.cli.notices import confirm
from fastq.cli.param_types import BACKOFF, DURATION, TIME
from fastq.cli.progress import need_complete, watched
from fastq.cli.remote import with_client
from fastq.cli.streams import say, say_json
from fastq.cli.tables import Column, Table, ago, as_json, cell, duration, json_option, lines_option, record, show
from fastq.client.errors import NotFound
from fastq.client.models import TERMINAL, ChangedMany, State
from fastq.client.operator_models import Queue, QueueSettings, RateLimit, Retention
from fastq.client.sync_client import Client
from fastq.clock import wall_us
from fastq.server.logs import counted
from fastq.server.settings import duration_ns

COUNTS = ("ready", "waiting", "running")
FINISHED = [state for state in get_args(State) if state in TERMINAL]
COLUMNS = (
    Column("queue", is_whole=True), *(Column(name, is_whole=True) for name in COUNTS),
    Column("acked", 4, True), Column("dead", 2, True), Column("expired", 5, True), Column("cancelled", 6, True),
    Column("oldest", 2, True), Column("why", 1, least=20), Column("served", 3, least=11),
)  # fmt: skip
LIMITS = (
    "rate", "concurrency", "group-concurrency", "lease", "backoff", "keep-acked", "keep-dead", "keep-max", "max-depth",
)  # fmt: skip


@click.group(cls=Group)
def queues() -> None:
    """List queues and change their settings."""


# --- show -------------------------------------------------------------------------------------------------------------


@queues.command("list")
@lines_option
@with_client()
def list_command(client: Client, as_json: bool) -> None:
    """List the queues that have jobs or settings."""
    found = client.queues()
    if as_json:
        _print_all(found)
        return
    now, table = datetime.fromtimestamp(wall_us() // 10**6, UTC), Table(COLUMNS)
    table.add(_row(queue, now) for queue in found)
    table.end()


def _print_all(found: Iterable[Queue]) -> None:
    for queue in found:
        say_json(as_json(queue))


def _row(queue: Queue, now: datetime) -> list[Any]:
    counts = [getattr(queue, name) for name in COUNTS] + [queue.finished.get(state, 0) for state in FINISHED]
    return [queue.name, *counts, ago(queue.oldest_ready_at, now), queue.why.words, _served(queue)]


def _served(queue: Queue) -> str:
    return " ".join(f"{name}={text}" for name, text in _limits(queue.settings).items())


def _limits(settings: QueueSettings) -> dict[str, str]:
    """The settings, written as the options of `set`."""
    rate, backoff, kept = settings.rate_limit, settings.backoff, settings.retention or Retention()
    said = {
        "paused": "yes" if settings.paused else "",
        "pause-reason": settings.pause_reason or "",
        "pause-until": cell(settings.pause_until),
        "fair": "yes" if settings.fair else "",
        "rate": f"{rate.n}/{duration(rate.per_ms)}" if rate else "",
        "concurrency": _count(settings.concurrency),
        "group-concurrency": _count(settings.group_concurrency),
        "lease": duration(settings.lease_ms),
        "backoff": f"{duration(backoff.base_ms)},{backoff.factor:g},{duration(backoff.cap_ms)}" if backoff else "",
        "keep-acked": duration(kept.acked_ms),
        "keep-dead": duration(kept.dead_ms),
        "keep-max": _count(kept.max),
        "max-depth": _count(settings.max_depth),
    }
    return {name: text for name, text in said.items() if text}


def _count(number: int | None) -> str:
    return "" if number is None else str(number)


@queues.command("show")
@click.argument("name")
@json_option
@with_client()
def show_command(client: Client, name: str, as_json: bool) -> None:
    """Show the queue NAME: its jobs and its settings."""
    _show(client.get_queue(name), as_json)


def _show(queue: Queue, in_json: bool) -> None:
    if in_json:
        say_json(as_json(queue))
        return
    finished = {state.lower(): queue.finished.get(state, 0) for state in FINISHED}
    counts = {name: getattr(queue, name) for name in COUNTS}
    rest = {"groups": queue.groups, "oldest_ready_at": queue.oldest_ready_at, "why": queue.why.words}
    show(record({"queue": queue.name} | counts | finished | rest))
    if limits := _limits(queue.settings):
        say("")
        say("served:")
        show(record(limits))


# --- set --------------------------------------------------------------------------------------------------------------


class _Rate(click.ParamType[RateLimit]):
    """A number of leases and a duration, such as `100/1s`."""

    name = "n/duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RateLimit:
        match = re.fullmatch(r"(\d{1,9})/(.+)", str(value))
        if match is not None:
            with contextlib.suppress(ValueError):
                one = match[2] if match[2][:1].isdigit() else f"1{match[2]}"
                return RateLimit(int(match[1]), int(duration_ns(one) / 10**6))
        return self.fail(f"'{value}' is not a number of leases and a duration, such as 100/1s", param, ctx)


_SETTINGS = (
    click.option("--fair/--unfair", default=None, help="Groups take turns, or priority alone decides."),
    click.option("--rate", type=_Rate(), help="Leases per time, such as 100/1s."),
    click.option("--concurrency", type=int, help="Maximum of running jobs."),
    click.option("--group-concurrency", type=int, help="Maximum of running jobs of each group."),
    click.option("--lease", "lease_ms", type=DURATION, help="Length of leases, unless the request or job sets one."),
    click.option("--backoff", type=BACKOFF, help="Waits between attempts, unless the job sets them: 1s,2,1h."),
    click.option(
        "--keep-acked", "acked_ms", type=DURATION, help="How long ACKED, EXPIRED and CANCELLED jobs are kept."
    ),
    click.option("--keep-dead", "dead_ms", type=DURATION, help="How long DEAD jobs are kept."),
    click.option("--keep-max", "max_kept", type=int, help="How many jobs of each final state are kept."),
    click.option("--max-depth", type=int, help="Maximum of unfinished jobs. Further submits are refused."),
    click.option(
        "--unset",
        type=click.Choice(LIMITS),
        multiple=True,
        metavar="LIMIT",
        help=f"Remove a limit: {', '.join(LIMITS)}. May be repeated.",
    ),
)


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@queues.command("set")
@click.argument("name")
@_settings_options
@json_option
@with_client()
def set_command(client: Client, name: str, unset: tuple[str, ...], as_json: bool, **changes: Any) -> None:
    """Change settings of the queue NAME. Settings that are not given stay."""
    changes = given(changes)
    if not changes and not unset:
        raise click.UsageError("no setting is given: see --help for the options")
    try:
        settings = client.get_queue(name).settings
    except NotFound:
        settings = QueueSettings()
    queue = client.put_queue(name, changed(settings, changes, unset))
    _say(queue, _served(queue) or "no settings", as_json)


def _say(queue: Queue, done: str, in_json: bool) -> None:
    say_json(as_json(queue)) if in_json else say(f"{queue.name}: {done}")


def changed(settings: QueueSettings, changes: dict[str, Any], unset: tuple[str, ...]) -> QueueSettings:
    """The settings after a `set`. An option overrides an --unset of the same limit."""
    changes = dict(changes)
    kept = settings.retention or Retention()
    gone = {"keep-acked": "acked_ms", "keep-dead": "dead_ms", "keep-max": "max"}
    kept = msgspec.structs.replace(kept, **{gone[name]: None for name in unset if name in gone})
    said = {"acked_ms": changes.pop("acked_ms", None), "dead_ms": changes.pop("dead_ms", None),
            "max": changes.pop("max_kept", None)}  # fmt: skip
    kept = msgspec.structs.replace(kept, **given(said))
    if "rate" in changes:
        changes["rate_limit"] = changes.pop("rate")
    renamed = {"rate": "rate_limit", "lease": "lease_ms"}
    cleared = {renamed.get(name, name.replace("-", "_")): None for name in unset if name not in gone}
    retention = None if kept == Retention() else kept
    return msgspec.structs.replace(settings, **(cleared | changes | {"retention": retention}))


# --- pause, resume, purge, delete -------------------------------------------------------------------------------------


@queues.command()
@click.argument("name")
@click.option("--reason", default="", help="Shown to whoever asks why its jobs wait.")
@click.option("--until", type=TIME, help="The time at which the server resumes it.")
@click.option("--for", "for_ms", type=DURATION, help="As --until, but a time from now, such as 30m.")
@click.option("--create", is_flag=True, help="Also pause a queue that has neither jobs nor settings.")
@json_option
@with_client()
def pause(
    client: Client, name: str, reason: str, until: datetime | None, for_ms: int | None, create: bool, as_json: bool
) -> None:
    """Stop leasing jobs of the queue NAME. Running jobs continue."""
    if for_ms is not None:
        if until is not None:
            raise click.UsageError("give either --until or --for")
        until = datetime.fromtimestamp(wall_us() / 1e6, UTC) + timedelta(milliseconds=for_ms)
    try:
        queue = client.pause_queue(name, create=create, reason=reason, until=until)
    except NotFound:
        raise Failed(f"{no_such_queue(client, name)}; --create pauses it before its first job") from None
    _say(queue, queue.why.words or "paused", as_json)


@queues.command()
@click.argument("name")
@json_option
@with_client()
def resume(client: Client, name: str, as_json: bool) -> None:
    """Lease jobs of the queue NAME again."""
    _say(client.resume_queue(name), "resumed", as_json)


@queues.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@pace_options
@json_option
@with_client("30s")
def purge(client: Client, name: str, yes: bool, as_json: bool, **pace: Any) -> None:
    """Delete the waiting jobs of the queue NAME. Running and finished jobs stay."""
    expected = None
    if not yes:
        queue = client.get_queue(name)
        expected = queue.ready + queue.waiting
        confirm(f"delete {counted(expected, 'waiting job')} of {name}?")
    with watched(expected) as progress:
        done = client.purge_queue(name, **given(pace), on_progress=progress)
    _purged(name, done, as_json)


def _purged(name: str, done: ChangedMany, in_json: bool) -> None:
    say_json(as_json(done)) if in_json else say(f"{name}: {counted(done.changed, 'job')} deleted")
    need_complete(done)


@queues.command()
@click.argument("name")
@with_client()
def delete(client: Client, name: str) -> None:
    """Delete the settings of the queue NAME, which must have no unfinished jobs."""
    client.delete_queue(name)
    say(f"{name}: settings deleted")
