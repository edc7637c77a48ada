"""Measure the memory of waiting jobs, the slowest submit while they grow, and the memory kept after they are done.

python -m bench.growth [--jobs N]: one process for each kind of job, the core alone, frames durable as soon as they are
taken, no cache of the log. Payloads have 100 bytes; they are in the log only, so larger ones take the same memory.
All scheduled jobs are due at one time: the slices that make them ready are timed too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.bare import START_US, Bare
from fastq._core import ALL, Ack, NewJob, SubmitOptions

PAYLOAD = b'"' + b"x" * 98 + b'"'
KINDS = ("plain", "keyed", "scheduled")
GROUPS = 1000  # of keyed jobs
SLICE = 1000  # as the engine takes in one turn of the loop
SETTLE_EVERY = 64  # submits in a frame


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Growing(Bare):
    def submit(self, kind: str, number: int) -> None:
        options = None
        if kind == "keyed":
            options = SubmitOptions(group=f"group{number % GROUPS}", unique_key=f"key{number}")
        run_at_us = START_US + 10**12 if kind == "scheduled" else 0
        new = NewJob(PAYLOAD, 3, run_at_us=run_at_us, options=options)
        self.core.submit(START_US + number, new, owner_id="ann", key_id="client_abcdefghijkl")


def grow(kind: str, jobs: int) -> None:
    bare = Growing()
    before, slowest = rss_bytes(), [0.0] * 3
    began = time.process_time()
    for number in range(jobs):
        at = time.thread_time()
        bare.submit(kind, number)
        took = time.thread_time() - at  # this thread's own time: other processes do not count
        if took > slowest[0]:
            slowest = sorted([*slowest[1:], took])
        if number % SETTLE_EVERY == 0:
            bare.settle()
    print(
        f"{kind}: {jobs} jobs, {(rss_bytes() - before) / jobs:.1f} B each, "
        f"{(time.process_time() - began) / jobs * 1e6:.2f} us each; "
        f"slowest submits {', '.join(f'{took * 1e3:.2f}' for took in reversed(slowest))} ms"
    )
    if kind == "scheduled":
        come_due(bare, jobs)
    else:
        drain(bare, jobs, before)


def come_due(bare: Growing, jobs: int) -> None:
    """Make all jobs ready in the slices of the engine's timer."""
    slices = []
    while True:
        at = time.thread_time()
        moved = bare.core.advance(START_US + 10**12, SLICE)
        slices.append(time.thread_time() - at)
        if moved < SLICE:
            break
    assert bare.core.queue(bare.now_us, ALL, "default").ready == jobs
    print(f"due at once: {sum(slices):.2f} s for all, the slowest of {len(slices)} slices {max(slices) * 1e3:.2f} ms")


def drain(bare: Growing, jobs: int, before: int) -> None:
    """Lease, ack and forget all jobs, and measure the memory that is left."""
    now_us, slowest = START_US + 10**12, 0.0
    bare.core.retain(0, 0, 0, 0)
    done = 0
    while done < jobs:
        granted = bare.core.lease(now_us, ["default"], 100, lease_ms=30_000, key_id="worker_abcdefghijkl")
        at = time.thread_time()
        for leased in granted:
            bare.core.ack(now_us, ALL, Ack(leased.job_id, leased.token), key_id="worker_abcdefghijkl")
        bare.core.forget(now_us + 10, SLICE)
        slowest = max(slowest, time.thread_time() - at)
        done += len(granted)
        bare.settle()
    left = rss_bytes() - before
    print(f"drained: {left >> 20} MiB of memory left; slowest {slowest * 1e3:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=KINDS)
    asked = parser.parse_args()
    if asked.kind:
        grow(asked.kind, asked.jobs)
        return
    for kind in KINDS:
        subprocess.run([sys.executable, "-m", "bench.growth", "--kind", kind, "--jobs", str(asked.jobs)], check=True)


if __name__ == "__main__":
    main()
