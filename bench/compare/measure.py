"""The loads: one system at a time, one step after the other, and the cost of a million waiting jobs."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.compare import generator, machine
from bench.compare.system import System
from bench.load import pinned

BATCH = 100  # jobs in a batch
FAULTS = (RuntimeError, OSError, subprocess.SubprocessError)  # a system that fails
REASON_CHARS = 300
FILL_S = 180.0  # at most, to store all waiting jobs


@dataclass(frozen=True)
class Step:
    """One load. `cycle` steps count acked jobs, others submitted jobs."""

    name: str
    title: str
    producers: int
    consumers: int = 0
    batch: int = 1

    def operations(self, figures: dict[str, Any]) -> int:
        done: int = figures["acked" if self.consumers else "submitted"]
        return done


STEPS = (
    Step("cycle", "cycle 64 + 64", 64, consumers=64),
    Step("submit-1", "submit c=1", 1),
    Step("submit-16", "c=16", 16),
    Step("submit-64", "c=64", 64),
    Step("submit-256", "c=256", 256),
    Step("batch", "batches of 100", 16, batch=BATCH),
)


@dataclass(frozen=True)
class Place:
    """Where a run takes place. Cores by number; empty: any."""

    directory: Path
    program: Path
    server_core: str
    generator_core: str


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """A directory that other users may enter: PostgreSQL runs as its own user."""
    with tempfile.TemporaryDirectory(prefix="fastq-bench-", dir=directory) as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


def run_step(place: Place, server: System, step: Step, seconds: float) -> dict[str, Any]:
    """Run one load. Returns its figures as JSON values."""
    figures = generator.load(
        place.program, server.plan(step.batch), server.port, producers=step.producers, consumers=step.consumers,
        seconds=seconds, command=pinned(place.generator_core), server_cpu_s=server.cpu_s,
    )  # fmt: skip
    return dataclasses.asdict(figures)


def syncs(place: Place) -> dict[str, float]:
    """The latency of fdatasync now: size in bytes -> microseconds."""
    with scratch(place.directory) as path:
        return {str(size): machine.sync_us(path, size) for size in machine.SYNC_SIZES_BYTES}


def one_life(
    place: Place, system: type[System], seconds: float, life: dict[str, Any], say: Callable[[Step], None]
) -> None:
    """Run all steps on a new server. Figures go into `life` as they come; a failure goes there too, not raised."""
    os.sync()  # so that this server does not pay for the last one's writes
    life["sync_us"] = syncs(place)
    try:
        with scratch(place.directory) as path, system(path / system.name, place.server_core) as server:
            for step in STEPS:
                life["steps"][step.name] = run_step(place, server, step, seconds)
                say(step)
    except FAULTS as error:
        life["failed"] = reason(error)


def reason(error: BaseException) -> str:
    """The end of an error's message, in one line."""
    return " ".join(str(error).split())[-REASON_CHARS:] or type(error).__name__


def rounds(
    place: Place, systems: Sequence[type[System]], count: int, seconds: float, say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Run all systems in turn, `count` times: one dict for each server. A system that failed has no more turns."""
    begun_s = time.monotonic()
    failed: set[str] = set()
    for number in range(1, count + 1):
        for system in systems:
            if system.name in failed:
                continue
            life: dict[str, Any] = {"round": number, "system": system.name, "steps": {}}
            at = f"round {number} of {count}  {system.name:<11}"

            def said(step: Step, life: dict[str, Any] = life, at: str = at) -> None:
                figures = life["steps"][step.name]
                line = f"{at} {step.name:<10} {step.operations(figures) / figures['seconds']:>9,.0f}/s"
                errors = f"  {figures['errors']} errors" if figures["errors"] else ""
                say(f"[{time.monotonic() - begun_s:4.0f} s] {line}{errors}")

            one_life(place, system, seconds, life, said)
            if "failed" in life:
                failed.add(system.name)
                say(f"{at} failed: {life['failed']}")
            yield life


def waiting_or_why(place: Place, system: type[System], jobs: int) -> dict[str, Any]:
    """`waiting`, or why there are no figures."""
    os.sync()
    try:
        return waiting(place, system, jobs)
    except FAULTS as error:
        return {"system": system.name, "failed": reason(error)}


def waiting(place: Place, system: type[System], jobs: int) -> dict[str, Any]:
    """The memory and disk of waiting jobs, and the time from kill -9 and a start to the first leased job.

    Jobs are stored in batches, and without waiting for the disk where a system can do that: the figures are the same.
    """
    with scratch(place.directory) as path, system(path / system.name, place.server_core) as server:
        server.stop()
        disk_before = server.disk_bytes()
        server.launch(synced=False)
        server.wait_until_it_answers(with_a_job=False)
        memory_before = server.memory_bytes()
        figures = generator.load(
            place.program, server.plan(BATCH), server.port, producers=4, consumers=0, seconds=FILL_S, limit=jobs,
            command=pinned(place.generator_core), server_cpu_s=server.cpu_s,
        )  # fmt: skip
        if figures.errors or figures.submitted < jobs:
            raise RuntimeError(f"it took only {figures.submitted:,} jobs in {figures.seconds:.0f} s")
        server.stop()
        disk = server.disk_bytes()
        server.launch()
        server.wait_until_it_answers(with_a_job=True)
        memory = server.memory_bytes()
        server.kill()
        begun_s = time.monotonic()
        server.launch()
        server.wait_until_it_answers(with_a_job=True)
        recovery_s = time.monotonic() - begun_s
        return {
            "system": system.name, "jobs": figures.submitted, "memory_bytes": memory,
            "memory_before_bytes": memory_before, "disk_bytes": disk - disk_before, "recovery_s": recovery_s,
        }  # fmt: skip
