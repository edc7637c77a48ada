"""The figures of GET /stats. The names are those of the API."""

from __future__ import annotations

from datetime import datetime

import msgspec

from fastq.client.answers import AnswerStruct


class Quantiles(AnswerStruct, frozen=True):
    """Milliseconds, of the last minute. None: there was nothing to measure."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Latencies(AnswerStruct, frozen=True):
    """submit_to_durable: of a batch of changes. submit_to_lease: from when a job is due."""

    submit_to_durable: Quantiles = Quantiles()
    submit_to_lease: Quantiles = Quantiles()
    lease_to_ack: Quantiles = Quantiles()


class LogStats(AnswerStruct, frozen=True):
    """The write-ahead log, over the last minute. A batch is what one sync makes durable, an op a record in it."""

    bytes: int = 0
    batches_per_s: float = 0.0
    ops_per_batch: float = 0.0
    fsync_ms: Quantiles = Quantiles()


class MemoryStats(AnswerStruct, frozen=True):
    rss_bytes: int = 0


class QueueStats(AnswerStruct, frozen=True):
    """A queue. Its rates are those of the last 10 s; they and the age are None to a key of one owner."""

    name: str
    runnable: int
    running: int
    scheduled: int
    dead: int
    oldest_ready_s: float | None = None
    in_per_s: float | None = None
    out_per_s: float | None = None
    failed_per_s: float | None = None


class Stats(AnswerStruct, frozen=True, kw_only=True):
    """The jobs that the key sees counted. What is about the whole server is None to a key that does not see all.

    queues: at most 100 of `queue_count`, the one with the oldest ready job first. rates: how many a second by name and
    period (`1s`, `10s`, `60s`). oldest_ready_s: how long the job that waits the longest is due; 0: none is.
    """

    runnable: int
    running: int
    scheduled: int
    dead: int
    states: dict[str, int]
    queues: list[QueueStats]
    queue_count: int
    at: datetime
    uptime_s: float
    version: str
    role: str = ""
    oldest_ready_s: float | None = None
    rates: dict[str, dict[str, float]] | None = None
    latency_ms: Latencies | None = None
    wal: LogStats | None = None
    memory: MemoryStats | None = None


read_stats = msgspec.json.Decoder(Stats).decode
