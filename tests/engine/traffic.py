"""Kinds of traffic that leave garbage in the log: each goes on for ever and keeps about as much live."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastq.engine.commands import Ack, Edit, Extend, JobOptions, Lease, Submit, Transaction
from fastq.engine.results import LeasedJob
from fastq.errors import CleanerBehind, Overloaded
from tests.engines import CLIENT, WORKER, Running, until

JOBS = 20
RESULT = b'"' + b"r" * 12_000 + b'"'
DOCUMENT = b"d" * 15_000


class Traffic:
    """One step of a kind is a handful of requests. A request that has to wait for the log is sent again."""

    def __init__(self, r: Running) -> None:
        self.r = r
        self.n = 0  # of the step
        self.name = str(r.hand.us)  # no key is used in two lives of a server
        self.ids: list[str] = []
        self.held: list[tuple[str, str]] = []

    async def ask(self, name: str, *arguments: object) -> object:
        answer: list[object] = []

        async def is_answered() -> bool:
            try:
                answer.append(await getattr(self.r.ask, name)(*arguments))
            except (CleanerBehind, Overloaded):
                return False
            return True

        await until(is_answered)
        return answer[0]

    async def have_jobs(self, options: JobOptions | None = None) -> list[str]:
        if not self.ids:
            jobs = [Submit(b'"payload"', 1000, options=options)] * JOBS
            stored, _ = await self.ask("submit_many", CLIENT, jobs)  # type: ignore[misc]
            self.ids = [job_id for job_id, _ in stored]  # type: ignore[has-type]
        return self.ids

    async def lease(self, limit: int = JOBS, request_id: str = "", lease_ms: int = 60_000) -> list[LeasedJob]:
        command = Lease(had_body=True, limit=limit, worker_id="w" * 100, request_id=request_id, lease_ms=lease_ms)
        return await self.ask("lease", WORKER, command)  # type: ignore[return-value]

    async def end(self, leased: list[LeasedJob], outcome: str, **fields: object) -> None:
        acks = [Ack(job.job_id, job.token, outcome=outcome, **fields) for job in leased]  # type: ignore[arg-type]
        for at in range(0, len(acks), 5):
            assert not any(await self.ask("ack_many", WORKER, acks[at : at + 5]))  # type: ignore[arg-type]

    # --- kinds --------------------------------------------------------------------------------------------------------

    async def release(self) -> None:
        await self.have_jobs()
        await self.end(await self.lease(), "release")

    async def snooze(self) -> None:
        await self.have_jobs()
        await self.end(await self.lease(), "snooze", delay_ms=1000)
        self.r.hand.us += 1_000_000
        self.r.engine.run_due()

    async def fail(self) -> None:
        await self.have_jobs()
        await self.end(await self.lease(), "error", error="e" * (self.n * 37 % 2000), retry_after_ms=0)

    async def expire(self) -> None:
        await self.have_jobs()
        await self.lease(lease_ms=1000)
        self.r.hand.us += 3_600_000_000
        self.r.engine.run_due()

    async def extend(self) -> None:
        await self.have_jobs()
        leased = await self.lease() if self.n == 0 else []
        self.held = [(job.job_id, job.token) for job in leased] or self.held
        self.r.hand.us += 1000
        await self.ask("extend", WORKER, self.held, 3_600_000 + self.n)

    async def report(self) -> None:
        await self.have_jobs()
        leased = await self.lease(lease_ms=12 * 3_600_000) if self.n == 0 else []
        self.held = [(job.job_id, job.token) for job in leased] or self.held
        for job_id, token in self.held:
            await self.ask("report", WORKER, job_id, token, self.n % 100, "n" * (self.n % 200))

    async def edit(self) -> None:
        for at, job_id in enumerate(await self.have_jobs()):
            payload = b'"' + b"p" * (self.n * 71 % 3000) + b'"' if at % 2 else None
            await self.ask("edit", CLIENT, job_id, Edit(payload=payload, priority=self.n))

    async def replace(self) -> None:
        jobs = [
            Submit(b'"%d"' % self.n * 50, options=JobOptions(unique_key=f"u{at}", replace=True)) for at in range(JOBS)
        ]
        await self.ask("submit_many", CLIENT, jobs)

    async def documents(self) -> None:
        for at in range(16):
            await self.ask("put_document", 7, f"d{at}", DOCUMENT + b"%d" % self.n)
        await self.ask("put_document", 8, f"gone{self.n}", DOCUMENT)
        with self.r.engine.group(1000) as group:
            group.drop_document(8, f"gone{self.n}")

    async def cancel(self) -> None:
        for job_id in await self.have_jobs():
            await self.ask("cancel", CLIENT, job_id)
        self.ids = []
        self.r.hand.us += 1_000_000

    async def pass_by(self) -> None:
        """Jobs that expire before they are leased."""
        self.ids = []
        await self.have_jobs(JobOptions(expires_ms=1000, tags=("t",)))
        self.r.hand.us += 2_000_000
        self.r.engine.run_due()

    async def finish(self) -> None:
        self.ids = []
        await self.have_jobs()
        await self.end(await self.lease(), "ok", result=RESULT[: self.n * 31 % 900] and RESULT)
        self.r.hand.us += 1_000_000

    async def redrive(self) -> None:
        for job_id in await self.have_jobs() if self.n else []:
            await self.ask("redrive", CLIENT, job_id)
        await self.have_jobs()
        for job in await self.lease():
            await self.end([job], "discard", result=RESULT, error="no")

    async def change_dead(self) -> None:
        """A result that is older than all events that are kept."""
        if self.n == 0:
            await self.have_jobs()
            await self.end(await self.lease(), "discard", result=RESULT)
        for job_id in self.ids:
            await self.ask("edit", CLIENT, job_id, Edit(priority=self.n))

    async def keyed(self) -> None:
        """Keys that outlive their jobs."""
        jobs = [Submit(b"1", options=JobOptions(idempotency_key=f"{self.name}.{self.n}.{at}")) for at in range(JOBS)]
        stored, _ = await self.ask("submit_many", CLIENT, jobs)  # type: ignore[misc]
        for job_id, _ in stored:  # type: ignore[has-type]
            await self.ask("delete", CLIENT, job_id)
        self.r.hand.us += 500_000

    async def keyed_batches(self) -> None:
        self.ids = []
        await self.ask("submit_many", CLIENT, [Submit(b"1")] * JOBS, f"{self.name}.{self.n}", 1)
        await self.end(await self.lease(), "ok")
        self.r.hand.us += 2_000_000

    async def transactions(self) -> None:
        await self.have_jobs()
        leased = await self.lease()
        ops: list[Ack | Extend | Submit] = [Ack(job.job_id, job.token) for job in leased[1:]]
        ops += [Extend(leased[0].job_id, leased[0].token, 2_000_000), *[Submit(b"2")] * (JOBS - 1)]
        await self.ask("transact", WORKER, Transaction(tuple(ops), f"{self.name}.{self.n}", 1))
        await self.end(leased[:1], "release")
        self.r.hand.us += 2_000_000

    async def ask_again(self) -> None:
        """Leases with a request_id, each asked for twice."""
        await self.have_jobs()
        leased = await self.lease(request_id=f"{self.name}.{self.n}")
        assert [job.token for job in await self.lease(request_id=f"{self.name}.{self.n}")] == [
            job.token for job in leased
        ]
        await self.end(leased, "release")

    async def submit_again(self) -> None:
        """Submits that an existing job answers, each with a key of its own."""
        options = [JobOptions(unique_key="u", idempotency_key=f"{self.name}.{self.n}.{at}") for at in range(JOBS)]
        await self.ask("submit_many", CLIENT, [Submit(b"1", options=one) for one in options])
        self.r.hand.us += 1_000_000

    async def take_back(self) -> None:
        """Leases that never reach their worker."""
        await self.have_jobs()
        for job in await self.lease():
            await self.ask("take_back", [job])


Step = Callable[[Traffic], Awaitable[None]]
KINDS: list[Step] = [
    Traffic.release, Traffic.snooze, Traffic.fail, Traffic.expire, Traffic.extend, Traffic.report, Traffic.edit,
    Traffic.replace, Traffic.documents, Traffic.cancel, Traffic.pass_by, Traffic.finish, Traffic.redrive,
    Traffic.change_dead, Traffic.keyed, Traffic.keyed_batches, Traffic.transactions, Traffic.ask_again,
    Traffic.submit_again, Traffic.take_back,
]  # fmt: skip
