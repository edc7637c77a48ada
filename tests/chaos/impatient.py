"""A faulty server for the harness to detect: it keeps finished jobs for a tenth of the set time."""

from __future__ import annotations

from typing import Any

from fastq.cli import main
from fastq.engine import EngineOptions
from fastq.server import run


def _in_a_hurry(*, retention_acked_ms: int, **options: Any) -> EngineOptions:
    return EngineOptions(retention_acked_ms=retention_acked_ms // 10, **options)


if __name__ == "__main__":
    vars(run)["EngineOptions"] = _in_a_hurry
    main()
