"""A run: load with kills, a check of every answer, then the remaining work, and the check again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import msgspec

from fastq.chaos.accounting import Accounts, Kill
from fastq.chaos.crew import Crew
from fastq.chaos.ledger import Ledger
from fastq.chaos.plan import LEASE_MS, RETENTION_MS, Draws, Load, Plan, draws
from fastq.chaos.target import Target
from fastq.chaos.verdict import Outcome
from fastq.client.async_client import AsyncClient
from fastq.client.errors import NotFound, Refused, ServerUnreachable
from fastq.client.models import TERMINAL, State
from fastq.client.protocol import Call, Retries
from fastq.clock import monotonic_us, wall_us
from fastq.log.files.segments import segment_numbers


class _Queue(msgspec.Struct):
    ready: int
    waiting: int
    running: int


_read_queue = msgspec.json.Decoder(_Queue).decode

CLOCKS_US = 50_000  # how far the server's clock may be off ours
STALL_S = 10 * LEASE_MS / 1000  # after so long without any answer the run has stalled
ASKERS = 16
PATIENCE = Retries(for_s=1.0)  # for a server that is up and idle
POLL_S = 0.1  # between two checks of unfinished work
STARTING = 0.2  # share of kills of our own server that are followed by one while it starts
STARTING_S = (0.05, 0.5)
HIT = (0.1, 0.6)  # a kill comes within this part of its jobs; later, a fast server may have answered them all
TOGETHER = 0.3  # share of client kills that come right after the server's
UNFINISHED = frozenset(get_args(State)) - TERMINAL

Told = Callable[[Accounts, int], None]
"""Called now and then with (accounts, client processes killed), to show progress."""


@dataclass
class Run:
    plan: Plan
    target: Target
    accounts: Accounts
    crew: Crew
    rng: Draws
    told: Told

    # --- kills --------------------------------------------------------------------------------------------------------

    async def load_and_kills(self) -> None:
        """Open the jobs in equal shares, one for each kill and one after the last. Each kill comes within its share.

        The next share is open too: the server has requests in flight even if the kill comes late.

        Ends at the first fault. Raises ServerUnreachable.
        """
        plan, accounts = self.plan, self.accounts
        instance = await self._up()
        last_us = monotonic_us()
        for number in range(plan.kills):
            begin, end, spare = (plan.jobs * part // (plan.kills + 1) for part in (number, number + 1, number + 2))
            wait_s = plan.kill_interval_s - (monotonic_us() - last_us) / 1e6
            await asyncio.sleep(max(0.0, wait_s) if number else 0.0)
            self.crew.order(open=spare)
            begin = min(max(begin, len(accounts.submitted)), end)
            hit = begin + max(1, int((end - begin) * self.rng.uniform(*HIT)))
            if plan.kill_clients and not (together := self.rng.random() < TOGETHER):
                await self._reached(begin + max(1, int((hit - begin) * self.rng.random())))
                await self._kill_client()
            await self._reached(hit)
            if accounts.ledger.faults:
                return
            kill = Kill(monotonic_us(), 0, instance)
            await self._kill_server(kill)
            accounts.kills.append(kill)
            if plan.kill_clients and together:
                await self._kill_client()
            await self._start_killed()
            kill.instance_after = instance = await self._up()
            last_us = kill.begun_us
        self.crew.order(open=plan.jobs)
        await self._reached(plan.jobs)

    async def _reached(self, submitted: int) -> None:
        """Wait until that many jobs are submitted, or there is a fault. Raises ServerUnreachable."""
        accounts, faults = self.accounts, self.accounts.ledger.faults
        if not await accounts.until(lambda: len(accounts.submitted) >= submitted or bool(faults), STALL_S):
            raise ServerUnreachable(f"the server is up but answered nothing for {STALL_S:g} s", sent=True)

    async def _kill_server(self, kill: Kill) -> None:
        await self.target.kill()
        kill.done_us = monotonic_us()
        self.crew.order(up=False)
        await self.target.start()

    async def _start_killed(self) -> None:
        """Start the server. Sometimes kill our own server while it starts, and start it again."""
        if self.target.is_ours and self.rng.random() < STARTING:
            await asyncio.sleep(self.rng.uniform(*STARTING_S))
            await self.target.kill()
            self.accounts.ledger.counts["kills while starting"] += 1
            await self.target.start()

    async def _up(self) -> str:
        instance = await self.target.started()
        self.crew.order(up=True)
        return instance

    async def _kill_client(self) -> None:
        await self.crew.kill(self.rng.randrange(self.plan.processes))

    # --- check --------------------------------------------------------------------------------------------------------

    async def account(self, client: AsyncClient) -> Counter[str]:
        """Read and judge every job that an answer named. Returns how many are in each state."""
        ledger = self.accounts.ledger
        left = list(ledger.books)
        states: Counter[str] = Counter()

        async def ask() -> None:
            while left:
                job_id = left.pop()
                try:
                    job = await client.get(job_id)
                except NotFound:
                    states["none"] += 1
                    ledger.judge(job_id, 404, {}, monotonic_us())
                    ledger.gone(job_id)
                except Refused as error:
                    ledger.judge(job_id, error.status, {})
                else:
                    states[job.state] += 1
                    seen = {"state": job.state, "attempts": job.attempts, "result": job.result}
                    ledger.judge(job_id, 200, seen, monotonic_us())

        await asyncio.gather(*(ask() for _ in range(ASKERS)))
        return states

    async def account_twice(self, client: AsyncClient) -> Counter[str]:
        """Check all answers; then work the remaining jobs, and check that every job is finished."""
        ledger = self.accounts.ledger
        if not await self.crew.rest(STALL_S):
            ledger.fault("stuck", "requests in flight did not end")
        states = await self.account(client)
        if ledger.faults:
            return states
        self.crew.order(resting=False, working_off=True)
        await self._worked_off(client)
        await self.crew.rest(STALL_S)
        states = await self.account(client)
        for state in sorted(UNFINISHED & states.keys()):
            ledger.fault("stuck", f"{states[state]:,} jobs remain {state}")
        return states

    async def _worked_off(self, client: AsyncClient) -> None:
        """Wait until no job is unfinished, or no job makes progress."""
        last, since_us = -1, monotonic_us()
        while left := await self._unfinished(client):
            now_us = monotonic_us()
            if left != last:
                last, since_us = left, now_us
            elif now_us - since_us > STALL_S * 1e6:
                return
            await asyncio.sleep(POLL_S)

    async def _unfinished(self, client: AsyncClient) -> int:
        total = 0
        for queue in (self.crew.load.queue, self.crew.load.later_queue):
            try:
                shown = await client.call(Call("GET", f"/queues/{queue}", _read_queue))
            except NotFound:  # the queue has no jobs
                continue
            total += shown.ready + shown.waiting + shown.running
        return total

    # --- the run ------------------------------------------------------------------------------------------------------

    async def whole(self) -> Counter[str]:
        """Do the whole run. Returns how many jobs are in each state at the end."""
        ledger = self.accounts.ledger
        states: Counter[str] = Counter()
        showing = asyncio.create_task(self._show())
        try:
            await self.target.start()
            await self.crew.start()
            await self.load_and_kills()
            async with AsyncClient(self.target.url, self.target.key, retries=PATIENCE) as client:
                states = await self.account_twice(client)
            await self.crew.end()
            if wrong := await self.target.end():
                ledger.fault("unexpected", wrong)
        except (ServerUnreachable, Refused) as error:
            ledger.fault("not there", f"the server: {error}")
        finally:
            showing.cancel()
            await self.crew.abandon()
            if self.target.is_ours:
                await self.target.kill()
        ledger.judge_leases()
        self.accounts.count_in_flight()
        return states

    async def _show(self) -> None:
        while True:
            self.told(self.accounts, self.crew.kills)
            await asyncio.sleep(POLL_S)


async def run(plan: Plan, target: Target, told: Told = lambda _accounts, _kills: None) -> Outcome:
    """Do a run. The server's faults are in the outcome."""
    ledger = Ledger(RETENTION_MS * 1000 - CLOCKS_US if plan.cleaning else None)
    accounts = Accounts(ledger)
    name = f"chaos.{plan.seed}.{wall_us() // 1000:x}"
    load = Load(target.url, target.key, name, plan.jobs, plan.processes, plan.workers, plan.seed)
    crew = Crew(load, accounts)
    begun_us = monotonic_us()
    one = Run(plan, target, accounts, crew, draws(plan.seed, "kills"), told)
    states = await one.whole()
    if plan.cleaning and target.directory is not None and (kept := segment_numbers(target.directory)):
        ledger.counts["segments freed"] = kept[0] - 1
    told(accounts, crew.kills)
    return Outcome(plan, accounts, states, crew.kills, begun_us, monotonic_us())
