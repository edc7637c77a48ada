"""The server under test: our own in a directory of its own, or any other, killed and started by commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from pathlib import Path
from typing import Protocol

from fastq.chaos.plan import LEASE_MS, RETENTION_MS, Plan
from fastq.client.async_transport import LoopTransport
from fastq.client.errors import ServerUnreachable
from fastq.client.protocol import Call
from fastq.client.wire import Address
from fastq.server.settings import SETTINGS

HOST = "127.0.0.1"
START_S = 60.0
POLL_S = 0.05  # between two checks whether a remote server is back
OUTPUT_BYTES_SHOWN = 500  # of a server that did not start


class Target(Protocol):
    """`directory`: the server's data directory, if known. Methods raise ServerUnreachable if it does not answer."""

    url: str
    key: str
    directory: Path | None
    is_ours: bool

    async def start(self) -> None:
        """Begin to start the server."""

    async def started(self) -> str:
        """Wait until the server answers. Returns a name of its process, different for each process."""

    async def kill(self) -> None:
        """Kill the server. Returns when it is dead."""

    async def end(self) -> str:
        """End the server after the run. Returns what went wrong, or an empty string."""


class OwnServer:
    """A server process that is killed and started again on the same directory and port."""

    is_ours = True

    def __init__(self, plan: Plan, directory: Path) -> None:
        self._command = plan.serve
        self.directory: Path | None = directory / "data"
        self._stderr = directory / "stderr"
        self.key = f"admin_{secrets.token_urlsafe(24)}"
        key_file = directory / "admin.key"
        key_file.touch(0o600)
        key_file.write_text(self.key)
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        self.url = f"http://{HOST}:{port}"
        ours = {setting.name for setting in SETTINGS}  # the user's settings are for another server
        self._environ = {name: value for name, value in os.environ.items() if name not in ours} | {
            "HOST": HOST, "PORT": str(port), "WAL_DIR": str(self.directory), "SEED_DEV_KEYS": "false",
            "ADMIN_KEY_FILE": str(key_file), "LEASE_DURATION": f"{LEASE_MS}ms", "LEASE_CHECK_INTERVAL": "50ms",
            "WAL_SEGMENT_BYTES": "4MiB",
        }  # fmt: skip
        if plan.cleaning:
            self._environ |= {"RETENTION_ACKED": f"{RETENTION_MS}ms", "WAL_SLACK_BYTES": "1MiB"}
        self.settings: dict[str, str] = {}  # further settings, from the next start on
        self._process: asyncio.subprocess.Process | None = None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        with self._stderr.open("ab") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environ | self.settings, stdout=asyncio.subprocess.PIPE, stderr=stderr,
                start_new_session=True,  # Ctrl-C ends only the harness
            )  # fmt: skip

    async def started(self) -> str:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                while not (line := await process.stdout.readline()).startswith(b"  curl "):
                    if not line:
                        raise ServerUnreachable(
                            f"the server ended with exit code {await process.wait()}: {self.said()}", sent=False
                        )
        except TimeoutError:
            raise ServerUnreachable(
                f"the server did not start within {START_S:g} s: {self.said()}", sent=False
            ) from None
        return f"{process.pid} {await instance_of(self.url, self.key)}"

    def said(self) -> str:
        return self._stderr.read_bytes()[-OUTPUT_BYTES_SHOWN:].decode(errors="replace").strip()

    async def kill(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        assert self._process.stdout is not None
        await self._process.stdout.read()  # to the end: the pipe closes
        await self._process.wait()

    async def end(self) -> str:
        """Send SIGTERM, and check that the server ends in order."""
        if self._process is None or self._process.returncode is not None:
            return "the server had ended by itself"
        self._process.terminate()
        try:
            async with asyncio.timeout(START_S):
                code = await self._process.wait()
        except TimeoutError:
            return f"the server did not end within {START_S:g} s of SIGTERM"
        return f"the server answered SIGTERM with exit code {code}" if code else ""


class NamedServer:
    """A server at `url`, on any machine. Without commands it is only watched."""

    is_ours = False
    directory: Path | None = None

    def __init__(self, url: str, key: str, kill_cmd: str, restart_cmd: str) -> None:
        self.url, self.key = url, key
        self._kill_cmd, self._restart_cmd = kill_cmd, restart_cmd
        self._last = ""
        self._restarting: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        if self._last and self._restart_cmd:  # the command may be the server itself: do not wait for its end
            self._restarting = await _shell(self._restart_cmd)

    async def started(self) -> str:
        """Any process may answer. The verdict reports a kill after which the same process answers."""
        try:
            async with asyncio.timeout(START_S):
                while True:
                    try:
                        self._last = await instance_of(self.url, self.key)
                    except ServerUnreachable:
                        await asyncio.sleep(POLL_S)
                    else:
                        return self._last
        except TimeoutError:
            code = self._restarting.returncode if self._restarting is not None else None
            ended = "" if code is None else f"; the restart command ended with {code}"
            raise ServerUnreachable(f"{self.url} did not answer within {START_S:g} s{ended}", sent=False) from None

    async def kill(self) -> None:
        if self._kill_cmd:
            command = await _shell(self._kill_cmd)
            if code := await command.wait():
                raise ServerUnreachable(f"the kill command ended with exit code {code}", sent=False)

    async def end(self) -> str:
        return ""


async def _shell(command: str) -> asyncio.subprocess.Process:
    nowhere = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_shell(
        command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
    )


async def instance_of(url: str, key: str) -> str:
    """The process's part of the server's request ids. Raises ServerUnreachable."""
    transport = LoopTransport(Address.of(url, key))
    try:
        answer = await transport.send(Call("GET", "/health", bytes), 10.0)
    finally:
        await transport.close()
    if answer.status != 200:
        raise ServerUnreachable(f"{url} answered {answer.status} to GET /health", sent=True)
    return answer.request_id.rpartition("-")[0]
