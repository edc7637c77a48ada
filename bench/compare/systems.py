"""The systems to compare, each started so that it syncs before it answers, and their requests."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from bench.compare.generator import Plan
from bench.compare.machine import disk_bytes
from bench.compare.rabbitmq import RabbitMQ
from bench.compare.system import PAYLOAD, System
from fastq import __version__
from fastq.log.files.tools.check import check_log


class Fastq(System):
    name = "fastq"
    title = "fastq, over HTTP with keys"
    program = sys.executable

    key = ""

    @classmethod
    def version(cls) -> str:
        """The commit where there is git, or the version."""
        if shutil.which("git") is None:
            return __version__
        git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        return git.stdout.strip() or __version__

    def command(self, synced: bool) -> list[str]:  # noqa: ARG002 - it always syncs
        return [sys.executable, "-m", "fastq", "serve"]

    def environ(self) -> dict[str, str]:
        key = self.directory.with_suffix(".key")
        if not key.exists():
            key.touch(mode=0o600)
            key.write_text(f"admin_{os.urandom(16).hex()}")
        self.key = key.read_text()
        return super().environ() | {
            "WAL_DIR": str(self.directory), "PORT": str(self.port),
            "SEED_DEV_KEYS": "false", "ADMIN_KEY_FILE": str(key),
        }  # fmt: skip

    def disk_bytes(self) -> int:
        return sum(check_log(self.directory).found.sizes.values())  # without preallocated blocks

    def request(self, path: str, body: bytes) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.key}\r\n"
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
            submit=self.request("/jobs", job)
            if batch == 1
            else self.request("/jobs/batch", b'{"jobs":[' + b",".join([job] * batch) + b"]}"),
            submit_jobs=batch,
            lease=self.request("/jobs/lease", b'{"wait_ms":1000}'),
            ack=self.request("/jobs/ID/ack", ack).replace(b"/ID/", b"/<id>/").replace(b"t" * 24, b"<token>"),
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
    """A message of PostgreSQL's protocol."""
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
        self._process.send_signal(signal.SIGINT)  # fast shutdown: it does not wait for clients
        self._process.wait()

    def disk_bytes(self) -> int:
        return disk_bytes(self.directory / "base")  # without its log, which is recycled

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


SYSTEMS: tuple[type[System], ...] = (Fastq, RedisList, RedisLua, Beanstalkd, Postgres, RabbitMQ)
