"""The rules of the queue in plain Python, slow and obvious: the oracle for the core.

One method a command. Ids and tokens are arguments, because only the core can make them.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from fastq._core import CREATED, DUPLICATE, REPEATED, REPLACED
from tests.core.model_jobs import (
    CLOSINGS_KEPT,
    OUTCOMES,
    Ack,
    Backoff,
    Job,
    New,
    Refused,
    backoff_us,
    holder_of,
    number_of,
    refusal_of,
    state_after,
)
from tests.core.model_keys import Keys
from tests.core.model_order import Order
from tests.core.model_traffic import ENDS, Traffic, ready_us

Submitted = tuple[str, int]


@dataclass(frozen=True)
class Server:
    """The arguments of `CoreSettings`."""

    lease_ms: int = 30_000
    grace_ms: int = 30_000
    backoff: Backoff = (1_000, 2.0, 3_600_000)
    poison_expiries: int = 0
    idempotency_us: int = 3_600_000_000
    idempotency_keys_max: int = 8_000_000
    owner_depth_max: int = 0


class Model:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.jobs: dict[str, Job] = {}  # in order of submission
        self.documents: dict[tuple[int, str], bytes] = {}
        self.keys = Keys(server.idempotency_us, server.idempotency_keys_max)
        self.order = Order(self.jobs)
        self.watched: set[str] = set()
        self.ended: set[str] = set()  # watched jobs that ended
        self.traffic = Traffic()

    def copy(self) -> Self:
        other = type(self)(self.server)
        other.jobs = {job_id: copy.copy(job) for job_id, job in self.jobs.items()}
        other.documents, other.keys = dict(self.documents), self.keys.copy()
        other.order, other.traffic = self.order.copy(other.jobs), self.traffic.copy()
        return other

    def restart(self, now_us: int, server: Server) -> None:
        """Extend running leases by the grace, and drop [memory] state. The caller configures the queues again."""
        self.server = server
        self.keys.restart(server.idempotency_us, server.idempotency_keys_max)
        for job in self.jobs.values():
            if job.state == "RUNNING":
                grace_ms = min(job.granted_ms, server.grace_ms)
                job.lease_until_us = max(job.lease_until_us or 0, now_us + grace_ms * 1000)
        self.order.restart()
        self.watched, self.ended, self.traffic = set(), set(), Traffic()
        self.advance(now_us)

    def find(self, job_id: str) -> Job:
        if job_id not in self.jobs:
            raise Refused("JobNotFound")
        return self.jobs[job_id]

    def held(self, job_id: str, token: str) -> Job:
        job = self.find(job_id)
        if job.state != "RUNNING" or token != job.token:
            raise Refused("LeaseLost")
        return job

    # --- submit -----------------------------------------------------------------------------------------------------

    def submit(self, now_us: int, jobs: list[New], owner_id: str, key_id: str, ids: list[str]) -> list[Submitted]:
        self.check_new(now_us, jobs, owner_id, owner_id)
        return [self.submit_one(now_us, new, owner_id, owner_id, key_id, ids[at]) for at, new in enumerate(jobs)]

    def holding(self, now_us: int, owner_id: str, queue: str, unique_key: str) -> Job | None:
        """The holder of a unique key. One that waits past its expires_at expires, and the key is free."""
        found = holder_of(self.jobs, owner_id, queue, unique_key)
        if found and found.waits and 0 < found.spec.expires_us <= now_us:
            self.expire_job(now_us, found)
            return None
        return found

    def check_new(
        self, now_us: int, jobs: list[New], owner_id: str, caller_id: str, of_transaction: str = "", answers: int = 0
    ) -> None:
        """Raise Refused if the jobs may not be stored. The transaction's own key counts too, once an answer."""
        said: list[tuple[str, int | None]] = [(of_transaction, None)] if of_transaction else []
        repeated = []
        uniques: set[tuple[str, str]] = set()
        fresh: Counter[str] = Counter()
        for new in jobs:
            if key := new.idempotency_key:
                entry = self.keys.find(now_us, caller_id, key)
                earlier = [None if entry.of_transaction else entry.body_digest] if entry else []
                repeated += [entry] if entry else []
                earlier += [digest for other, digest in said if other == key]
                if earlier:
                    if earlier[0] != new.body_digest:
                        raise Refused("IdempotencyMismatch")
                    continue
                said.append((key, new.body_digest))
            if new.unique_key:
                if (new.queue, new.unique_key) in uniques:
                    continue
                uniques.add((new.queue, new.unique_key))
                if holder_of(self.jobs, owner_id, new.queue, new.unique_key):
                    continue
            fresh[new.queue] += 1
        more = len(said) + (max(1, answers) - 1 if of_transaction else 0)
        if said and self.keys.are_full(now_us, more, repeated):
            raise Refused("IdempotencyFull")
        for queue, count in fresh.items():
            self.check_depth(queue, count)
        unfinished = sum(not job.finished and job.owner_id == owner_id for job in self.jobs.values())
        if fresh and 0 < self.server.owner_depth_max < unfinished + fresh.total():
            raise Refused("OwnerFull")
        if said:
            self.keys.forget_oldest(now_us, more)

    def check_depth(self, queue: str, more: int) -> None:
        unfinished = sum(not job.finished and job.queue == queue for job in self.jobs.values())
        if 0 < self.order.of(queue).max_depth < unfinished + more:
            raise Refused("QueueFull")

    def submit_one(self, now_us: int, new: New, owner_id: str, caller_id: str, key_id: str, new_id: str) -> Submitted:
        key = new.idempotency_key
        if key and (entry := self.keys.find(now_us, caller_id, key)):
            return (entry.answer, REPEATED)
        found = self.holding(now_us, owner_id, new.queue, new.unique_key)
        answer = (new_id, CREATED)
        if found is None:
            assert new_id not in self.jobs
            run_at_us = max(now_us, new.run_at_us)
            self.jobs[new_id] = Job(new_id, number_of(new_id), owner_id, key_id, now_us, run_at_us, new)
            self.wait(now_us, self.jobs[new_id])
            self.traffic.tell(now_us, self.jobs[new_id], "submitted")
        elif new.replace and found.state != "RUNNING":
            self.replace(now_us, found, new, key_id)
            answer = (found.job_id, REPLACED)
        else:
            answer = (found.job_id, DUPLICATE)
        if key:
            self.keys.remember(now_us, caller_id, key, new.body_digest, answer[0], False)
        return answer

    def replace(self, now_us: int, job: Job, new: New, key_id: str) -> None:
        self.order.leave(job)
        job.spec = replace(job.spec, payload=new.payload, priority=new.priority, traceparent=new.traceparent)
        job.key_id, job.run_at_us = key_id, max(now_us, new.run_at_us)
        job.note("replaced", now_us, key_id)
        self.wait(now_us, job)
        self.traffic.tell(now_us, job, "replaced")

    def wait(self, now_us: int, job: Job) -> None:
        if job.run_at_us <= now_us:
            self.order.join(job)

    # --- lease ------------------------------------------------------------------------------------------------------

    def lease(
        self,
        now_us: int,
        queues: list[str] | dict[str, int],
        limit: int,
        lease_ms: int,
        *,
        key_id: str = "",
        worker_id: str = "",
        legacy: bool = False,
        request_id: str = "",
        bytes_max: int = 1 << 40,
        size_of: Callable[[Job], int] = lambda job: 0,
    ) -> list[Job]:
        """Lease jobs and return them in order. The caller sets their tokens."""
        self.expire_waiting(now_us, 64)
        self.advance(now_us)
        leased: list[Job] = []
        total_bytes = 0
        if isinstance(queues, dict):
            self.order.shares_of(queues)
        while len(leased) < limit and (job := self.order.choose(now_us, queues)):
            total_bytes += size_of(job)
            if leased and total_bytes > bytes_max:
                break
            if isinstance(queues, dict):
                self.order.share(queues, job.queue)
            self.order.serve(now_us, job)
            job.state, job.attempts, job.lease_no = "RUNNING", job.attempts + 1, job.lease_no + 1
            job.granted_ms = lease_ms or job.spec.lease_ms or self.order.of(job.queue).lease_ms or self.server.lease_ms
            job.leased_us, job.lease_until_us = now_us, now_us + job.granted_ms * 1000
            job.legacy, job.worker_id, job.request, job.progress = legacy, worker_id, (key_id, request_id), None
            self.order.leave(job)
            self.traffic.tell(now_us, job, "leased", now_us - ready_us(job))
            leased.append(job)
        return leased

    # --- an attempt ends --------------------------------------------------------------------------------------------

    def ack(self, now_us: int, ack: Ack, key_id: str) -> bool:
        job = self.find(ack.job_id)
        said = (OUTCOMES[ack.outcome], ack.error_kept, ack.result or b"")
        if ack.token is None:
            if job.state != "RUNNING":
                raise Refused("NotAckable")
            if not job.legacy:
                raise Refused("LeaseLost")
        elif job.state != "RUNNING" or ack.token != job.token:
            if (ack.token, *said) in job.closings:
                return False
            raise Refused("LeaseLost")
        job.closings = (*job.closings, (job.token, *said))[-CLOSINGS_KEPT:]
        self.close(now_us, job, said[0], lambda: ack.jitter, ack, key_id)
        return True

    def ack_many(self, now_us: int, acks: list[Ack], key_id: str) -> list[str]:
        return [refusal_of(self.ack, now_us, ack, key_id) for ack in acks]

    def close(
        self, now_us: int, job: Job, outcome: str, jitter: Callable[[], float], ack: Ack | None = None, key_id: str = ""
    ) -> None:
        ack = ack or Ack(job.job_id, None)
        state = state_after(job, outcome)
        if outcome in ("error", "lease_expired") and state == "RETRY":
            backoff = job.spec.backoff or self.order.of(job.queue).backoff or self.server.backoff
            wait_us = ack.wait_ms * 1000 if ack.wait_ms >= 0 else backoff_us(backoff, job.attempts, jitter())
            job.run_at_us = now_us + wait_us
        elif outcome == "snoozed" and state != "CANCELLED":
            job.run_at_us = now_us + ack.wait_ms * 1000
        if outcome in ("snoozed", "released", "undelivered", "unreadable"):
            job.attempts -= 1
        if outcome != "undelivered":
            job.note(
                "attempt",
                now_us,
                key_id,
                number=job.lease_no,
                leased_us=job.leased_us,
                worker_id=job.worker_id,
                outcome=outcome,
                error=ack.error_kept,
                error_code=ack.error_code,
            )
            job.ended_us, job.outcome, job.result, job.error = now_us, outcome, ack.result, ack.error_kept
            job.expiries = job.expiries + 1 if outcome in ("lease_expired", "poisoned") else 0
        job.state, job.failed = state, job.failed or state == "RETRY"
        if job.finished:
            self.finish(now_us, job)
        else:
            self.wait(now_us, job)
        what, took_us = ENDS.get(outcome, outcome), now_us - job.leased_us
        self.traffic.tell(now_us, job, what, took_us, ack.error_kept, ack.error_code)

    def finish(self, now_us: int, job: Job) -> None:
        job.ended_us, job.cancel_requested = now_us, False
        self.end_watch(job.job_id)

    def end_watch(self, job_id: str) -> None:
        if job_id in self.watched:
            self.watched.remove(job_id)
            self.ended.add(job_id)

    def undelivered(self, now_us: int, job_id: str, token: str, reason: str = "") -> bool:
        """The answer could not be sent; or with a reason, the payload could not be read."""
        job = self.find(job_id)
        if held := job.state == "RUNNING" and token == job.token:
            ack = Ack(job_id, token, "error", error=reason)
            self.close(now_us, job, "unreadable" if reason else "undelivered", lambda: 0.0, ack)
        return held

    # --- while it runs ----------------------------------------------------------------------------------------------

    def extend(self, now_us: int, job_id: str, token: str, lease_ms: int) -> int:
        job = self.held(job_id, token)
        job.lease_until_us = max(job.lease_until_us or 0, now_us + (lease_ms or job.granted_ms) * 1000)
        return job.lease_until_us

    def extend_many(self, now_us: int, leases: list[tuple[str, str]], lease_ms: int) -> list[tuple[int, bool] | str]:
        answers: list[tuple[int, bool] | str] = []
        for job_id, token in leases:
            try:
                until_us = self.extend(now_us, job_id, token, lease_ms)
                answers.append((until_us, self.jobs[job_id].cancel_requested))
            except Refused as refusal:
                answers.append(refusal.why)
        return answers

    def report(self, now_us: int, job_id: str, token: str, percent: int, note: str) -> None:
        self.held(job_id, token).progress = (percent, note, now_us)

    # --- from outside -----------------------------------------------------------------------------------------------

    def cancel(self, now_us: int, job_id: str, force: bool, key_id: str) -> str:
        job = self.find(job_id)
        if job.finished:
            raise Refused("JobFinished")
        if job.waits:
            self.order.leave(job)
            job.note("cancelled", now_us, key_id)
            job.state = "CANCELLED"
            self.finish(now_us, job)
            self.traffic.tell(now_us, job, "cancelled")
        elif force:
            self.close(now_us, job, "cancelled", lambda: 0.0, key_id=key_id)
        elif not job.cancel_requested:
            job.cancel_requested = True
            job.note("cancel_requested", now_us, key_id)
            self.traffic.tell(now_us, job, "cancel_requested")
        return job.state

    def redrive(self, now_us: int, job_id: str, key_id: str) -> None:
        job = self.find(job_id)
        if job.state != "DEAD":
            raise Refused("NotDead")
        if self.holding(now_us, job.owner_id, job.queue, job.spec.unique_key):
            raise Refused("JobDuplicate")
        job.state, job.attempts, job.expiries, job.failed, job.run_at_us = "READY", 0, 0, False, now_us
        job.spec = replace(job.spec, expires_us=0)
        job.note("redriven", now_us, key_id)
        self.wait(now_us, job)
        self.traffic.tell(now_us, job, "redriven")

    def edit(self, now_us: int, job_id: str, key_id: str, **changes: Any) -> None:
        """`changes`: any of payload, priority, run_at_us, queue."""
        job = self.find(job_id)
        if job.state == "RUNNING":
            raise Refused("JobRunning")
        if job.finished and job.state != "DEAD":
            raise Refused("JobFinished")
        before, queue = job.queue, changes.get("queue", job.queue)
        if job.waits and queue != job.queue:
            held = holder_of(self.jobs, job.owner_id, queue, job.spec.unique_key)
            if self.holding(now_us, job.owner_id, queue, job.spec.unique_key):
                raise Refused("JobDuplicate")
            if not held:  # else the job takes the place of one that expired
                self.check_depth(queue, 1)
        self.order.leave(job)
        if "run_at_us" in changes:
            job.run_at_us = max(now_us, changes.pop("run_at_us"))
        job.spec = replace(job.spec, **changes)
        job.note("edited", now_us, key_id)
        if job.waits:
            self.wait(now_us, job)
        self.traffic.tell(now_us, job, "edited")
        self.left(before)

    def delete(self, now_us: int, job_ids: list[str]) -> None:
        for job_id in job_ids:
            if self.find(job_id).state == "RUNNING":
                raise Refused("JobRunning")
        for job_id in dict.fromkeys(job_ids):
            self.remove(now_us, job_id)

    def remove(self, now_us: int, job_id: str) -> None:
        job = self.jobs.pop(job_id)
        self.traffic.tell(now_us, job, "deleted")
        self.order.leave(job)
        self.end_watch(job_id)
        self.left(job.queue)

    def left(self, queue: str) -> None:
        """A queue without jobs and settings ends, and what was counted of it."""
        if queue not in self.order.settings and not any(job.queue == queue for job in self.jobs.values()):
            self.traffic.emptied.setdefault(queue, []).append(len(self.traffic.told))

    def transact(
        self,
        now_us: int,
        acks: list[Ack],
        extends: list[tuple[str, str, int]],
        jobs: list[New],
        *,
        owner_id: str,
        key_id: str,
        idempotency_key: str,
        body_digest: int,
        ids: list[str],
    ) -> tuple[list[int], list[Submitted], bool]:
        if idempotency_key and (entry := self.keys.find(now_us, owner_id, idempotency_key)):
            if not entry.of_transaction or entry.body_digest != body_digest:
                raise Refused("IdempotencyMismatch")
            return (*entry.answer, True)
        for job_id, token in [(ack.job_id, ack.token) for ack in acks] + [(one[0], one[1]) for one in extends]:
            if token is None and self.find(job_id).state != "RUNNING":
                raise Refused("NotAckable")
            if not (token is None and self.find(job_id).legacy):
                self.held(job_id, token or "")
        owners = {self.find(ack.job_id).owner_id for ack in acks if jobs} or {owner_id}
        if len(owners) > 1:
            raise Refused("InvalidRequest")
        (owner,) = owners
        self.check_new(now_us, jobs, owner, owner_id, idempotency_key, len(extends) + len(jobs))
        for ack in acks:
            self.ack(now_us, ack, key_id)
        untils = [self.extend(now_us, *extend) for extend in extends]
        answers = [self.submit_one(now_us, new, owner, owner_id, key_id, ids[at]) for at, new in enumerate(jobs)]
        if idempotency_key:
            self.keys.remember(now_us, owner_id, idempotency_key, body_digest, (untils, answers), True)
        return untils, answers, False

    # --- time -------------------------------------------------------------------------------------------------------

    def advance(self, now_us: int) -> None:
        for job in self.jobs.values():
            if job.waits and not job.due and job.run_at_us <= now_us:
                self.order.join(job)

    def expire(self, now_us: int, jitter: Callable[[], float], limit: int) -> int:
        out = [job for job in self.jobs.values() if job.state == "RUNNING" and (job.lease_until_us or 0) <= now_us]
        out = sorted(out, key=lambda job: (job.lease_until_us, job.number))[:limit]
        for job in out:
            poisoned = 0 < self.server.poison_expiries <= job.expiries + 1
            self.close(now_us, job, "poisoned" if poisoned else "lease_expired", jitter)
        return len(out) + self.expire_waiting(now_us, limit - len(out))

    def expire_waiting(self, now_us: int, limit: int) -> int:
        late = [job for job in self.jobs.values() if job.waits and 0 < job.spec.expires_us <= now_us]
        late = sorted(late, key=lambda job: (job.spec.expires_us, job.number))[:limit]
        for job in late:
            self.expire_job(now_us, job)
        return len(late)

    def expire_job(self, now_us: int, job: Job) -> None:
        self.order.leave(job)
        job.note("expired", now_us)
        job.state = "EXPIRED"
        self.finish(now_us, job)
        self.traffic.tell(now_us, job, "expired")
