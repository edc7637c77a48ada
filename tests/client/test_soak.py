"""Hundreds of handlers that misbehave at random, in one worker. It comes out as it went in."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from fastq import Client, NewJob
from fastq.clock import monotonic_us
from tests.client import deeds
from tests.client.programs import Program, is_running
from tests.client.served import WAIT_S, Place

pytestmark = pytest.mark.slow

JOBS = 240
BYTES_MAX = 200 << 20  # the largest results are 50 MB, in more than one copy
KINDS = ("async", "thread", "process")
SCRIPT = """
from tests.client import deeds

def ends(job):
    if job.payload == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)

worker = fastq.Worker(concurrency=6, lease_ms=3000)
worker.handles("soak.async")(deeds.loop)
worker.handles("soak.thread")(deeds.thread)
worker.handles("soak.process", in_process=True)(deeds.process)
worker.handles("soak.ends", in_process=True)(ends)
worker.run()
"""


class Held:
    """What a process holds: descriptors, threads, child processes, and resident bytes."""

    def __init__(self, pid: int) -> None:
        proc = Path(f"/proc/{pid}")
        self.descriptors = len(list((proc / "fd").iterdir()))
        self.threads = len(list((proc / "task").iterdir()))
        children = [pid for task in (proc / "task").iterdir() for pid in (task / "children").read_text().split()]
        self.children = sum(is_running(int(pid)) for pid in children)  # nobody waits for those that handlers fork
        self.resident_bytes = int((proc / "statm").read_text().split()[1]) * 4096

    def is_near(self, before: Held) -> bool:
        """A few idle connections, threads and processes more are the pools of the worker."""
        return (
            self.descriptors <= before.descriptors + 12
            and self.threads <= before.threads + 10
            and self.children <= before.children + 2
            and self.resident_bytes <= before.resident_bytes + BYTES_MAX
        )


def expected(job: Any) -> tuple[str, Any]:
    if job.queue == "soak.ends":
        return "DEAD", None
    return ("DEAD", None) if job.payload in deeds.DEEDS else ("ACKED", deeds.ODD[job.payload][1])


def test_a_worker_is_as_it_was_after_hundreds_of_misdeeds(place: Place, tmp_path: Path, client: Client) -> None:
    rng = random.Random(12)
    names = [*deeds.DEEDS, *deeds.ODD]
    jobs = [NewJob(payload=rng.choice(names), queue=f"soak.{rng.choice(KINDS)}", max_retries=0) for _ in range(JOBS)]
    jobs += [NewJob(payload=how, queue="soak.ends", max_retries=0) for how in ("exit", "kill")]
    with Program(place, tmp_path, SCRIPT) as program:
        for kind in KINDS:  # each pool has begun
            assert client.submit_and_wait("subprocess", queue=f"soak.{kind}", timeout_s=WAIT_S).result == 0
        before = Held(program.process.pid)
        stored = client.submit_many(jobs)
        ended = [client.wait_for_completion(one.job_id, 90) for one in stored]
        wrong = [
            (job.payload, job.queue, done.state, done.error)
            for job, done in zip(jobs, ended, strict=True)
            if (done.state, done.result if done.state == "ACKED" else None) != expected(job)
        ]
        assert wrong == []
        begun_us = monotonic_us()
        while not (held := Held(program.process.pid)).is_near(before):  # those left behind end after 3 s
            assert monotonic_us() - begun_us < WAIT_S * 1e6, (vars(before), vars(held))
            threading.Event().wait(0.1)
        assert program.ends(signal.SIGTERM) == 0
    assert "bug in the worker" not in program.said
