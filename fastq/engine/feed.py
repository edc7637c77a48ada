"""The feed: changes of jobs to those who watch, once they are durable. Nobody is waited for, and nothing is buffered.

Each subscriber reads the core's ring at its own pace. One that is too slow, or comes back too late, is told so.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self

from fastq import _core
from fastq._core import JobChange
from fastq.engine.commits import Commits

BATCH_CHANGES = 256
CHANGES_KEPT = 1_024  # by the core
PAUSE_S = 0.05  # between two times that subscribers are woken
ANY_FRAME = 1 << 62


@dataclass(frozen=True, slots=True)
class Changed:
    """Changes in order."""

    changes: list[JobChange]
    left_out: int  # how many others there were among and after these: see `Core.changes`
    lost: bool  # changes before these are gone, which the subscriber has not seen


class Feed:
    def __init__(self, core: _core.Core, commits: Commits) -> None:
        self._core, self._commits = core, commits
        self._subscribers: set[Subscription] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._has_news = False  # since the pause began
        self.ended = False

    def subscribe(self, after_seq: int | None = None) -> Subscription:
        """Watch the changes after a number; None: those from now on. Close the subscription in the end.

        After the feed's end a subscription ends at once.
        """
        subscription = Subscription(self, self._core, self._commits, after_seq)
        self._subscribers.add(subscription)
        self._commits.on_durable = self._durable
        return subscription

    def newest(self) -> int:
        """The number of the newest change that is durable."""
        changes, _, first = self._core.changes(0, self._commits.durable_seq, CHANGES_KEPT)
        return changes[-1].seq if changes else max(0, first - 1)

    def since(self, after_seq: int, until_seq: int) -> Changed:
        """The changes after a number up to another one that is durable, as far as they are kept."""
        foreign = after_seq > self._core.last_change
        after_seq = 0 if foreign else after_seq
        _, left_out_before, first = self._core.changes(after_seq, 0, 0)
        changes, left_out, _ = self._core.changes(after_seq, self._commits.durable_seq, CHANGES_KEPT)
        told = [change for change in changes if change.seq <= until_seq]
        lost = foreign or after_seq + 1 < first
        return Changed(told, max(0, left_out - left_out_before) if len(told) == len(changes) else 0, lost)

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    def end(self) -> None:
        """End all subscriptions: the server drains."""
        self.ended = True
        for subscription in self._subscribers:
            subscription.wake()

    def leave(self, subscription: Subscription) -> None:
        self._subscribers.discard(subscription)
        if not self._subscribers:
            self._commits.on_durable = None

    def _durable(self) -> None:
        """Wake the subscribers at once, unless that was done a moment ago."""
        self._has_news = True
        if self._pause is None:
            self._wake()

    def _wake(self) -> None:
        self._has_news = False
        self._pause = asyncio.get_running_loop().call_later(PAUSE_S, self._go_on)
        for subscription in self._subscribers:
            subscription.wake()

    def _go_on(self) -> None:
        self._pause = None
        if self._has_news:
            self._wake()


class Subscription:
    """An async iterator of `Changed`: `with feed.subscribe() as changes: async for batch in changes: ...`."""

    def __init__(self, feed: Feed, core: _core.Core, commits: Commits, after_seq: int | None) -> None:
        self._feed, self._core, self._commits = feed, core, commits
        self._news = asyncio.Event()
        self._is_foreign = after_seq is not None and after_seq > core.last_change
        self._after = core.last_change if after_seq is None or self._is_foreign else after_seq
        _, self._left_out, _ = core.changes(self._after, ANY_FRAME if after_seq is None else 0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._feed.leave(self)

    def wake(self) -> None:
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changed:
        while not self._feed.ended:
            self._news.clear()
            if (changed := self._read()) is not None:
                return changed
            await self._news.wait()
        raise StopAsyncIteration

    def _read(self) -> Changed | None:
        """What is new and durable, and may be shown."""
        if not self._commits.may_leave(0):
            return None
        changes, left_out, first = self._core.changes(self._after, self._commits.durable_seq, BATCH_CHANGES)
        lost = self._is_foreign or self._after + 1 < first
        more_left_out = max(0, left_out - self._left_out)
        if not changes and not more_left_out and not lost:
            return None
        self._is_foreign = False
        self._after = changes[-1].seq if changes else max(self._after, first - 1)
        self._left_out += more_left_out
        return Changed(changes, more_left_out, lost)
