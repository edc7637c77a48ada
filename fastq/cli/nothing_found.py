"""Why a command found nothing: the queue does not exist, or it is paused."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import islice

from fastq.client.errors import NotFound, Refused
from fastq.client.operator_models import Queue
from fastq.client.sync_client import Client

NAMES_MAX = 1_000  # queues that are searched for a similar name


def no_job_matches(client: Client, queue: str | None) -> str:
    """The notice for a filter that matched no job. `queue`: the queue of the filter."""
    return (no_such_queue(client, queue) if queue else "") or "no job matches"


def no_such_queue(client: Client, name: str) -> str:
    """A text if the queue does not exist, else empty."""
    found = _found(client, name)
    return found if isinstance(found, str) else ""


def no_job_ready(client: Client, queues: Sequence[str]) -> str:
    """The error for a lease that got no job."""
    found = [_found(client, name) for name in queues]
    paused = [f"{queue.name} is paused" for queue in found if isinstance(queue, Queue) and queue.settings.paused]
    return "; ".join([f"no job is ready in {', '.join(queues)}", *paused])


def _found(client: Client, name: str) -> Queue | str | None:
    """The queue; or a text if it does not exist; or None if the key may not see it."""
    try:
        return client.get_queue(name)
    except NotFound:
        return f"there is no queue {name}{_meant(client, name)}"
    except Refused:
        return None


def _meant(client: Client, name: str) -> str:
    try:
        names = [queue.name for queue in islice(client.queues(), NAMES_MAX)]
    except Refused:
        names = []
    similar = get_close_matches(name, names, n=1)
    return f": did you mean {similar[0]}?" if similar else ""
