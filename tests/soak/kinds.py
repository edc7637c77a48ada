"""Kinds of traffic over HTTP that leave garbage in the log. Each step keeps about as much live as the one before."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.served import Served

JOBS = 200
BIG = "b" * 1_000_000
PATIENCE_S = 60.0
BUSY = (429, 503, 507)


class Refused(Exception):
    """The server refused a request for longer than a client would wait."""


class Caller:
    """One connection. A request that the server is too busy for is sent again, also after the server was killed."""

    def __init__(self, server: Served, keys: dict[str, str]) -> None:
        self.server, self.keys = server, keys
        self.name = f"{time.time_ns():x}"  # no key of a request is used in two lives of a server
        self.n = 0  # of the step
        self.held: list[dict[str, str]] = []
        self.has_begun = False
        self._connection: http.client.HTTPConnection | None = None

    def call(self, key: str, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The answer's body. Raises Refused, OSError."""
        data = None if body is None else json.dumps(body)
        until_s = time.monotonic() + PATIENCE_S
        while True:
            status, answer = self._send(method, path, data, {"Authorization": f"Bearer {self.keys[key]}", **headers})
            if status not in BUSY:
                assert status < 300 or (method, status) == ("DELETE", 404), (method, path, status, answer)
                return answer
            if time.monotonic() > until_s:
                raise Refused(f"{method} {path}: {status} {answer}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.process.wait(0.02)  # it answers nothing once it has ended

    def _send(self, method: str, path: str, data: str | None, headers: dict[str, str]) -> tuple[int, Any]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE_S)
        try:
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(content)
        return answer.status, content

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- pieces -------------------------------------------------------------------------------------------------------

    def submit(self, jobs: int = JOBS, headers: dict[str, str] | None = None, **fields: Any) -> list[str]:
        one = {"payload": "p" * 100, "max_retries": 1000, **fields}
        answer = self.call("client", "POST", "/jobs/batch", {"jobs": [one] * jobs}, **(headers or {}))
        return answer["job_ids"]  # type: ignore[no-any-return]

    def begin(self, **fields: Any) -> None:
        """Jobs for this life's steps, once."""
        if not self.has_begun:
            self.submit(**fields)
            self.has_begun = True

    def lease(self, **fields: Any) -> list[dict[str, str]]:
        body = {"max": JOBS, "worker_id": "w" * 50, "lease_ms": 3_600_000, **fields}
        leased = self.call("worker", "POST", "/jobs/lease", body)["jobs"]
        return [{"job_id": job["job_id"], "lease_token": job["lease_token"]} for job in leased]

    def end(self, leased: list[dict[str, str]], outcome: str, **fields: Any) -> None:
        if leased:
            acks = [{**lease, "outcome": outcome, **fields} for lease in leased]
            self.call("worker", "POST", "/jobs/ack", {"acks": acks})

    def hold(self) -> None:
        if not self.held:
            self.begin()
            self.held = self.lease()

    def change_all(self, what: str, queue: str, **fields: Any) -> None:
        self.call("client", "POST", f"/jobs/{what}", {"filter": {"queue": queue, **fields}})


# --- kinds ------------------------------------------------------------------------------------------------------------


def release(c: Caller) -> None:
    c.begin()
    c.end(c.lease(), "release")


def snooze(c: Caller) -> None:
    c.begin()
    c.end(c.lease(), "snooze", delay_ms=0)


def fail(c: Caller) -> None:
    c.begin(max_retries=1000, backoff={"base_ms": 1, "factor": 1.0, "cap_ms": 1})
    c.end(c.lease(), "error", result_error="e" * (c.n * 37 % 1000), retry_after_ms=0)


def expire(c: Caller) -> None:
    for _ in range(0 if c.has_begun else 24):
        c.submit(backoff={"base_ms": 1, "factor": 1.0, "cap_ms": 1})
    c.begin(backoff={"base_ms": 1, "factor": 1.0, "cap_ms": 1})
    c.lease(max=1000, lease_ms=1000, wait_ms=2000)


def extend(c: Caller) -> None:
    c.hold()
    c.call("worker", "POST", "/workers/heartbeat", {"worker_id": "w", "leases": c.held, "lease_ms": 40_000_000 + c.n})


def report(c: Caller) -> None:
    c.hold()
    for lease in c.held[:20]:
        body = {"lease_token": lease["lease_token"], "percent": c.n % 100, "note": "n" * 150}
        c.call("worker", "POST", f"/jobs/{lease['job_id']}/progress", body)


def edit(c: Caller) -> None:
    if not c.has_begun:
        c.held = [{"job_id": job_id} for job_id in c.submit(20)]
        c.has_begun = True
    for at, job in enumerate(c.held):
        changes = {"priority": c.n} if at % 2 else {"payload": "q" * (c.n * 7 % 20_000) + "."}
        c.call("client", "PATCH", f"/jobs/{job['job_id']}", changes)


def replace(c: Caller) -> None:
    jobs = [{"payload": "r" * 3000 + str(c.n), "unique_key": f"u{at}", "on_duplicate": "replace"} for at in range(JOBS)]
    c.call("client", "POST", "/jobs/batch", {"jobs": jobs})


def settings(c: Caller) -> None:
    for at in range(20):
        c.call("admin", "PUT", f"/queues/q{at}", {"concurrency": c.n % 100 + 1, "max_depth": 1000 + c.n})


def keys(c: Caller) -> None:
    for _ in range(5):
        made = c.call("admin", "POST", "/admin/keys", {"name": "k" * 150, "owner_id": "soak", "type": "client"})
        c.call("admin", "DELETE", f"/keys/{made['key_id']}")


def schedules(c: Caller) -> None:
    """Schedules of 1 MB, put again and again, run and deleted."""
    job = {"payload": BIG + str(c.n)}
    c.call("admin", "PUT", f"/schedules/s{c.n % 16}", {"cron": "0 0 1 1 *", "job": job})
    if c.n % 5 == 0:
        c.call("admin", "DELETE", f"/schedules/s{(c.n + 7) % 16}")


def fires(c: Caller) -> None:
    c.call("admin", "PUT", "/schedules/often", {"cron": "0 0 1 1 *", "job": {"payload": "f" * 20_000, "queue": "f"}})
    for _ in range(20):
        c.call("admin", "POST", "/schedules/often/run")
    c.end(c.lease(queues=["f"]), "ok")


def cancel(c: Caller) -> None:
    c.submit(queue="c", payload="p" * 2000)
    c.change_all("cancel", "c")
    c.change_all("delete", "c")


def pass_by(c: Caller) -> None:
    c.submit(queue="e", expires_ms=100, payload="p" * 2000)


def finish(c: Caller) -> None:
    c.submit(2, payload=BIG[:900_000])
    for lease in c.lease(max=2):
        c.end([lease], "ok", result=BIG[:900_000])


def redrive(c: Caller) -> None:
    c.begin()
    c.end(c.lease(), "discard", result_error="no", result={"why": "x" * 3000})
    c.change_all("redrive", "default")


def keyed(c: Caller) -> None:
    """Keys that outlive their jobs."""
    jobs = [{"payload": 1, "queue": "k", "idempotency_key": f"{c.name}.{c.n}.{at}"} for at in range(1000)]
    c.call("client", "POST", "/jobs/batch", {"jobs": jobs})
    c.change_all("delete", "k")


def keyed_batches(c: Caller) -> None:
    c.submit(1000, payload=1, queue="k", headers={"Idempotency-Key": f"{c.name}.{c.n}"})
    c.change_all("delete", "k")


def transactions(c: Caller) -> None:
    c.begin()
    leased = c.lease()
    ops: list[dict[str, Any]] = [{"ack": lease} for lease in leased]
    ops += [{"submit": {"payload": "t" * 500}} for _ in leased]
    c.call("worker", "POST", "/transactions", {"ops": ops}, **{"Idempotency-Key": f"{c.name}.{c.n}"})


def ask_again(c: Caller) -> None:
    c.begin()
    leased = c.lease(request_id=f"{c.name}.{c.n}")
    assert c.lease(request_id=f"{c.name}.{c.n}") == leased
    c.end(leased, "release")


def submit_again(c: Caller) -> None:
    jobs = [{"payload": 1, "unique_key": "u", "idempotency_key": f"{c.name}.{c.n}.{at}"} for at in range(1000)]
    c.call("client", "POST", "/jobs/batch", {"jobs": jobs})


Kind = Callable[[Caller], None]
KINDS: list[Kind] = [
    release, snooze, fail, expire, extend, report, edit, replace, settings, keys, schedules, fires, cancel, pass_by,
    finish, redrive, keyed, keyed_batches, transactions, ask_again, submit_again,
]  # fmt: skip
