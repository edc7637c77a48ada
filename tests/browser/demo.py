"""A server that looks like one in use: queues in every condition, failures, schedules, workers, keys."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from fastq import Client, Cron
from fastq.client.models import LeasedJob, NewJob
from fastq.client.operator_models import QueueSettings, RateLimit
from fastq.client.schedule_models import Every
from fastq.services.trends import Point
from fastq.services.trends_file import TrendsFile
from tests.served import Served

FAILURES = (
    (
        "mail",
        "smtp_451",
        "SMTP 451 4.7.1 Greylisted, try again in 300 seconds\nTraceback (most recent call last): …",
        14,
    ),
    ("mail", "bad_address", "no MX record for exmaple.com", 5),
    ("thumbnails", "decode", "cannot identify image file 'IMG_20261104.HEIC'", 9),
    ("webhooks", "timeout", "POST https://hooks.example.net/v2/orders: no answer in 10 s", 23),
    ("reports", "", "MemoryError", 2),
)
OWNERS = {"shop": ("mail", "webhooks"), "media": ("thumbnails",), "finance": ("reports", "exports")}


STEP_S, STEPS = 30, 120  # of the charts: the last hour


def remember(directory: Path) -> None:
    """Write the last hour into the file of a server's charts, before its start: mail has been piling up for a while."""
    directory.mkdir()
    last_s = int(time.time()) // STEP_S * STEP_S
    path = directory / "trends.db"
    file = TrendsFile(path)
    file.open(last_s * 1_000_000)
    for step in range(STEPS):
        wave, piling = 1 + 0.25 * math.sin(step / 9), max(step - 80, 0)
        mail_in, others = 6.2 * wave, 11 * wave
        mail_out = mail_in if not piling else 2.6
        at_s = last_s - (STEPS - step) * STEP_S
        mail = Point(
            at_s, mail_in, mail_out, 0.9 if piling else 0.05, 40 + piling * 102, piling * STEP_S,
            8 + piling**2 * 70, 30 + piling**2 * 160,
        )  # fmt: skip
        everything = Point(
            at_s, mail_in + others, mail_out + others, 1.1 if piling else 0.2, 190 + piling * 102, piling * STEP_S,
            6 + piling * 12, 40 + piling**2 * 150,
        )  # fmt: skip
        file.write([("", everything), ("mail", mail)], [], at_s)
    file.close()


def fill(server: Served) -> dict[str, str]:
    """Fill it. Return ids by what they show: `dead`, `running`, `ready`, `done`, `paused`."""
    url = f"http://127.0.0.1:{server.port}"
    with Client(url, server.keys["admin"]) as admin, Client(url, server.keys["worker"]) as worker:
        _keys(admin)
        ids = _done_and_failed(admin, worker)
        _settings(admin)
        ids |= _waiting(admin)
        ids["running"] = _running(admin, worker)
        _schedules(admin)
    return ids


def _keys(admin: Client) -> None:
    for owner, queues in OWNERS.items():
        admin.create_key(f"{owner} web", owner, "client", rate_limit=500)
        admin.create_key(f"{owner} workers", owner, "worker", queues=list(queues))
    old = admin.create_key("laptop of Ann", "ann", "client")
    admin.revoke_key(old.key_id)


def _settings(admin: Client) -> None:
    admin.put_queue("mail", QueueSettings(rate_limit=RateLimit(50, 1000), concurrency=40))
    admin.put_queue("reports", QueueSettings(concurrency=2, fair=True, lease_ms=600_000))


def _done_and_failed(admin: Client, worker: Client) -> dict[str, str]:
    """Jobs at their end, so that the newest of the list are not all of one kind."""
    ids = {}
    for queue, code, error, count in FAILURES:
        failing = [
            NewJob(payload={"order": 48_211 + n, "to": f"customer{n}@example.com"}, queue=queue, max_retries=0)
            for n in range(count)
        ]
        admin.submit_many(failing)
        for job in worker.lease([queue], limit=count, worker_id=f"{queue}-1"):
            worker.fail(job, error, code=code or None)
            ids.setdefault("dead", job.job_id)
    for queue, count in (("mail", 240), ("thumbnails", 120), ("webhooks", 310), ("exports", 12)):
        admin.submit_many(
            [NewJob(payload={"order": 51_000 + n}, queue=queue, tags=["eu" if n % 3 else "us"]) for n in range(count)]
        )
        for n, job in enumerate(worker.lease([queue], limit=1000, worker_id=f"{queue}-{count % 3 + 1}")):
            worker.ack(job, {"bytes": 9_007_199_254_740_993 + n, "ok": True})
            ids["done"] = job.job_id
    return ids


def _waiting(admin: Client) -> dict[str, str]:
    def mail(n: int) -> dict[str, Any]:
        return {"to": f"customer{n}@example.com", "template": "order-confirmed", "order": 52_000 + n, "total": 129.90}

    admin.submit_many([NewJob(payload=mail(n), queue="mail", group=f"shop-{n % 5}") for n in range(4112)])
    admin.submit_many(
        [
            NewJob(payload={"url": f"/media/{n}.jpg"}, queue="thumbnails", delay_ms=3_600_000 + n * 60_000)
            for n in range(64)
        ]
    )
    admin.submit_many([NewJob(payload={"month": f"2026-{n + 1:02}"}, queue="reports") for n in range(9)])
    admin.submit_many([NewJob(payload={"invoice": n}, queue="billing") for n in range(37)])
    admin.pause_queue("billing", reason="the provider is down until noon, ask Ann")
    ready = admin.submit(mail(0), queue="mail", priority=5, tags=["vip", "eu"])
    return {"ready": ready.job_id, "paused": next(admin.jobs(queue="billing", state="READY")).job_id}


def _running(admin: Client, worker: Client) -> str:
    """Jobs that workers hold, and one that got on."""
    held: list[LeasedJob] = []
    for queue, limit in (("mail", 12), ("webhooks", 0), ("reports", 2), ("thumbnails", 0)):
        for number in range(1, 3):
            worker_id = f"{queue}-{number}"
            jobs = worker.lease([queue], limit=max(limit // number, 1), worker_id=worker_id, lease_ms=600_000)
            worker.heartbeat(worker_id, jobs, host=f"app-{number}.example.com", version="shop 4.18.2")
            held += jobs
    report = next(job for job in held if job.queue == "reports")
    worker.progress(report, 40, "812 of 2,030 invoices")
    return report.job_id


def _schedules(admin: Client) -> None:
    admin.put_schedule(
        "nightly-report", Cron("30 2 * * *", timezone="Europe/Berlin"), {"report": "daily"}, queue="reports"
    )
    admin.put_schedule("invoices", Cron("0 6 1 * *"), {"run": "invoices"}, queue="billing")
    admin.put_schedule("clean-uploads", Every(900_000), {"older_than_days": 30}, queue="exports")
    admin.put_schedule("newsletter", Cron("0 9 * * 1", timezone="Europe/Berlin"), {"list": "weekly"}, queue="mail")
    admin.pause_schedule("newsletter")
    admin.run_schedule("clean-uploads")
