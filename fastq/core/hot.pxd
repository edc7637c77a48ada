# The functions for other extension modules that make no Python objects of a request: see hot.pxi.

@cython.final
cdef class Leased:
    cdef uint64_t seq
    cdef readonly str job_id
    cdef readonly str token
    cdef readonly str queue
    cdef readonly str group
    cdef readonly RecordPlace place
    cdef readonly int64_t lease_until_us
    cdef readonly int64_t created_us
    cdef readonly int32_t priority
    cdef readonly int attempt
    cdef readonly int max_retries


cdef enum:
    HOT_ID_CHARS = 36

    ELSEWHERE = -2          # nothing was done: call the method of `Core`, which does it or raises

cdef struct PlainJob:       # a new job; its texts point into the request
    SubmitFields fields     # without seq, created_us, owner and key_id; run_at_us 0: at once
    const char* payload     # JSON
    uint32_t payload_bytes
    bint replace            # replace the job that has its unique key

cdef bint has_room(Tail tail, uint64_t record_bytes, uint32_t segments_left, uint64_t unsynced_bytes_max) except *
cdef uint64_t remember_bytes(uint64_t answers) noexcept nogil
cdef uint64_t appended_seq(Tail tail) noexcept
cdef int submit_plain(Core core, int64_t now_us, PlainJob* new, bytes owner, bytes key_id, char* job_id) except -1
cdef uint64_t plain_bytes(PlainJob* new) noexcept nogil
cdef int submit_plain_many(Core core, int64_t now_us, PlainJob* new, int count, bytes owner, bytes key_id, Name key,
                           uint64_t body_digest, char* job_ids) except -1
cdef list lease_plain(Core core, int64_t now_us, object queues, int limit, int64_t lease_ms, bytes key_id,
                      bytes worker, bint legacy, bytes request, uint64_t bytes_max)
cdef bint was_leased(Core core, int64_t now_us, bytes key_id, bytes request) except *
cdef bint ack_plain(Core core, int64_t now_us, Access access, str job_id, str token, bytes result,
                    bytes key_id) except *
cdef Ack ack_of(str job_id, str token, bytes result)
cdef Extend extend_of(str job_id, str token, int64_t lease_ms)
cdef const char* record_in_memory(Core core, Leased lease) noexcept
cdef Py_ssize_t leased_bytes(Leased lease, bint payload_as_string) noexcept
cdef Py_ssize_t put_leased(Leased lease, const char* record, bint was_read, bint payload_as_string, char* p) except -1
