"""Why the ready jobs of a queue are not leased, as a code and in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from fastq._core import QueueView
from fastq.engine import Engine
from fastq.engine.results import HeldBack
from fastq.services.queues import QueueSettings

CODES = ("paused", "empty", "concurrency", "rate_limit", "group_concurrency", "no_worker", "moving")


@dataclass(frozen=True, slots=True)
class Reason:
    """`code` is one of CODES; `words` says it to a person."""

    code: str
    words: str


def reason_of(engine: Engine, view: QueueView, settings: QueueSettings) -> Reason:
    """Why the queue's ready jobs wait now; `empty` if it has none, `moving` if nothing holds them back."""
    if settings.paused:
        because = f": {settings.pause_reason}" if settings.pause_reason else ""
        until = f", until {settings.pause_until}" if settings.pause_until else ""
        return Reason("paused", f"paused{because}{until}")
    if not view.ready:
        return Reason("empty", "no job is ready")
    held = engine.held_back(view.name)
    return Reason(held.reason or "moving", _words(held, settings, engine.now_us()))


def _words(held: HeldBack, settings: QueueSettings, now_us: int) -> str:
    if held.reason == "concurrency":
        return f"as many jobs run as may: {settings.concurrency:,}"
    if held.reason == "group_concurrency":
        return f"every group with ready jobs runs as many as it may: {settings.group_concurrency:,}"
    if held.reason == "rate_limit":
        due = datetime.fromtimestamp(held.rate_due_us / 1e6, UTC)
        return f"the rate limit allows the next lease at {due:%H:%M:%S}Z"
    if held.reason == "no_worker":
        if not held.asked_us:
            return "no worker has asked since the server started"
        return f"no worker has asked for {(now_us - held.asked_us) // 60_000_000} min"
    return "workers take its jobs"
