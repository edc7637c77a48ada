"""A faulty server for the harness to detect: its log loses its newest part before each start."""

from __future__ import annotations

import os
from pathlib import Path

from fastq.cli import main

VANISHES_BYTES = 100_000


def shorten(directory: Path) -> None:
    for path in directory.glob("*"):
        if path.suffix == ".key" or not path.is_file():
            continue
        content = path.read_bytes()
        written = len(content.rstrip(b"\0"))
        if written > 2 * VANISHES_BYTES:
            kept = written - VANISHES_BYTES
            path.write_bytes(content[:kept] + bytes(len(content) - kept))


if __name__ == "__main__":
    shorten(Path(os.environ["WAL_DIR"]))
    main()
