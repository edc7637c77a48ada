# The operators' settings: of the server, fixed at its start, and of each queue, changed at any time.

@cython.final
cdef class CoreSettings:
    def __init__(self, uint32_t lease_ms=30_000, *, uint32_t grace_ms=30_000,
                 tuple backoff=(1_000, 2.0, 3_600_000), int poison_expiries=0, int64_t idempotency_us=3_600_000_000,
                 uint64_t idempotency_keys_max=8_000_000, uint32_t owner_depth_max=0, uint32_t queues_max=1_000_000):
        assert lease_ms > 0 and poison_expiries >= 0 and idempotency_us > 0 and idempotency_keys_max > 0
        self.lease_ms, self.grace_ms = lease_ms, grace_ms
        self.backoff_base_ms, self.backoff_factor, self.backoff_cap_ms = backoff
        self.poison_expiries = poison_expiries
        self.idempotency_us, self.idempotency_keys_max = idempotency_us, idempotency_keys_max
        self.owner_depth_max, self.queues_max = owner_depth_max, queues_max


@cython.final
cdef class QueueSettings:
    def __init__(self, bint paused=False, *, bint fair=False, uint32_t concurrency=0, uint32_t group_concurrency=0,
                 int64_t rate_n=0, int64_t rate_per_ms=0, uint32_t lease_ms=0, tuple backoff=None,
                 int64_t retention_acked_ms=-1, int64_t retention_dead_ms=-1, int64_t finished_max=-1,
                 uint32_t max_depth=0):
        assert 0 <= rate_n <= 10**6 and 0 <= rate_per_ms <= 86_400_000 and (rate_n == 0) == (rate_per_ms == 0)
        self.paused, self.fair = paused, fair
        self.concurrency, self.group_concurrency = concurrency, group_concurrency
        self.rate_n, self.rate_per_ms = rate_n, rate_per_ms
        self.lease_ms, self.backoff, self.max_depth = lease_ms, backoff, max_depth
        self.retention_acked_ms, self.retention_dead_ms = retention_acked_ms, retention_dead_ms
        self.finished_max = finished_max
