"""Three steps. The ack of one and the submit of the next are one transaction: both happen, or neither.

`FASTQ_KEY=client_… pipeline.py submit`, `FASTQ_KEY=worker_… pipeline.py work`. A worker key may submit follow-up
jobs; they belong to the owner of the first job.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import fastq


@dataclass
class Order:
    number: int
    done: list[str] = field(default_factory=list)


worker = fastq.Worker()


def step(job: fastq.Job[Order], name: str, next_queue: str) -> fastq.Success[str]:
    order = Order(job.payload.number, [*job.payload.done, name])
    return fastq.Success(name, then=[fastq.NewJob(payload=order, queue=next_queue, tags=[f"order-{order.number}"])])


@worker.handles("fetch")
def fetch(job: fastq.Job[Order]) -> fastq.Success[str]:
    return step(job, "fetched", "pack")


@worker.handles("pack")
def pack(job: fastq.Job[Order]) -> fastq.Success[str]:
    return step(job, "packed", "ship")


@worker.handles("ship")
def ship(job: fastq.Job[Order]) -> str:
    print(f"order {job.payload.number}: {', '.join([*job.payload.done, 'shipped'])}", flush=True)
    return "shipped"


def submit() -> None:
    with fastq.Client() as client:
        job = client.submit_and_wait(Order(7), queue="fetch", idempotency_key="order-7", timeout_s=60)
        print(f"order 7 is {job.result}, the next step is on its way")


if __name__ == "__main__":
    submit() if sys.argv[1:] == ["submit"] else worker.run()
