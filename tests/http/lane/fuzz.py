"""A differential fuzzer of the two ways: one server with the lane, one without, and the same bytes to both.

    python -m tests.http.lane.fuzz [--requests N] [--seed N] [--processes N]        (`./dev fuzz lane`)

Both servers have the same keys, the same database id and a clock that only the fuzzer moves, so equal states give equal
bytes: ids, tokens and times too. After each packet everything that left either server is compared, and every record
that either wrote to its log. At the end of a seed the hashes of both states are compared, and what the API lists.

No connection may be left without an end: one that waits has a timer.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from unittest.mock import patch

import uvloop

from fastq.clock import Clock
from tests.http.lane.corpus import kept_bodies
from tests.http.lane.drawn import Requests
from tests.http.lane.memory_connection import MemoryConnection
from tests.http.lane.records import Appended, difference
from tests.http.world import Hands, World, running

START_US = 1_767_225_600_000_000
LONG_REQUESTS = 5_000_000
SEED_REQUESTS = 10_000  # of one pair of servers
LISTS = ["/jobs?limit=1000", "/queues", "/workers", "/schedules"]

_ANSWER = re.compile(rb"(?=HTTP/1\.1 \d\d\d )")
_OWN = (b"date:", b"x-request-id:")  # header lines in which the two servers differ


class Still(Hands):
    """A clock that stands still until the fuzzer moves it."""

    def clock(self) -> Clock:
        return Clock(START_US, lambda: self.ahead_us, lambda: START_US + self.ahead_us)


class SeededSecrets:
    """In place of `secrets`: both servers draw the same."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def token_urlsafe(self, n: int) -> str:
        return self._rng.randbytes(n).hex()

    def token_hex(self, n: int) -> str:
        return self._rng.randbytes(n).hex()


class Failures(logging.Handler):
    """What was logged as an error: a request must not end in a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


FAILURES = Failures()


class Side:
    """One of the two servers, with the connection to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.connection = MemoryConnection(world)
        self.appended = Appended(world.log)
        self._taken = 0

    async def send(self, pieces: list[bytes]) -> tuple[bytes, tuple[object, ...]]:
        """Send pieces in turn. What came back, and whether the connection is open, has a timer, is between requests."""
        connection = self.connection
        for piece in pieces:
            connection.send(piece)
        await connection.at_rest()
        if not connection.is_open:  # whether it is closed or only its writing side depends on what has arrived
            return connection.take(), (False, True, False)
        return connection.take(), (True, connection.is_watched(), connection.is_between_requests())

    async def hang_up(self) -> None:
        """Make a new connection in place of this one."""
        self._taken = self.taken
        self.connection.abort()
        await self.connection.at_rest()
        self.connection = MemoryConnection(self.world)

    @property
    def taken(self) -> int:
        """How many requests took the short way."""
        answers = getattr(self.connection.protocol, "_answers", None)
        return self._taken + (answers.taken if answers is not None else 0)


@asynccontextmanager
async def pair(seed: int) -> AsyncIterator[tuple[Side, Side]]:
    """The lane's server, and the reference."""
    async with AsyncExitStack() as stack:
        sides = []
        for lane in (True, False):
            with patch("fastq.services.keys.records.secrets", SeededSecrets(seed)):
                world = await stack.enter_async_context(running(lane=lane, hands=Still()))
            sides.append(Side(world))
        logging.getLogger().addHandler(FAILURES)
        FAILURES.found.clear()
        try:
            yield sides[0], sides[1]
        finally:
            logging.getLogger().removeHandler(FAILURES)
            for side in sides:
                side.connection.abort()


def comparable(answers: bytes) -> list[tuple[list[bytes], bytes]]:
    """Each answer as its head's lines in order, without those that differ, and its body."""
    found = []
    for answer in filter(None, _ANSWER.split(answers)):
        head, _, body = answer.partition(b"\r\n\r\n")
        found.append((sorted(line for line in head.split(b"\r\n") if not line.startswith(_OWN)), body))
    return found


async def compare(sides: tuple[Side, Side], pieces: list[bytes], about: str) -> list[bytes]:
    """Send the same to both. Returns the bodies of the answers. Raises AssertionError for a difference."""
    (lane, lane_ends), (falcon, falcon_ends) = [await side.send(pieces) for side in sides]
    shown = f"{about}: {pieces!r}\nlane:   {lane!r}\nfalcon: {falcon!r}"
    answers = comparable(falcon)
    assert comparable(lane) == answers, f"the answers differ: {shown}"
    assert lane_ends == falcon_ends, f"the connections end differently, {lane_ends} and {falcon_ends}: {shown}"
    assert lane_ends[1], f"the connection waits for ever: {shown}"
    assert not FAILURES.found, f"an error was logged: {shown}\n{FAILURES.found[0]}"
    differing = difference(*(side.appended.take() for side in sides))
    assert not differing, f"the records differ: {shown}\n{differing}"
    if not lane_ends[0] or not lane_ends[2]:
        for side in sides:
            await side.hang_up()
    return [body for _, body in answers]


async def compare_states(sides: tuple[Side, Side], about: str) -> None:
    """Compare the hashes of the states, and everything that the API lists."""
    hashes = [side.world.core.state_hash() for side in sides]
    assert hashes[0] == hashes[1], f"the states differ: {about}"
    for path in LISTS:
        head = f"GET {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {sides[0].world.secrets['admin']}\r\n\r\n"
        await compare(sides, [head.encode()], about)


async def fuzz(seed: int, count: int) -> tuple[int, int]:
    """Send `count` requests both ways: how many there were, and how many took the short way.

    Raises AssertionError for the first difference.
    """
    rng = random.Random(seed)
    async with pair(seed) as sides:
        requests = Requests(rng, sides[0].world.secrets, kept_bodies())
        sent = 0
        while sent < count:
            packet = [requests.draw() for _ in range(rng.choice([1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 6]))]
            sent += len(packet)
            for body in await compare(sides, pieces_of(b"".join(packet), rng), f"seed {seed}"):
                requests.learn(body)
            if rng.random() < 0.02:
                ahead_us = rng.randrange(1, 40_000_000)
                for side in sides:
                    side.world.hands.ahead_us += ahead_us
                    side.world.engine.run_due()
        await compare_states(sides, f"seed {seed}")
        return sent, sides[0].taken


def pieces_of(data: bytes, rng: random.Random) -> list[bytes]:
    """The data whole, mostly; cut in a few places; or byte by byte."""
    how = rng.random()
    if how < 0.93:
        return [data]
    if how < 0.99 or len(data) > 1000:
        cuts = sorted(rng.randrange(len(data)) for _ in range(rng.choice([1, 1, 2, 5])))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
    return [data[at : at + 1] for at in range(len(data))]


def fuzz_seeds(first: int, step: int, count: int) -> tuple[int, int]:
    """Fuzz seeds `first`, `first + step` and so on until `count` requests are sent."""
    sent = taken = 0
    seed, began, told = first, time.monotonic(), time.monotonic()
    while sent < count:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            more = runner.run(fuzz(seed, min(SEED_REQUESTS, count - sent)))
        sent, taken, seed = sent + more[0], taken + more[1], seed + step
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{sent:,} requests, {taken / sent:.0%} the short way, {sent / (told - began):.0f}/s", flush=True)
    return sent, taken


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev fuzz lane", description="the lane against Falcon, byte by byte")
    parser.add_argument(
        "--requests", type=int, default=LONG_REQUESTS, help=f"{LONG_REQUESTS:,} take about 40 minutes of one core"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="the first one")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--step", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.processes > 1:
        sys.exit(_in_processes(options))
    print(f"seed {options.seed}", flush=True)
    sent, taken = fuzz_seeds(options.seed, options.step, options.requests)
    print(f"{sent:,} requests, {taken:,} of them the short way: no difference")


def _in_processes(options: argparse.Namespace) -> int:
    """Give each process its part of the seeds. Stop all when one finds a difference."""
    part = -(-options.requests // options.processes)
    command = [sys.executable, "-m", "tests.http.lane.fuzz", "--requests", str(part), "--step", str(options.processes)]
    running_ones = [
        subprocess.Popen([*command, "--seed", str(options.seed + number)]) for number in range(options.processes)
    ]
    code = 0
    while running_ones:
        pid, status = os.wait()
        running_ones = [one for one in running_ones if one.pid != pid]
        if os.waitstatus_to_exitcode(status) and not code:
            code = 1
            for one in running_ones:
                one.send_signal(signal.SIGTERM)
    return code


if __name__ == "__main__":
    main()
