"""The core and the model side by side: each action runs on both, and their answers must be the same."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from fastq import _core, errors
from fastq._core import (
    ALL,
    CoreSettings,
    Extend,
    NewJob,
    QueueSettings,
    RecordPlace,
    SubmitOptions,
    Tail,
    submit_facts,
)
from tests.core import model_views
from tests.core.disk import Disk
from tests.core.model import Model, Server
from tests.core.model_jobs import TERMINAL, Ack, Job, New, Refused
from tests.core.model_order import Settings

START_US = 1_700_000_000_000_000
OTHER_SETTINGS = CoreSettings(  # as different as possible from those in use
    lease_ms=1,
    grace_ms=1,
    backoff=(1, 1.0, 1),
    poison_expiries=1,
    idempotency_us=1,
    idempotency_keys_max=1,
    owner_depth_max=1,
)
FORGED_TOKEN = "0000000100000000deadbeef"


PLAIN = ("payload", "max_retries", "priority", "run_at_us", "queue")


def core_job(new: New) -> NewJob:
    """A job in the core's form."""
    options = {name: value for name, value in asdict(new).items() if value != getattr(New(), name)}
    plain: dict[str, Any] = {name: getattr(new, name) for name in PLAIN}
    options = {name: value for name, value in options.items() if name not in plain}
    return NewJob(**plain, options=SubmitOptions(**options) if options else None)


def core_ack(ack: Ack) -> _core.Ack:
    return _core.Ack(**asdict(ack))


def outcome_of(command: Callable[[], Any]) -> Any:
    """A command's answer, or the name of the error that refuses it."""
    try:
        return command()
    except errors.ApiError as refusal:
        return type(refusal).__name__
    except Refused as refusal:
        return refusal.why


class World(Disk):
    def __init__(self, server: Server | None = None) -> None:
        super().__init__()
        self.now_us = START_US
        self.epoch = 0
        self.server = server or Server()
        self.settings: dict[str, Settings] = {}  # of queues
        self.model = Model(self.server)
        self.durable_model, self.durable_model_seq = self.model.copy(), 0  # as of a frame, and that frame
        self.start(self.server)

    # --- around the core --------------------------------------------------------------------------------------------

    def start(self, server: Server) -> None:
        self.epoch += 1
        self.server = server
        self.open(self.now_us, self.epoch, CoreSettings(**asdict(server)))
        self.core.watching = True
        self.core.advance(self.now_us, 1_000_000)
        self.model.restart(self.now_us, server)
        for name, settings in self.settings.items():
            self.configure_queue(name, settings)
        self.core.take_touched()

    def both(self, of_core: Callable[[], Any], of_model: Callable[[Any], Any]) -> Any:
        """Run a command on both. The model gets the core's answer, for its ids. Returns the answer of both."""
        before = self.tail.appended_seq, self.tail.unsynced_bytes, self.core.state_hash()
        open_before = self.open_queues()
        answer = outcome_of(of_core)
        assert answer == (expected := outcome_of(lambda: of_model(answer))), f"{answer} instead of {expected}"
        if isinstance(answer, str) and answer[:1].isupper() and not answer.isupper():
            after = self.tail.appended_seq, self.tail.unsynced_bytes, self.core.state_hash()
            assert before == after, "a refused command left a trace"
        touched = self.core.take_touched()
        assert self.open_queues() - open_before <= touched, "a queue with ready jobs is not among the touched ones"
        ended = self.core.take_ended()
        assert {job_id for job_id, _ in ended} == self.model.ended
        assert all(view is None or (view.job_id == job_id and view.state in TERMINAL) for job_id, view in ended)
        self.model.ended.clear()
        return answer

    def open_queues(self) -> set[str]:
        names = {job.queue for job in self.model.jobs.values() if job.due}
        return {name for name in names if self.model.order.gives(self.now_us, name)}

    # --- time, queues -----------------------------------------------------------------------------------------------

    def time_passes(self, step_us: int) -> None:
        self.now_us += step_us
        self.core.advance(self.now_us, 1_000_000)
        self.both(lambda: None, lambda _: self.model.advance(self.now_us))

    def configure_queue(self, name: str, settings: Settings | None) -> None:
        if settings is None:
            self.settings.pop(name, None)
        else:
            self.settings[name] = settings
        given = None if settings is None else QueueSettings(**asdict(settings))
        self.both(
            lambda: self.core.configure_queue(self.now_us, name, given),
            lambda _: self.model.order.configure(self.now_us, name, settings),
        )
        self.model.left(name)

    # --- submit, lease ----------------------------------------------------------------------------------------------

    def submit(self, jobs: list[New], owner_id: str = "o1", key_id: str = "k1") -> Any:
        """Submit one job alone, or several as one record."""
        self.now_us += any(new.idempotency_key for new in jobs)  # so that no two keys have the same age
        before = self.tail.appended_seq, self.tail.unsynced_bytes

        def of_core() -> Any:
            if len(jobs) != 1:
                return self.core.submit_many(
                    self.now_us, [core_job(new) for new in jobs], owner_id=owner_id, key_id=key_id
                )
            return [self.core.submit(self.now_us, core_job(jobs[0]), owner_id=owner_id, key_id=key_id)]

        answer = self.both(
            of_core, lambda answer: self.model.submit(self.now_us, jobs, owner_id, key_id, ids_in(answer))
        )
        assert jobs or before == (self.tail.appended_seq, self.tail.unsynced_bytes), "an empty group left a trace"
        return answer

    def lease(
        self,
        queues: list[str] | dict[str, int],
        limit: int = 1,
        lease_ms: int = 0,
        *,
        worker_id: str = "",
        legacy: bool = False,
        request_id: str = "",
        bytes_max: int = 1 << 40,
    ) -> list[str]:
        """Lease jobs. Returns their tokens."""
        held = self.core.leased_before(self.now_us, "k2", request_id)
        expected_held = model_views.leased_before(self.model, self.now_us, "k2", request_id) if request_id else []
        assert sorted(lease.token for lease in held) == sorted(token or "" for token in expected_held)
        if held:
            return [lease.token for lease in held]
        asked: dict[str, Any] = {
            "key_id": "k2",
            "worker_id": worker_id,
            "legacy": legacy,
            "request_id": request_id,
            "bytes_max": bytes_max,
        }

        def size_of(job: Job) -> int:
            return self.core.job(self.now_us, ALL, job.job_id).place.bytes

        granted = self.core.lease(self.now_us, queues, limit, lease_ms=lease_ms, **asked)
        expected = self.model.lease(self.now_us, queues, limit, lease_ms, **asked, size_of=size_of)
        assert [lease.job_id for lease in granted] == [job.job_id for job in expected]
        for lease, job in zip(granted, expected, strict=True):
            assert lease.token not in job.tokens, "a token was granted twice"
            job.token, job.tokens = lease.token, (*job.tokens, lease.token)
            assert (lease.attempt, lease.lease_until_us) == (job.attempts, job.lease_until_us)
            assert (lease.priority, lease.max_retries) == (job.spec.priority, job.spec.max_retries)
            assert (lease.queue, lease.group, lease.created_us) == (job.queue, job.group, job.created_us)
            assert submit_facts(self.record(lease.place), lease.job_id).payload == job.spec.payload
        self.both(lambda: None, lambda _: None)
        return [lease.token for lease in granted]

    # --- what a worker does -----------------------------------------------------------------------------------------

    def ack(self, ack: Ack) -> Any:
        before = self.core.state_hash()
        changed = self.both(
            lambda: self.core.ack(self.now_us, ALL, core_ack(ack), key_id="k2"),
            lambda _: self.model.ack(self.now_us, ack, "k2"),
        )
        assert changed is True or before == self.core.state_hash(), "a repeated ack left a trace"
        return changed

    def ack_many(self, acks: list[Ack]) -> list[str]:
        return self.both(  # type: ignore[no-any-return]
            lambda: names_of(self.core.ack_many(self.now_us, ALL, [core_ack(ack) for ack in acks], key_id="k2")),
            lambda _: self.model.ack_many(self.now_us, acks, "k2"),
        )

    def extend(self, job_id: str, token: str, lease_ms: int) -> Any:
        return self.both(
            lambda: self.core.extend(self.now_us, ALL, job_id, token, lease_ms),
            lambda _: self.model.extend(self.now_us, job_id, token, lease_ms),
        )

    def extend_many(self, leases: list[tuple[str, str]], lease_ms: int) -> Any:
        return self.both(
            lambda: names_of(self.core.extend_many(self.now_us, ALL, [Extend(*lease, lease_ms) for lease in leases])),
            lambda _: self.model.extend_many(self.now_us, leases, lease_ms),
        )

    def report(self, job_id: str, token: str, percent: int, note: str) -> Any:
        return self.both(
            lambda: self.core.report(self.now_us, ALL, job_id, token, percent, note),
            lambda _: self.model.report(self.now_us, job_id, token, percent, note),
        )

    def undelivered(self, job_id: str, token: str) -> Any:
        return self.both(
            lambda: self.core.undelivered(self.now_us, job_id, token),
            lambda _: self.model.undelivered(self.now_us, job_id, token),
        )

    def unreadable(self, job_id: str, token: str, reason: str) -> Any:
        return self.both(
            lambda: self.core.unreadable(self.now_us, job_id, token, reason),
            lambda _: self.model.undelivered(self.now_us, job_id, token, reason),
        )

    def transact(
        self,
        acks: list[Ack],
        extends: list[tuple[str, str, int]],
        jobs: list[New],
        idempotency_key: str = "",
        body_digest: int = 0,
    ) -> Any:
        self.now_us += 1
        facts: dict[str, Any] = {
            "owner_id": "o1",
            "key_id": "k2",
            "idempotency_key": idempotency_key,
            "body_digest": body_digest,
        }
        return self.both(
            lambda: self.core.transact(
                self.now_us,
                ALL,
                [core_ack(ack) for ack in acks],
                [Extend(*extend) for extend in extends],
                [core_job(new) for new in jobs],
                **facts,
            ),
            lambda answer: self.model.transact(
                self.now_us, acks, extends, jobs, **facts, ids=ids_in(answer if isinstance(answer, str) else answer[1])
            ),
        )

    # --- changes from outside ---------------------------------------------------------------------------------------

    def cancel(self, job_id: str, force: bool = False) -> Any:
        return self.both(
            lambda: self.core.cancel(self.now_us, ALL, job_id, force=force, key_id="k1"),
            lambda _: self.model.cancel(self.now_us, job_id, force, "k1"),
        )

    def redrive(self, job_id: str) -> Any:
        return self.both(
            lambda: self.core.redrive(self.now_us, ALL, job_id, key_id="k1"),
            lambda _: self.model.redrive(self.now_us, job_id, "k1"),
        )

    def edit(self, job_id: str, **changes: Any) -> Any:
        def of_core() -> None:
            place = self.core.job(self.now_us, ALL, job_id).place
            record = self.record(place)
            elsewhere = RecordPlace(place.frame + 1, place.offset, place.bytes)
            assert self.core.edit(self.now_us, ALL, job_id, elsewhere, record, key_id="k1", **changes) is False
            assert self.core.edit(self.now_us, ALL, job_id, place, record, key_id="k1", **changes) is True

        return self.both(of_core, lambda _: self.model.edit(self.now_us, job_id, "k1", **changes))

    def delete(self, job_ids: list[str]) -> Any:
        return self.both(
            lambda: self.core.delete(self.now_us, ALL, job_ids), lambda _: self.model.delete(self.now_us, job_ids)
        )

    def in_group(self, commands: list[Callable[[], object]]) -> None:
        """Several commands as one record."""
        self.core.begin_group(16_000)
        for command in commands:
            command()
        self.core.end_group()

    def watch(self, job_id: str) -> None:
        if not self.model.jobs[job_id].finished:
            self.core.watch_end(job_id)
            self.model.watched.add(job_id)

    def unwatch(self, job_id: str) -> None:
        self.core.unwatch_end(job_id)
        self.model.watched.discard(job_id)

    def stranger(self, job_id: str) -> None:
        """Try an id of another database."""
        assert outcome_of(lambda: self.core.job(self.now_us, ALL, job_id)) == "JobNotFound"
        refused = [
            self.ack(Ack(job_id, None)),
            self.cancel(job_id),
            self.redrive(job_id),
            self.delete([job_id]),
            self.edit(job_id, priority=1),
        ]
        assert refused == ["JobNotFound"] * 5

    # --- expiry, retention, documents -------------------------------------------------------------------------------

    def expire(self, draws: Iterator[float], limit: int = 1_000_000) -> None:
        """Expire on both, with the same draws of jitter."""
        drawn: list[float] = []

        def draw() -> float:
            drawn.append(next(draws))
            return drawn[-1]

        left: list[float] = []

        def of_model(_: object) -> int:
            left.extend(drawn)
            return self.model.expire(self.now_us, lambda: left.pop(0), limit)

        self.both(lambda: self.core.expire(self.now_us, draw, limit), of_model)
        assert left == [], "one drew jitter more often than the other"

    def forget(self, kept_ms: int, count_max: int, limit: int = 1_000_000) -> None:
        """Run retention; then keep everything, so that the next change is the next call's."""
        n, before = 0, self.core.last_change
        self.core.retain(kept_ms, kept_ms, count_max, 1 << 40)
        while removed := self.core.forget(self.now_us, limit):
            assert removed <= limit
            n += removed
        told = [change.job_id for change in self.core.changes(before, 1 << 62, 10_000)[0]]
        gone = list(dict.fromkeys(told + [job_id for job_id in self.model.jobs if not self.exists(job_id)]))
        assert len(gone) == n
        model_views.forget(self.model, self.now_us, kept_ms, count_max, gone)
        self.both(lambda: None, lambda _: None)

    def forget_keys(self, limit: int) -> None:
        self.both(
            lambda: self.core.forget_keys(self.now_us, limit),
            lambda _: self.model.keys.forget_old(self.now_us, limit),
        )

    def exists(self, job_id: str) -> bool:
        return bool(outcome_of(lambda: self.core.job(self.now_us, ALL, job_id)) != "JobNotFound")

    def put_document(self, name: str, body: bytes) -> None:
        self.core.put_document(self.now_us, 1, name, body, "k3")
        self.model.documents[1, name] = body

    def drop_document(self, name: str) -> None:
        self.core.drop_document(self.now_us, 1, name)
        self.model.documents.pop((1, name), None)

    # --- the log ----------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        super().sync()
        self.durable_model, self.durable_model_seq = self.model.copy(), self.seq

    def clean_oldest(self, stop_after: str) -> None:
        self.sync()
        self.clean(self.now_us, stop_after)

    def crash(self, server: Server | None = None) -> None:
        """Lose what was not synced, and start again, perhaps with other settings."""
        self.model = self.durable_model.copy()
        self.start(server or self.server)

    def restart(self, server: Server | None = None) -> None:
        self.sync()
        for settings in (CoreSettings(**asdict(server or self.server)), OTHER_SETTINGS):
            replayed = self.replayed(Tail(512, 0, 4096), settings)
            assert replayed.state_hash() == self.core.state_hash(), "a replay gives another state than live work"
            replayed.check()
            assert replayed.live_bytes == self.core.live_bytes
        assert self.rewritten_bytes(self.now_us) == self.core.live_bytes, "the account is not what a rewrite takes"
        self.start(server or self.server)


def ids_in(answer: Any) -> list[str]:
    """The ids in an answer to a submit; none if it was refused."""
    return [str(uuid.uuid4()) for _ in range(10)] if isinstance(answer, str) else [job_id for job_id, _ in answer]


def names_of(answers: list[Any]) -> list[Any]:
    """The answers, with names in place of errors; an empty name for None."""
    return ["" if one is None else type(one).__name__ if isinstance(one, Exception) else one for one in answers]
