"""Submit a job every night, Vienna time. `FASTQ_KEY=admin_… cron.py`, or a key with the scope schedules:manage."""

from __future__ import annotations

import fastq

with fastq.Client() as client:
    nightly = fastq.Cron("30 2 * * *", timezone="Europe/Vienna", catch_up="one", overlap="skip")
    schedule = client.put_schedule("nightly-report", nightly, {"report": "daily"}, queue="reports", max_retries=5)
    print("next at", schedule.next_at)
    print("and once now:", client.get(client.run_schedule("nightly-report")).state)
