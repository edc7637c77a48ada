"""What the server knows, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastq._core import FINISHED
from fastq.console.render import at_text, count_text, span_text

if TYPE_CHECKING:
    from fastq._core import QueueView
    from fastq.engine.results import Why
    from fastq.services.queue_reasons import Reason

OUTCOMES = {
    "ok": "done",
    "error": "failed",
    "lease_expired": "its lease expired: the worker did not answer in time",
    "discarded": "failed for good: the worker said that no retry helps",
    "snoozed": "put off by the worker",
    "released": "given back by the worker",
    "cancelled": "cancelled while it ran",
    "poisoned": "given up: its lease expired too many times in a row",
    "unreadable": "not delivered: its payload cannot be read",
}
EVENTS = {
    "submitted": "submitted",
    "attempt": "attempt",
    "cancel_requested": "cancel requested; its worker learns of it at the next heartbeat",
    "cancelled": "cancelled",
    "expired": "expired: no worker leased it in time",
    "redriven": "redriven: ready again with 0 attempts",
    "edited": "edited",
    "replaced": "replaced by a later job with the same unique key",
}

CHANGES = {"put": "changed", "create": "created", "delete": "deleted", "pause": "paused", "resume": "resumed",
           "run": "run by hand", "purge": "purged", "rotate": "rotated", "revoke": "revoked"}  # fmt: skip


class Bulk(NamedTuple):
    """What a change of many jobs is called, what it does, what came of a job, and which jobs allow it."""

    title: str
    does: str
    done: str
    allows: str


BULK = {
    "redrive": Bulk("Redrive", "Dead jobs become ready again, with 0 attempts.", "redriven", "is dead"),
    "cancel": Bulk(
        "Cancel",
        "Jobs that wait are cancelled now. Workers of running ones learn of it at their next heartbeat.",
        "cancelled",
        "is unfinished",
    ),
    "delete": Bulk("Delete", "Jobs that do not run are deleted. It cannot be undone.", "deleted", "does not run"),
}
FILTERS = {
    "state": "the state",
    "queue": "the queue",
    "group": "the group",
    "tag": "the tag",
    "q": "the payload text",
    "error": "the error text",
    "error_code": "the error code",
    "worker": "the worker",
    "since": "a submit since",
}


def allows(action: str, state: str) -> bool:
    """Whether a change of many jobs may change some in a state; of any state if it is empty."""
    if action == "redrive":
        return state in ("", "DEAD")
    return state not in FINISHED if action == "cancel" else state != "RUNNING"


def change(action: str) -> str:
    """What an entry of the audit log says about its object: of `queue.pause`, paused."""
    verb = action.rpartition(".")[2]
    return CHANGES.get(verb, verb)


def why(found: Why, pause: tuple[str | None, str | None], now_us: int) -> str:
    """Why a job does not run now, as a sentence.

    Args:
        pause: why its queue is paused, and until when.
    """
    because, until = pause
    queue = f"The queue {found.queue}"
    asked = f"; a worker last asked {span_text(now_us - found.asked_us)} ago" if found.asked_us else ""
    sentences = {
        "running": "It runs.",
        "finished": "It is finished.",
        "not_due": f"It waits for its time, {at_text(found.run_at_us)} (in {span_text(found.run_at_us - now_us)}).",
        "paused": f"{queue} is paused{f': {because}' if because else ''}{f', until {until}' if until else ''}.",
        "concurrency": f"{queue} has as many running jobs as it may have.",
        "rate_limit": f"{queue} is at its rate limit; the next lease is allowed at {at_text(found.rate_due_us)}.",
        "group_concurrency": f"Its group {found.group or '(default)'} has as many running jobs as a group may have.",
        "no_worker": f"No worker asks for jobs of the queue {found.queue}{asked or '; none has since the start'}.",
        "behind": f"{count_text(found.position)} jobs of its group come before it{asked}.",
        "next": "It is the next one of its group: the next worker that asks gets it.",
    }
    return sentences[found.reason]


def queue(view: QueueView, reason: Reason, now_us: int) -> str:
    """How a queue stands, as a sentence: `4,112 wait, the oldest for 3 min: no worker has asked for 2 min.`"""
    if not view.ready:
        return f"{reason.words[:1].upper()}{reason.words[1:]}." if reason.code == "paused" else "No job is ready."
    oldest = f", the oldest for {span_text(now_us - view.oldest_ready_us)}" if view.oldest_ready_us else ""
    return f"{count_text(view.ready)} {'waits' if view.ready == 1 else 'wait'}{oldest}: {reason.words}."
