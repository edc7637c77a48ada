"""GET /metrics: what Prometheus reads."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from fastq.engine.commands import Submit
from fastq.http import exposition
from fastq.services.keys import Grants
from tests.engines import CLIENT
from tests.http.world import World, running

PROMTOOL = Path("/usr/bin/promtool")
OPEN_METRICS = ("Accept", "application/openmetrics-text; version=1.0.0")
Sample = Callable[..., float | None]


async def scraped(world: World, *headers: tuple[str, str], who: str = "admin") -> str:
    reply = await world.call(who, "GET", "/metrics", headers=headers)
    assert reply.status == 200, reply.body
    return reply.body.decode()


async def samples(world: World) -> Sample:
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(await scraped(world))
        for sample in family.samples
    }
    return lambda name, **labels: found.get((name, frozenset(labels.items())))


async def work(world: World) -> None:
    """Three jobs of mail: one acked, one that failed for good, one ready; and one that waits elsewhere."""
    for _ in range(3):
        await world.submit(queue="mail", max_retries=0)
    await world.submit(queue="web", delay_ms=3_600_000)
    for error in ({}, {"result_error": "no"}):
        leased = await world.lease({"queues": ["mail"]})
        body = {"lease_token": leased["lease_token"], **error}
        assert (await world.call("worker", "POST", f"/jobs/{leased['job_id']}/ack", body)).status == 200


async def test_queues_have_depths_ages_counts_and_durations(world: World) -> None:
    await work(world)
    world.hands.ahead_us += 5_000_000
    value = await samples(world)
    states = {state: value("fastq_jobs", queue="mail", state=state) for state in ("ready", "acked", "dead", "running")}
    assert states == {"ready": 1, "acked": 1, "dead": 1, "running": 0}
    assert value("fastq_jobs", queue="web", state="scheduled") == 1
    assert value("fastq_jobs", queue="(other)", state="ready") == 0
    age_s = value("fastq_oldest_ready_seconds", queue="mail")
    assert age_s is not None and 4.8 <= age_s < 60
    assert value("fastq_oldest_ready_seconds", queue="web") == 0
    for name, count in (("jobs_submitted", 3), ("jobs_acked", 1), ("attempts_failed", 1), ("jobs_died", 1)):
        assert value(f"fastq_{name}_total", queue="mail") == count
    assert value("fastq_wait_seconds_count", queue="mail") == 2
    assert value("fastq_run_seconds_bucket", queue="mail", le="+Inf") == 1
    assert value("fastq_run_seconds_count", queue="(other)") == 0


async def test_only_paused_queues_are_said_to_be(world: World) -> None:
    await work(world)
    assert (await world.call("admin", "POST", "/queues/mail/pause")).status == 200
    value = await samples(world)
    assert value("fastq_queue_paused", queue="mail") == 1
    assert value("fastq_queue_paused", queue="web") is None


async def test_the_server_has_its_log_and_its_requests(world: World) -> None:
    await work(world)
    assert (await world.call("admin", "GET", "/jobs/absent")).status == 404
    value = await samples(world)
    assert (value("fastq_wal_batches_total") or 0) > 0
    assert (value("fastq_commit_seconds_count") or 0) > 0
    assert (value("process_resident_memory_bytes") or 0) > 1 << 20
    assert value("fastq_key_store_up") == value("fastq_accepting") == 1
    assert value("fastq_event_streams") == 0
    assert value("fastq_info", version=exposition.__version__, role="single") == 1
    assert value("fastq_http_requests_total", route="/jobs/{job_id}", status="4xx") == 1
    short = value("fastq_http_short_way_requests_total") or 0
    plain = value("fastq_http_requests_total", route="/jobs", status="2xx") or 0
    assert short + plain >= 4
    world.engine.drain()
    assert (await samples(world))("fastq_accepting") == 0


async def test_both_formats_say_the_same_and_are_sound(world: World) -> None:
    await work(world)
    text, opened = await scraped(world), await scraped(world, OPEN_METRICS)
    assert opened.endswith("# EOF\n") and opened.count("# EOF") == 1 and "# EOF" not in text
    names = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert {sample.name for family in open_metrics(opened) for sample in family.samples} == names
    assert len(names) > 25
    assert len(re.findall("# TYPE fastq_jobs gauge", text)) == 1
    check_with_promtool(text)


def check_with_promtool(text: str) -> None:
    if not PROMTOOL.exists():
        pytest.skip(f"there is no {PROMTOOL}")
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_the_scope_is_metrics_read(world: World) -> None:
    for who in ("client", "worker"):
        assert (await world.call(who, "GET", "/metrics")).status == 403
    await world.make_key("scraper", "worker", grants=Grants(scopes=("metrics:read",)))
    assert "fastq_jobs" in await scraped(world, who="scraper")


async def test_a_hundred_thousand_queues_are_summed_in_slices() -> None:
    total = 100_000
    async with running() as world:
        for first in range(0, total, 10_000):
            await world.ask.submit_many(CLIENT, [Submit(b"1", queue=f"q{first + n}") for n in range(10_000)])
        value = await samples(world)
        assert value("fastq_jobs", queue="q0", state="ready") == 1
        assert value("fastq_jobs", queue=f"q{exposition.QUEUES_MAX}", state="ready") is None
        assert value("fastq_jobs", queue="(other)", state="ready") == total - exposition.QUEUES_MAX
        assert value("fastq_jobs_submitted_total", queue="(other)") == total - exposition.QUEUES_MAX
        text = await scraped(world, OPEN_METRICS)
        assert len(list(open_metrics(text))) > 10
        assert text.count("\n") < 40_000
