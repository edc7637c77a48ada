"""The engine: it owns the core, stamps time, and groups what the core appends into frames of the log."""

from __future__ import annotations

from collections.abc import Callable

from fastq._core import Core
from fastq.engine.engine import Engine
from fastq.engine.options import EngineOptions
from fastq.log.protocol import Log

__all__ = ["Engine", "EngineOptions", "assemble"]


def assemble(log: Log, options: EngineOptions, jitter: Callable[[], float]) -> tuple[Engine, Core]:
    """An engine over a log; and its core, for the hot lane, which does for plain requests what the engine does.

    Args:
        jitter: draws from [0, 1): the share of the retry wait's upper bound.
    """
    core = Core(log.tail, options.for_core())
    return Engine(core, log, options, jitter), core
