"""RabbitMQ with a quorum queue, over AMQP 0-9-1: as much of the protocol as publish, confirm, consume and ack need."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

from bench.compare.generator import Plan
from bench.compare.system import PAYLOAD, START_S, System, free_port

QUEUE = b"jobs"
CONSUMER = b"c"
PREFETCH = 16  # deliveries in flight to a consumer: with one alone RabbitMQ waits for every ack
FRAME_BYTES_MAX = 131_072
METHOD, HEADER, BODY = 1, 2, 3
CONFIRM_ON = struct.pack("!HH", 85, 11)
# Methods that close a connection or a channel: while a queue has no leader yet, for example.
CLOSED = (struct.pack("!HH", 10, 50), struct.pack("!HH", 20, 40))


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def long(text: bytes) -> bytes:
    return struct.pack("!I", len(text)) + text


def frame(kind: int, channel: int, content: bytes) -> bytes:
    return struct.pack("!BHI", kind, channel, len(content)) + content + b"\xce"


def method(channel: int, kind: int, number: int, arguments: bytes = b"") -> bytes:
    return frame(METHOD, channel, struct.pack("!HH", kind, number) + arguments)


def greeted() -> bytes:
    """Log in, open a channel, name the queue and ask for confirms, all at once. Six frames answer."""
    durable, nothing, kind = 2, long(b""), short(b"x-queue-type") + b"S" + long(b"quorum")
    return b"".join([
        b"AMQP\0\0\x09\x01",
        method(0, 10, 11, nothing + short(b"PLAIN") + long(b"\0guest\0guest") + short(b"en_US")),
        method(0, 10, 31, struct.pack("!HIH", 1, FRAME_BYTES_MAX, 0)),
        method(0, 10, 40, short(b"/") + b"\0\0"),
        method(1, 20, 10, b"\0"),
        method(1, 50, 10, b"\0\0" + short(QUEUE) + bytes([durable]) + long(kind)),
        method(1, 85, 10, b"\0"),
    ])  # fmt: skip


def published() -> bytes:
    """A persistent message. Its confirm comes when it is on disk."""
    delivery_mode, persistent = 1 << 12, b"\x02"
    head = struct.pack("!HHQH", 60, 0, len(PAYLOAD), delivery_mode) + persistent
    return method(1, 60, 40, b"\0\0\0" + short(QUEUE) + b"\0") + frame(HEADER, 1, head) + frame(BODY, 1, PAYLOAD)


def consumed() -> bytes:
    """Subscribe: from here on RabbitMQ sends jobs, up to PREFETCH without an ack."""
    qos = method(1, 60, 10, struct.pack("!IHB", 0, PREFETCH, 0))
    return qos + method(1, 60, 20, b"\0\0" + short(QUEUE) + short(CONSUMER) + b"\0" + long(b""))


class RabbitMQ(System):
    name = "rabbitmq"
    title = (
        f"RabbitMQ, a quorum queue of one node, publisher confirms; consumers with {PREFETCH} ahead, acks unconfirmed"
    )
    package = "rabbitmq-server"
    program = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in the path changes the user
    refusals = CLOSED

    def __init__(self, directory: Path, core: str = "") -> None:
        super().__init__(directory, core)
        self._names_port, self._node_port = free_port(), free_port()

    @classmethod
    def version(cls) -> str:
        said = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", cls.package], capture_output=True, text=True, check=False
        )
        found = re.match(r"[\d.]+", said.stdout)
        return found[0] if found else "unknown"

    def prepare(self) -> None:
        super().prepare()
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "vm_memory_high_watermark.relative = 0.8\ndisk_free_limit.absolute = 100MB\n"
            "log.console = true\nlog.file = false\n"
        )
        (self.directory / "plugins").write_text("[].\n")

    def command(self, synced: bool) -> list[str]:  # noqa: ARG002 - a quorum queue always syncs
        epmd = shutil.which("epmd") or "epmd"
        # The name server runs beside it in the foreground, so that both end together.
        return ["sh", "-c", f"{epmd} -port {self._names_port} & exec {self.program}"]

    def environ(self) -> dict[str, str]:
        here = str(self.directory)
        return super().environ() | {
            "HOME": here, "ERL_EPMD_PORT": str(self._names_port), "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_DIST_PORT": str(self._node_port), "RABBITMQ_MNESIA_BASE": f"{here}/data",
            "RABBITMQ_LOG_BASE": f"{here}/log", "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/plugins", "RABBITMQ_CONF_ENV_FILE": f"{here}/none",
            "RABBITMQ_PID_FILE": f"{here}/pid",
        }  # fmt: skip

    def ready(self) -> None:
        """Declare the queue on one connection: 256 connections at once would disturb each other."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_S) as connection:
            connection.sendall(greeted())
            said = b""
            while CONFIRM_ON not in said:
                got = connection.recv(65536)
                said += got
                if not got or any(closed in said for closed in CLOSED):
                    raise RuntimeError(f"{self.name} refuses the queue: {said[-300:]!r}")

    def stop(self) -> None:
        super().stop()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # the name server
        except ProcessLookupError:
            return

    def greeting(self) -> bytes:
        return b"AMQP\0\0\x09\x01"

    def plan(self, batch: int = 1) -> Plan:
        ack = method(1, 60, 80, b"i" * 8 + b"\0").replace(b"i" * 8, b"<id>")
        return Plan(
            framing="amqp",
            hello=greeted(), hello_replies=6,
            submit=published() * batch, submit_replies=batch, submit_jobs=batch,
            lease=consumed(), lease_once=1,
            ack=ack, ack_replies=0,
            id=struct.pack("!HH", 60, 60) + short(CONSUMER), id_bytes=8,
        )  # fmt: skip
