"""What exists for a key: every route, by each kind of key, about each kind of job that does not exist for it.

The answer is that for an absent id, byte for byte, and nothing changes. A route without a case fails the test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from fastq.http.routes import ADMIN, OPEN, SCOPES
from fastq.services.keys import Grants
from tests.http.test_table import ABSENT
from tests.http.wire import Reply
from tests.http.world import World, running

MINE, THEIRS = "my-owner", "hidden-owner"
SHOWN, HIDDEN, NO_QUEUE = "shown", "hidden-queue", "absentqueue0"
assert len(HIDDEN) == len(NO_QUEUE)  # so that the lengths of the answers are equal too
SAME_ID = (("X-Request-Id", "same"),)
CALLERS = ("client", "worker", "bound")


@dataclass(frozen=True)
class Job:
    """A job, or none: `job_id` is ABSENT then."""

    owner_id: str
    queue: str
    job_id: str
    token: str

    def exists_for(self, caller: str, access: str) -> bool:
        if caller == "bound" and self.queue != SHOWN:
            return False
        return self.owner_id == MINE or (caller != "client" and access == "sees")


@dataclass(frozen=True)
class Case:
    """A request about a job. `access`: the jobs that the route `sees` or `owns`."""

    access: str
    body: Callable[[Job], Any] = field(default=lambda _: None)
    query: str = ""


def lease_of(job: Job) -> dict[str, Any]:
    return {"job_id": job.job_id, "lease_token": job.token}


def token_of(job: Job, **more: Any) -> dict[str, Any]:
    return {"lease_token": job.token, **more}


def by_filter() -> list[Case]:
    def case(chosen: dict[str, str], dry_run: bool) -> Case:
        return Case("owns", lambda job: {"filter": {"ids": [job.job_id], **chosen}, "dry_run": dry_run})

    filters: list[dict[str, str]] = [{}, {"q": "payload"}, {"q": "nothing"}, {"state": "READY"}, {"tag": "red"}]
    filters += [{"error": "hidden"}, {"worker": "hidden-worker"}]
    return [case(chosen, dry_run) for chosen in filters for dry_run in (True, False)]


def ops(*names: str) -> Case:
    made = {"ack": lease_of, "extend": lease_of, "submit": lambda _: {"payload": 1, "queue": SHOWN}}
    return Case("sees", lambda job: {"ops": [{name: made[name](job)} for name in names]})


JOBS: dict[tuple[str, str], list[Case]] = {
    ("GET", "/jobs/{job_id}"): [Case("sees"), Case("sees", query="?include=payload"), Case("sees", query="?wait_ms=1")],
    ("GET", "/jobs/{job_id}/attempts"): [Case("sees")],
    ("GET", "/jobs/{job_id}/history"): [Case("sees")],
    ("GET", "/jobs/{job_id}/why"): [Case("sees")],
    ("POST", "/jobs/{job_id}/ack"): [
        Case("sees"),
        Case("sees", token_of),
        Case("sees", lambda job: token_of(job, result=1)),
        Case("sees", lambda job: token_of(job, result_error="boom")),
        Case("sees", lambda job: token_of(job, outcome="release")),
    ],
    ("POST", "/jobs/ack"): [Case("sees", lambda job: {"acks": [lease_of(job)]})],
    ("POST", "/jobs/{job_id}/extend"): [
        Case("sees", token_of),
        Case("sees", lambda job: token_of(job, lease_ms=60_000)),
    ],
    ("POST", "/jobs/{job_id}/progress"): [Case("sees", lambda job: token_of(job, percent=1))],
    ("POST", "/workers/heartbeat"): [Case("sees", lambda job: {"worker_id": "w", "leases": [lease_of(job)]})],
    ("POST", "/transactions"): [ops("ack"), ops("extend"), ops("ack", "submit"), ops("submit", "extend")],
    ("PATCH", "/jobs/{job_id}"): [
        Case("owns", lambda _: {"priority": 1}),
        Case("owns", lambda _: {"payload": 2}),
        Case("owns", lambda _: {"queue": SHOWN}),
        Case("owns", lambda _: {"queue": HIDDEN}),
    ],
    ("DELETE", "/jobs/{job_id}"): [Case("owns")],
    ("POST", "/jobs/{job_id}/cancel"): [Case("owns"), Case("owns", lambda _: {"force": True})],
    ("POST", "/jobs/{job_id}/redrive"): [Case("owns")],
    ("POST", "/jobs/{job_id}/resubmit"): [Case("owns"), Case("owns", lambda _: {"queue": SHOWN, "priority": 1})],
    ("POST", "/jobs/cancel"): by_filter(),
    ("POST", "/jobs/redrive"): by_filter(),
    ("POST", "/jobs/delete"): by_filter(),
}
QUEUES: dict[tuple[str, str], tuple[Any, set[str]]] = {  # a body; and for whom another queue is an absent one
    ("GET", "/queues/{queue}"): (None, {"client", "bound"}),
    ("PUT", "/queues/{queue}"): ({"max_depth": 9}, {"bound"}),
    ("DELETE", "/queues/{queue}"): (None, {"bound"}),
    ("POST", "/queues/{queue}/pause"): ({"reason": "hidden"}, {"bound"}),
    ("POST", "/queues/{queue}/resume"): (None, {"bound"}),
    ("POST", "/queues/{queue}/purge"): (None, {"bound"}),
}
LISTS = {
    ("GET", "/jobs"): [
        "",
        "?q=payload",
        "?tag=red",
        f"?queue={HIDDEN}",
        "?state=RUNNING",
        "?limit=1",
        "?group=g",
        "?error=hidden",
        "?worker=hidden-worker",
    ],
    ("GET", "/queues"): ["", "?limit=1"],
    ("GET", "/workers"): [""],
    ("GET", "/stats"): [""],
    ("GET", "/failures"): ["", f"?queue={HIDDEN}", "?limit=1"],
    ("GET", "/schedules"): [""],
    ("GET", "/keys"): [""],
}
# Tests below, or in test_owners.py, have these.
OTHERS = {
    ("POST", "/jobs"),
    ("POST", "/jobs/batch"),
    ("POST", "/jobs/lease"),
    ("GET", "/schedules/{schedule}"),
    ("PUT", "/schedules/{schedule}"),
    ("DELETE", "/schedules/{schedule}"),
    ("POST", "/schedules/{schedule}/run"),
    ("POST", "/schedules/{schedule}/pause"),
    ("POST", "/schedules/{schedule}/resume"),
    ("DELETE", "/keys/{key}"),
    ("GET", "/events"),  # these two in resources/
    ("GET", "/metrics"),
}


def test_every_route_has_a_case(world: World) -> None:
    table = {(route.method, route.path) for route in world.app.route_table if route.scope not in (OPEN, ADMIN)}
    assert table == JOBS.keys() | QUEUES.keys() | LISTS.keys() | OTHERS


async def hidden_jobs(world: World, state: str) -> list[Job]:
    """One job of each kind in this state, with the tokens of their leases. The callers have keys for everything."""
    every_scope = Grants(scopes=SCOPES)
    await world.make_key("client", "client", MINE, every_scope)
    await world.make_key("worker", "worker", MINE, every_scope)
    await world.make_key("bound", "worker", MINE, Grants(scopes=SCOPES, queues=frozenset({SHOWN})))
    await world.make_key(THEIRS, "client", THEIRS)
    jobs = []
    for owner_id, queue in ((MINE, SHOWN), (MINE, HIDDEN), (THEIRS, SHOWN), (THEIRS, HIDDEN)):
        who = "client" if owner_id == MINE else THEIRS
        fields = {"tags": ["red"], "unique_key": "one", "group": "g", "max_retries": 1, "queue": queue}
        job_id = await world.submit(f"hidden-payload-{owner_id}", who, **fields)
        token = "0" * 24
        if state != "READY":
            (leased,) = (
                await world.call(
                    "admin", "POST", "/jobs/lease", {"queues": [queue], "worker_id": "hidden-worker", "max": 1}
                )
            ).json["jobs"]
            assert leased["job_id"] == job_id
            token = leased["lease_token"]
        if state in ("ACKED", "DEAD"):
            end = {"result": "hidden-result"} if state == "ACKED" else {"result_error": "hidden-error"}
            assert (
                await world.call("admin", "POST", f"/jobs/{job_id}/ack", {"lease_token": token} | end)
            ).status == 200
        jobs.append(Job(owner_id, queue, job_id, token))
    return jobs


def masked(reply: Reply, job_id: str) -> tuple[Any, ...]:
    headers = {name: value for name, value in reply.headers.items() if name != "date"}
    return reply.status, headers, reply.body.replace(job_id.encode(), b"<id>")


@pytest.mark.parametrize("state", ["READY", "RUNNING", "DEAD", "ACKED"])
@pytest.mark.parametrize("caller", CALLERS)
async def test_a_job_that_does_not_exist_for_a_key_is_answered_as_an_absent_one(
    world: World, caller: str, state: str
) -> None:
    jobs = await hidden_jobs(world, state)
    asked = 0
    for (method, path), cases in JOBS.items():
        for case in cases:
            for job in jobs:
                if job.exists_for(caller, case.access):
                    continue
                absent = Job(job.owner_id, job.queue, ABSENT, job.token)
                before = world.core.state_hash()
                replies = [
                    await world.call(
                        caller, method, path.replace("{job_id}", one.job_id) + case.query, case.body(one), SAME_ID
                    )
                    for one in (job, absent)
                ]
                assert masked(replies[0], job.job_id) == masked(replies[1], ABSENT), (method, path, case.body(job), job)
                assert b"hidden" not in replies[0].body or "queue" in str(case.body(job))
                assert world.core.state_hash() == before, (method, path, job)
                asked += 1
    assert asked > 40


@pytest.mark.parametrize("caller", CALLERS)
async def test_lists_leave_out_what_does_not_exist_for_a_key(world: World, caller: str) -> None:
    jobs = await hidden_jobs(world, "RUNNING")
    cursor = (await world.call("admin", "GET", "/jobs?limit=2")).json["cursor"]
    for (method, path), queries in LISTS.items():
        for query in [*queries, *([f"?cursor={cursor}"] if path == "/jobs" else [])]:
            body = (await world.call(caller, method, path + query)).body.decode()
            for job in jobs:
                if not job.exists_for(caller, "sees"):
                    assert job.job_id not in body, (path, query)
            if caller == "client":
                assert THEIRS not in body, (path, query)
            if caller == "bound":
                assert HIDDEN not in body, (path, query)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("on_duplicate", ["keep", "replace"])
@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch", "/transactions"])
async def test_a_submit_neither_shows_nor_changes_a_hidden_job_with_its_unique_key(
    world: World, caller: str, on_duplicate: str, path: str
) -> None:
    jobs = await hidden_jobs(world, "READY")
    facts = [(await world.call("admin", "GET", f"/jobs/{job.job_id}?include=payload")).json for job in jobs]
    for queue, hidden in ((SHOWN, THEIRS), (HIDDEN, THEIRS if caller != "bound" else MINE)):
        replies = []
        for name in (queue, NO_QUEUE) if hidden == MINE else (queue,):
            new = {"payload": 7, "unique_key": "one", "queue": name, "on_duplicate": on_duplicate}
            body: Any = {"/jobs": new, "/jobs/batch": {"jobs": [new]}}.get(path, {"ops": [{"submit": new}]})
            replies.append(await world.call(caller, "POST", path, body, SAME_ID))
        if hidden == MINE:
            assert (replies[0].status, replies[0].json["code"]) == (403, "queue_forbidden")
            assert replies[0].body.replace(HIDDEN.encode(), NO_QUEUE.encode()) == replies[1].body
        for job in jobs:
            if job.owner_id == THEIRS or (caller == "bound" and job.queue == HIDDEN):
                assert job.job_id.encode() not in replies[0].body
    for job, fact in zip(jobs, facts, strict=True):
        if job.owner_id == THEIRS or (caller == "bound" and job.queue == HIDDEN):
            assert (await world.call("admin", "GET", f"/jobs/{job.job_id}?include=payload")).json == fact


async def test_another_owners_idempotency_key_is_free(world: World) -> None:
    await hidden_jobs(world, "READY")
    key = (("Idempotency-Key", "used"),)
    assert (await world.call(THEIRS, "POST", "/jobs", {"payload": 1}, key)).status == 201
    for path, body in (("/jobs", {"payload": 2}), ("/jobs/batch", {"jobs": [{"payload": 2}]})):
        assert (await world.call("client", "POST", path, body, (("Idempotency-Key", f"used{path[5:]}"),))).status == 201
    assert (await world.call("client", "POST", "/jobs", {"payload": 3}, key)).status == 422  # its own


async def test_a_bound_key_adds_new_jobs_to_any_queue_and_moves_none_there(world: World) -> None:
    """It leases, reads and changes only jobs of its queues. A follow-up may go elsewhere."""
    jobs = await hidden_jobs(world, "RUNNING")
    ack_and_submit = {"ops": [{"ack": lease_of(jobs[0])}, {"submit": {"payload": 1, "queue": HIDDEN}}]}
    made = (await world.call("bound", "POST", "/transactions", ack_and_submit)).json["results"][1]["job_id"]
    assert (await world.call("bound", "GET", f"/jobs/{made}")).status == 404
    assert (await world.call("admin", "GET", f"/jobs/{made}")).json["queue"] == HIDDEN
    mine = await world.submit(1, "bound", queue=SHOWN)
    replies = [
        await world.call("bound", "PATCH", f"/jobs/{mine}", {"queue": queue}, SAME_ID) for queue in (HIDDEN, NO_QUEUE)
    ]
    assert (replies[0].status, replies[0].json["code"]) == (403, "queue_forbidden")
    assert replies[0].body.replace(HIDDEN.encode(), NO_QUEUE.encode()) == replies[1].body


async def test_a_lease_names_only_queues_of_its_key_and_its_own_request_id(world: World) -> None:
    await hidden_jobs(world, "READY")
    taken = {"queues": [SHOWN], "max": 9, "request_id": "r"}
    held = (await world.call("worker", "POST", "/jobs/lease", taken)).json["jobs"]
    assert len(held) == 2
    assert (await world.call("bound", "POST", "/jobs/lease", taken)).json == {"jobs": []}
    replies = [
        await world.call("bound", "POST", "/jobs/lease", {"queues": [SHOWN, queue], "wait_ms": 1}, SAME_ID)
        for queue in (HIDDEN, NO_QUEUE)
    ]
    assert (replies[0].status, replies[0].json["code"]) == (403, "queue_forbidden")
    assert replies[0].body.replace(HIDDEN.encode(), NO_QUEUE.encode()) == replies[1].body


async def test_a_schedule_exists_for_a_bound_key_as_its_jobs_do(world: World) -> None:
    await hidden_jobs(world, "READY")
    put: dict[str, Any] = {"cron": "0 0 * * *", "job": {"payload": 1, "queue": HIDDEN}}
    assert (await world.call("worker", "PUT", "/schedules/hidden1", put)).status == 200
    for method, path, status in (
        ("GET", "/schedules/{}", 404),
        ("DELETE", "/schedules/{}", 404),
        ("POST", "/schedules/{}/run", 404),
        ("POST", "/schedules/{}/pause", 404),
        ("POST", "/schedules/{}/resume", 404),
        ("PUT", "/schedules/{}", 403),
    ):
        body = put if method == "PUT" else None
        theirs, absent = [
            await world.call("bound", method, path.format(name), body, SAME_ID) for name in ("hidden1", "absent1")
        ]
        assert theirs.status == status
        assert theirs.body.replace(b"hidden1", b"absent1") == absent.body
    assert (await world.call("bound", "GET", "/schedules")).json == {"schedules": []}
    assert len((await world.call("worker", "GET", "/schedules")).json["schedules"]) == 1
    put["job"]["queue"] = SHOWN
    assert (await world.call("bound", "PUT", "/schedules/mine", put)).status == 200
    assert (await world.call("bound", "GET", "/schedules/mine")).status == 200


@pytest.mark.parametrize("caller", ["client", "bound"])
async def test_a_queue_that_does_not_exist_for_a_key_is_answered_as_an_absent_one(world: World, caller: str) -> None:
    await hidden_jobs(world, "READY")
    other = HIDDEN
    if caller == "client":  # without queues:manage; this one has jobs of another owner only
        await world.make_key("client", "client", MINE)
        other = "theirqueue1"
        await world.submit(1, THEIRS, queue=other)
    assert (await world.call("admin", "PUT", f"/queues/{other}", {"max_depth": 5})).status == 200
    for (method, path), (body, callers) in QUEUES.items():
        if caller not in callers:
            continue
        before = world.core.state_hash()
        theirs, absent = [
            await world.call(caller, method, path.replace("{queue}", name), body, SAME_ID)
            for name in (other, "absentqueue"[: len(other)].ljust(len(other), "0"))
        ]
        assert theirs.status == (404 if method == "GET" else 403), (method, path)
        assert theirs.body.replace(other.encode(), b"<>") == re.sub(rb"absentqueue0?", b"<>", absent.body)
        assert world.core.state_hash() == before


async def test_queues_show_a_client_its_owners_jobs_only(world: World) -> None:
    """Names and counts; through a whole life of jobs, and after a restart."""
    for name, owner_id in (("mine", MINE), (THEIRS, THEIRS)):
        await world.make_key(name, "client", owner_id)
    for n, who in enumerate(["mine", THEIRS, THEIRS, "mine", THEIRS]):
        await world.submit(n, who, queue="both", max_retries=1)
    await world.submit(1, "mine", queue="both", delay_ms=60_000)
    await world.submit(1, THEIRS, queue="theirs")
    await world.call("admin", "PUT", "/queues/configured", {"max_depth": 5})
    for outcome in ("ok", "error", "ok"):
        (leased,) = (await world.call("worker", "POST", "/jobs/lease", {"queues": ["both"], "max": 1})).json["jobs"]
        ack = {"lease_token": leased["lease_token"], "outcome": outcome}
        assert (await world.call("worker", "POST", f"/jobs/{leased['job_id']}/ack", ack)).status == 200
    await world.call("worker", "POST", "/jobs/lease", {"queues": ["both"]})
    finished = {"ACKED": 1, "DEAD": 0, "EXPIRED": 0, "CANCELLED": 0}
    mine = {"name": "both", "ready": 0, "waiting": 1, "running": 1, "finished": finished}
    (shown,) = (await world.call("mine", "GET", "/queues")).json["queues"]
    mine["why"] = {"code": "empty", "words": "no job is ready"}
    assert {**shown, "settings": None} == {**mine, "settings": None}
    assert (await world.call("mine", "GET", "/queues/both")).json == shown
    (theirs, _) = (await world.call(THEIRS, "GET", "/queues")).json["queues"]
    assert (theirs["ready"], theirs["finished"]["DEAD"], theirs["finished"]["ACKED"]) == (1, 1, 1)
    assert [queue["name"] for queue in (await world.call("worker", "GET", "/queues")).json["queues"]] == [
        "both", "configured", "theirs",
    ]  # fmt: skip
    after = world.log.crash()
    async with running(roles={}, log=after) as again:
        again.secrets = world.secrets
        assert (await again.call("mine", "GET", "/queues")).json["queues"] == [shown]


async def test_why_counts_only_jobs_that_exist_for_the_caller(world: World) -> None:
    await hidden_jobs(world, "READY")
    mine = await world.submit(1, "client", queue=SHOWN, group="g")
    for caller, position in (("client", 1), ("worker", 2), ("bound", 2)):
        why = (await world.call(caller, "GET", f"/jobs/{mine}/why")).json
        assert (why["position"], re.fullmatch("behind|no_worker", why["reason"]) is not None) == (position, True)
