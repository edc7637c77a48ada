"""Leases that the short way granted and Falcon answers, since their payloads must be read from the disk."""

from __future__ import annotations

from fastq._core import Leased
from fastq.engine import Engine


class Granted:
    """Leases that are taken exactly once: by the resource that answers, or by the engine that takes them back."""

    def __init__(self, engine: Engine, leased: list[Leased]) -> None:
        self._engine = engine
        self._leased = leased
        self._taken = False

    def take(self) -> list[Leased]:
        assert not self._taken, "granted leases are taken once"
        self._taken = True
        return self._leased

    def give_back(self) -> None:
        """Return the leases to the engine, unless they were taken."""
        if not self._taken:
            self._engine.take_back(self.take())
