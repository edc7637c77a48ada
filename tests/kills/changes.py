"""An actor's changes of jobs as a client."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.core.model_jobs import Job, Refused
from tests.kills.actor import SIZES, Actor, now_us
from tests.kills.known import KEY, Known


async def cancel(actor: Actor) -> None:
    if job := actor.one(lambda job: actor.rng.random() < (0.8 if not job.finished else 0.1)):
        force = actor.rng.random() < 0.3
        await actor.change(
            "POST", f"/jobs/{job.job_id}/cancel", {"force": force}, job.job_id,
            lambda known: known.cancel(now_us(), job.job_id, force, KEY),
        )  # fmt: skip


async def redrive(actor: Actor) -> None:
    if job := actor.one(lambda job: job.state == "DEAD" or actor.rng.random() < 0.02):
        await actor.change(
            "POST", f"/jobs/{job.job_id}/redrive", None, job.job_id,
            lambda known: known.redrive(now_us(), job.job_id, KEY),
        )  # fmt: skip


async def edit(actor: Actor) -> None:
    if job := actor.one(lambda job: job.waits or job.state == "DEAD" or actor.rng.random() < 0.05):
        changes: dict[str, Any] = {"priority": actor.rng.randrange(5)}
        if actor.rng.random() < 0.5:
            changes["payload"] = f"{actor.fresh()}:{'y' * actor.rng.choice(SIZES)}"
        if actor.rng.random() < 0.3:
            changes["queue"] = actor.rng.choice(actor.queues)
        kept = dict(changes)
        if "payload" in kept:
            kept["payload"] = json.dumps(kept["payload"]).encode()
        await actor.change(
            "PATCH", f"/jobs/{job.job_id}", changes, job.job_id,
            lambda known: known.edit(now_us(), job.job_id, KEY, **kept),
        )  # fmt: skip


async def delete(actor: Actor) -> None:
    if job := actor.one(lambda job: job.finished or actor.rng.random() < 0.1):
        actor.deleted.add(job.job_id)
        await actor.change(
            "DELETE", f"/jobs/{job.job_id}", None, job.job_id, lambda known: known.delete(now_us(), [job.job_id])
        )
        if job.job_id in actor.known.jobs:
            actor.deleted.discard(job.job_id)


async def change_many(actor: Actor, path: str, body: Any, jobs: list[Job], apply: Callable[[Known, Job], Any]) -> None:
    """Change jobs by a filter. The server works in slices, so each job is as before or as after the change."""
    told = await actor.line.ask("POST", path, body)
    if told is not None and not actor.line.is_good(told, path):
        return
    changed = 0
    for job in jobs:
        if told is None or not told.body.get("complete"):
            job_id = job.job_id
            await actor.settle([job_id], partial(_apply_to, apply, job_id))
        else:
            before = len(actor.known.jobs), len(job.history)
            try:
                apply(actor.known, job)
            except Refused:
                continue
            changed += (len(actor.known.jobs), len(job.history)) != before
    actor.deleted |= {job.job_id for job in jobs if job.job_id not in actor.known.jobs}
    if told is not None and told.body.get("complete") and told.body["changed"] != changed and not actor.forgets:
        actor.fault("wrong answer", f"{path} {body} got {told.body}, and should have changed {changed}")


async def delete_many(actor: Actor) -> None:
    jobs = actor.some(lambda job: job.finished, 10)
    body = {"filter": {"ids": [job.job_id for job in jobs]}}
    if jobs:
        await change_many(actor, "/jobs/delete", body, jobs, lambda known, job: known.delete(now_us(), [job.job_id]))


async def cancel_many(actor: Actor) -> None:
    queue = actor.rng.choice(actor.queues)
    state = actor.rng.choice(["READY", "RETRY", "RUNNING"])
    jobs = [job for job in actor.known.jobs.values() if job.queue == queue and job.state == state]
    if state == "READY":  # some of them may be waiting for their time: then they are shown as SCHEDULED
        jobs = [job for job in jobs if job.run_at_us <= job.created_us][:5]
        body = {"filter": {"ids": [job.job_id for job in jobs]}}
    else:
        body = {"filter": {"queue": queue, "state": state}}
    if jobs:
        await change_many(
            actor, "/jobs/cancel", body, jobs, lambda known, job: known.cancel(now_us(), job.job_id, False, KEY)
        )


async def redrive_many(actor: Actor) -> None:
    jobs = actor.some(lambda job: job.state == "DEAD", 10)
    uniques = {(job.queue, job.spec.unique_key or job.job_id): job for job in jobs}  # which of two is not told
    jobs = list(uniques.values())
    if not jobs:
        return
    body = {"filter": {"ids": [job.job_id for job in jobs]}}
    await change_many(actor, "/jobs/redrive", body, jobs, lambda known, job: known.redrive(now_us(), job.job_id, KEY))


async def purge(actor: Actor) -> None:
    queue = actor.rng.choice(actor.queues)
    jobs = [job for job in actor.known.jobs.values() if job.queue == queue and job.waits]
    if not jobs:  # there may be no such queue
        return
    await change_many(
        actor,
        f"/queues/{queue}/purge",
        None,
        jobs,
        lambda known, job: known.delete(now_us(), [job.job_id]) if job.waits else None,
    )


async def look_around(actor: Actor) -> None:
    for job in actor.some(lambda job: True, 3):
        await actor.check(job.job_id)


def _apply_to(apply: Callable[[Known, Job], Any], job_id: str, known: Known) -> Any:
    return apply(known, known.find(job_id))
