"""An actor's actions as a worker."""

from __future__ import annotations

import json
from typing import Any
from zlib import crc32

from tests.core.model_jobs import Ack, Refused
from tests.kills.actor import LEASE_MS, Actor, now_us, running
from tests.kills.known import KEY, OWNER


async def lease(actor: Actor) -> None:
    body = {
        "queues": actor.queues, "max": actor.rng.choice([1, 1, 3, 10]), "lease_ms": LEASE_MS,
        "request_id": actor.fresh(), "worker_id": actor.name,
    }  # fmt: skip
    told = await actor.line.ask_until("POST", "/jobs/lease", body)
    if not actor.line.is_good(told, "a lease"):
        return
    for leased in told.body["jobs"]:
        _leased(actor, leased)


def _leased(actor: Actor, leased: dict[str, Any]) -> None:
    job_id, token = leased["job_id"], leased["lease_token"]
    try:
        job = actor.known.grant(now_us(), job_id, token, LEASE_MS)
    except Refused as refusal:
        actor.fault("doubled", f"{job_id} was leased, attempt {leased['attempt']}: {refusal}, {actor.words(job_id)}")
        return
    if token in job.tokens[:-1]:
        actor.fault("doubled", f"{job_id}: the token {token} was given out twice")
    expected = json.loads(job.spec.payload), job.attempts, job.spec.priority, job.queue
    if (found := (leased["payload"], leased["attempt"], leased["priority"], leased["queue"])) != expected:
        actor.fault("wrong", f"{job_id} was leased as {found}, not {expected}")


async def work_off(actor: Actor) -> None:
    await lease(actor)
    await ack_many(actor)


async def ack(actor: Actor) -> None:
    if job := actor.one(running):
        ack, body = actor.new_ack(job)
        await actor.say(ack, body)
        actor.keep(actor.acks, (ack, body))


async def ack_again(actor: Actor) -> None:
    if actor.acks:
        await actor.say(*actor.rng.choice(actor.acks))


async def ack_stale(actor: Actor) -> None:
    """Ack with the token of an ended attempt and another outcome."""
    if job := actor.one(lambda job: len(job.tokens) > 1):
        token = actor.rng.choice(job.tokens[:-1])
        ack = Ack(job.job_id, token, "ok", b'"late"')
        await actor.say(ack, {"lease_token": token, "outcome": "ok", "result": "late"})


async def ack_many(actor: Actor) -> None:
    drawn = [actor.new_ack(job) for job in actor.some(running, actor.rng.choice([2, 5, 10]))]
    if not drawn:
        return
    acks = [{"job_id": ack.job_id} | body for ack, body in drawn]
    told = await actor.line.ask_until("POST", "/jobs/ack", {"acks": acks})
    if not actor.line.is_good(told, "a batch of acks"):
        return
    for (ack, _), result in zip(drawn, told.body["results"], strict=True):
        actor.known.ack(now_us(), ack, KEY)
        if result != {"job_id": ack.job_id, "ok": True}:
            actor.fault("wrong answer", f"an ack of {ack} got {result}")


async def extend(actor: Actor) -> None:
    if job := actor.one(running):
        body = {"lease_token": job.token, "lease_ms": LEASE_MS}
        told = await actor.line.ask_until("POST", f"/jobs/{job.job_id}/extend", body)
        actor.judge(told, lambda known: known.extend(now_us(), job.job_id, job.token, LEASE_MS), job.job_id)


async def heartbeat(actor: Actor) -> None:
    jobs = actor.some(running, 5)
    leases = [{"job_id": job.job_id, "lease_token": job.token} for job in jobs]
    told = await actor.line.ask_until("POST", "/workers/heartbeat", {"worker_id": actor.name, "leases": leases})
    if not actor.line.is_good(told, "a heartbeat"):
        return
    for job, held in zip(jobs, told.body["leases"], strict=True):
        if held.get("cancel_requested") != job.cancel_requested:
            actor.fault("wrong answer", f"a heartbeat for {actor.words(job.job_id)} got {held}")


async def progress(actor: Actor) -> None:
    if job := actor.one(running):
        percent = actor.rng.randrange(101)
        body = {"lease_token": job.token, "percent": percent, "note": "half"}
        told = await actor.line.ask_until("POST", f"/jobs/{job.job_id}/progress", body)
        actor.judge(told, lambda known: known.report(now_us(), job.job_id, job.token, percent, "half"), job.job_id)


async def transact(actor: Actor) -> None:
    rng, key = actor.rng, actor.fresh()
    jobs = actor.some(running, rng.choice([0, 1, 1, 3]))
    acks, extends, ops = [], [], []
    for job in jobs:
        if rng.random() < 0.7:
            ack, body = actor.new_ack(job)
            acks.append(ack)
            ops.append({"ack": {"job_id": job.job_id} | body})
        else:
            extends.append((job.job_id, str(job.token), LEASE_MS))
            ops.append({"extend": {"job_id": job.job_id, "lease_token": job.token, "lease_ms": LEASE_MS}})
    drawn = [actor.new_job(keyed=False) for _ in range(rng.choice([0, 1, 2] if ops else [1, 2]))]
    body = {"ops": ops + [{"submit": body} for _, body in drawn]}
    told = await actor.line.ask_until("POST", "/transactions", body, key)
    if not actor.line.is_good(told, "a transaction"):
        return
    ids = [result["job_id"] for result in told.body["results"][len(ops) :]]
    _, answers, _ = actor.known.transact(
        now_us(), acks, extends, [new for new, _ in drawn],
        owner_id=OWNER, key_id=KEY, idempotency_key=key, body_digest=crc32(key.encode()), ids=ids,
    )  # fmt: skip
    if [job_id for job_id, _ in answers] != ids:
        actor.fault("doubled", f"a transaction gave {ids}, and should have given {answers}")
    actor.keep(actor.transactions, (body, key, told.body))


async def transact_again(actor: Actor) -> None:
    if actor.transactions:
        await actor.repeat_transaction(*actor.rng.choice(actor.transactions))
