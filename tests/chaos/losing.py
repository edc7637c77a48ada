"""A faulty server for the harness to detect: it loses one job at each start."""

from __future__ import annotations

from typing import Any

from fastq._core import ALL, Filter
from fastq.cli import main
from fastq.engine import Engine

if __name__ == "__main__":
    start = Engine.start

    async def start_and_lose(self: Engine, *arguments: Any, **options: Any) -> None:
        await start(self, *arguments, **options)
        jobs, _ = self.views(ALL, Filter(), 0, 1000, 10_000)
        with self.group(10_000) as group:
            group.delete(ALL, [job.job_id for job in jobs if job.state != "RUNNING"][:1])
        await self.durable()

    Engine.start = start_and_lose  # type: ignore[method-assign]
    main()
