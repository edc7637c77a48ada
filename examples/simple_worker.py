"""A worker. `python examples/simple_worker.py`, or `fastq worker simple_worker:worker --concurrency 8`."""

from __future__ import annotations

from typing import Any

import fastq


def send(job: fastq.Job[dict[str, Any]]) -> str:
    return f"sent to {job.payload['mail']}"


worker = fastq.Worker(send)  # reads FASTQ_URL and FASTQ_KEY, a worker key

if __name__ == "__main__":
    worker.run()
