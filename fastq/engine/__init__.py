"""The engine owns the core, supplies the time, and commits the core's records to the log in frames."""

from __future__ import annotations

from collections.abc import Callable

from fastq._core import Core
from fastq.engine.engine import Engine
from fastq.engine.options import EngineOptions
from fastq.log.protocol import Log

__all__ = ["Engine", "EngineOptions", "assemble"]


def assemble(log: Log, options: EngineOptions, jitter: Callable[[], float]) -> tuple[Engine, Core]:
    """Build an engine and its core over a log. Only the hot lane takes the core, to serve plain requests itself.

    Args:
        jitter: draws from [0, 1); a retry waits this share of its upper bound.
    """
    core = Core(log.tail, options.for_core())
    return Engine(core, log, options, jitter), core
