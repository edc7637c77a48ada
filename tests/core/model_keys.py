"""The model's idempotency keys and their answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KEPT_AT_LEAST_US = 60_000_000
SURPLUS_MAX = 10_000


@dataclass(frozen=True)
class Remembered:
    used_us: int
    body_digest: int
    answer: Any  # a job's id, or a transaction's whole answer
    of_transaction: bool

    @property
    def count(self) -> int:
        """How often it counts: once for each job or extended lease in the answer."""
        return max(1, sum(map(len, self.answer))) if self.of_transaction else 1


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

    @property
    def count(self) -> int:
        return sum(entry.count for entry in self.entries.values())

    def surplus(self, more: int) -> int:
        return max(0, min(self.count + more - self.keys_max, more + SURPLUS_MAX))

    def going(self, more: int) -> list[Remembered]:
        """The oldest, as many as have to go to make room for more."""
        over, going = self.surplus(more), []
        for entry in self.entries.values():
            if over <= 0:
                break
            over -= entry.count
            going.append(entry)
        return going

    def are_full(self, now_us: int, more: int, repeated: list[Remembered]) -> bool:
        """Whether more answers would drop one that is too young, or one that this request repeats."""
        going = self.going(more)
        return (
            more > self.keys_max
            or sum(entry.count for entry in going) < self.surplus(more)
            or any(now_us - entry.used_us < min(KEPT_AT_LEAST_US, self.window_us) for entry in going)
            or any(entry.used_us <= going[-1].used_us for entry in repeated if going)
        )

    def forget_oldest(self, now_us: int, more: int) -> None:
        if going := self.going(more):
            self.drop_through(now_us, going[-1].used_us)

    def forget_old(self, now_us: int, limit: int) -> int:
        over, old = self.surplus(0), []
        for entry in list(self.entries.values())[:limit]:
            age_us = now_us - entry.used_us
            if age_us < self.window_us and (over <= 0 or age_us < KEPT_AT_LEAST_US):
                break
            over -= entry.count
            old.append(entry)
        if old:
            self.dropped_early += sum(now_us - entry.used_us < self.window_us for entry in old)
            self.forget_through(old[-1].used_us)
        return len(old)

    def drop_through(self, now_us: int, through_us: int) -> None:
        self.dropped_early += sum(self.entries[key].used_us <= through_us for key in self.known(now_us))
        self.forget_through(through_us)

    def forget_through(self, through_us: int) -> None:
        self.entries = {key: entry for key, entry in self.entries.items() if entry.used_us > through_us}

    def remember(
        self, now_us: int, owner_id: str, key: str, body_digest: int, answer: Any, of_transaction: bool
    ) -> None:
        self.entries.pop((owner_id, key), None)
        self.entries[owner_id, key] = Remembered(now_us, body_digest, answer, of_transaction)
