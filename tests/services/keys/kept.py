"""The log as keys see it: documents in a dict."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from fastq.engine.commands import Principal

ADMIN = Principal("admin_id", "root", "admin", frozenset())
OTHER = Principal("client_id", "other", "client", frozenset())


class Kept:
    """Documents in a dict: what `put_document` got is what the next start finds."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, str], bytes] = {}
        self.puts = self.drops = 0  # records
        self.time_us = 1_000_000
        self.refuses: Exception | None = None
        self.syncs = asyncio.Event()
        self.syncs.set()

    def documents(self, kind: int) -> dict[str, bytes]:
        return {name: body for (of, name), body in self.kept.items() if of == kind}

    def put_document(self, kind: int, name: str, body: bytes, key_id: str = "") -> None:
        if self.refuses is not None:
            raise self.refuses
        self.puts += 1
        self.kept[kind, name] = body

    def put_documents(self, kind: int, bodies: Mapping[str, bytes], key_id: str = "") -> None:
        if self.refuses is not None:
            raise self.refuses
        self.puts += 1
        self.kept.update({(kind, name): body for name, body in bodies.items()})

    def drop_documents(self, kind: int, names: Sequence[str]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.drops += 1
        for name in names:
            del self.kept[kind, name]

    async def caught_up(self) -> None:
        await self.durable()

    async def durable(self) -> None:
        await self.syncs.wait()

    def now_us(self) -> int:
        self.time_us += 1
        return self.time_us
