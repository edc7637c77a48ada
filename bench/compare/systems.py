"""What is compared: how each system is started with everything synced before it answers, and how it is spoken to."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from bench.compare.generator import Plan
from bench.compare.machine import cpu_s, disk_bytes, memory_bytes
from bench.load import pinned
from fastq.log.check import check_log

PAYLOAD = b"x" * 100
START_S = 60
TRY_S = 0.005


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class System(ABC):
    """`with Beanstalkd(directory, core) as system:` starts a server on `directory`, and kills it at the end.

    `core`: the number of the core that it is to stay on; empty: any.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    package: ClassVar[str] = ""
    program: ClassVar[str] = ""
    refusals: ClassVar[tuple[bytes, ...]] = ()  # of a server that listens and is not ready yet

    def __init__(self, directory: Path, core: str = "") -> None:
        self.directory = directory
        self.core = core
        self.port = free_port()
        self._process: subprocess.Popen[bytes]

    @classmethod
    def found(cls) -> str | None:
        """Its program, if it is installed."""
        return shutil.which(cls.program)

    @classmethod
    def version(cls) -> str:
        said = subprocess.run([cls.found() or cls.program, "--version"], capture_output=True, text=True, check=True)
        found = re.search(r"\d+\.\d+[\w.]*", said.stdout)
        return found[0] if found else said.stdout.strip()

    @abstractmethod
    def command(self, synced: bool) -> list[str]:
        """Args: synced: whether every answer waits for the disk; False only to fill it quickly."""

    def user(self) -> str | None:
        """Who runs it, if not the caller."""
        return None

    def prepare(self) -> None:
        """Before its first start."""
        self.directory.mkdir()

    @abstractmethod
    def plan(self, batch: int = 1) -> Plan:
        """Args: batch: jobs in one submit."""

    def __enter__(self) -> Self:
        self.prepare()
        self.launch()
        self.wait_until_it_answers(with_a_job=False)
        self.ready()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def ready(self) -> None:  # noqa: B027 - most need nothing
        """After its first start: what its queue needs."""

    def launch(self, synced: bool = True) -> None:
        """Start the process, in a session of its own, so that all of it can be killed."""
        with self.directory.with_suffix(".out").open("ab") as out:
            self._process = subprocess.Popen(
                [*pinned(self.core), *self.command(synced)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, env=self.environ(), user=self.user(), cwd=self.directory,
            )  # fmt: skip

    def environ(self) -> dict[str, str]:
        return dict(os.environ)

    def wait_until_it_answers(self, with_a_job: bool) -> None:
        """Until a lease is answered, on a fresh connection: with a job, or with anything but a refusal."""
        give_up_s = time.monotonic() + START_S
        while not self._leases(with_a_job):
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                raise RuntimeError(f"{self.name} does not answer:\n{self.directory.with_suffix('.out').read_text()}")
            try:
                self._process.wait(TRY_S)
            except subprocess.TimeoutExpired:
                continue

    def _leases(self, with_a_job: bool) -> bool:
        plan = self.plan()
        said = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=START_S) as connection:
                connection.sendall(plan.hello + plan.lease if with_a_job else self.greeting())
                while plan.id not in said if with_a_job else not said:
                    got = connection.recv(65536)
                    said += got
                    if not got or any(refusal in said for refusal in self.refusals):
                        return False
        except OSError:
            return False
        return True

    @abstractmethod
    def greeting(self) -> bytes:
        """A request that an empty server answers."""

    def stop(self) -> None:
        """In order, so that everything is on disk."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        return cpu_s(self._process.pid)

    def memory_bytes(self) -> int:
        return memory_bytes(self._process.pid)

    def disk_bytes(self) -> int:
        """What its jobs take, once it is stopped."""
        return disk_bytes(self.directory)


class Fastq(System):
    name = "fastq"
    title = "fastq, over HTTP with keys"
    program = sys.executable

    _key = ""

    @classmethod
    def version(cls) -> str:
        git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        return git.stdout.strip() or "unknown"

    def command(self, synced: bool) -> list[str]:  # noqa: ARG002 - it knows no other way
        return [sys.executable, "-m", "fastq", "serve"]

    def environ(self) -> dict[str, str]:
        key = self.directory.with_suffix(".key")
        if not key.exists():
            key.touch(mode=0o600)
            key.write_text(f"admin_{os.urandom(16).hex()}")
        self._key = key.read_text()
        return super().environ() | {
            "WAL_DIR": str(self.directory), "PORT": str(self.port),
            "SEED_DEV_KEYS": "false", "ADMIN_KEY_FILE": str(key),
        }  # fmt: skip

    def disk_bytes(self) -> int:
        return sum(check_log(self.directory).found.sizes.values())  # without blocks that are only prepared

    def _request(self, path: str, body: bytes) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def greeting(self) -> bytes:
        return f"GET /ready HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode()

    def plan(self, batch: int = 1) -> Plan:
        job = b'{"payload":"%s"}' % PAYLOAD
        ack = b'{"lease_token":"' + b"t" * 24 + b'"}'
        return Plan(
            framing="http",
            submit=self._request("/jobs", job)
            if batch == 1
            else self._request("/jobs/batch", b'{"jobs":[' + b",".join([job] * batch) + b"]}"),
            submit_jobs=batch,
            lease=self._request("/jobs/lease", b'{"wait_ms":1000}'),
            ack=self._request("/jobs/ID/ack", ack).replace(b"/ID/", b"/<id>/").replace(b"t" * 24, b"<token>"),
            id=b'"job_id":"', id_end=b'"', token=b'"lease_token":"', token_end=b'"',
        )  # fmt: skip


def resp(*words: bytes | str | int) -> bytes:
    """A Redis command."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class RedisList(System):
    name = "redis-list"
    title = "Redis, appendfsync always: a bare list (LPUSH; LMOVE; LREM)"
    package = program = "redis-server"
    refusals = (b"-LOADING",)

    def command(self, synced: bool) -> list[str]:
        return [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always" if synced else "everysec",
            "--auto-aof-rewrite-percentage", "0", "--protected-mode", "no",
        ]  # fmt: skip

    def greeting(self) -> bytes:
        return resp("LLEN", "jobs")

    def plan(self, batch: int = 1) -> Plan:
        return Plan(
            framing="resp",
            submit=resp("LPUSH", "jobs", *[PAYLOAD] * batch), submit_jobs=batch,
            lease=resp("LMOVE", "jobs", "working", "RIGHT", "LEFT"),
            ack=resp("LREM", "working", -1, PAYLOAD).replace(PAYLOAD, b"<id>"),
            id=b"$%d\r\n" % len(PAYLOAD), id_end=b"\r\n",
        )  # fmt: skip


class RedisLua(RedisList):
    name = "redis-lua"
    title = "Redis, appendfsync always: a queue in Lua (hash and sorted sets, leases with tokens)"

    submit_lua = b"""
        for _, payload in ipairs(ARGV) do
            local number = redis.call('INCR', 'number')
            local id = string.format('%012d', number)
            redis.call('HSET', 'job:' .. id, 'payload', payload, 'attempts', 0)
            redis.call('ZADD', 'ready', number, id)
        end
        return #ARGV"""
    lease_lua = b"""
        local id = redis.call('ZPOPMIN', 'ready')[1]
        if not id then return false end
        local now = redis.call('TIME')
        local token = redis.call('HINCRBY', 'job:' .. id, 'attempts', 1)
        redis.call('ZADD', 'deadlines', now[1] + 30, id)
        return {id, tostring(token), redis.call('HGET', 'job:' .. id, 'payload')}"""
    ack_lua = b"""
        if redis.call('HGET', 'job:' .. ARGV[1], 'attempts') ~= ARGV[2] then return redis.error_reply('LOST') end
        redis.call('ZREM', 'deadlines', ARGV[1])
        return redis.call('DEL', 'job:' .. ARGV[1])"""

    def plan(self, batch: int = 1) -> Plan:
        scripts = (self.submit_lua, self.lease_lua, self.ack_lua)
        submit, lease, ack = (hashlib.sha1(script, usedforsecurity=False).hexdigest() for script in scripts)
        return Plan(
            framing="resp",
            hello=b"".join(resp("SCRIPT", "LOAD", script) for script in scripts), hello_replies=len(scripts),
            submit=resp("EVALSHA", submit, 0, *[PAYLOAD] * batch), submit_jobs=batch,
            lease=resp("EVALSHA", lease, 0),
            ack=resp("EVALSHA", ack, 0, "i" * 12, "t").replace(b"i" * 12, b"<id>").replace(b"\nt\r", b"\n<token>\r"),
            id=b"*3\r\n$12\r\n", id_end=b"\r\n", token=b"$1\r\n", token_end=b"\r\n",
        )  # fmt: skip


class Beanstalkd(System):
    name = "beanstalkd"
    title = "beanstalkd -f0"
    package = program = "beanstalkd"

    @classmethod
    def version(cls) -> str:
        return subprocess.run(["beanstalkd", "-v"], capture_output=True, text=True, check=True).stdout.split()[-1]

    def command(self, synced: bool) -> list[str]:
        every_ms = "0" if synced else "1000"
        return ["beanstalkd", "-l", "127.0.0.1", "-p", str(self.port), "-b", str(self.directory), "-f", every_ms]

    def greeting(self) -> bytes:
        return b"list-tube-used\r\n"

    def plan(self, batch: int = 1) -> Plan:
        return Plan(
            framing="beanstalk",
            submit=b"put 1024 0 30 %d\r\n%s\r\n" % (len(PAYLOAD), PAYLOAD) * batch,
            submit_replies=batch, submit_jobs=batch,
            lease=b"reserve-with-timeout 1\r\n",
            ack=b"delete <id>\r\n",
            id=b"RESERVED ", id_end=b" ",
        )  # fmt: skip


def message(kind: bytes, body: bytes) -> bytes:
    """Of PostgreSQL's protocol."""
    return kind + struct.pack("!i", len(body) + 4) + body


class Postgres(System):
    name = "postgres"
    title = "PostgreSQL, SELECT … FOR UPDATE SKIP LOCKED"
    package = "postgresql"
    program = "postgres"
    refusals = (b"SFATAL",)

    @classmethod
    def found(cls) -> str | None:
        newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
        return str(newest[-1]) if newest else shutil.which("postgres")

    schema = """
        CREATE TABLE jobs (id bigserial PRIMARY KEY, payload text NOT NULL, priority int NOT NULL DEFAULT 0,
                           state smallint NOT NULL DEFAULT 0, attempts int NOT NULL DEFAULT 0, deadline timestamptz);
        CREATE INDEX jobs_ready ON jobs (priority DESC, id) WHERE state = 0;
    """
    statements: ClassVar[dict[bytes, bytes]] = {
        b"submit": b"INSERT INTO jobs (payload) VALUES ($1)",
        b"submit_many": b"INSERT INTO jobs (payload) SELECT unnest($1::text[])",
        b"lease": b"""
            UPDATE jobs SET state = 1, attempts = attempts + 1, deadline = now() + '30 s'
            WHERE id = (SELECT id FROM jobs WHERE state = 0 ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING lpad(id::text, 12, '0'), payload""",
        b"ack": b"DELETE FROM jobs WHERE id = $1::text::bigint AND state = 1",
    }

    def user(self) -> str | None:
        return "postgres" if os.geteuid() == 0 else None  # it refuses to run as root

    def _tool(self, name: str) -> str:
        return str(Path(self.found() or "").with_name(name))

    def _own(self, path: Path) -> None:
        if (user := self.user()) is not None:
            entry = pwd.getpwnam(user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def prepare(self) -> None:
        super().prepare()
        self.directory.chmod(0o700)
        self._own(self.directory)
        subprocess.run(
            [self._tool("initdb"), "-D", self.directory, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C"],
            check=True, capture_output=True, user=self.user(), cwd=self.directory,
        )  # fmt: skip

    def command(self, synced: bool) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "on",
            "synchronous_commit": "on" if synced else "off", "max_connections": 600, "shared_buffers": "512MB",
            "max_wal_size": "4GB", "jit": "off",
        }  # fmt: skip
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._tool("postgres"), "-D", str(self.directory), *options]

    def ready(self) -> None:
        subprocess.run(
            ["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "bench", "-c", self.schema, "postgres"],
            check=True, capture_output=True,
        )  # fmt: skip

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # its fast shutdown: it does not wait for clients
        self._process.wait()

    def disk_bytes(self) -> int:
        return disk_bytes(self.directory / "base")  # its log is used again and again

    def greeting(self) -> bytes:
        options = b"user\0bench\0database\0postgres\0\0"
        return struct.pack("!ii", len(options) + 8, 3 << 16) + options

    def _execute(self, statement: bytes, *arguments: bytes) -> bytes:
        values = b"".join(struct.pack("!i", len(value)) + value for value in arguments)
        bind = b"\0" + statement + b"\0" + struct.pack("!hh", 0, len(arguments)) + values + struct.pack("!h", 0)
        return message(b"B", bind) + message(b"E", b"\0" + struct.pack("!i", 0)) + message(b"S", b"")

    def plan(self, batch: int = 1) -> Plan:
        parse = b"".join(
            message(b"P", name + b"\0" + sql + b"\0" + struct.pack("!h", 0)) for name, sql in self.statements.items()
        )
        many = b"{" + b",".join([PAYLOAD] * batch) + b"}"
        return Plan(
            framing="postgres",
            hello=self.greeting() + parse + message(b"S", b""), hello_replies=2,
            submit=self._execute(b"submit", PAYLOAD) if batch == 1 else self._execute(b"submit_many", many),
            submit_jobs=batch,
            lease=self._execute(b"lease"),
            ack=self._execute(b"ack", b"i" * 12).replace(b"i" * 12, b"<id>"),
            id=struct.pack("!hi", 2, 12), id_end=struct.pack("!i", len(PAYLOAD)),
        )  # fmt: skip


SYSTEMS: tuple[type[System], ...] = (Fastq, RedisList, RedisLua, Beanstalkd, Postgres)
