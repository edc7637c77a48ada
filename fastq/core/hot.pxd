# What other extension modules call without making objects of what a request says: see hot.pxi.

@cython.final
cdef class Leased:
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

cdef struct PlainJob:       # a job without options, as a request says it; its texts are the request's
    const char* payload     # JSON
    uint32_t payload_bytes
    const char* queue
    uint8_t queue_bytes
    uint16_t max_retries
    int32_t priority
    int64_t delay_us

cdef bint has_room(Tail tail, uint64_t record_bytes, uint64_t unsynced_bytes_max) except *
cdef uint64_t appended_seq(Tail tail) noexcept
cdef bint submit_plain(Core core, int64_t now_us, PlainJob* new, bytes owner, bytes key_id, char* job_id) except *
cdef bint submit_plain_many(Core core, int64_t now_us, PlainJob* new, int count, bytes owner, bytes key_id,
                            char* job_ids) except *
cdef list lease_plain(Core core, int64_t now_us, object queues, int limit, int64_t lease_ms, bytes key_id,
                      bytes worker, bint legacy, uint64_t bytes_max)
cdef bint ack_plain(Core core, int64_t now_us, str job_id, str token, bytes result, bytes key_id) except *
cdef Py_ssize_t leased_bytes(Leased lease) except -1
cdef Py_ssize_t put_leased(Core core, Leased lease, bint payload_as_string, char* p) except -1
