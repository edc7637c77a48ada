"""Submit a job, wait for its end, and use the result."""

from __future__ import annotations

import fastq

with fastq.Client() as client:  # reads FASTQ_URL and FASTQ_KEY, a client key
    submitted = client.submit({"mail": "ann@example.org"})
    print("submitted", submitted.job_id)
    job = client.wait_for_completion(submitted.job_id, timeout_s=60)
    print(f"{job.state} after {job.attempts} attempt(s): {job.result or job.error}")
