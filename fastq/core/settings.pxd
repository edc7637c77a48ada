# The operators' settings. Only deciding reads them: a record has the same effect under any settings.

@cython.final
cdef class CoreSettings:
    cdef readonly uint32_t lease_ms, grace_ms
    cdef uint32_t backoff_base_ms, backoff_cap_ms
    cdef double backoff_factor
    cdef int poison_expiries
    cdef int64_t idempotency_us
    cdef uint64_t idempotency_keys_max
    cdef uint32_t owner_depth_max, queues_max


@cython.final
cdef class QueueSettings:
    cdef bint paused, fair
    cdef uint32_t concurrency, group_concurrency, max_depth, lease_ms
    cdef int64_t rate_n, rate_per_ms, retention_acked_ms, retention_dead_ms, finished_max
    cdef tuple backoff
