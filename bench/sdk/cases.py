"""The cases: a side, how it submits, and how its worker is set up."""

from __future__ import annotations

from dataclasses import dataclass

PINNED = {
    "rq": ["rq==3.0.0", "redis==8.1.0"],
    "arq": ["arq==0.28.0", "redis[hiredis]==5.3.1", "uvloop==0.23.0"],
    "saq": ["saq[redis]==0.26.4", "typing-extensions==4.16.0", "uvloop==0.23.0"],
    "celery": ["celery[redis]==5.7.0", "redis==6.4.0"],
    "dramatiq": ["dramatiq[redis]==2.2.1"],
}


@dataclass(frozen=True)
class Case:
    """`at_a_time`: requests in flight while it submits. `syncs`: how its Redis is set up."""

    side: str
    name: str
    submit: str
    work: str
    slots: int = 1
    at_a_time: int = 1
    jobs: int = 5000
    syncs: tuple[str, ...] = ("never",)


BOTH = ("never", "always")
CASES = [
    Case("fastq", "1 slot, sync", "submit", "work", jobs=20_000),
    Case("fastq", "16 slots, sync", "submit_many", "work", 16, jobs=50_000),
    Case("fastq", "256 slots, sync", "submit_many", "work", 256, jobs=50_000),
    Case("fastq", "1 slot, async", "submit_async", "work_async", jobs=20_000),
    Case("fastq", "16 slots, async", "submit_async", "work_async", 16, 64, jobs=50_000),
    Case("fastq", "256 slots, async", "submit_many", "work_async", 256, jobs=100_000),
    Case("rq", "SimpleWorker", "submit", "work", syncs=BOTH),
    Case("rq", "Worker, a fork each", "submit_many", "work_forked", jobs=500),
    Case("arq", "1 slot", "submit_async", "work_async", jobs=1000),
    Case("arq", "256 slots", "submit_async", "work_async", 256, 64, syncs=BOTH),
    Case("saq", "1 slot", "submit_async", "work_async", syncs=BOTH),
    Case("saq", "256 slots", "submit_async", "work_async", 256, 64),
    Case("celery", "solo, 1 slot", "submit", "work", syncs=BOTH),
    Case("celery", "16 threads", "submit", "work", 16),
    Case("dramatiq", "1 thread", "submit", "work", jobs=2000),
    Case("dramatiq", "16 threads", "submit", "work", 16, syncs=BOTH),
]
