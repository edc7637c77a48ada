"""The engine's options, from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from fastq._core import CoreSettings


@dataclass(frozen=True)
class EngineOptions:
    """Units stand in the names."""

    lease_ms: int = 30_000
    lease_check_ms: int = 5_000
    max_retries: int = 3
    backoff_base_ms: int = 1_000
    backoff_factor: float = 2.0
    backoff_cap_ms: int = 3_600_000
    owner_isolation: bool = True
    retention_acked_ms: int = 24 * 3_600_000  # of CANCELLED and EXPIRED jobs too
    retention_dead_ms: int = 30 * 24 * 3_600_000
    finished_jobs_max: int = 1_000_000  # of each terminal state
    finished_bytes_max: int = 4 << 30  # of each terminal state, in the log
    log_slack_bytes: int = 256 << 20  # what the log may take beyond twice its live bytes
    idempotency_ms: int = 3_600_000  # how long a key is remembered
    idempotency_keys_max: int = 8_000_000
    poison_expiries: int = 0  # this many expired leases in a row make a job DEAD; 0: never
    queues_max: int = 1_000_000
    owner_depth_max: int = 0  # unfinished jobs of one owner; 0: no limit

    def for_core(self) -> CoreSettings:
        return CoreSettings(
            lease_ms=self.lease_ms,
            backoff=(self.backoff_base_ms, self.backoff_factor, self.backoff_cap_ms),
            poison_expiries=self.poison_expiries,
            idempotency_us=self.idempotency_ms * 1000,
            idempotency_keys_max=self.idempotency_keys_max,
            queues_max=self.queues_max,
            owner_depth_max=self.owner_depth_max,
        )
