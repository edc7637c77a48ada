"""A server whose log is only in memory, for the harness to catch."""

from __future__ import annotations

from typing import Any

from fastq import server
from fastq.cli import main
from fastq.log.memory import MemoryLog


def _in_memory(directory: object, **sizes: Any) -> MemoryLog:
    del directory, sizes
    return MemoryLog()


if __name__ == "__main__":
    vars(server)["LocalLog"] = _in_memory
    main()
