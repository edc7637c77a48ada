"""A faulty server for the harness to detect: its log is only in memory."""

from __future__ import annotations

from typing import Any

from fastq.cli import main
from fastq.log.memory import MemoryLog
from fastq.server import run


def _in_memory(directory: object, **sizes: Any) -> MemoryLog:
    del directory, sizes
    return MemoryLog()


if __name__ == "__main__":
    vars(run)["LocalLog"] = _in_memory
    main()
