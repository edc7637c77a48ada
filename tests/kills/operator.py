"""An operator who manages keys, queue settings and schedules, one request at a time."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.kills.line import Line

KEYS_MAX, SCHEDULES_MAX = 40, 10
DUE_S = 60  # between two times of a schedule


class Operator:
    def __init__(self, line: Line, name: str, rng: random.Random) -> None:
        self.line, self.name, self.rng = line, name, rng
        self.forgets = False
        self.keys: dict[str, str] = {}  # key_id -> secret, of those that work
        self.revoked: dict[str, str] = {}
        self.unknown_keys = 0  # that may have been made without an answer
        self.settings: dict[str, dict[str, Any]] = {}  # of queues
        self.schedules: dict[str, dict[str, Any]] = {}
        self.ran: dict[str, set[str]] = {}  # queue -> jobs of POST /schedules/{name}/run
        self.unknown_runs: dict[str, int] = {}  # queue -> how many more there may be
        self.since_s: dict[str, float] = {}  # queue -> when its first schedule may have begun
        self._drawn = 0

    async def step(self) -> None:
        action = self.rng.choice(ACTIONS)
        self.line.counts[action.__name__] += 1
        await action(self)

    def fresh(self) -> str:
        self._drawn += 1
        return f"{self.name}-{self._drawn}"

    # --- keys ---------------------------------------------------------------------------------------------------------

    async def make_key(self) -> None:
        if len(self.keys) > KEYS_MAX:
            return
        kind = self.rng.choice(["client", "worker"])
        told = await self.line.ask("POST", "/admin/keys", {"name": self.name, "owner_id": self.name, "type": kind})
        if told is None:
            self.unknown_keys += 1
        elif self.line.is_good(told, "making a key"):
            self.keys[told.body["key_id"]] = told.body["key"]

    async def revoke_key(self) -> None:
        if self.keys:
            key_id = self.rng.choice(list(self.keys))
            told = await self.line.ask_until("DELETE", f"/keys/{key_id}")
            self.revoked[key_id] = self.keys.pop(key_id)
            self.line.is_good(told, f"revoking {key_id}")

    async def rotate_key(self) -> None:
        """Rotate a key; without an answer the new secret is unknown, so rotate it again."""
        if self.keys:
            key_id = self.rng.choice(list(self.keys))
            told = await self.line.ask_until("POST", f"/admin/keys/{key_id}/rotate", {"overlap_ms": 0})
            if self.line.is_good(told, f"rotating {key_id}"):
                self.keys[key_id] = told.body["key"]

    async def use_key(self) -> None:
        if self.keys:
            key_id = self.rng.choice(list(self.keys))
            if (status := await self.line.status_with(self.keys[key_id], "/keys")) != 200:
                self.line.faults.add("undone", f"the key {key_id} got {status}")

    # --- queues -------------------------------------------------------------------------------------------------------

    async def set_queue(self) -> None:
        name = f"{self.name}.set{self.rng.randrange(4)}"
        settings = {
            "paused": self.rng.random() < 0.5, "fair": self.rng.random() < 0.5,
            "concurrency": self.rng.randrange(1, 1000), "max_depth": self.rng.randrange(1000, 2000),
            "retention": {"acked_ms": self.rng.randrange(10**9), "dead_ms": None, "max": None},
        }  # fmt: skip
        told = await self.line.ask_until("PUT", f"/queues/{name}", settings)
        self.settings[name] = settings
        self._judge_queue(name, told.status, told.body)

    async def drop_queue(self) -> None:
        if self.settings:
            name = self.rng.choice(list(self.settings))
            told = await self.line.ask_until("DELETE", f"/queues/{name}")
            del self.settings[name]
            if not (told.repeated and told.status == 404):
                self.line.is_good(told, f"dropping the settings of {name}")

    def _judge_queue(self, name: str, status: int, body: Any) -> None:
        expected = self.settings[name]
        found = body.get("settings", {}) if isinstance(body, dict) else {}
        if status != 200 or {member: found.get(member) for member in expected} != expected:
            self.line.faults.add("undone", f"{name} has {status} {found}, and was set to {expected}")

    # --- schedules ----------------------------------------------------------------------------------------------------

    async def put_schedule(self) -> None:
        name = f"{self.name}-{self.rng.randrange(SCHEDULES_MAX)}"
        queue = f"{name}.due"
        schedule = {
            "cron": "* * * * *", "overlap": "allow", "catch_up": "all",
            "job": {"payload": self.fresh(), "queue": queue},
        }  # fmt: skip
        self.since_s.setdefault(queue, time.time())
        told = await self.line.ask_until("PUT", f"/schedules/{name}", schedule)
        self.schedules[name] = schedule
        self._judge_schedule(name, told.status, told.body)

    async def drop_schedule(self) -> None:
        if self.schedules:
            name = self.rng.choice(list(self.schedules))
            told = await self.line.ask_until("DELETE", f"/schedules/{name}")
            del self.schedules[name]
            if not (told.repeated and told.status == 404):
                self.line.is_good(told, f"dropping the schedule {name}")

    async def run_schedule(self) -> None:
        if self.schedules:
            name = self.rng.choice(list(self.schedules))
            queue = f"{name}.due"
            told = await self.line.ask("POST", f"/schedules/{name}/run")
            if told is None:
                self.unknown_runs[queue] = self.unknown_runs.get(queue, 0) + 1
            elif self.line.is_good(told, f"running the schedule {name}"):
                self.ran.setdefault(queue, set()).add(told.body["job_id"])

    def _judge_schedule(self, name: str, status: int, body: Any) -> None:
        expected = self.schedules[name]
        found = {member: body.get(member) for member in expected} if isinstance(body, dict) else body
        if status != 200 or found != expected:
            self.line.faults.add("undone", f"the schedule {name} is {status} {found}, not {expected}")

    # --- check --------------------------------------------------------------------------------------------------------

    async def account(self) -> None:
        for name in self.settings:
            told = await self.line.ask_until("GET", f"/queues/{name}")
            self._judge_queue(name, told.status, told.body)
        for name in self.schedules:
            told = await self.line.ask_until("GET", f"/schedules/{name}")
            self._judge_schedule(name, told.status, told.body)
        told = await self.line.ask_until("GET", "/schedules")
        if self.line.is_good(told, "the list of schedules") and (
            more := {one["name"] for one in told.body["schedules"]} - set(self.schedules)
        ):
            self.line.faults.add("undone", f"the schedules {more} were dropped")
        await self._account_jobs()
        await self._account_keys()

    async def _account_jobs(self) -> None:
        """Check that a schedule's queue has the jobs of its runs, and at most one for each minute."""
        for queue, since_s in self.since_s.items():
            told = await self.line.ask_until("GET", f"/jobs?queue={queue}&limit=1000")
            if not self.line.is_good(told, f"the list of {queue}"):
                continue
            there = {job["job_id"] for job in told.body["jobs"]}
            asked = self.ran.get(queue, set())
            due = int(time.time() // DUE_S - since_s // DUE_S)
            if lost := asked - there:
                self.line.faults.add("lost", f"{sorted(lost)[:5]} of {queue}")
            if len(there - asked) > self.unknown_runs.get(queue, 0) + due:
                self.line.faults.add(
                    "doubled", f"{queue} has {len(there)} jobs, {len(asked)} were told, {due} were due"
                )

    async def _account_keys(self) -> None:
        told = await self.line.ask_until("GET", "/admin/keys")
        if not self.line.is_good(told, "the list of keys"):
            return
        ours = {key["key_id"]: key for key in told.body if key["name"] == self.name}
        if lost := (self.keys.keys() | self.revoked.keys()) - ours.keys():
            self.line.faults.add("lost", f"the keys {lost}")
        if len(ours) > len(self.keys) + len(self.revoked) + self.unknown_keys:
            self.line.faults.add("doubled", f"{len(ours)} keys, {len(self.keys)} and {len(self.revoked)} were told")
        for key_id, secret in self.keys.items():
            if (status := await self.line.status_with(secret, "/keys")) != 200:
                self.line.faults.add("undone", f"the key {key_id} got {status}")
        for key_id, secret in list(self.revoked.items())[-5:]:  # more of them would be taken for an attack
            if (status := await self.line.status_with(secret, "/keys")) not in (401, 429):
                self.line.faults.add("undone", f"the revoked key {key_id} got {status}")


ACTIONS: list[Callable[[Operator], Awaitable[None]]] = [
    Operator.make_key,
    Operator.make_key,
    Operator.revoke_key,
    Operator.rotate_key,
    Operator.use_key,
    Operator.set_queue,
    Operator.set_queue,
    Operator.drop_queue,
    Operator.put_schedule,
    Operator.drop_schedule,
    Operator.run_schedule,
    Operator.run_schedule,
]
