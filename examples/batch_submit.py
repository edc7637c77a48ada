"""Submit many jobs in one request, all or none of them: some with a delay, one with a unique key."""

from __future__ import annotations

import fastq

with fastq.Client() as client:
    jobs = [fastq.NewJob(payload={"mail": f"reader{i}@example.org"}, tags=["newsletter"]) for i in range(1000)]
    jobs.append(fastq.NewJob(payload={"mail": "editor@example.org"}, delay_ms=60_000, priority=10))
    jobs.append(fastq.NewJob(payload={"mail": "owner@example.org"}, unique_key="owner's copy"))
    submitted = client.submit_many(jobs)
    again = client.submit(jobs[-1].payload, unique_key="owner's copy")
    print(f"{len(submitted)} jobs; the owner's copy was {'there already' if again.duplicate else 'sent at once'}")
