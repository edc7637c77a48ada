"""What an actor does to store jobs."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

from fastq._core import CREATED, REPLACED
from tests.core.model_jobs import New
from tests.kills.actor import Actor, now_us
from tests.kills.known import KEY, OWNER
from tests.kills.line import Told


async def submit(actor: Actor) -> None:
    count = actor.rng.choice([1, 1, 1, 2, 5])
    drawn = [actor.new_job() for _ in range(count)]
    await _submit(actor, drawn)


async def replace_many(actor: Actor) -> None:
    """One job that is replaced again and again, in one record."""
    new, body = actor.new_job()
    drawn = []
    for _ in range(4):
        keyed = body | {"unique_key": "u9", "on_duplicate": "replace", "idempotency_key": actor.fresh()}
        facts = {"unique_key": "u9", "replace": True, "idempotency_key": keyed["idempotency_key"]}
        digest = crc32(json.dumps(keyed).encode())
        drawn.append((New(**vars(new) | facts | {"body_digest": digest}), keyed))
    await _submit(actor, drawn)


async def _submit(actor: Actor, drawn: list[tuple[New, dict[str, Any]]]) -> None:
    news, bodies = [new for new, _ in drawn], [body for _, body in drawn]
    if len(news) > 1:
        path, body, header = "/jobs/batch", {"jobs": bodies}, ""
    else:
        header = bodies[0].pop("idempotency_key")
        path, body = "/jobs", bodies[0]
    told = await actor.line.ask_until("POST", path, body, header)
    if not actor.line.is_good(told, "a submit"):
        return
    ids = told.body["job_ids"] if len(news) > 1 else [told.body["job_id"]]
    if taken := [job_id for job_id in ids if job_id in actor.deleted]:
        actor.fault("undone", f"a submit gave {taken}, which were deleted")
        return
    try:
        stored = actor.known.submit(now_us(), news, OWNER, KEY, ids)
    except AssertionError:
        actor.fault("doubled", f"a submit of a new job gave the id of another: {ids}")
        return
    if [job_id for job_id, _ in stored] != ids or len(ids) != len(news):
        actor.fault("doubled", f"a submit of {bodies} gave {ids}, and should have given {stored}")
    if not told.repeated:
        _judge_submit(actor, told, [how for _, how in stored])
    actor.keep(actor.submits, (path, body, header, ids))


def _judge_submit(actor: Actor, told: Told, hows: list[int]) -> None:
    """Whether the answer says which jobs are new."""
    there = [n for n, how in enumerate(hows) if how != CREATED]
    if len(hows) > 1:
        status = 201 if len(there) < len(hows) else 200
        right = told.status == status and told.body.get("duplicates", []) == there
    else:
        replaced = told.body.get("replaced", False) == (hows[0] == REPLACED)
        right = replaced and told.status == (200 if there else 201)
    if not right:
        actor.fault("wrong answer", f"a submit got {told.status} {told.body}, and should have been told {hows}")


async def submit_again(actor: Actor) -> None:
    if actor.submits:
        await actor.repeat_submit(*actor.rng.choice(actor.submits))


async def mismatch(actor: Actor) -> None:
    """Another job with a key that was used."""
    if actor.submits:
        path, body, header, _ = actor.rng.choice(actor.submits)
        if path == "/jobs":
            told = await actor.line.ask_until("POST", path, body | {"payload": actor.fresh()}, header)
            if told.code != "idempotency_mismatch":
                actor.fault("doubled", f"a used key took another job: {told.status} {told.body}")
