"""A faulty server for the harness to detect: it takes jobs and never leases one. It has no lane."""

from __future__ import annotations

from typing import Any

from fastq.cli import main
from fastq.engine.leases import Leases
from fastq.engine.results import LeasedJob
from fastq.http.connection.protocol import Protocol
from fastq.server import run


async def _never(_self: Leases, *_arguments: Any) -> list[LeasedJob]:
    return []


if __name__ == "__main__":
    Leases.lease = _never  # type: ignore[method-assign,assignment]
    vars(run)["Lane"] = Protocol
    main()
