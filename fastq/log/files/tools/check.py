"""Check a log as a start would: read, replay and verify it. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastq._core import Core, CoreSettings, Tail, describe_records, job_id_by_number
from fastq.errors import DirectoryFailed, LogDamaged, UnsupportedFormat
from fastq.log.files.recovery import NOTHING_INSTEAD, Found, apply_frame, check_oldest, read_log
from fastq.log.files.segments import SegmentHead, read_head, segment_numbers
from fastq.log.files.tools.dump import FrameSeen, GapSeen, walk

ITSELF, COPY = "the job itself", "a copy of the whole job"  # what a loss may be
_LOSSES = {
    "SUBMIT": ITSELF, "JOB": COPY, "FORGET": "its removal", "EXTEND": "a longer lease",
    "CHANGE": "a change from outside", "REMEMBER": "its idempotency key",
}  # fmt: skip
SOUND, TORN, DAMAGED, UNKNOWN = "sound", "torn", "damaged", "unknown format"


@dataclass(slots=True)
class Losses:
    """What would be lost without the frames from some sequence number on."""

    jobs: dict[int, tuple[str, ...]] = field(default_factory=dict)  # job number -> its records, in the log's order
    job_ids: dict[int, str] = field(default_factory=dict)  # of jobs submitted there, or shortly before
    documents: dict[tuple[int, str], None] = field(default_factory=dict)  # kind and name
    oldest_frame: int = 0  # as named by a record there
    frames: int = 0
    first_seq: int = 0
    last_seq: int = 0
    unreadable: list[GapSeen] = field(default_factory=list)

    def job_id(self, number: int, core: Core) -> str:
        """The job's id; its number if the id is not known."""
        return self.job_ids.get(number) or job_id_by_number(core, number) or f"number {number}"


@dataclass(slots=True)
class Report:
    """The result of a check. Sequence numbers count frames."""

    verdict: str  # SOUND, TORN, DAMAGED or UNKNOWN
    message: str  # the error of a start, if the verdict is one of the last two; else empty
    core: Core  # the state up to the damage
    segments: int
    found: Found = field(default_factory=Found)
    damage: LogDamaged | None = None
    losses: Losses | None = None  # what can still be read after the damage

    @property
    def pending_frames(self) -> int:
        """How many frames at the end are not proven durable: a start rewrites them."""
        return len(self.found.pending)

    def as_json(self) -> dict[str, Any]:
        found, damage, losses = self.found, self.damage, self.losses
        told: dict[str, Any] = {"verdict": self.verdict, "segments": self.segments}
        if damage is None and not self.message:
            told |= {
                "first_segment": found.first_segment,
                "last_segment": found.last_segment,
                "last_seq": found.next_seq - 1,
                "epoch": found.epoch,
                "frames": found.frames,
                "records": found.records,
                "bytes": found.bytes_read,
                "pending_frames": self.pending_frames,
                "jobs": {state: n for state, n in self.core.counts().items() if n},
                "skipped_records": self.core.skipped(),
                "broken_links": self.core.broken_links,
            }
        if found.torn:
            told["torn"] = {
                "segment": found.torn_segment, "offset": found.torn_offset, "bytes": len(found.torn),
            }  # fmt: skip
        if self.message:
            told["message"] = self.message
        if damage is not None:
            told["damage"] = {
                "segment": damage.segment, "offset": damage.offset, "sound_seq": damage.sound_seq,
                "durable_seq": damage.durable_seq,
            }  # fmt: skip
        if losses is not None:
            told["behind"] = {
                "frames": losses.frames, "first_seq": losses.first_seq, "last_seq": losses.last_seq,
                "jobs": len(losses.jobs),
            }  # fmt: skip
        return told


def read_whole(directory: Path, core: Core, instead: Mapping[int, bytes] = NOTHING_INSTEAD) -> Found:
    """Read a log into `core`, with the same order and errors as a start.

    Args:
        instead: as for `read_log`.
    Raises:
        DirectoryFailed: there is no log, or a restore has not ended. LogDamaged, UnsupportedFormat.
    """
    found = read_log(directory, core.replay, core.identify, instead)
    if found.database_id is None:
        raise DirectoryFailed(f"{directory} holds no log")
    for frame in found.pending:
        apply_frame(
            core.replay, memoryview(frame.records), directory,
            seq=frame.seq, count=frame.count, number=frame.segment, offset=frame.offset,
        )  # fmt: skip
        found.index.add(frame.seq, frame.segment, frame.offset)
        found.frames += 1
        found.records += frame.count
    check_oldest(directory, found, core.oldest_frame)
    return found


def empty_core() -> Core:
    """A core for reading only."""
    return Core(Tail(512, 0, 4096), CoreSettings())


def check_log(directory: Path) -> Report:
    """Read a log as a start would, and verify every structure of the state.

    Raises:
        DirectoryFailed: there is no log. AssertionError: the replayed state is inconsistent: a defect of fastq.
    """
    core, segments = empty_core(), len(segment_numbers(directory))
    try:
        found = read_whole(directory, core)
    except UnsupportedFormat as error:
        return Report(UNKNOWN, str(error), core, segments)
    except LogDamaged as error:
        losses = None
        if error.segment and error.sound_seq is not None:
            losses = losses_from(directory, error.segment, error.sound_seq + 1)
        return Report(DAMAGED, str(error), core, segments, damage=error, losses=losses)
    core.check()
    return Report(TORN if found.torn else SOUND, "", core, segments, found)


def first_head(directory: Path) -> SegmentHead | None:
    """The first sound segment head; None if there is none."""
    for number in segment_numbers(directory):
        try:
            return read_head(directory, number)
        except (LogDamaged, UnsupportedFormat):
            pass
    return None


def losses_from(directory: Path, segment: int, seq: int) -> Losses:
    """What the frames from `seq` on contain, as far as they can be read. They begin in `segment` or a later one."""
    losses, head = Losses(), first_head(directory)
    if head is None:
        return losses
    for seen in walk(directory, segment):
        if isinstance(seen, GapSeen):
            if seen.end > seen.offset:
                losses.unreadable.append(seen)
        elif isinstance(seen, FrameSeen) and not seen.is_copy:
            described = list(single_records(describe_records(seen.records, head.database_id)))
            _add_ids(losses, described)
            if seen.seq >= seq:
                losses.frames += 1
                losses.first_seq = min(losses.first_seq or seen.seq, seen.seq)
                losses.last_seq = max(losses.last_seq, seen.seq)
                _add(losses, described)
    return losses


def single_records(described: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield each record, also those in groups. A whole job is one record: earlier records have its content."""
    for record in described:
        if record["type"] == "GROUP":
            yield from single_records(record["records"])
        else:
            yield record


def _add_ids(losses: Losses, described: list[dict[str, Any]]) -> None:
    for record in described:
        submit = record["records"][0] if record.get("records") else record
        if "job_id" in submit:
            losses.job_ids[submit["job"]] = submit["job_id"]


def _add(losses: Losses, described: list[dict[str, Any]]) -> None:
    for record in described:
        if record["type"] == "DOCUMENT" and "name" in record:
            losses.documents[record["kind"], record["name"]] = None
            continue
        losses.oldest_frame = max(losses.oldest_frame, record.get("oldest_frame", 0))
        what = _what(record)
        for number in record.get("jobs", [record["job"]] if "job" in record else []):
            before = losses.jobs.get(number, ())
            if what not in before:
                losses.jobs[number] = (*before, what)


def _what(record: dict[str, Any]) -> str:
    """A record's kind in a word or two."""
    if record["type"] == "CLOSE":
        return f"the end of an attempt ({record.get('outcome', 'damaged')})"
    if record["type"] == "SUBMIT" and "edited" in record:
        return "an edit"
    return _LOSSES.get(record["type"], f"its {record['type'].lower()}")
