"""Leases that the short way granted and Falcon answers, since their payloads must be read from the disk."""

from __future__ import annotations

from fastq._core import Leased
from fastq.engine import Engine


class Granted:
    """Leases that exactly one takes: the resource that answers, or the engine again."""

    def __init__(self, engine: Engine, leased: list[Leased]) -> None:
        self._engine = engine
        self._leased = leased
        self._taken = False

    def take(self) -> list[Leased]:
        assert not self._taken, "granted leases are answered once"
        self._taken = True
        return self._leased

    def give_back(self) -> None:
        """Let other workers have them, unless they were taken."""
        if not self._taken:
            self._engine.take_back(self.take())
