"""The verdict: whether the server has no fault, and whether the run would have found one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from fastq.chaos.accounting import Accounts, percentile
from fastq.chaos.plan import Plan

ZERO_LOSS = "result: ZERO LOSS ✓"
FAILED = "result: FAILED ✗"
SHARES = (0.5, 0.95, 0.99)

STATE_NAMES = {"none": "removed by retention"}
MEANINGS = {
    "lost": "acknowledged jobs that do not exist",
    "undone": "answered acks, leases or deletions that were undone",
    "duplicated": "submits that created several jobs",
    "doubled": "jobs leased to two workers at the same time",
    "wrong": "payloads that no client sent",
    "refused": "acks refused while the lease lived",
    "unexpected": "unexpected answers",
    "stuck": "work that does not end",
    "not there": "the server did not come back, or stopped answering",
    "client failed": "the harness itself failed",
}


@dataclass(frozen=True)
class Outcome:
    """What a run found. `states`: how many jobs were in each state at the end; `none`: removed by retention."""

    plan: Plan
    accounts: Accounts
    states: Counter[str]
    client_kills: int
    begun_us: int
    ended_us: int

    @property
    def faults(self) -> Counter[str]:
        return self.accounts.ledger.faults

    @property
    def problems(self) -> list[str]:
        """Why this is not zero loss: the server's faults, and why the run proves nothing."""
        return [*self._faults(), *self._work_not_done(), *self._kills_without_effect()]

    @property
    def is_zero_loss(self) -> bool:
        return not self.problems

    def _faults(self) -> Iterator[str]:
        ledger = self.accounts.ledger
        for kind, meaning in MEANINGS.items():
            if count := ledger.faults[kind]:
                examples = "".join(f"\n    {example}" for example in ledger.examples[kind])
                yield f"{kind} {count:,}: {meaning}{examples}"

    def _work_not_done(self) -> Iterator[str]:
        accounts, plan = self.accounts, self.plan
        if len(accounts.submitted) < plan.jobs:
            yield f"only {len(accounts.submitted):,} of {plan.jobs:,} jobs were submitted"
        if not accounts.acked:
            yield "no work was done: no job was acked"
        if plan.cleaning and not accounts.ledger.counts["segments freed"]:
            yield "nothing was cleaned: no segment was freed; run with more jobs, or more time between kills"
        if plan.kill_clients and plan.kills and not self.client_kills:
            yield "no client was killed"

    def _kills_without_effect(self) -> Iterator[str]:
        kills = self.accounts.kills
        if len(kills) < self.plan.kills:
            yield f"only {len(kills)} of {self.plan.kills} kills were made"
        for number, kill in enumerate(kills, 1):
            if not kill.instance_after:
                yield f"kill {number}: the server did not come back"
            elif kill.instance_after == kill.instance_before:
                yield f"kill {number}: the server is the same process as before"
            elif not kill.in_flight:
                yield f"kill {number}: no request was in flight"

    # --- figures ------------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        return (self.ended_us - self.begun_us) / 1e6

    @cached_property
    def latencies_ms(self) -> list[float]:
        return self.accounts.latencies_ms(self.plan.seed)

    def figures(self) -> dict[str, str]:
        """The figures of the summary and the report, by name."""
        accounts = self.accounts
        ledger = accounts.ledger
        kills = f"{len(accounts.kills)}, {sum(kill.in_flight for kill in accounts.kills):,} requests in flight"
        if starting := ledger.counts["kills while starting"]:
            kills += f"; {starting} more while the server started"
        if self.plan.kill_clients:
            kills += f"; {self.client_kills} of clients"
        latencies = [(f"p{round(share * 100)}", percentile(self.latencies_ms, share)) for share in SHARES]
        shown = {
            "submitted": f"{len(accounts.submitted):,}",
            "acked": f"{len(accounts.acked):,}",
            "lost": f"{self.faults['lost'] + self.faults['undone']:,}",
            "duplicated": f"{self.faults['duplicated'] + self.faults['doubled']:,}",
            "at the end": ", ".join(f"{STATE_NAMES.get(s, s)} {n:,}" for s, n in sorted(self.states.items())),
            "kills": kills,
            "leases": f"{ledger.counts['leased']:,}, {ledger.counts['error acks']:,} failed on purpose",
            "throughput": f"{accounts.rate():,.0f} jobs/s, kills included",
            "latency": ", ".join(f"{name} {ms:,.0f} ms" for name, ms in latencies),
        }
        if self.plan.cleaning:
            shown["cleaned"] = f"{ledger.counts['segments freed']:,} segments"
        return shown | {"took": f"{self.seconds:,.1f} s, seed {self.plan.seed}"}

    def text(self) -> str:
        lines = [f"{name + ':':<12}{shown}" for name, shown in self.figures().items()]
        lines += [f"  {problem}" for problem in self.problems]
        return "\n".join([*lines, ZERO_LOSS if self.is_zero_loss else FAILED])
