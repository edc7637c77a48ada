"""For load scripts: a server in a process of its own, its figures, and a client that sends prepared bodies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

TICKS_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def pinned(core: str) -> list[str]:
    """The beginning of a command line that pins a process to a core."""
    return ["taskset", "-c", core] if core else []


class Server:
    """`with Server(directory, **settings) as server:`; settings are environment variables. `keys`: secrets by type.

    `core`: the number of the core to pin it to; empty: any. `before`: the beginning of its command line.
    """

    def __init__(self, directory: Path, core: str = "", before: Sequence[str] = (), **settings: str) -> None:
        self._command = [*pinned(core), *before, sys.executable, "-m", "fastq", "serve"]
        self.directory = directory
        self._environ = os.environ | {"WAL_DIR": str(directory), "PORT": "0"} | settings
        self.keys: dict[str, str] = {}
        self.port = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, env=self._environ, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            words = line.split()
            if line.startswith("Created "):
                self.keys[words[1]] = words[3]
            elif " serves at " in line:
                self.port = urlsplit(words[words.index("at") + 1]).port or 0
            elif line.startswith("  curl "):
                return self
        raise SystemExit("the server did not start")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        """User and system time of all threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_S

    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    def disk_bytes(self) -> int:
        """The disk that its directory takes, spares included."""
        total = 0
        for entry in os.scandir(self.directory):
            try:
                total += entry.stat().st_blocks * 512
            except FileNotFoundError:
                continue  # a segment that was deleted just now
        return total


class Client:
    """One keep-alive connection, one request at a time."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a POST request. Returns the answer's status and content."""
        self._writer.write(f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        return int(head.split(" ", 2)[1]), await self._reader.readexactly(length)

    async def call(self, path: str, body: Any) -> tuple[int, Any]:
        status, content = await self.post(path, msgspec.json.encode(body))
        return status, msgspec.json.decode(content) if content else None
