"""Jobs with short leases and expiry: the server changes them by itself, so the client knows less of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.kills.line import Line

LEASE_MS = 1000
RETRIES = 50
EXPIRES_MS = 1500


@dataclass
class Brief:
    """`leases`: by attempt, the least time from begin to end, and the token."""

    payload: str
    leases: dict[int, tuple[float, float, str]] = field(default_factory=dict)
    acked: Any = None  # the result of the ack that was answered


class Vanisher:
    """Leases for a second and mostly does not ack. No two leases of a job may live at the same time."""

    def __init__(self, line: Line, name: str, rng: random.Random) -> None:
        self.line, self.name, self.rng = line, name, rng
        self.queue = f"{name}.brief"
        self.jobs: dict[str, Brief] = {}
        self.forgets = False
        self._drawn = 0

    async def step(self) -> None:
        if self.rng.random() < 0.3:
            await self._submit()
        else:
            await self._lease()

    async def _submit(self) -> None:
        self._drawn += 1
        payload = f"{self.name}-{self._drawn}"
        body: dict[str, Any] = {
            "payload": payload, "queue": self.queue, "max_retries": RETRIES,
            "backoff": {"base_ms": 1, "factor": 1, "cap_ms": 1},
        }  # fmt: skip
        if self.rng.random() < 0.2:
            body["expires_ms"] = EXPIRES_MS
        told = await self.line.ask_until("POST", "/jobs", body, f"{payload}-{self.rng.getrandbits(40):x}")
        if self.line.is_good(told, "a submit"):
            self.jobs[told.body["job_id"]] = Brief(payload)

    async def _lease(self) -> None:
        body = {"queues": [self.queue], "max": 2, "lease_ms": LEASE_MS, "worker_id": self.name}
        told = await self.line.ask("POST", "/jobs/lease", body)
        if told is None or not self.line.is_good(told, "a lease"):
            return
        for leased in told.body["jobs"]:
            self._leased(leased)
            if leased["job_id"] in self.jobs and self.rng.random() < 0.3:
                await self._ack(leased)

    def _leased(self, leased: dict[str, Any]) -> None:
        job_id, attempt = leased["job_id"], leased["attempt"]
        until_s = seconds(leased["lease_until"])
        job = self.jobs.get(job_id)
        if job is None or leased["payload"] != job.payload:
            self.line.faults.add("wrong", f"{job_id} was leased with {leased['payload']}, not {job}")
            return
        begun_s = until_s - LEASE_MS / 1000
        for earlier, (_, until, _) in job.leases.items():
            if earlier >= attempt or begun_s < until:
                self.line.faults.add("doubled", f"{job_id}: attempt {attempt} at {begun_s}, beside {job.leases}")
        if job.acked is not None:
            self.line.faults.add("undone", f"{job_id} was acked and is leased again")
        job.leases[attempt] = (begun_s, until_s, leased["lease_token"])

    async def _ack(self, leased: dict[str, Any]) -> None:
        job, result = self.jobs[leased["job_id"]], f"done {leased['attempt']}"
        body = {"lease_token": leased["lease_token"], "result": result}
        told = await self.line.ask_until("POST", f"/jobs/{leased['job_id']}/ack", body)
        if told.status == 200:
            job.acked = result
        elif told.code not in ("lease_lost", "job_not_found"):
            self.line.faults.add("wrong answer", f"an ack of {leased} got {told.status} {told.body}")

    async def account(self) -> None:
        for job_id, job in self.jobs.items():
            told, events = await self.line.look(job_id)
            if {told.status, events.status} == {404} and self.forgets:
                continue
            if {told.status, events.status} != {200}:
                self.line.faults.add("lost", f"{job_id}: {told.status} {told.body} and {events.status} {events.body}")
                continue
            self._judge(job_id, job, told.body, events.body["events"])

    def _judge(self, job_id: str, job: Brief, body: dict[str, Any], events: list[dict[str, Any]]) -> None:
        attempts = max(job.leases, default=0)
        right = body["payload"] == job.payload and body["attempts"] >= attempts
        if job.acked is not None:
            right = right and body["state"] == "ACKED" and body.get("result") == job.acked
        ended = [event["number"] for event in events if event["what"] == "attempt"]
        numbers = list(range(len(ended) and ended[0], len(ended) and ended[-1] - 1, -1))  # the newest first, no gap
        if not right or (ended and ended != numbers):
            self.line.faults.add("undone", f"{job_id}: {job}, and there is {body} with {ended}")


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
