# The fields of records: read here, for replay and for live work alike; docs/log-format.md is their description.

cdef struct Name:           # of optional fields: text in the record itself
    const char* p
    uint8_t n


cdef struct SubmitFields:
    int64_t created_us
    int64_t run_at_us
    int32_t priority
    uint16_t max_retries
    Name queue
    Name owner


cdef struct LeaseFields:
    uint32_t lease_no
    uint16_t attempts
    int64_t at_us
    int64_t until_us
    Name key_id
    Name request_id


cdef struct CloseFields:
    uint32_t lease_no
    uint16_t attempts
    uint8_t outcome
    uint8_t state
    int64_t at_us
    int64_t run_at_us
    const char* error
    uint16_t error_bytes


cdef inline Name read_name(Reader* r) noexcept nogil:
    cdef Name name
    name.n = <uint8_t>get_int(r, 1)
    name.p = get_bytes(r, name.n)
    return name


cdef void read_submit(Reader* r, uint16_t flags, SubmitFields* f) noexcept nogil:
    """All fields after the seq; what is left in the reader is the payload."""
    cdef uint16_t flag = SUBMIT_KEY_ID
    memset(f, 0, sizeof(SubmitFields))
    f.created_us = <int64_t>get_int(r, 8)
    f.max_retries = <uint16_t>get_int(r, 2)
    f.run_at_us = <int64_t>get_int(r, 8) if flags & SUBMIT_RUN_AT else f.created_us
    if flags & SUBMIT_PRIORITY:
        f.priority = <int32_t><uint32_t>get_int(r, 4)
    if flags & SUBMIT_QUEUE:
        f.queue = read_name(r)
    if flags & SUBMIT_OWNER:
        f.owner = read_name(r)
    while flag <= SUBMIT_TRACE:  # kept in the log only
        if flags & flag:
            if flag == SUBMIT_LEASE_MS:
                get_int(r, 4)
            else:
                read_name(r)
        flag <<= 1


cdef void read_lease(Reader* r, uint16_t flags, LeaseFields* f) noexcept nogil:
    memset(f, 0, sizeof(LeaseFields))
    f.lease_no = <uint32_t>get_int(r, 4)
    f.attempts = <uint16_t>get_int(r, 2)
    f.at_us = <int64_t>get_int(r, 8)
    f.until_us = <int64_t>get_int(r, 8)
    if flags & LEASE_WORKER:
        read_name(r)
    if flags & LEASE_KEY_ID:
        f.key_id = read_name(r)
    if flags & LEASE_REQUEST_ID:
        f.request_id = read_name(r)


cdef void read_close(Reader* r, uint16_t flags, CloseFields* f) noexcept nogil:
    """All fields after the seq; what is left in the reader is the result."""
    memset(f, 0, sizeof(CloseFields))
    f.lease_no = <uint32_t>get_int(r, 4)
    f.attempts = <uint16_t>get_int(r, 2)
    f.outcome = <uint8_t>get_int(r, 1)
    f.state = <uint8_t>get_int(r, 1)
    f.at_us = <int64_t>get_int(r, 8)
    if flags & CLOSE_RUN_AT:
        f.run_at_us = <int64_t>get_int(r, 8)
    if flags & CLOSE_ERROR:
        f.error_bytes = <uint16_t>get_int(r, 2)
        f.error = get_bytes(r, f.error_bytes)
    if flags & CLOSE_KEY_ID:
        read_name(r)


cdef inline char* put_head(char* p, uint8_t type, uint16_t flags, uint32_t n) noexcept nogil:
    p = put_u8(p, type)
    p = put_u8(p, RECORD_VERSION)
    p = put_u16(p, flags)
    return put_u32(p, n)


cdef uint16_t known_flags(uint8_t type) noexcept nogil:
    if type == SUBMIT:
        return SUBMIT_KNOWN
    if type == LEASE:
        return LEASE_KNOWN
    if type == CLOSE:
        return CLOSE_KNOWN
    if type == JOB:
        return JOB_KNOWN
    return DOCUMENT_KNOWN if type == DOCUMENT else 0


cdef inline uint32_t record_bytes(const char* p, const char* end) noexcept nogil:
    """The length of the record that begins at p, head included; 0 if there is none that ends by end."""
    cdef uint32_t n
    if end - p < RECORD_HEAD_BYTES:
        return 0
    memcpy(&n, p + 4, 4)
    return n if RECORD_HEAD_BYTES <= n <= end - p else 0


cdef inline uint64_t close_digest(SipKey key, uint8_t outcome, const char* error, size_t error_bytes,
                                  const char* result, size_t result_bytes) noexcept nogil:
    """What must be the same for an ack to be a repetition. No result and an empty one are: JSON is never empty."""
    cdef char data[17]
    put_u8(put_u64(put_u64(data, siphash(key, error, error_bytes)), siphash(key, result, result_bytes)), outcome)
    return siphash(key, data, 17)


cdef uint64_t close_bytes_max(bytes result, str error) except 0:
    """What a CLOSE record takes at most. A character is at most four bytes."""
    return CLOSE_RECORD_BYTES + (0 if result is None else len(result)) + min(4 * len(error), ERROR_BYTES_MAX)


cdef bytes cut_text(bytes text, Py_ssize_t n):
    """At most n bytes of UTF-8 text, cut between characters."""
    if len(text) <= n:
        return text
    return text[:n].decode("utf-8", "ignore").encode()
