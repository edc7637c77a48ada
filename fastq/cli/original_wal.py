"""The log of the original server, `jobs.wal`: one JSON object a line, replayed into what became of each job."""

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
    """A job as the last line about it left it. Payload and result are JSON as it stands; created_s is Unix seconds."""

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
        """As `max_retries` of a job that begins anew; one that was under way when the attempts were used up has one."""
        return self.max_retries if not self.attempts else max(1, self.max_retries - self.attempts)


@dataclass
class Replayed:
    """Jobs by id, in the order of their creation; `damage`: what could not be read, a line for a person each."""

    jobs: dict[str, OriginalJob] = field(default_factory=dict)
    lines: int = 0
    damage: list[str] = field(default_factory=list)
    torn: str = ""
    _orphans: set[str] = field(default_factory=set)

    def take(self, number: int, text: bytes) -> None:
        """One line, its end included; the end of the last one may be missing."""
        self.lines = number
        if not text.strip():
            return
        try:
            line = _read(text)
        except ValueError as error:  # msgspec's are, and what is no UTF-8
            if text.endswith(b"\n"):
                self.damage.append(f"line {number}: {error}")
            else:
                self.torn = f"line {number} is torn, as a crash leaves it: passed over"
            return
        if wrong := self._apply(line):
            self.damage.append(f"line {number}: {wrong}")

    def _apply(self, line: _Line) -> str:
        """What is wrong with it, if anything is."""
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
            return f"{line.event} of job {line.job_id}, whose {CREATED} is not there"
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
    """Raises ValueError."""
    text.decode()  # msgspec passes over what is inside a payload
    line = _line.decode(text)
    if line.event not in STATES:
        raise ValueError(f"no event that is known: {line.event[:50]!r}")
    if line.metadata is None:  # they may stand beside the others
        line.metadata = _facts.decode(text)
    return line


def replayed(lines: Iterable[bytes]) -> Replayed:
    """All of a log."""
    found = Replayed()
    for number, text in enumerate(lines, 1):
        found.take(number, text)
    return found


def in_batches(jobs: Iterable[OriginalJob], jobs_max: int, bytes_max: int) -> Iterator[list[OriginalJob]]:
    """In order; a job with a payload past `bytes_max` is in a batch of its own."""
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
