"""The server: version, log, memory, settings, the notes of its start, and a backup to download."""

from __future__ import annotations

import platform
from datetime import UTC, datetime

from fastq.console.guard import Page, Visit
from fastq.console.parts import Parts
from fastq.http.resources.backups import ARCHIVE, Body
from fastq.http.routes import ADMIN
from fastq.http.scope import CONNECTION
from fastq.services.statistics import memory_bytes

SERVER = "/console/server"


class ServerPages:
    def __init__(self, parts: Parts) -> None:
        self._engine, self._start, self._statistics = parts.engine, parts.start, parts.statistics
        self._started_us = parts.engine.now_us()

    async def server(self, visit: Visit) -> None:
        engine = self._engine
        visit.show(
            "server.html",
            started_us=self._started_us,
            python=platform.python_version(),
            database_id=engine.database_id.hex(),
            log=engine.log_use,
            writes=self._statistics.log(),
            sync_us=self._statistics.durations_us("sync"),
            is_full=engine.disk_full,
            is_draining=engine.draining,
            is_behind=engine.cleaner.is_behind,
            memory=memory_bytes(),
            counts=engine.counts(),
            settings=self._start.settings,
            notes=self._start.notes,
        )

    async def backup(self, visit: Visit) -> None:
        """Everything that is on stable storage, as a tar archive to download."""
        resp, now_us = visit.resp, self._engine.now_us()
        resp.stream = Body(self._engine.backup(), visit.req.scope.get(CONNECTION))
        resp.content_type = ARCHIVE
        name = datetime.fromtimestamp(now_us / 1_000_000, UTC).strftime("fastq-%Y%m%d-%H%M%S.tar")
        resp.set_header("Content-Disposition", f'attachment; filename="{name}"')

    def pages(self) -> list[Page]:
        return [
            Page("GET", SERVER, ADMIN, self.server),
            Page("POST", f"{SERVER}/backup", ADMIN, self.backup),
        ]
