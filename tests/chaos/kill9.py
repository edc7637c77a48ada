"""kill -9 under load: `python -m tests.chaos.kill9 --kills 50 --clients 64`.

A server of its own in a directory of its own; clients that submit, lease and ack, and keep what was answered; SIGKILL
at random moments, also while the server starts. At the end every job is accounted for and those left are worked off.
Exit 0 only if real work was done and nothing was lost, undone, duplicated, given out twice or left lying.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fastq.log.segments import segment_numbers
from tests.chaos.client import Connection, NotSent, Unanswered
from tests.chaos.ledger import Lease, Ledger

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
SERVE = (sys.executable, "-m", "fastq", "serve")
LEASE_MS = 1000
RETENTION_MS = 1000  # of ACKED jobs, if the cleaner is to work hard
CLOCKS_US = 50_000  # by which the server's clock may be off ours
LATER = "later"  # a queue that nobody works on before the end: what is in it is moved again and again
QUEUES, ALL_QUEUES = ["default"], ["default", LATER]
FAULTS = ("lost", "undone", "duplicated", "doubled", "wrong", "refused", "unexpected", "stuck", "not started")
START_S, WORK_OFF_S = 60, 60
VANISH, FAIL = 0.03, 0.15  # shares of leases that are never acked, and that are acked with an error
PUT_OFF = 0.03  # share of jobs that go to the queue LATER
STARTING = 0.2  # share of kills that hit the server while it starts


@dataclass(frozen=True)
class Plan:
    """What to do to whom. `after_kill` gets the data directory while no server runs."""

    kills: int = 50
    clients: int = 64
    seconds: float = 40.0
    seed: int = 1
    command: Sequence[str] = SERVE
    cleaning: bool = False  # finished jobs go after RETENTION_MS, and the cleaner never rests
    after_kill: Callable[[Path], None] | None = None


class NotStarted(Exception):
    """The server ended by itself while it started, or took too long."""


class Server:
    """A server process that is killed and started again on the same directory and port."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self._plan = plan
        self.directory = directory / "data"
        self.log = directory / "stderr"
        self.key = f"admin_{secrets.token_urlsafe(24)}"
        key_file = directory / "admin.key"
        key_file.write_text(self.key)
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self._environ = os.environ | {
            "HOST": HOST, "PORT": str(self.port), "WAL_DIR": str(self.directory), "SEED_DEV_KEYS": "false",
            "ADMIN_KEY_FILE": str(key_file), "LEASE_DURATION": f"{LEASE_MS}ms", "LEASE_CHECK_INTERVAL": "50ms",
            "BACKOFF_BASE": "10ms", "BACKOFF_CAP": "100ms", "WAL_SEGMENT_BYTES": "4MiB",
        }  # fmt: skip
        if plan.cleaning:
            self._environ |= {"RETENTION_ACKED": f"{RETENTION_MS}ms", "WAL_SLACK_BYTES": "1MiB"}
        self._process: asyncio.subprocess.Process
        self.up = asyncio.Event()

    async def spawn(self) -> None:
        with self.log.open("ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *self._plan.command, cwd=ROOT, env=self._environ, stdout=asyncio.subprocess.PIPE, stderr=stderr
            )

    async def started(self) -> None:
        """Return when it listens. Raises NotStarted."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                while not (line := await self._process.stdout.readline()).startswith(b"  curl "):
                    if not line:
                        code = await self._process.wait()
                        raise NotStarted(f"exit {code}: {self.log.read_text()[-500:]}")
        except TimeoutError:
            await self.kill()
            raise NotStarted(f"not within {START_S} s") from None
        self.up.set()

    async def kill(self) -> None:
        self.up.clear()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.up.clear()
        self._process.terminate()
        async with asyncio.timeout(START_S):
            return await self._process.wait()


@dataclass
class Run:
    """One run of the harness."""

    plan: Plan
    server: Server
    ledger: Ledger
    connections: list[Connection] = field(default_factory=list)
    stopping: bool = False
    working_off: bool = False
    next_payload: int = 0

    async def kill_again_and_again(self) -> None:
        rng = random.Random(self.plan.seed)
        life_s = self.plan.seconds / max(1, self.plan.kills)
        await self.server.spawn()
        for _ in range(self.plan.kills):
            if rng.random() < STARTING:
                await asyncio.sleep(rng.uniform(0.05, 0.5))
                self.ledger.counts["kills while starting"] += 1
            else:
                await self.server.started()
                await asyncio.sleep(rng.uniform(0.2, 1.8) * life_s)
            self.ledger.counts["in flight when killed"] += sum(each.waiting for each in self.connections)
            await self.server.kill()
            self.ledger.counts["kills"] += 1
            if self.plan.after_kill is not None:
                self.plan.after_kill(self.server.directory)
            await self.server.spawn()
        await self.server.started()

    # --- clients ------------------------------------------------------------------------------------------------------

    async def client(self, number: int) -> None:
        rng = random.Random(self.plan.seed * 1000 + number)
        connection = self.connections[number]
        while not self.stopping:
            await self.server.up.wait()
            try:
                if not self.working_off:
                    await self._submit(connection, rng)
                if not await self._work(connection, rng) and self.working_off:
                    await asyncio.sleep(0.05)
            except (NotSent, Unanswered):
                self.ledger.counts["unanswered"] += 1
                await asyncio.sleep(0.005)  # the kill itself may not have been noticed yet

    async def _submit(self, connection: Connection, rng: random.Random) -> None:
        self.next_payload += 1
        size = rng.choice((0, 100, 100, 100, 1000, 20_000)) if rng.random() < 0.5 else 100
        payload = f"{self.next_payload}:{'x' * size}"
        self.ledger.sending(payload)
        queue = LATER if rng.random() < PUT_OFF else QUEUES[0]
        status, body = await connection.request("POST", "/jobs", {"payload": payload, "queue": queue})
        if status == 201:
            self.ledger.submitted(body["job_id"], payload)
        else:
            self._other("submit", status, body)

    async def _work(self, connection: Connection, rng: random.Random) -> bool:
        """Lease a job and ack it; whether there was one."""
        asks = {"worker_id": "chaos", "queues": ALL_QUEUES if self.working_off else QUEUES}
        status, body = await connection.request("POST", "/jobs/lease", asks)
        if status != 200:
            if status != 404:
                self._other("lease", status, body)
            return False
        job_id, attempt = body["job_id"], body["attempt"]
        until_us = _unix_us(body["lease_until"])
        lease = Lease(until_us - LEASE_MS * 1000, until_us, body["lease_token"])
        self.ledger.leased(job_id, body["payload"], attempt, lease)
        if job_id not in self.ledger.books or (rng.random() < VANISH and not self.working_off):
            return True
        await self._ack(connection, job_id, attempt, lease, fails=rng.random() < FAIL)
        return True

    async def _ack(self, connection: Connection, job_id: str, attempt: int, lease: Lease, fails: bool) -> None:
        """Until there is an answer: a token makes the repetition safe."""
        outcome = {"result_error": "it failed"} if fails else {"result": f"done {attempt}"}
        lease.closing = True
        if not fails:
            self.ledger.acking(job_id, attempt, _now_us())
        while True:
            try:
                sent = {"lease_token": lease.token, **outcome}
                status, body = await connection.request("POST", f"/jobs/{job_id}/ack", sent)
                if status != 503:
                    break
            except (NotSent, Unanswered):
                self.ledger.counts["acks repeated"] += 1
            await asyncio.sleep(0.005)
            await self.server.up.wait()
        if status == 200 and fails:
            self.ledger.failed(job_id, attempt)
        elif status == 200:
            self.ledger.acked(job_id, attempt, outcome["result"])
        elif status == 409 and _now_us() >= lease.until_us:
            self.ledger.refused(job_id, attempt)
            self.ledger.counts["acks too late"] += 1
        elif status == 400 and body["code"] == "job_not_found":  # an earlier try was in force, and long ago
            self.ledger.judge(job_id, 404, body, _now_us())
        elif status == 409:
            self.ledger.fault("refused", f"{job_id}: attempt {attempt} was refused while its lease lived: {body}")
        else:
            self._other("ack", status, body)

    def _other(self, what: str, status: int, body: object) -> None:
        if status in (429, 503, 507):
            self.ledger.counts[f"answered {status}"] += 1
        else:
            self.ledger.fault("unexpected", f"{what} was answered {status} {body}")

    # --- the end ------------------------------------------------------------------------------------------------------

    async def account(self) -> Counter[str]:
        """Ask for every job that an answer named and judge it; how many there are in each state."""
        left = list(self.ledger.books)
        states: Counter[str] = Counter()

        async def ask(connection: Connection) -> None:
            while left:
                job_id = left.pop()
                status, job = await connection.request("GET", f"/jobs/{job_id}")
                states[job.get("state", "none")] += 1
                self.ledger.judge(job_id, status, job, _now_us())
                if status == 404:
                    self.ledger.gone(job_id)

        await asyncio.gather(*(ask(connection) for connection in self.connections))
        return states

    async def whole(self) -> None:
        """Load and kills, then the account; then the rest is worked off, and the account once more."""
        self.connections = [Connection(HOST, self.server.port, self.server.key) for _ in range(self.plan.clients)]
        clients = [asyncio.create_task(self.client(number)) for number in range(self.plan.clients)]
        try:
            await self.kill_again_and_again()
            self.stopping = True
            await asyncio.gather(*clients)
            await self.account()
            if not self.ledger.faults:
                await self._work_off()
            self.ledger.judge_leases()
            if (code := await self.server.stop()) != 0:
                self.ledger.fault("unexpected", f"SIGTERM: exit {code}")
        except NotStarted as error:
            self.ledger.fault("not started", str(error))
        finally:
            for task in clients:
                task.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            for connection in self.connections:
                connection.close()
            await self.server.kill()

    async def _work_off(self) -> None:
        """Lease and ack until every job is at its end; those that do not get there are stuck."""
        self.stopping, self.working_off = False, True
        workers = [asyncio.create_task(self.client(number)) for number in range(self.plan.clients)]
        deadline_s = time.monotonic() + WORK_OFF_S
        idle = 0
        leased = -1
        while idle < 3 and time.monotonic() < deadline_s:  # nothing leased for three lease lengths
            idle = idle + 1 if leased == self.ledger.counts["leased"] else 0
            leased = self.ledger.counts["leased"]
            await asyncio.sleep(LEASE_MS / 1000)
        self.stopping = True
        await asyncio.gather(*workers)
        states = await self.account()
        for state in ("READY", "SCHEDULED", "RUNNING", "RETRY"):
            if states[state]:
                self.ledger.fault("stuck", f"{states[state]} jobs are left {state}")
        for state, name in (("ACKED", "ACKED"), ("DEAD", "DEAD"), ("none", "kept long enough and gone")):
            self.ledger.counts[name] = states[state]


def _now_us() -> int:
    return time.time_ns() // 1000


def _unix_us(text: str) -> int:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


async def run(plan: Plan, directory: Path) -> Ledger:
    """The whole of it; the ledger has the counts, and the faults if there are any."""
    ledger = Ledger(RETENTION_MS * 1000 - CLOCKS_US if plan.cleaning else None)
    whole = Run(plan, Server(plan, directory), ledger)
    await whole.whole()
    done = ["in flight when killed", "submitted", "leased", "acks"]
    if plan.cleaning:
        ledger.counts["segments given back"] = segment_numbers(whole.server.directory)[0] - 1
        done += ["segments given back", "kept long enough and gone"]
    for needed in done:
        if plan.kills and not whole.ledger.counts[needed]:
            whole.ledger.fault("unexpected", f"no real work was done: {needed} is 0")
    return whole.ledger


def report(ledger: Ledger) -> str:
    lines = [", ".join(f"{name} {count:,}" for name, count in ledger.counts.items())]
    lines.append(", ".join(f"{name} {ledger.faults[name]:,}" for name in FAULTS))
    lines += [f"{kind}: {example}" for kind, kept in ledger.examples.items() for example in kept]
    lines.append("FAILED" if ledger.faults else "nothing that was acknowledged is missing")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 a server under load and account for every job")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, help="over which the kills are spread; default 0.8 for each")
    parser.add_argument("--cleaning", action="store_true", help="short retention and little slack: segments always go")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    options = parser.parse_args()
    plan = Plan(
        options.kills, options.clients, options.seconds or options.kills * 0.8, options.seed, cleaning=options.cleaning
    )
    print(f"seed {plan.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fastq-kill9-") as directory:
        ledger = asyncio.run(run(plan, Path(directory)))
    print(report(ledger))
    return 1 if ledger.faults else 0


if __name__ == "__main__":
    sys.exit(main())
