"""Reads the log of the original server, `jobs.wal`: one JSON object a line, replayed into jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

CREATED, LEASED, ACKED, RETRY, DEAD = "JOB_CREATED", "JOB_LEASED", "JOB_ACKED", "JOB_RETRY", "JOB_DEAD"
STATES = {CREATED: "READY", LEASED: "RUNNING", ACKED: "ACKED", RETRY: "RETRY", DEAD: "DEAD"}
FINISHED = frozenset({"ACKED", "DEAD"})
ABSENT = Raw(b"null")
NO_PAYLOADS = (b"null", b'""', b"")


class _Facts(msgspec.Struct):
    payload: Raw = ABSENT
    max_retries: int = 0
    attempts: int | None = None
    result: Raw = ABSENT
    result_error: str | None = None


class _Line(msgspec.Struct):
    job_id: str
    event: str
    timestamp: float = 0.0
    metadata: _Facts | None = None


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

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED

    @property
    def runs_left(self) -> int:
        """The attempts that are left, as `max_retries` of the new job. A job in its last attempt gets one more."""
        return self.max_retries if not self.attempts else max(1, self.max_retries - self.attempts)


@dataclass
class Replayed:
    """jobs: by id, in order of creation. damage: a message a bad line. torn: the message of a torn end."""

    jobs: dict[str, OriginalJob] = field(default_factory=dict)
    lines: int = 0
    damage: list[str] = field(default_factory=list)
    torn: str = ""
    _orphans: set[str] = field(default_factory=set)

    def take(self, number: int, text: bytes) -> None:
        """Apply one line, newline included. The last line may lack it."""
        self.lines = number
        if not text.strip():
            return
        try:
            line = _read(text)
        except ValueError as error:  # msgspec's errors and invalid UTF-8
            if text.endswith(b"\n"):
                self.damage.append(f"line {number}: {error}")
            else:
                self.torn = f"line {number} is incomplete, as after a crash: skipped"
            return
        if wrong := self._apply(line):
            self.damage.append(f"line {number}: {wrong}")

    def _apply(self, line: _Line) -> str:
        """Apply a line. Returns what is wrong with it, or an empty string."""
        facts = line.metadata or _Facts()
        job = self.jobs.get(line.job_id)
        if line.event == CREATED:
            if job is not None:
                return f"job {line.job_id} is created a second time"
            if bytes(facts.payload) in NO_PAYLOADS:
                return f"job {line.job_id} has no payload"
            self.jobs[line.job_id] = OriginalJob(
                line.job_id, "READY", line.timestamp, facts.payload.copy(), facts.max_retries
            )
            return ""
        if job is None:
            if line.job_id in self._orphans:
                return ""
            self._orphans.add(line.job_id)
            return f"{line.event} of job {line.job_id}, whose {CREATED} is missing"
        job.state = STATES[line.event]
        if facts.attempts is not None:
            job.attempts = facts.attempts
        elif line.event == LEASED:
            job.attempts += 1
        if line.event in (ACKED, DEAD):
            job.result, job.result_error = facts.result.copy(), facts.result_error or ""
        return ""


_line = msgspec.json.Decoder(_Line)
_facts = msgspec.json.Decoder(_Facts)


def _read(text: bytes) -> _Line:
    """A parsed line. Raises ValueError."""
    text.decode()  # msgspec does not check the UTF-8 of a Raw payload
    line = _line.decode(text)
    if line.event not in STATES:
        raise ValueError(f"unknown event {line.event[:50]!r}")
    if line.metadata is None:  # the members of metadata may be in the line itself
        line.metadata = _facts.decode(text)
    return line


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
