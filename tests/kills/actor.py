"""A client with queues of its own that uses every operation, one request at a time, so it knows its jobs' state.

A request without an answer may have happened. A repeatable request is sent until there is an answer; after any other
the actor reads its jobs, and each must be as before or as after the request.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from tests.core.model_jobs import Ack, Job, New, Refused
from tests.kills.known import CODES, KEY, Known, difference, seen, shown
from tests.kills.line import Line, Told

LEASE_MS = 6 * 3_600_000  # an actor's leases do not expire
JOBS_MAX = 150  # of an actor: above it, it deletes finished jobs
KEPT = 60  # requests that are repeated at times, and at the end
SIZES = [0, 10, 10, 300, 3000, 20_000]
BACKOFF = {"base_ms": 1, "factor": 1.0, "cap_ms": 5}

Apply = Callable[[Known], Any]


class Actor:
    """`forgets`: whether the server's settings may have removed finished jobs."""

    def __init__(self, line: Line, name: str, rng: random.Random) -> None:
        self.line, self.name, self.rng = line, name, rng
        self.known = Known()
        self.queues = [f"{name}.a", f"{name}.b"]
        self.forgets = False
        self.deleted: set[str] = set()
        self.submits: list[tuple[str, Any, str, list[str]]] = []  # path, body, header, ids: of submits with keys
        self.transactions: list[tuple[Any, str, Any]] = []  # body, key, answer
        self.acks: list[tuple[Ack, Any]] = []
        self._drawn = 0

    # --- random choices -----------------------------------------------------------------------------------------------

    def fresh(self) -> str:
        """A new unique word."""
        self._drawn += 1
        return f"{self.name}-{self._drawn}-{self.rng.getrandbits(32):x}"

    def some(self, fits: Callable[[Job], bool], count: int = 1) -> list[Job]:
        jobs = [job for job in self.known.jobs.values() if fits(job)]
        return self.rng.sample(jobs, min(count, len(jobs)))

    def one(self, fits: Callable[[Job], bool]) -> Job | None:
        return next(iter(self.some(fits)), None)

    def new_job(self, *, keyed: bool = True) -> tuple[New, dict[str, Any]]:
        """A job for the model, and for the API."""
        rng = self.rng
        body: dict[str, Any] = {
            "payload": f"{self.fresh()}:{'x' * rng.choice(SIZES)}",
            "queue": rng.choice(self.queues),
            "max_retries": rng.choice([1, 2, 5]),
            "priority": rng.choice([0, 0, 7]),
            "backoff": BACKOFF,
        }
        if rng.random() < 0.3:
            body["unique_key"] = f"u{rng.randrange(3)}"
            if rng.random() < 0.7:
                body["on_duplicate"] = "replace"
        if rng.random() < 0.2:
            body["tags"] = ["red", "blue"]
        if keyed:
            body["idempotency_key"] = self.fresh()
        new = New(
            payload=json.dumps(body["payload"]).encode(),
            queue=body["queue"],
            max_retries=body["max_retries"],
            priority=body["priority"],
            unique_key=body.get("unique_key", ""),
            replace="on_duplicate" in body,
            tags=tuple(body.get("tags", ())),
            idempotency_key=body.get("idempotency_key", ""),
            body_digest=crc32(json.dumps(body).encode()),
        )
        return new, body

    def new_ack(self, job: Job) -> tuple[Ack, dict[str, Any]]:
        outcome = self.rng.choice(["ok", "ok", "ok", "error", "error", "discard", "snooze", "release"])
        body: dict[str, Any] = {"lease_token": job.token, "outcome": outcome}
        if outcome in ("ok", "error") and self.rng.random() < 0.5:
            body["result"] = f"done {job.lease_no}"
        if outcome in ("error", "discard"):
            body |= {"result_error": f"boom {self.rng.getrandbits(20)}", "error_code": "E42"}
        if outcome == "snooze":
            body["delay_ms"] = self.rng.choice([1, 20])
        result = json.dumps(body["result"]).encode() if "result" in body else None
        error, code = body.get("result_error", ""), body.get("error_code", "")
        return Ack(job.job_id, job.token, outcome, result, error, code, body.get("delay_ms", -1)), body

    def keep(self, requests: list[Any], request: Any) -> None:
        """Keep a request for repetition; old ones stay too."""
        if len(requests) < KEPT:
            requests.append(request)
        else:
            requests[self.rng.randrange(KEPT)] = request

    # --- answers ------------------------------------------------------------------------------------------------------

    def fault(self, kind: str, what: str) -> None:
        self.line.faults.add(kind, what)

    def judge(self, told: Told, apply: Apply, job_id: str = "") -> Any:
        """Apply a request to the model, and compare the answer. Returns the model's answer; None: it is refused."""
        try:
            answer = apply(self.known)
        except Refused as refusal:
            if told.code == "job_not_found" and self._is_forgotten(job_id):
                self.known.jobs.pop(job_id, None)
            elif told.code != CODES[refusal.why]:
                self.fault("wrong answer", f"{told.status} {told.body} instead of {refusal.why} for {job_id}")
            return None
        if told.code == "job_not_found" and self._is_forgotten(job_id):
            self.known.jobs.pop(job_id, None)
            return None
        if not 200 <= told.status < 300:
            self.fault("wrong answer", f"{told.status} {told.body} for {job_id}: {self.words(job_id)}")
        return answer

    def words(self, job_id: str) -> str:
        job = self.known.jobs.get(job_id)
        return "unknown" if job is None else f"{shown(job)}"

    def _is_forgotten(self, job_id: str) -> bool:
        """Whether retention may have removed the finished job."""
        job = self.known.jobs.get(job_id)
        return self.forgets and (job is None or job.finished)

    async def look(self, job_id: str) -> dict[str, Any] | None:
        """What the server shows of a job; None: it is not there."""
        told, events = await self.line.look(job_id)
        if {told.status, events.status} == {404}:
            return None
        if {told.status, events.status} != {200}:
            self.fault("unreadable", f"{job_id}: {told.status} {told.body} and {events.status} {events.body}")
            return None
        return seen(told.body, events.body["events"])

    def fits(self, known: Known, job_id: str, found: dict[str, Any] | None) -> str:
        """Compare a job with the model. Returns the difference, or an empty string."""
        job = known.jobs.get(job_id)
        if found is None:
            return "" if job is None or (self.forgets and job.finished) else "it is not there"
        return "it is there" if job is None else difference(shown(job), found)

    async def check(self, job_id: str) -> None:
        """Compare one job with the model."""
        found = await self.look(job_id)
        if wrong := self.fits(self.known, job_id, found):
            self.fault("lost" if found is None else "undone", f"{job_id}: {wrong}")
        elif found is None:
            self.known.jobs.pop(job_id, None)

    async def settle(self, job_ids: Sequence[str], apply: Apply) -> None:
        """After a request without an answer: all of these jobs are as before, or all are as after it."""
        after = self.known.copy()
        try:
            apply(after)
        except Refused:
            return
        found = {job_id: await self.look(job_id) for job_id in job_ids}
        wrong = [self.fits(after, job_id, found[job_id]) for job_id in job_ids]
        if not any(wrong):
            self.known = after
        elif any(unchanged := [self.fits(self.known, job_id, found[job_id]) for job_id in job_ids]):
            self.fault("torn", f"{job_ids}: neither as before ({unchanged}) nor as after ({wrong})")
        self.line.counts["settled by looking"] += 1

    async def change(self, method: str, path: str, body: Any, job_id: str, apply: Apply) -> None:
        """Send a request that must not be repeated."""
        told = await self.line.ask(method, path, body)
        if told is None:
            await self.settle([job_id], apply)
        else:
            self.judge(told, apply, job_id)

    # --- repeatable requests ------------------------------------------------------------------------------------------

    async def repeat_submit(self, path: str, body: Any, header: str, ids: list[str]) -> None:
        told = await self.line.ask_until("POST", path, body, header)
        answered = told.body.get("job_ids", [told.body.get("job_id")]) if isinstance(told.body, dict) else None
        if answered != ids:
            self.fault("doubled", f"a submit was answered with {ids}, and then with {told.status} {told.body}")

    async def repeat_transaction(self, body: Any, key: str, answer: Any) -> None:
        told = await self.line.ask_until("POST", "/transactions", body, key)
        if told.status != 200 or told.body != answer:
            self.fault("doubled", f"a transaction was answered {answer}, and then {told.status} {told.body}")

    async def say(self, ack: Ack, body: Any) -> None:
        """Send an ack, perhaps again: the server recognizes the last four of a job."""
        told = await self.line.ask_until("POST", f"/jobs/{ack.job_id}/ack", body)
        self.judge(told, lambda known: known.ack(now_us(), ack, KEY), ack.job_id)

    # --- check --------------------------------------------------------------------------------------------------------

    async def account(self) -> None:
        """Check that the server has every known job, and no other."""
        for job_id in list(self.known.jobs):
            await self.check(job_id)
        for job_id in sorted(self.deleted)[-200:]:
            if await self.look(job_id) is not None:
                self.fault("undone", f"{job_id} was deleted and is there")
        for queue in self.queues:
            there = await self.listed(queue)
            known = {job.job_id for job in self.known.jobs.values() if job.queue == queue}
            if more := there - known:
                self.fault("doubled", f"{queue} has unknown jobs {sorted(more)[:5]}")
            if fewer := known - there:
                self.fault("lost", f"{sorted(fewer)[:5]} are not listed in {queue}")
        for submit in self.submits:
            await self.repeat_submit(*submit)
        for transaction in self.transactions:
            await self.repeat_transaction(*transaction)
        for ack, body in self.acks:
            await self.say(ack, body)

    async def listed(self, queue: str) -> set[str]:
        """The ids of every job in a queue."""
        ids: set[str] = set()
        cursor = ""
        while True:
            told = await self.line.ask_until("GET", f"/jobs?queue={queue}&limit=1000{cursor}")
            if not self.line.is_good(told, f"the list of {queue}"):
                return ids
            ids |= {job["job_id"] for job in told.body["jobs"]}
            if not told.body.get("cursor"):
                return ids
            cursor = f"&cursor={told.body['cursor']}"


def running(job: Job) -> bool:
    return job.state == "RUNNING"


def now_us() -> int:
    return time.time_ns() // 1000
