"""Submit a job, wait until a worker has done it, and use the result."""

from __future__ import annotations

import fastq

with fastq.Client() as client:  # FASTQ_URL and FASTQ_KEY, a client's key
    submitted = client.submit({"mail": "ann@example.org"})
    print("submitted", submitted.job_id)
    job = client.wait_for_completion(submitted.job_id, timeout_s=60)
    print(f"{job.state} after {job.attempts} attempt(s): {job.result or job.error}")
