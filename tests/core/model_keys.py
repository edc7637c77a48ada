"""Idempotency keys and what was answered to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KEPT_AT_LEAST_US = 60_000_000


@dataclass(frozen=True)
class Remembered:
    used_us: int
    body_digest: int
    answer: Any  # a job's id, or all that a transaction was answered
    of_transaction: bool


class Keys:
    def __init__(self, window_us: int, keys_max: int) -> None:
        self.window_us = window_us
        self.keys_max = keys_max
        self.entries: dict[tuple[str, str], Remembered] = {}  # by (owner, key), oldest first
        self.dropped_early = 0

    def copy(self) -> Keys:
        other = Keys(self.window_us, self.keys_max)
        other.entries, other.dropped_early = dict(self.entries), self.dropped_early
        return other

    def known(self, now_us: int) -> list[tuple[str, str]]:
        return [key for key, entry in self.entries.items() if now_us - entry.used_us < self.window_us]

    def find(self, now_us: int, owner_id: str, key: str) -> Remembered | None:
        return self.entries[owner_id, key] if (owner_id, key) in self.known(now_us) else None

    def are_full(self, now_us: int, more: int) -> bool:
        """Whether so many more would drive out one that is too young to go."""
        known = self.known(now_us)
        over = len(known) + more - self.keys_max
        return over > len(known) or any(
            now_us - self.entries[key].used_us < KEPT_AT_LEAST_US for key in known[: max(0, over)]
        )

    def remember(
        self, now_us: int, owner_id: str, key: str, body_digest: int, answer: Any, of_transaction: bool
    ) -> None:
        known = self.known(now_us)
        self.entries = {one: entry for one, entry in self.entries.items() if one in known}
        self.entries[owner_id, key] = Remembered(now_us, body_digest, answer, of_transaction)
        while len(self.entries) > self.keys_max:
            del self.entries[next(iter(self.entries))]
            self.dropped_early += 1
