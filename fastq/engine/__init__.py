"""The engine owns the core: it stamps time, batches commands, and answers each when what it says is durable."""

from __future__ import annotations

from fastq.engine.changing import Changing
from fastq.engine.options import EngineOptions
from fastq.engine.reading import Reading
from fastq.engine.transacting import Transacting

__all__ = ["Engine", "EngineOptions"]


class Engine(Transacting, Reading, Changing):
    """Commands in, durable answers out. Each part has a module of its own; `life` is what they stand on."""
