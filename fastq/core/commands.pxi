# The core's commands: see commands.pxd.

cdef dict OUTCOMES = {      # what a worker may say
    "ok": OUTCOME_OK, "error": OUTCOME_ERROR, "discard": OUTCOME_DISCARD, "snooze": OUTCOME_SNOOZE,
    "release": OUTCOME_RELEASE,
}
ACK_OUTCOMES = tuple(OUTCOMES)

@cython.final
cdef class SubmitOptions:
    def __init__(self, str group="", *, uint32_t lease_ms=0, tuple backoff=None, int64_t expires_us=0,
                 str unique_key="", bint replace=False, tags=(), str traceparent="", str idempotency_key="",
                 uint64_t body_digest=0):
        self.group = group.encode()
        self.lease_ms = lease_ms
        if backoff is not None:
            self.backoff_base_ms, self.backoff_factor, self.backoff_cap_ms = backoff
        self.expires_us = expires_us
        self.unique_key = unique_key.encode()
        self.replace = replace
        self.tags = "\0".join(tags).encode()
        self.trace = traceparent.encode()
        self.idempotency_key = idempotency_key.encode()
        self.body_digest = body_digest
        assert len(self.tags) <= TAGS_BYTES_MAX
        self.record_bytes = OPTIONS_RECORD_BYTES + len(self.group) + len(self.unique_key) + len(self.tags)
        self.record_bytes += len(self.trace) + len(self.idempotency_key)
        if unique_key:  # its holder may have to expire first
            self.record_bytes += EXPIRED_RECORD_BYTES
        if unique_key and replace:  # it may become a replaced job's record with that job's group and tags, and a CHANGE
            self.record_bytes += CHANGE_RECORD_BYTES + 65 + TAGS_BYTES_MAX


@cython.final
@cython.freelist(64)
cdef class NewJob:
    def __init__(self, bytes payload not None, uint16_t max_retries, int32_t priority=0, int64_t run_at_us=0,
                 str queue not None="default", SubmitOptions options=None):
        self.payload, self.max_retries, self.priority = payload, max_retries, priority
        self.run_at_us, self.queue, self.options = run_at_us, queue, options


@cython.final
@cython.freelist(64)
cdef class Ack:
    def __init__(self, str job_id not None, str token, str outcome="ok", bytes result=None, str error="",
                 str error_code="", int64_t wait_ms=-1, double jitter=0.0):
        self.job_id, self.token, self.result = job_id, token, result
        self.outcome = OUTCOMES[outcome]
        self.error = cut_text(error.encode(), ERROR_BYTES_MAX) if error else b""
        self.error_code = error_code.encode()
        self.wait_ms, self.jitter = wait_ms, jitter
        assert len(self.error_code) <= 64


cdef Ack ack_of(str job_id, str token, bytes result):
    """An ack with outcome ok."""
    cdef Ack ack = Ack.__new__(Ack)
    ack.job_id, ack.token, ack.result = job_id, token, result
    ack.outcome = OUTCOME_OK
    ack.error = ack.error_code = b""
    ack.wait_ms = -1
    return ack


@cython.final
@cython.freelist(64)
cdef class Extend:
    def __init__(self, str job_id not None, str token not None, int64_t lease_ms=0):
        self.job_id, self.token, self.lease_ms = job_id, token, lease_ms


cdef Extend extend_of(str job_id, str token, int64_t lease_ms):
    cdef Extend extend = Extend.__new__(Extend)
    extend.job_id, extend.token, extend.lease_ms = job_id, token, lease_ms
    return extend


@cython.final
cdef class Access:
    def __init__(self, str owner_id=None, frozenset queues=None):
        self.owner_id, self.queues = owner_id, queues
        self.owner = None if owner_id is None else owner_id.encode()

    @property
    def is_all(self):
        return self.owner is None and self.queues is None

    def has_queue(self, str queue not None):
        return self.queues is None or queue in self.queues

    def has(self, str owner_id not None, str queue not None):
        return (self.owner is None or owner_id == self.owner_id) and self.has_queue(queue)


ALL = Access()


@cython.final
cdef class Filter:
    def __init__(self, str state="", *, str queue="", str group=None, str tag="", int64_t since_us=0,
                 bint begun=False, bint failed=False):
        self.state, self.queue, self.group, self.tag = state, queue, group, tag
        self.since_us = since_us
        self.begun, self.failed = begun, failed


def new_jobs_bytes(list jobs):
    return jobs_bytes_max(jobs)


def remembered_bytes(int count):
    return remember_bytes(count)


cdef uint32_t jobs_bytes_max(list jobs) except? 0:
    """An upper bound of the bytes that the records of new jobs take."""
    cdef uint64_t n = 0
    cdef NewJob job
    for job in jobs:
        n += SUBMIT_RECORD_BYTES + len(job.payload)
        if job.options is not None:
            n += job.options.record_bytes
    return <uint32_t>n


cdef uint32_t acks_bytes_max(list acks) except? 0:
    """An upper bound of the bytes that the CLOSE records of acks take."""
    cdef uint64_t n = 0
    cdef Ack ack
    for ack in acks:
        n += CLOSE_RECORD_BYTES + len(ack.error)
        if ack.result is not None:
            n += len(ack.result)
    return <uint32_t>n
