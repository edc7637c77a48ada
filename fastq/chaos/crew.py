"""The crew starts the client processes, gives them orders, reads their journals, kills and replaces them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass, field

import msgspec

from fastq.chaos.accounting import Accounts
from fastq.chaos.journal import read_event
from fastq.chaos.plan import Brief, Load, Orders

END_S = 30.0

_encode = msgspec.json.Encoder().encode


@dataclass
class Member:
    """One client process, and its successors after kills."""

    number: int
    workers: int
    life: int = 0
    process: asyncio.subprocess.Process | None = None
    reading: asyncio.Task[None] | None = None
    killed: bool = False


@dataclass
class Crew:
    load: Load
    accounts: Accounts
    orders: Orders = field(default_factory=Orders)
    members: list[Member] = field(default_factory=list)
    kills: int = 0

    async def start(self) -> None:
        load = self.load
        for number in range(load.processes):
            share = load.workers // load.processes + (number < load.workers % load.processes)
            self.members.append(Member(number, share))
            await self._spawn(self.members[-1])

    async def _spawn(self, member: Member) -> None:
        processes, number = self.load.processes, member.number
        again = self.accounts.outstanding(number, processes)
        sent = max((n for n in self.accounts.sent if n % processes == number), default=number - processes)
        brief = Brief(self.load, number, member.life, member.workers, sent + processes, again)
        member.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fastq.chaos.client", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env=os.environ, start_new_session=True,
        )  # fmt: skip
        member.reading = asyncio.create_task(self._read(member, member.process))
        self._tell(member, brief)
        self._tell(member, self.orders)

    def _tell(self, member: Member, what: Brief | Orders) -> None:
        assert member.process is not None
        assert member.process.stdin is not None
        member.process.stdin.write(_encode(what) + b"\n")

    def order(self, **changes: bool | int) -> None:
        """Change these orders of all processes; the others stay."""
        self.orders = msgspec.structs.replace(self.orders, **changes)
        for member in self.members:
            self._tell(member, self.orders)

    async def _read(self, member: Member, process: asyncio.subprocess.Process) -> None:
        """Read a process's journal until it ends."""
        assert process.stdout is not None
        async for line in process.stdout:
            if line.endswith(b"\n"):  # else a kill cut the line; no request followed it
                self.accounts.take(member.number, read_event(line))
        code = await process.wait()
        if code and not member.killed:
            self.accounts.ledger.fault("client failed", f"client process {member.number} ended with exit code {code}")

    async def kill(self, number: int) -> None:
        """kill -9 one process, read its journal to the end, and start a successor."""
        member = self.members[number]
        assert member.process is not None
        assert member.reading is not None
        member.killed = True
        member.process.kill()
        await member.reading
        if member.process.returncode == -9:
            self.kills += 1
        member.killed, member.life = False, member.life + 1
        await self._spawn(member)

    async def rest(self, stall_s: float) -> bool:
        """Send no new requests and wait for those in flight. Returns whether all ended."""
        self.accounts.resting.clear()
        self.order(resting=True)
        return await self.accounts.until(lambda: len(self.accounts.resting) == len(self.members), stall_s)

    async def end(self) -> None:
        """Let all processes end, and read their journals to the end."""
        for member in self.members:
            if member.process is not None and member.process.stdin is not None:
                member.process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await asyncio.gather(*(member.reading for member in self.members if member.reading is not None))
        except TimeoutError:
            self.accounts.ledger.fault("client failed", f"client processes did not end within {END_S:g} s")
            await self.abandon()

    async def abandon(self) -> None:
        """Kill the processes that still run."""
        for member in self.members:
            if member.process is not None and member.process.stdin is not None:
                member.process.stdin.close()
                member.killed = True
                with contextlib.suppress(ProcessLookupError):
                    member.process.kill()
        await asyncio.gather(*(member.reading for member in self.members if member.reading is not None))
