"""Outcomes of a handler beside a plain result.

`FASTQ_KEY=client_… custom_results.py submit`, `FASTQ_KEY=worker_… custom_results.py work`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import fastq

QUEUE = "payments"
KINDS = ["paid", "declined", "bank is closed", "not an account"]


@dataclass
class Payment:
    kind: str
    cents: int


worker = fastq.Worker()


@worker.handles(QUEUE)
def pay(job: fastq.Job[Payment]) -> Any:
    match job.payload.kind:
        case "paid":
            return fastq.Success({"receipt": f"r-{job.payload.cents}"})
        case "declined":  # retried after the job's backoff, while attempts are left
            return fastq.Failure(error="the card was declined", code="declined")
        case "bank is closed" if job.attempt == 1:  # retried after a time that the handler chooses
            return fastq.Failure(error="the bank is closed", code="closed", retry_after_ms=50)
        case "not an account":  # not retried
            return fastq.Failure(error="there is no such account", code="no_account", discard=True)
    return "paid in the end"


def submit() -> None:
    with fastq.Client() as client:
        backoff = fastq.Backoff(base_ms=10, factor=2, cap_ms=1000)
        submitted = client.submit_many(
            fastq.NewJob(payload=Payment(kind, 995), queue=QUEUE, max_retries=2, backoff=backoff) for kind in KINDS
        )
        for kind, one in zip(KINDS, submitted, strict=True):
            job = client.wait_for_completion(one.job_id, timeout_s=60)
            said = job.result if job.is_successful else job.error
            print(f"{kind}: {job.state} after {job.attempts} attempt(s), {said}")


if __name__ == "__main__":
    submit() if sys.argv[1:] == ["submit"] else worker.run()
