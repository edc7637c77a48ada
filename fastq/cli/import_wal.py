"""`fastq import-wal`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from fastq.cli.notices import notice
from fastq.cli.original_wal import OriginalJob, Replayed, in_batches, replayed
from fastq.cli.remote import client_of, server_options
from fastq.cli.streams import output_file
from fastq.client.errors import BadRequest
from fastq.client.models import NewJob
from fastq.client.sync_client import Client
from fastq.drafts import naming

BATCH_JOBS, BATCH_BYTES = 1_000, 4 << 20
RETRIES_MAX = 1_000
RETRY_MS = 10_000  # retry an absent or busy server for that long
DAMAGE_SHOWN = LEFT_OUT_SHOWN = 20


class Entry(msgspec.Struct):
    """A line of the map: the id of an original job, its id here, and the URL of the server."""

    original: str
    job_id: str
    server: str


@dataclass
class Imported:
    new: int = 0
    before: int = 0
    refused: list[str] = field(default_factory=list)


@click.command("import-wal")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@server_options
@click.option("--queue", default="default", show_default=True, help="The queue of the jobs.")
@click.option("--dry-run", is_flag=True, help="Only report what would be done.")
@click.option("--dead", type=click.Choice(["skip", "submit"]), default="skip", show_default=True,
              help="Skip DEAD jobs, or submit them again.")  # fmt: skip
@click.option("--archive", type=click.Path(dir_okay=False, path_type=Path),
              help="Write finished jobs and their results to this file, as JSON lines.")  # fmt: skip
@click.option("--map", "map_path", type=click.Path(dir_okay=False, path_type=Path),
              help="Holds the new ids; jobs in it are skipped. Default: PATH.imported")  # fmt: skip
def import_wal(
    path: Path, url: str, key_file: Path | None, queue: str, dry_run: bool, dead: str, archive: Path | None,
    map_path: Path | None,
) -> None:  # fmt: skip
    """Submit the unfinished jobs of the original server's jobs.wal (PATH) to a running server.

    Stop the original server first. Exit code 1: a line is damaged or the server refused a job; all others are
    submitted.
    """
    if archive is not None and archive.exists() and archive.samefile(path):
        raise click.UsageError("--archive is the log itself: it would be overwritten")
    with path.open("rb") as file:
        found = replayed(file)
    _report_damage(found)
    _report_changes(found)
    jobs = found.jobs.values()
    wanted = [job for job in jobs if not job.is_finished or (job.state == "DEAD" and dead == "submit")]
    states = Counter(job.state for job in jobs)
    shown = ", ".join(f"{state} {count:,}" for state, count in sorted(states.items())) or "none"
    click.echo(f"{path}: {found.lines:,} lines, {len(jobs):,} jobs: {shown}")
    if dry_run:
        click.echo(f"would submit {len(wanted):,} jobs to queue {queue} of {url}; nothing was changed")
        sys.exit(1 if found.damage else 0)
    if archive is not None:
        finished = [job for job in jobs if job.is_finished]
        with output_file(archive) as file:
            file.writelines(msgspec.json.encode(job) + b"\n" for job in finished)
        click.echo(f"archived {len(finished):,} finished jobs in {archive}")
    done = _submitted(wanted, url, key_file, queue, map_path or path.with_name(path.name + ".imported"))
    for refusal in done.refused:
        notice(f"refused: {refusal}")
    click.echo(
        f"submitted {done.new:,} jobs to queue {queue}, {done.before:,} already there, "
        f"{len(done.refused):,} refused, {len(jobs) - len(wanted):,} finished ones skipped"
    )
    sys.exit(1 if found.damage or done.refused else 0)


def _report_damage(found: Replayed) -> None:
    for line in found.damage[:DAMAGE_SHOWN]:
        notice(f"damaged: {line}")
    if (more := len(found.damage) - DAMAGE_SHOWN) > 0:
        notice(f"damaged: and {more:,} more lines")
    if found.torn:
        notice(found.torn)


def _report_changes(found: Replayed) -> None:
    """Say what the new jobs lack or have in another form."""
    for name, count in found.left_out.most_common(LEFT_OUT_SHOWN):
        notice(f"not carried over: {name} ({count:,} lines); a job here has no such value")
    if (more := len(found.left_out) - LEFT_OUT_SHOWN) > 0:
        notice(f"not carried over: and {more:,} more")
    if cut := sum(job.runs_left > RETRIES_MAX for job in found.jobs.values() if not job.is_finished):
        notice(f"max_retries becomes {RETRIES_MAX:,}, the maximum here, of jobs that may run more often: {cut:,}")


def _submitted(wanted: Sequence[OriginalJob], url: str, key_file: Path | None, queue: str, map_path: Path) -> Imported:
    """Submit the jobs that the map lacks. Raises click.ClickException; jobs submitted before it are in the map."""
    done = Imported()
    known = _known(map_path, url)
    left = [job for job in wanted if job.job_id not in known]
    done.before = len(wanted) - len(left)
    with client_of(url, key_file, RETRY_MS) as client, map_path.open("ab") as file:
        for batch in in_batches(left, BATCH_JOBS, BATCH_BYTES):
            with naming(map_path):
                _submit(client, batch, queue, url, file, done)
    return done


def _submit(client: Client, batch: list[OriginalJob], queue: str, url: str, file: BinaryIO, done: Imported) -> None:
    """Submit a batch. If the server refuses it, submit each job alone to find the one that it refuses."""
    try:
        answers = client.submit_many([_new_job(job, queue) for job in batch])
    except BadRequest as error:
        if len(batch) > 1:
            for job in batch:
                _submit(client, [job], queue, url, file, done)
            return
        if error.code == "idempotency_mismatch":  # imported before, and changed in the original since
            done.before += 1
        else:
            done.refused.append(f"job {batch[0].job_id}: {error}")
        return
    for job, answer in zip(batch, answers, strict=True):
        file.write(msgspec.json.encode(Entry(job.job_id, answer.job_id, url)) + b"\n")
    file.flush()
    os.fsync(file.fileno())
    repeated = sum(answer.duplicate for answer in answers)
    done.before += repeated
    done.new += len(batch) - repeated


def _new_job(job: OriginalJob, queue: str) -> NewJob:
    """The job to submit. Its tag holds the original id; its idempotency and unique keys are the same at each import."""
    key = f"import-wal:{job.job_id}"[:200]
    return NewJob(
        payload=job.payload, queue=queue, max_retries=min(RETRIES_MAX, max(0, job.runs_left)),
        priority=job.priority or msgspec.UNSET, run_at=job.run_at or msgspec.UNSET,
        idempotency_key=key, unique_key=key, tags=[f"original:{job.job_id}"[:64]],
    )  # fmt: skip


def _known(map_path: Path, url: str) -> set[str]:
    """The original ids that the map has for that server. Raises click.ClickException."""
    if not map_path.exists():
        return set()
    content = map_path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    known = set()
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except msgspec.MsgspecError:
            raise click.ClickException(f"{map_path}: line {number} is not an entry of a map") from None
        if entry.server == url:
            known.add(entry.original)
    if len(whole) < len(content):  # a crash tore the last line; the idempotency key prevents a double
        os.truncate(map_path, len(whole))
    return known
