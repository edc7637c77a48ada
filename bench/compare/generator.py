"""Runs the load generator, a C program (generator.c): its plan says what to send and how to read the replies."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class Plan:
    """One system's requests. In `ack`, `<id>` and `<token>` stand for the values in the lease's reply.

    An id lies between `id` and `id_end` in the lease's reply, or is the `id_bytes` after `id`; a reply without one had
    no job. Without `ack`, the lease alone takes the job for good. `ack_replies` 0: acks are not answered. `lease_once`
    1: a connection's first lease subscribes it. Each connection sends `hello` first, which is not measured.
    """

    framing: str
    submit: bytes
    lease: bytes
    ack: bytes
    id: bytes
    id_end: bytes = b""
    id_bytes: int = 0
    token: bytes = b""
    token_end: bytes = b""
    hello: bytes = b""
    hello_replies: int = 1
    submit_replies: int = 1
    submit_jobs: int = 1
    lease_once: int = 0
    ack_replies: int = 1

    def encoded(self) -> bytes:
        """The plan in the form that generator.c reads."""
        texts = []
        for each in fields(self):
            value = getattr(self, each.name)
            text = value if isinstance(value, bytes) else str(value).encode()
            texts.append(b"%s %d\n%s\n" % (each.name.encode(), len(text), text))
        return b"".join(texts)


@dataclass(frozen=True)
class Figures:
    """The figures of one load. `generator_share`: the generator's use of its core, 0 to 1."""

    submitted: int
    acked: int
    empty: int
    errors: int
    seconds: float
    generator_share: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    server_cpu_s: float = field(default=0.0)


def build(directory: Path) -> Path:
    """Compile the generator. Returns the program's path."""
    program = directory / "bench-generator"
    subprocess.run(["cc", "-O2", "-Wall", "-o", program, SOURCE], check=True)
    return program


def load(
    program: Path,
    plan: Plan,
    port: int,
    *,
    producers: int,
    consumers: int,
    seconds: float,
    command: list[str],
    server_cpu_s: Callable[[], float],
    rate: float = 0,
    limit: int = 0,
) -> Figures:
    """Run one load against 127.0.0.1:`port`. `command` is the beginning of the generator's command line.

    `rate`: submits a second; 0: as fast as they are answered. `limit`: ends after this many jobs; 0: none.

    Raises:
        RuntimeError: the generator gave up; its message.
    """
    path = program.with_name("plan")
    path.write_bytes(plan.encoded())
    numbers = map(str, (port, producers, consumers, seconds, rate, limit))
    with (
        tempfile.TemporaryFile("w+", errors="replace") as complaints,
        subprocess.Popen(
            [*command, program, path, *numbers],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True,
        ) as running,
    ):  # fmt: skip
        assert running.stdin is not None
        assert running.stdout is not None
        said, used_s = "", 0.0
        if running.stdout.readline() == "ready\n":
            before_s = server_cpu_s()
            running.stdin.write("g")
            running.stdin.flush()
            said = running.stdout.readline()
            used_s = server_cpu_s() - before_s
        if not said:
            running.wait()
            complaints.seek(0)
            raise RuntimeError(complaints.read().strip() or "the generator gave up")
    figures: dict[str, Any] = json.loads(said)
    return Figures(**figures, server_cpu_s=used_s)
