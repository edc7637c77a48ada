# The core's commands, checked and complete. Immutable.

@cython.final
cdef class SubmitOptions:       # options that only some jobs have; empty or 0: not set
    cdef bytes group, unique_key, trace, idempotency_key
    cdef bytes tags             # with zero bytes between them
    cdef bint replace
    cdef uint32_t lease_ms, backoff_base_ms, backoff_cap_ms
    cdef double backoff_factor
    cdef int64_t expires_us
    cdef uint64_t body_digest
    cdef readonly uint32_t record_bytes


@cython.final
cdef class NewJob:
    cdef bytes payload          # JSON text
    cdef str queue
    cdef SubmitOptions options  # None: a plain job
    cdef int64_t run_at_us      # 0: at once
    cdef int32_t priority
    cdef uint16_t max_retries


@cython.final
cdef class Ack:                 # the end of an attempt
    cdef readonly str job_id
    cdef str token              # None: the original's client, which has none
    cdef bytes result           # JSON text, or None
    cdef bytes error            # at most ERROR_BYTES_MAX
    cdef bytes error_code
    cdef int64_t wait_ms        # -1: the backoff, times jitter
    cdef double jitter
    cdef uint8_t outcome        # an Outcome


@cython.final
cdef class Extend:              # a new deadline for a lease
    cdef str job_id, token
    cdef int64_t lease_ms       # 0: as long as it was granted


@cython.final
cdef class Access:              # the jobs that exist for a caller; every lookup of a job by a caller takes one
    cdef bytes owner            # None: of any owner
    cdef readonly str owner_id
    cdef readonly frozenset queues  # None: of any queue


@cython.final
cdef class Filter:              # the jobs of a page: those that match every field
    cdef str state, queue, tag  # empty: any
    cdef str group              # None: any
    cdef int64_t since_us
    cdef bint begun             # only jobs that were leased
    cdef bint failed            # only jobs whose last ended attempt failed
