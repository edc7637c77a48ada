"""Reads the log of the original server, `jobs.wal`: one JSON object a line, replayed into jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from msgspec import Raw

CREATED, LEASED, ACKED, RETRY, DEAD = "JOB_CREATED", "JOB_LEASED", "JOB_ACKED", "JOB_RETRY", "JOB_DEAD"
STATES = {CREATED: "READY", LEASED: "RUNNING", ACKED: "ACKED", RETRY: "RETRY", DEAD: "DEAD"}
FINISHED = frozenset({"ACKED", "DEAD"})
ABSENT = Raw(b"null")
NO_PAYLOADS = (b"null", b'""', b"")


KNOWN = frozenset({
    "payload", "max_retries", "attempts", "result", "result_error", "priority", "run_at", "lease_until",
    "job_id", "event", "timestamp", "metadata",
})  # fmt: skip
PRIORITY_MAX = 2**31 - 1


class _Facts(msgspec.Struct):
    payload: Raw = ABSENT
    priority: Raw = ABSENT
    run_at: Raw = ABSENT
    max_retries: int = 0
    attempts: int | None = None
    result: Raw = ABSENT
    result_error: str | None = None


class _Line(msgspec.Struct):
    job_id: str
    event: str
    timestamp: float = 0.0
    metadata: Raw = ABSENT


class OriginalJob(msgspec.Struct):
    """A job after its last line. payload, result: JSON text, unchanged. created_s: Unix seconds."""

    job_id: str
    state: str
    created_s: float
    payload: Raw
    max_retries: int
    attempts: int = 0
    result: Raw = ABSENT
    result_error: str = ""
    priority: int = 0
    run_at: datetime | None = None

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED

    @property
    def runs_left(self) -> int:
        """The attempts that are left, as `max_retries` of the new job. A job in its last attempt gets one more."""
        return self.max_retries if not self.attempts else max(1, self.max_retries - self.attempts)


@dataclass
class Replayed:
    """jobs: by id, in order of creation. damage: a message a bad line. torn: the message of a torn end.

    left_out: how often each member stands in the log that a job here has not, or cannot have with that value.
    """

    jobs: dict[str, OriginalJob] = field(default_factory=dict)
    lines: int = 0
    damage: list[str] = field(default_factory=list)
    torn: str = ""
    left_out: Counter[str] = field(default_factory=Counter)
    _orphans: set[str] = field(default_factory=set)

    def take(self, number: int, text: bytes) -> None:
        """Apply one line, newline included. The last line may lack it."""
        self.lines = number
        if not text.strip():
            return
        try:
            line, facts, names = _read(text)
        except ValueError as error:  # msgspec's errors and invalid UTF-8
            if text.endswith(b"\n"):
                self.damage.append(f"line {number}: {error}")
            else:
                self.torn = f"line {number} is incomplete, as after a crash: skipped"
            return
        self.left_out.update(names - KNOWN)
        if wrong := self._apply(line, facts):
            self.damage.append(f"line {number}: {wrong}")

    def _apply(self, line: _Line, facts: _Facts) -> str:
        """Apply a line. Returns what is wrong with it, or an empty string."""
        job = self.jobs.get(line.job_id)
        if line.event == CREATED:
            if job is not None:
                return f"job {line.job_id} is created a second time"
            if bytes(facts.payload) in NO_PAYLOADS:
                return f"job {line.job_id} has no payload"
            self.jobs[line.job_id] = OriginalJob(
                line.job_id, "READY", line.timestamp, facts.payload.copy(), facts.max_retries
            )
            self._order(self.jobs[line.job_id], facts)
            return ""
        if job is None:
            if line.job_id in self._orphans:
                return ""
            self._orphans.add(line.job_id)
            return f"{line.event} of job {line.job_id}, whose {CREATED} is missing"
        job.state = STATES[line.event]
        self._order(job, facts)
        if facts.attempts is not None:
            job.attempts = facts.attempts
        elif line.event == LEASED:
            job.attempts += 1
        if line.event in (ACKED, DEAD):
            job.result, job.result_error = facts.result.copy(), facts.result_error or ""
        return ""

    def _order(self, job: OriginalJob, facts: _Facts) -> None:
        """Take the priority and the time from which the job may run."""
        for name, read in (("priority", _priority), ("run_at", _time)):
            raw = bytes(getattr(facts, name))
            if raw != b"null":
                try:
                    setattr(job, name, read(raw))
                except (msgspec.MsgspecError, ValueError, OverflowError):
                    self.left_out[f"{name} {raw.decode()[:50]}"] += 1


def _priority(raw: bytes) -> int:
    priority = msgspec.json.decode(raw, type=int)
    if abs(priority) > PRIORITY_MAX:
        raise ValueError
    return priority


def _time(raw: bytes) -> datetime | None:
    """An RFC 3339 time or Unix seconds. The year 1 is how Go writes no time."""
    found = msgspec.json.decode(raw, type=datetime | float)
    moment = datetime.fromtimestamp(found, UTC) if isinstance(found, float) else found
    if moment.tzinfo is None:
        raise ValueError
    return None if moment.year == 1 else moment


_line = msgspec.json.Decoder(_Line)
_facts = msgspec.json.Decoder(_Facts)


_names = msgspec.json.Decoder(dict[str, Raw])


def _read(text: bytes) -> tuple[_Line, _Facts, set[str]]:
    """A parsed line, its metadata, and the names of all its members. Raises ValueError."""
    text.decode()  # msgspec does not check the UTF-8 of a Raw payload
    line = _line.decode(text)
    if line.event not in STATES:
        raise ValueError(f"unknown event {line.event[:50]!r}")
    metadata = bytes(line.metadata)
    if metadata == b"null":  # the members of metadata may be in the line itself
        return line, _facts.decode(text), set(_names.decode(text))
    return line, _facts.decode(metadata), set(_names.decode(text)) | set(_names.decode(metadata))


def replayed(lines: Iterable[bytes]) -> Replayed:
    """Replay all lines of a log."""
    found = Replayed()
    for number, text in enumerate(lines, 1):
        found.take(number, text)
    return found


def in_batches(jobs: Iterable[OriginalJob], jobs_max: int, bytes_max: int) -> Iterator[list[OriginalJob]]:
    """The jobs in order, in batches. A payload over `bytes_max` gets a batch of its own."""
    batch: list[OriginalJob] = []
    size = 0
    for job in jobs:
        job_bytes = len(bytes(job.payload))
        if batch and (len(batch) == jobs_max or size + job_bytes > bytes_max):
            yield batch
            batch, size = [], 0
        batch.append(job)
        size += job_bytes
    if batch:
        yield batch
