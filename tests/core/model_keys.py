"""The model's idempotency keys and their answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KEPT_AT_LEAST_US = 60_000_000


@dataclass(frozen=True)
class Remembered:
    used_us: int
    body_digest: int
    answer: Any  # a job's id, or a transaction's whole answer
    of_transaction: bool


class Keys:
    """Remembered keys. A key counts only within the present window, which a restart may change."""

    def __init__(self, window_us: int, keys_max: int) -> None:
        self.window_us = window_us
        self.keys_max = keys_max
        self.entries: dict[tuple[str, str], Remembered] = {}  # by (owner, key), oldest first
        self.dropped_early = 0

    def copy(self) -> Keys:
        other = Keys(self.window_us, self.keys_max)
        other.entries = dict(self.entries)
        return other

    def restart(self, window_us: int, keys_max: int) -> None:
        self.window_us, self.keys_max, self.dropped_early = window_us, keys_max, 0

    def known(self, now_us: int) -> list[tuple[str, str]]:
        return [key for key, entry in self.entries.items() if now_us - entry.used_us < self.window_us]

    def find(self, now_us: int, owner_id: str, key: str) -> Remembered | None:
        return self.entries[owner_id, key] if (owner_id, key) in self.known(now_us) else None

    def are_full(self, now_us: int, more: int, repeated: list[Remembered]) -> bool:
        """Whether more keys would drop one that is too young, or one that this request repeats."""
        known = [self.entries[key] for key in self.known(now_us)]
        over = len(known) + more - self.keys_max
        going = known[: max(0, over)]
        return (
            over > len(known)
            or any(now_us - entry.used_us < KEPT_AT_LEAST_US for entry in going)
            or any(entry.used_us <= going[-1].used_us for entry in repeated if going)
        )

    def forget_oldest(self, now_us: int, more: int) -> None:
        over = len(self.entries) + more - self.keys_max
        if over > 0 and self.entries:
            through_us = list(self.entries.values())[min(over, len(self.entries)) - 1].used_us
            known = self.known(now_us)
            self.dropped_early += sum(self.entries[key].used_us <= through_us for key in known)
            self.forget_through(through_us)

    def forget_old(self, now_us: int, limit: int) -> int:
        old = [entry.used_us for entry in self.entries.values() if now_us - entry.used_us >= self.window_us][:limit]
        if old:
            self.forget_through(old[-1])
        return len(old)

    def forget_through(self, through_us: int) -> None:
        self.entries = {key: entry for key, entry in self.entries.items() if entry.used_us > through_us}

    def remember(
        self, now_us: int, owner_id: str, key: str, body_digest: int, answer: Any, of_transaction: bool
    ) -> None:
        self.entries.pop((owner_id, key), None)
        self.entries[owner_id, key] = Remembered(now_us, body_digest, answer, of_transaction)
