"""Operator calls of both clients: lists, changes of many jobs, queues, schedules, keys."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastq import (
    AsyncClient,
    Backoff,
    BadRequest,
    Client,
    Conflict,
    Cron,
    Forbidden,
    LeasedJob,
    NewJob,
    NotFound,
    Queue,
    QueueSettings,
    RateLimit,
    Retention,
    ServerUnreachable,
    Unauthenticated,
)
from fastq.client import calls, operator_calls
from fastq.clock import monotonic_us
from tests.client.served import WAIT_S, Made, Place, lossy
from tests.served import free_port

MANY = 2_500  # more than two pages
MANY_KEYS = 10_050  # more than the server lists in one answer


def leased(both: Any, queue: str) -> LeasedJob:
    (job,) = both.lease([queue], lease_ms=60_000, worker_id=f"w-{queue}")
    assert isinstance(job, LeasedJob)
    return job


def test_list_jobs_by_page(both: Any, queue: str) -> None:
    ids = [one.job_id for one in both.submit_many([NewJob(payload=i, queue=queue) for i in range(MANY)])]
    assert [job.job_id for job in both.jobs(queue=queue)] == ids[::-1]
    page = both.list_jobs(queue=queue, limit=3)
    assert [job.job_id for job in page.items] == ids[:-4:-1]
    following = both.list_jobs(queue=queue, limit=3, cursor=page.cursor)
    assert [job.job_id for job in following.items] == ids[-4:-7:-1]
    with pytest.raises(BadRequest, match="limit"):
        both.list_jobs(queue=queue, limit=0)


def test_filters_of_list_jobs(both: Any, queue: str) -> None:
    late = both.submit({"to": "ann"}, queue=queue, group="g", tags=["red"], delay_ms=60_000).job_id
    both.submit({"to": "bob"}, queue=queue)

    def found(**where: Any) -> list[str]:
        return [job.job_id for job in both.jobs(queue=queue, **where)]

    assert found(state="SCHEDULED") == found(group="g") == found(tag="red") == found(q='"ann"') == [late]
    now = datetime.now(UTC)
    assert len(found(since=now - timedelta(hours=1))) == 2
    assert found(since=now + timedelta(hours=1)) == []


def test_edit_a_job(both: Any, queue: str) -> None:
    job_id = both.submit("old", queue=queue).job_id
    assert both.edit(job_id, payload={"is": "new"}, priority=9, delay_ms=60_000) == "SCHEDULED"
    job = both.get(job_id, with_payload=True)
    assert (job.payload, job.priority, job.state) == ({"is": "new"}, 9, "SCHEDULED")
    with pytest.raises(BadRequest, match="one of payload"):
        both.edit(job_id)
    both.cancel(job_id)
    with pytest.raises(Conflict):
        both.edit(job_id, priority=1)


def test_submit_a_job_again(both: Any, queue: str) -> None:
    job_id = both.submit({"to": "ann"}, queue=queue, priority=2, tags=["red"]).job_id
    submitted = both.resubmit(job_id, priority=9, delay_ms=60_000)
    job = both.get(submitted.job_id, with_payload=True)
    assert (job.payload, job.priority, job.state, job.tags) == ({"to": "ann"}, 9, "SCHEDULED", ("red",))
    assert not submitted.duplicate and job.job_id != job_id
    with pytest.raises(NotFound):
        both.resubmit("00000000-0000-7000-8000-000000000000")


def test_jobs_by_how_they_failed(both: Any, queue: str) -> None:
    ids = [both.submit(n, queue=queue, max_retries=1).job_id for n in range(2)]
    for job, error in zip(both.lease([queue], limit=2, worker_id="w"), ("disk full", "no luck"), strict=True):
        both.fail(job, error, code="e9")
    (job,) = both.jobs(queue=queue, error="luck", error_code="e9", worker="w")
    assert (job.job_id, job.error, job.error_code) == (ids[1], "no luck", "e9")
    assert job.finished_at >= job.created_at
    assert both.redrive_many(queue=queue, error="disk").changed == 1


def test_attempts_history_and_why(both: Any, queue: str) -> None:
    job_id = both.submit("x", queue=queue).job_id
    assert both.why(job_id).reason == "no_worker"
    both.fail(leased(both, queue), "no luck", code="luck")
    (attempt,) = both.attempts(job_id)
    assert (attempt.number, attempt.outcome, attempt.error, attempt.error_code) == (1, "error", "no luck", "luck")
    assert attempt.worker_id == f"w-{queue}"
    assert [event.what for event in both.history(job_id)] == ["attempt", "submitted"]
    for look in (both.attempts, both.history, both.why):
        with pytest.raises(NotFound):
            look("01a20cc7-8ec2-7154-8000-000000469c9a")


def test_change_many_jobs_by_filter(both: Any, queue: str) -> None:
    ids = [one.job_id for one in both.submit_many([NewJob(payload=i, queue=queue) for i in range(5)])]
    tried = both.cancel_many(queue=queue, dry_run=True)
    assert (tried.matched, tried.changed, tried.complete) == (5, 0, True)
    assert both.cancel_many(queue=queue, ids=ids[:2]).changed == 2
    both.fail(leased(both, queue), "no", discard=True)
    assert both.redrive_many(queue=queue, state="DEAD").changed == 1
    assert both.delete_many(queue=queue, state="CANCELLED").changed == 2
    assert len(list(both.jobs(queue=queue))) == 3
    with pytest.raises(BadRequest, match="filter must have"):
        both.delete_many()


def test_queues(both: Any, made: Made, queue: str) -> None:
    settings = QueueSettings(
        fair=True, concurrency=5, group_concurrency=2, rate_limit=RateLimit(100, 1000), lease_ms=5000,
        backoff=Backoff(10, 2.0, 100), retention=Retention(acked_ms=1000, max=5), max_depth=2,
    )  # fmt: skip
    put = both.put_queue(queue, settings)
    assert isinstance(put, Queue) and put.settings == settings
    assert both.get_queue(queue) == put
    assert queue in [one.name for one in both.queues()]
    assert both.pause_queue(queue).settings.paused
    both.submit("x", queue=queue)
    assert both.lease([queue]) == []
    assert not both.resume_queue(queue).settings.paused
    assert both.get_queue(queue).ready == 1
    with pytest.raises(Conflict, match="unfinished"):
        both.delete_queue(queue)
    assert both.purge_queue(queue).changed == 1
    both.delete_queue(queue)
    with pytest.raises(NotFound):
        both.get_queue(queue)
    with pytest.raises(Forbidden):
        made(key="client").put_queue(queue, settings)
    with pytest.raises(BadRequest, match="concurrency"):
        both.put_queue(queue, QueueSettings(concurrency=0))


def test_schedules_are_listed(both: Any, queue: str) -> None:
    put = both.put_schedule(queue, Cron("0 3 1 1 *", overlap="allow"), {"a": 1}, queue=queue)
    assert bytes(put.job_json) == b'{"payload":{"a":1},"queue":"%s"}' % queue.encode()
    (listed,) = [one for one in both.schedules() if one.name == queue]
    assert (listed.cron, listed.overlap, listed.next_at) == ("0 3 1 1 *", "allow", put.next_at)
    both.delete_schedule(queue)


@pytest.fixture(scope="module")
def many_keys(place: Place) -> tuple[str, list[str]]:
    """One owner's keys: a secret, and the ids in the order in which they were made."""

    async def make() -> tuple[str, list[str]]:
        async with AsyncClient(place.url, place.keys["admin"], timeout_s=WAIT_S) as client:
            made = [client.create_key(f"n{number}", "many", "client") for number in range(MANY_KEYS)]
            keys = await asyncio.gather(*made)
            listed = sorted(keys, key=lambda key: (key.created_at, key.key_id))
            return str(listed[0].key), [key.key_id for key in listed]

    return asyncio.run(make())


def test_all_pages_of_keys(both: Any, made: Made, many_keys: tuple[str, list[str]]) -> None:
    secret, key_ids = many_keys
    assert [one.key_id for one in made(key=secret).own_keys()] == key_ids
    assert [one.key_id for one in both.all_keys() if one.owner_id == "many"] == key_ids


def test_create_rotate_and_revoke_keys(both: Any, made: Made, queue: str) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    key = both.create_key("n", queue, "worker", queues=["a"], rate_limit=1000, scopes=["keys:read"], expires_at=at)
    assert (key.queues, key.rate_limit, key.scopes, key.expires_at) == (("a",), 1000, ("keys:read",), at)
    assert key.key not in repr(key)
    assert [one.key_id for one in made(key=key.key).own_keys()] == [key.key_id]
    (listed,) = [one for one in both.all_keys() if one.owner_id == queue]
    assert listed.key_id == key.key_id and listed.key != key.key
    rotated = both.rotate_key(key.key_id, 0)
    with pytest.raises(Unauthenticated):
        made(key=key.key).own_keys()
    assert made(key=rotated.key).own_keys()[0].key_id == key.key_id
    assert both.revoke_key(key.key_id).key_id == key.key_id
    with pytest.raises(Unauthenticated, match="revoked"):
        made(key=rotated.key).own_keys()
    with pytest.raises(Conflict):
        both.rotate_key(key.key_id)
    with pytest.raises(Forbidden):
        made(key="client").all_keys()


def test_workers_and_audit(both: Any, queue: str) -> None:
    job_id = both.submit("x", queue=queue).job_id
    leased(both, queue)
    (worker,) = [one for one in both.workers().workers if one.worker_id == f"w-{queue}"]
    assert [(lease.job_id, lease.queue) for lease in worker.leases] == [(job_id, queue)]
    both.pause_queue(queue)
    entry = next(iter(both.audit()))
    assert (entry.target, entry.owner_id) == (queue, "dev-admin")


def test_readiness(both: Any, made: Made) -> None:
    assert both.is_ready()
    with pytest.raises(ServerUnreachable):
        made(f"http://127.0.0.1:{free_port()}").is_ready()


def test_unrepeatable_calls_are_not_retried(made: Made, place: Place, both: Any, queue: str) -> None:
    """The answer to the first try is lost."""
    made_before = len(both.all_keys())
    with lossy(place.server.port, lambda number: number == 0) as (url, lost):
        with pytest.raises(ServerUnreachable) as told:
            made(url).create_key("n", queue, "client")
        assert told.value.sent
    assert lost and len(both.all_keys()) == made_before + 1
    (key,) = [key for key in both.all_keys() if key.owner_id == queue]
    redrive = calls.change_many("redrive", {"queue": queue}, False)({})
    for call in (operator_calls.rotate_key(key.key_id, None), redrive):
        with lossy(place.server.port, lambda number: number == 0) as (url, lost):
            with pytest.raises(ServerUnreachable):
                made(url).call(call)
            assert lost == [0]


def test_repeatable_calls_are_retried(made: Made, place: Place, both: Any, queue: str) -> None:
    both.put_queue(queue, QueueSettings(paused=True))
    both.submit("x", queue=queue)
    with lossy(place.server.port, lambda number: number % 2 == 0) as (url, lost):
        other = made(url)
        assert other.cancel_many(queue=queue).complete
        other.delete_queue(queue)
        assert len(lost) >= 2
    assert [job.state for job in both.jobs(queue=queue)] == ["CANCELLED"]


def test_a_worker_says_where_it_runs(both: Any, queue: str) -> None:
    both.submit("x", queue=queue)
    (job,) = both.lease([queue], worker_id=f"w-{queue}"[:60])
    both.heartbeat(f"w-{queue}"[:60], [job], host="web-1", version="4.2")
    (seen,) = [one for one in both.workers().workers if one.worker_id == f"w-{queue}"[:60]]
    assert (seen.host, seen.version, seen.leases[0].job_id) == ("web-1", "4.2", job.job_id)


def test_stats_count_what_the_key_sees(both: Any, queue: str, place: Place) -> None:
    both.submit_many([NewJob(payload=1, queue=queue)] * 3)
    begun_us = monotonic_us()
    found: list[Any] = []
    while not found and monotonic_us() - begun_us < WAIT_S * 1_000_000:  # an answer may be two seconds old
        stats = both.stats()
        found = [one for one in stats.queues if one.name == queue]
    assert (found[0].runnable, found[0].running) == (3, 0) and found[0].oldest_ready_s is not None
    assert stats.runnable >= 3 and stats.wal is not None and stats.wal.bytes > 0
    assert stats.rates is not None and set(stats.rates["acked"]) == {"1s", "10s", "60s"}
    with Client(place.url, place.keys["client"]) as client:
        mine = client.stats()
    assert (mine.rates, mine.memory, mine.oldest_ready_s) == (None, None, None)
