"""`fastq log …`: check, dump and repair the log of a stopped server."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import orjson

from fastq._core import describe_records, job_number
from fastq.cli.groups import Group
from fastq.cli.notices import notice
from fastq.clock import wall_us
from fastq.engine.documents import DocumentKind
from fastq.errors import DirectoryFailed, LogDamaged, NothingToRepair, StartError
from fastq.log.files.segments import lock_directory, segment_path, view_directory
from fastq.log.files.tools.check import DAMAGED, TORN, Report, check_log, first_head
from fastq.log.files.tools.dump import SOUND_ENDS, EndSeen, FrameSeen, GapSeen, SegmentSeen, walk
from fastq.log.files.tools.repair import Plan, carry_out, finish, plan
from fastq.server.logs import counted, jobs_counted

_EPOCH = datetime(1970, 1, 1)
DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
IDS_SHOWN = 20  # job ids that a check prints


@click.group(cls=Group)
def log() -> None:
    """Check, dump or repair the log of a stopped server."""


@contextlib.contextmanager
def exits_on_error() -> Iterator[None]:
    """Print a StartError or OSError as one line and exit with its code."""
    try:
        yield
    except StartError as error:
        notice(f"fastq: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader left; the flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        notice(f"fastq: {error}")
        sys.exit(DirectoryFailed.exit_code)


@contextlib.contextmanager
def viewed(directory: Path) -> Iterator[None]:
    """Keep servers from starting meanwhile. Raises DirectoryLocked: one is running."""
    fd = view_directory(directory)
    try:
        yield
    finally:
        if fd >= 0:
            os.close(fd)


# --- check ------------------------------------------------------------------------------------------------------------


@log.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(directory: Path, as_json: bool) -> None:
    """Check the log in DIRECTORY: would a server start on it?

    Reads every segment and frame and replays the records. Writes nothing. Exit codes: 0 the log is sound, or has a torn
    tail that a start cuts off; 65 it is damaged or of a later version; 74 it cannot be read; 75 a server uses it.
    """
    with exits_on_error(), viewed(directory):
        report = check_log(directory)
        print(orjson.dumps(report.as_json()).decode() if as_json else "\n".join(_check_lines(directory, report)))
        if report.message:
            sys.exit(LogDamaged.exit_code)


def _check_lines(directory: Path, report: Report) -> Iterator[str]:
    if report.message:
        yield f"{report.verdict}: {report.message}"
        yield from _behind_lines(directory, report)
        return
    found = report.found
    yield f"{report.verdict}: a server would start on {directory}"
    segments = f"segments {found.first_segment} to {found.last_segment}"
    yield f"{segments}, {found.bytes_read:,} bytes, epoch {found.epoch}"
    yield f"frames up to {found.next_seq - 1:,}: {found.frames:,} read, with {counted(found.records, 'record')}"
    yield jobs_counted(report.core.counts())
    if skipped := report.core.skipped():
        yield f"skipped: {counted(skipped, 'record')} of deleted jobs"
    if broken := report.core.broken_links:
        yield f"{counted(broken, 'record')} of job histories do not link to their predecessor: a bug in fastq"
    if report.verdict == TORN:
        where = f"{segment_path(directory, found.torn_segment)}: offset {found.torn_offset}"
        yield f"{where}: a torn tail of {len(found.torn)} bytes, never acknowledged; a start copies it and cuts it off"
    if report.pending_frames:
        yield f"not proven durable: the last {counted(report.pending_frames, 'frame')}, written again by a start"


def _behind_lines(directory: Path, report: Report) -> Iterator[str]:
    """Lines about the frames behind the damage."""
    damage, losses = report.damage, report.losses
    if damage is None or losses is None or not damage.sound_seq:
        return
    if losses.frames:
        yield (
            f"behind it {counted(losses.frames, 'frame')} can still be read ({losses.first_seq} to "
            f"{losses.last_seq}), about {counted(len(losses.jobs), 'job')}"
        )
        for number in list(losses.jobs)[:IDS_SHOWN]:
            yield f"  {losses.job_id(number, report.core)}: {', '.join(losses.jobs[number])}"
        if len(losses.jobs) > IDS_SHOWN:
            yield f"  … and {len(losses.jobs) - IDS_SHOWN:,} more"
    if report.verdict == DAMAGED:
        yield f"to give it up, if there is no backup: fastq log repair {directory} --truncate-at {damage.sound_seq + 1}"


# --- repair -----------------------------------------------------------------------------------------------------------


@log.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--truncate-at", "seq", type=click.IntRange(min=1), help="The first frame to give up.")
@click.option("--accept-loss", is_flag=True, help="Do it. Without this option nothing changes.")
def repair(directory: Path, seq: int | None, accept_loss: bool) -> None:
    """Give up the frames of DIRECTORY from the damage on, so that a server starts again. Prefer a backup.

    Lists what each affected job loses. The frames are moved to a directory within DIRECTORY, not deleted.
    `check` prints the first frame to give up. Exit codes as for `check`: 0 also if there is nothing to repair, and 65
    also if this cannot repair the log.
    """
    with exits_on_error():
        try:
            _repair(directory, seq or 0, accept_loss)
        except NothingToRepair as error:
            print(error)


def _repair(directory: Path, seq: int, accept_loss: bool) -> None:
    if not accept_loss:
        with viewed(directory):
            _print_lines(_plan_lines(directory, plan(directory, seq)))
        print("nothing was changed: add --accept-loss to do it")
        return
    lock = lock_directory(directory)
    try:
        try:
            planned = plan(directory, seq)
        except NothingToRepair:
            if (aside := finish(directory)) is None:
                raise
        else:
            _print_lines(_plan_lines(directory, planned))
            aside = carry_out(directory, planned, wall_us())
        print(f"the frames given up are in {aside}; a server starts on {directory} now")
    finally:
        os.close(lock)


def _print_lines(lines: Iterator[str]) -> None:
    for line in lines:
        print(line)


def _plan_lines(directory: Path, planned: Plan) -> Iterator[str]:
    cut, losses = planned.cut, planned.losses
    where = f"{segment_path(directory, cut.head.number)} from offset {cut.offset} on"
    behind = f", and {counted(len(planned.given_up), 'segment')} behind it" if planned.given_up else ""
    yield f"given up: frames from {cut.next_seq} on: {where}{behind}"
    for gap in losses.unreadable:
        yield f"unreadable: {segment_path(directory, gap.segment)}: offset {gap.offset}, {gap.end - gap.offset} bytes"
    yield f"readable: {counted(losses.frames, 'frame')}; affected jobs:"
    for job_id, lost in planned.lost():
        yield f"  job {job_id}: {', '.join(lost)}"
    for kind, name in losses.documents:
        yield f"  {'key' if kind == DocumentKind.API_KEY else f'document of kind {kind},'} {name}: its last change"
    yield f"kept: frames up to {cut.next_seq - 1}, {jobs_counted(planned.core.counts())}"


# --- dump -------------------------------------------------------------------------------------------------------------


def _sequences(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[int, int]:
    """Parse `A..B`, both included and both optional, or one number."""
    first, dots, last = text.partition("..")
    try:
        low = int(first) if first else 0
        high = (int(last) if last else 1 << 64) if dots else low
    except ValueError:
        raise click.BadParameter(f"'{text}' is neither a number nor A..B") from None
    if not 0 <= low <= high:
        raise click.BadParameter(f"the range {low}..{high} is empty: A must not be above B")
    return low, high


@log.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--seq", "seqs", callback=_sequences, default="..", metavar="A..B", help="Only these frames.")
@click.option("--job", "job", default="", help="Only records of the job with this id, or this number in the log.")
@click.option("--payloads", is_flag=True, help="Also print payloads, results, error texts and documents.")
def dump(directory: Path, as_json: bool, seqs: tuple[int, int], job: str, payloads: bool) -> None:
    """Print the frames and records in DIRECTORY, one a line. Damage gets a line, and the dump goes on behind it.

    Exit codes as for `check`, but damage is 0.
    """
    with exits_on_error(), viewed(directory):
        head = first_head(directory)
        if head is None:
            raise DirectoryFailed(f"{directory} contains no readable segment")
        number = 0
        if job:
            number = int(job) if job.isdecimal() else job_number(job, head.database_id)
            if not number:
                raise click.BadParameter(f"'{job}' is not a job id of this log", param_hint="--job")
        for line in _dump_lines(directory, head.database_id, seqs, number, payloads, _as_json if as_json else _as_text):
            sys.stdout.write(line)
        sys.stdout.flush()


def _dump_lines(
    directory: Path,
    database_id: bytes,
    seqs: tuple[int, int],
    job: int,
    payloads: bool,
    line: Callable[[dict[str, Any], int], str],
) -> Iterator[str]:
    for seen in walk(directory):
        if not isinstance(seen, FrameSeen):
            if not job:
                yield line(_described(seen), 0)
            continue
        if not seqs[0] <= seen.seq <= seqs[1]:
            continue
        records = describe_records(seen.records, database_id, bodies=payloads)
        if job:
            records = [kept for record in records if (kept := _of_job(record, job)) is not None]
            if not records:
                continue
        yield line(_described(seen), 0)
        yield from _record_lines(records, seen.seq, 1, line)


def _of_job(record: dict[str, Any], job: int) -> dict[str, Any] | None:
    """The record, or its inner records about the job, or None."""
    if record.get("job") == job or job in record.get("jobs", ()):
        return record
    inner = [kept for each in record.get("records", ()) if (kept := _of_job(each, job)) is not None]
    return record | {"records": inner} if inner else None


def _record_lines(
    records: list[dict[str, Any]], seq: int, depth: int, line: Callable[[dict[str, Any], int], str]
) -> Iterator[str]:
    """Lines of records. JSON keeps inner records inside; text prints them indented below."""
    for record in records:
        if line is _as_json:
            yield line({"seq": seq} | record, depth)
        else:
            inner = record.pop("records", [])
            yield line(record, depth)
            yield from _record_lines(inner, seq, depth + 1, line)


def _described(seen: SegmentSeen | FrameSeen | GapSeen | EndSeen) -> dict[str, Any]:
    """The fields to print. Database id and salt stay secret: lease tokens and frames could be forged with them."""
    if isinstance(seen, SegmentSeen):
        head = seen.head
        return {
            "type": "segment", "segment": seen.number, "epoch": head.epoch, "file_bytes": seen.file_bytes,
            "align": head.align, "first_seq": head.first_seq, "synced_seq": head.synced_seq,
        }  # fmt: skip
    if isinstance(seen, FrameSeen):
        told = {
            "type": "frame", "seq": seen.seq, "segment": seen.segment, "offset": seen.offset,
            "record_bytes": len(seen.records), "count": seen.count, "durable_seq": seen.durable_seq,
        }  # fmt: skip
        return told | ({"copy": True} if seen.is_copy else {})
    if isinstance(seen, GapSeen):
        return {
            "type": "damaged", "segment": seen.segment, "offset": seen.offset, "bytes": seen.end - seen.offset,
            "why": seen.why,
        }  # fmt: skip
    kind = "end" if seen.why in SOUND_ENDS and not seen.rest_bytes else "torn or damaged end"
    return {
        "type": kind, "segment": seen.segment, "offset": seen.offset, "why": seen.why, "rest_bytes": seen.rest_bytes,
    }  # fmt: skip


def _as_json(fields: dict[str, Any], _depth: int) -> str:
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE).decode()


def _as_text(fields: dict[str, Any], depth: int) -> str:
    words = [f"{name.removesuffix('_us')}={_shown(name, value)}" for name, value in fields.items() if name != "type"]
    return "  " * depth + " ".join([fields["type"], *words]) + "\n"


def _shown(name: str, value: Any) -> str:
    if name.endswith("_us"):
        try:
            return (_EPOCH + timedelta(microseconds=value)).isoformat(timespec="microseconds") + "Z"
        except OverflowError:
            return str(value)
    if isinstance(value, str) and (not value or not value.isprintable() or any(c in value for c in ' "=')):
        return orjson.dumps(value).decode()
    return str(value)
