"""Client and AsyncClient against a real server. Tests with `both` run with each of them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastq import (
    Ack,
    AsyncClient,
    BadRequest,
    Client,
    Conflict,
    Cron,
    Extend,
    Forbidden,
    LeaseLost,
    NewJob,
    NotFinished,
    NotFound,
    Retries,
    ServerUnreachable,
    Unauthenticated,
)
from tests.client.served import Made, Place, lossy
from tests.served import Served, free_port

MANY = 40


@dataclasses.dataclass
class Mail:
    to: str
    copies: int = 1


def test_submit_sends_all_options(both: Any, queue: str) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    job_id = both.submit(
        Mail("ann"), queue=queue, group="g", priority=7, run_at=at, max_retries=5, tags=["a", "b"], lease_ms=5000,
        expires_ms=7_200_000,
    ).job_id  # fmt: skip
    job = both.get(job_id, with_payload=True)
    assert (job.state, job.queue, job.group, job.priority, job.max_retries) == ("SCHEDULED", queue, "g", 7, 5)
    assert job.tags == ("a", "b")
    assert job.run_at == at
    assert job.expires_at is not None and job.expires_at > at
    assert job.payload == {"to": "ann", "copies": 1}
    assert not job.is_complete and not job.is_failed
    assert both.get_status(job_id).payload is None


def test_lease_extend_and_ack_a_job(both: Any, queue: str) -> None:
    job_id = both.submit(Mail("ann", 2), queue=queue).job_id
    (job,) = both.lease([queue], lease_ms=5000)
    assert job.payload_as(Mail) == Mail("ann", 2)
    assert (job.job_id, job.attempt, job.max_retries, job.queue) == (job_id, 1, 3, queue)
    assert both.progress(job, 50, "half") is False
    assert both.get(job_id).progress.percent == 50
    assert both.extend(job, 60_000).lease_until > job.lease_until
    (held,) = both.heartbeat("w", [job])
    assert held.lease_until is not None and not held.cancel_requested
    both.ack(job, {"sent": 2})
    both.ack(job, {"sent": 2})
    done = both.wait_for_completion(job_id)
    assert done.is_complete and done.is_successful and not done.is_failed
    assert done.result == {"sent": 2}
    with pytest.raises(LeaseLost) as lost:
        both.ack(job, "another")
    assert (lost.value.status, lost.value.code, lost.value.state) == (409, "lease_lost", "ACKED")
    assert lost.value.request_id


def test_fail_retries_or_discards(both: Any, queue: str) -> None:
    job_id = both.submit("x", queue=queue).job_id
    (job,) = both.lease([queue])
    both.fail(job, "no route", code="smtp", retry_after_ms=0)
    assert (both.get(job_id).state, both.get(job_id).error) == ("RETRY", "no route")
    (job,) = both.lease([queue], wait_ms=5000)
    both.fail(job, "never", discard=True)
    ended = both.wait_for_completion(job_id)
    assert ended.is_failed and ended.state == "DEAD"
    assert both.redrive(job_id) == "READY"
    (job,) = both.lease([queue])
    assert both.cancel(job_id) == "RUNNING"
    assert both.heartbeat("w", [job])[0].cancel_requested
    assert both.cancel(job_id, force=True) == "CANCELLED"
    assert both.heartbeat("w", [job])[0].code == "lease_lost"
    with pytest.raises(Conflict):
        both.redrive(job_id)
    both.delete(job_id)
    with pytest.raises(NotFound):
        both.get(job_id)


def test_batches_of_submits_and_acks(both: Any, queue: str) -> None:
    stored = both.submit_many([NewJob(payload=i, queue=queue, unique_key=f"{queue}{i // 2}") for i in range(6)])
    assert [one.duplicate for one in stored] == [False, True] * 3
    jobs = both.lease({queue: 1}, limit=10)
    assert [job.payload for job in jobs] == [0, 2, 4]
    results = both.ack_many([Ack.ok(jobs[0], "r"), Ack.snooze(jobs[1], 60_000), Ack.release(jobs[2])])
    assert all(one.ok for one in results)
    assert [both.get(job.job_id).state for job in jobs] == ["ACKED", "SCHEDULED", "READY"]
    (refused,) = both.ack_many([Ack.error(jobs[2], "late")])
    assert (refused.ok, refused.code, refused.state) == (False, "lease_lost", "READY")


def test_a_transaction_is_atomic(both: Any, queue: str) -> None:
    both.submit_many([NewJob(payload=i, queue=queue) for i in range(2)])
    one, two = both.lease([queue], limit=2)
    done = both.transaction([Ack.ok(one), Extend.of(two, 60_000), NewJob(payload="next", queue=queue)])
    assert done[0].ok and done[1].lease_until is not None
    (child,) = both.lease([queue])
    assert (child.job_id, child.payload) == (done[2].job_id, "next")
    with pytest.raises(Conflict):
        both.transaction([Ack.ok(two), Ack.ok(one, "again")])
    assert both.get(two.job_id).state == "RUNNING"


def test_an_idempotency_key_gets_the_same_job(both: Any, queue: str) -> None:
    first = both.submit("x", queue=queue, idempotency_key=f"é-{queue}")
    assert both.submit("x", queue=queue, idempotency_key=f"é-{queue}") == first
    with pytest.raises(BadRequest) as mismatch:
        both.submit("y", queue=queue, idempotency_key=f"é-{queue}")
    assert mismatch.value.code == "idempotency_mismatch"
    jobs = [NewJob(payload=1, queue=queue, idempotency_key=f"k-{queue}"), NewJob(payload=2, queue=queue)]
    again = [both.submit_many(jobs), both.submit_many(jobs)]
    assert again[0][0].job_id == again[1][0].job_id and again[1][0].duplicate
    assert again[0][1].job_id != again[1][1].job_id


def test_wait_for_completion(both: Any, queue: str) -> None:
    job_id = both.submit("x", queue=queue).job_id
    with pytest.raises(NotFinished, match="READY"):
        both.wait_for_completion(job_id, 0.05)
    with pytest.raises(NotFinished):
        both.submit_and_wait("y", queue=f"{queue[1:]}", timeout_s=0.05)
    worker = threading.Thread(target=lambda: both.ack(both.lease([queue], wait_ms=5000)[0], "r"))
    worker.start()
    assert both.wait_for_completion(job_id, 10).result == "r"
    worker.join()
    assert both.lease([queue], wait_ms=50) == []


def test_refusals_name_the_reason(both: Any, made: Made, queue: str) -> None:
    with pytest.raises(BadRequest, match="queue") as refused:
        both.submit("x", queue="no spaces")
    assert refused.value.code == "invalid_request"
    with pytest.raises(Unauthenticated):
        made(key="client_unknown").submit("x")
    with pytest.raises(Forbidden):
        made(key="client").lease([queue])
    with pytest.raises(ValueError, match="payload: object has no JSON form"):
        both.submit(object())


def test_schedules(both: Any, queue: str) -> None:
    name = queue[:40]
    put = both.put_schedule(name, Cron("0 3 1 1 *", timezone="Europe/Vienna"), Mail("ann"), queue=queue, priority=3)
    assert (put.name, put.timezone, put.next_at.month, put.next_at.hour) == (name, "Europe/Vienna", 1, 2)
    assert both.get_schedule(name) == put
    job_id = both.run_schedule(name)
    assert both.get(job_id, with_payload=True).payload == {"to": "ann", "copies": 1}
    assert both.get_schedule(name).last_job_id == job_id
    assert both.pause_schedule(name).paused and both.get_schedule(name).next_at is None
    assert both.resume_schedule(name).next_at is not None
    both.delete_schedule(name)
    with pytest.raises(NotFound):
        both.get_schedule(name)
    with pytest.raises(BadRequest, match="cron"):
        both.put_schedule(name, Cron("at noon"), "x")


class Upper:
    def encode(self, value: Any) -> bytes:
        return msgspec.json.encode(str(value).upper())

    def decode(self, text: bytes, as_type: Any) -> Any:
        return msgspec.json.decode(text)


def test_a_custom_codec(made: Made, queue: str) -> None:
    job_id = made(codec=Upper()).submit("abc", queue=queue).job_id
    assert made().get(job_id, with_payload=True).payload == "ABC"


# --- network errors ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_retries_after_lost_answers_apply_once(made: Made, place: Place, queue: str) -> None:
    """Every third answer is lost. Each call is repeated, most of them after they were applied."""
    with lossy(place.server.port, lambda number: number % 3 == 0) as (url, lost):
        client = made(url)
        ids = [client.submit(i, queue=queue).job_id for i in range(MANY)]
        ids += [one.job_id for i in range(4) for one in client.submit_many([NewJob(payload=i, queue=queue)] * 10)]
        children = [client.transaction([NewJob(payload="c", queue=f"{queue}c"[-64:])])[0].job_id for _ in range(9)]
        leased = [job for _ in ids for job in client.lease([queue], limit=1)]
        assert [job.job_id for job in leased] == ids
        for job in leased[:MANY]:
            client.ack(job, job.payload)
        assert all(one.ok for one in client.ack_many([Ack.ok(job) for job in leased[MANY:]]))
        cancelled = [client.cancel(job_id) for job_id in children]
        for job_id in children:
            client.delete(job_id)
        assert len(lost) > MANY
    found = place.jobs(queue=queue)
    assert sorted(job["job_id"] for job in found) == sorted(ids)
    assert {(job["state"], job["attempts"]) for job in found} == {("ACKED", 1)}
    assert cancelled == ["CANCELLED"] * 9
    assert place.jobs(queue=f"{queue}c"[-64:]) == []


def test_a_redrive_is_not_retried_after_a_lost_answer(made: Made, place: Place, both: Any, queue: str) -> None:
    job_id = both.submit("x", queue=queue, max_retries=0).job_id
    both.fail(both.lease([queue])[0], "e")
    with lossy(place.server.port, lambda number: number == 0) as (url, lost):
        with pytest.raises(ServerUnreachable) as unreachable:
            made(url).redrive(job_id)
        assert unreachable.value.sent
        assert lost == [0]
    assert both.get(job_id).state == "READY"


def test_no_server_is_server_unreachable(made: Made) -> None:
    client = made(f"http://127.0.0.1:{free_port()}", retries=Retries(for_s=0.2))
    with pytest.raises(ServerUnreachable) as unreachable:
        client.submit("x")
    assert not unreachable.value.sent


def test_a_silent_server_is_server_unreachable(made: Made) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = made(f"http://127.0.0.1:{silent.getsockname()[1]}", retries=Retries(for_s=0, timeout_s=0.2))
        with pytest.raises(ServerUnreachable) as unreachable:
            client.get("x")
        assert unreachable.value.sent


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_over_tls(made: Made, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    argv += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    with Served(tmp_path / "data", TLS_CERT=str(cert), TLS_KEY=str(key), WAL_SEGMENT_BYTES="4MiB") as server:
        url, secret = f"https://localhost:{server.port}", server.keys["client"]
        client = made(url, secret, tls=ssl.create_default_context(cafile=str(cert)))
        ids = [client.submit("x" * 300_000).job_id for _ in range(3)]
        assert client.get(ids[-1], with_payload=True).payload == "x" * 300_000
        with pytest.raises(ServerUnreachable) as unreachable:
            made(url, secret, retries=Retries(for_s=0)).submit("x")
        assert not unreachable.value.sent


def test_connections_are_reused(both: Any, place: Place, queue: str) -> None:
    before = _connections(place)
    for i in range(20):
        both.submit(i, queue=queue)
    assert len(_connections(place) - before) == 1


def _connections(place: Place) -> set[str]:
    """Open connections to the server."""
    port = f":{place.server.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[1] for line in lines if line[2].endswith(port) and line[3] == "01"}


def test_a_client_works_after_a_fork(client: Client, place: Place, queue: str) -> None:
    client.submit("parent", queue=queue)
    before = _connections(place)
    child = os.fork()
    if not child:
        new = 100
        try:
            client.submit("child", queue=queue)
            new = len(_connections(place) - before)
        finally:
            os._exit(new)
    ids = [client.submit("parent", queue=queue).job_id for _ in range(10)]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert len(set(ids)) == 10
    assert len(client.lease([queue], limit=100)) == 12


def test_a_connection_closed_by_the_server_is_not_reused(made: Made, tmp_path: Path) -> None:
    with Served(tmp_path / "data", PORT=str(free_port()), WAL_SEGMENT_BYTES="4MiB") as server:
        client = made(f"http://127.0.0.1:{server.port}", server.keys["client"], retries=Retries(for_s=0))
        first = client.submit("x")
        server.kill()
        server.start()
        assert client.get(first.job_id).state == "READY"


def test_threads_share_a_client(client: Client, place: Place, queue: str) -> None:
    threads = [threading.Thread(target=lambda: [client.submit(i, queue=queue) for i in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(place.jobs(queue=queue)) == 160


async def test_concurrent_calls_share_a_client(aclient: AsyncClient, place: Place, queue: str) -> None:
    waiting: list[Awaitable[Any]] = [aclient.lease([queue + "w"], wait_ms=500) for _ in range(100)]
    submits = asyncio.gather(*(aclient.submit(i, queue=queue) for i in range(300)))
    await asyncio.gather(submits, *waiting)
    assert len(place.jobs(queue=queue)) == 300


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("localhost:8080", "k", "url must be"),
        ("http://u:p@h", "k", "must not contain a user name"),
        ("http://h", "", "a key is needed: set FASTQ_KEY or pass key="),
        ("http://h:99999", "k", "url must be"),
        ("http://my host", "k", "url must be"),
        ("http://h:x", "k", "url must be"),
        ("http://h", "k\r\nX: y", "key must be"),
    ],
)
def test_invalid_arguments_raise_value_error(url: str, key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        Client(url, key)
    assert "X: y" not in str(refused.value)


def test_url_and_key_from_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTQ_URL", place.url)
    monkeypatch.setenv("FASTQ_KEY", place.keys["client"])
    with Client() as client:
        assert client.submit("x").job_id
