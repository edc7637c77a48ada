# Reads and writes the fields of records, for live work and replay. docs/log-format.md describes them.

# --- names and places -------------------------------------------------------------------------------------------------

cdef inline Name read_name(Reader* r) noexcept nogil:
    cdef Name name
    name.n = <uint8_t>get_int(r, 1)
    name.p = get_bytes(r, name.n)
    return name


cdef inline char* put_text(char* p, Name name) noexcept nogil:
    p[0] = <char>name.n
    if name.n:
        memcpy(p + 1, name.p, name.n)
    return p + 1 + name.n


cdef inline Name name_in(bytes text):
    """A name whose text is in an object that the caller keeps."""
    cdef Name name
    assert len(text) <= 255
    name.p = <const char*>text
    name.n = <uint8_t>len(text)
    return name


cdef inline bytes name_bytes(Name name):
    return name.p[:name.n] if name.n else b""


cdef inline Place read_place(Reader* r) noexcept nogil:
    cdef Place place
    place.low = get_int(r, 8)
    place.high = <uint32_t>get_int(r, 4)
    return place


cdef inline char* put_place(char* p, Place* place) noexcept nogil:
    return put_u32(put_u64(p, place.low), place.high)


# --- SUBMIT -----------------------------------------------------------------------------------------------------------

cdef void read_submit(Reader* r, uint16_t flags, SubmitFields* f) noexcept nogil:
    """Read all fields after the seq. The rest of the reader is the payload."""
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
    if flags & SUBMIT_KEY_ID:
        f.key_id = read_name(r)
    if flags > SUBMIT_GROUP - 1:
        read_submit_options(r, flags, f)


cdef void read_submit_options(Reader* r, uint16_t flags, SubmitFields* f) noexcept nogil:
    if flags & SUBMIT_GROUP:
        f.group = read_name(r)
    if flags & SUBMIT_UNIQUE_KEY:
        f.unique_key = read_name(r)
    if flags & SUBMIT_IDEMPOTENCY_KEY:
        f.idempotency_key = read_name(r)
        f.body_digest = get_int(r, 8)
    if flags & SUBMIT_LEASE_MS:
        f.lease_ms = <uint32_t>get_int(r, 4)
    if flags & SUBMIT_TRACE:
        f.trace = read_name(r)
    if flags & SUBMIT_EXPIRES:
        f.expires_us = <int64_t>get_int(r, 8)
    if flags & SUBMIT_BACKOFF:
        f.backoff_base_ms = <uint32_t>get_int(r, 4)
        f.backoff_factor = get_double(r)
        f.backoff_cap_ms = <uint32_t>get_int(r, 4)
    if flags & SUBMIT_TAGS:
        f.tags_bytes = <uint16_t>get_int(r, 2)
        f.tags = get_bytes(r, f.tags_bytes)
    if flags & SUBMIT_LOST:
        f.lost_unique[0] = get_int(r, 8)
        f.lost_unique[1] = get_int(r, 8)


cdef uint16_t submit_flags(SubmitFields* f) noexcept nogil:
    """The flags of a record with these fields."""
    cdef uint16_t flags = SUBMIT_OWNER | SUBMIT_KEY_ID
    if f.run_at_us != f.created_us:
        flags |= SUBMIT_RUN_AT
    if f.priority:
        flags |= SUBMIT_PRIORITY
    if f.queue.n:
        flags |= SUBMIT_QUEUE
    if f.group.n:
        flags |= SUBMIT_GROUP
    if f.unique_key.n:
        flags |= SUBMIT_UNIQUE_KEY
    if f.idempotency_key.n:
        flags |= SUBMIT_IDEMPOTENCY_KEY
    if f.lease_ms:
        flags |= SUBMIT_LEASE_MS
    if f.trace.n:
        flags |= SUBMIT_TRACE
    if f.expires_us:
        flags |= SUBMIT_EXPIRES
    if f.backoff_base_ms:
        flags |= SUBMIT_BACKOFF
    if f.tags_bytes:
        flags |= SUBMIT_TAGS
    return flags


cdef uint32_t submit_bytes(SubmitFields* f, uint16_t flags) noexcept nogil:
    """The length of that record without its payload."""
    cdef uint32_t n = RECORD_HEAD_BYTES + 18 + 2 + f.owner.n + f.key_id.n
    if flags & SUBMIT_RUN_AT:
        n += 8
    if flags & SUBMIT_PRIORITY:
        n += 4
    if flags & SUBMIT_QUEUE:
        n += 1 + f.queue.n
    if flags < SUBMIT_GROUP:
        return n
    if flags & SUBMIT_GROUP:
        n += 1 + f.group.n
    if flags & SUBMIT_UNIQUE_KEY:
        n += 1 + f.unique_key.n
    if flags & SUBMIT_IDEMPOTENCY_KEY:
        n += 9 + f.idempotency_key.n
    if flags & SUBMIT_LEASE_MS:
        n += 4
    if flags & SUBMIT_TRACE:
        n += 1 + f.trace.n
    if flags & SUBMIT_EXPIRES:
        n += 8
    if flags & SUBMIT_BACKOFF:
        n += 16
    if flags & SUBMIT_TAGS:
        n += 2 + f.tags_bytes
    if flags & SUBMIT_LOST:
        n += 16
    return n


cdef char* put_submit(char* p, SubmitFields* f, uint16_t flags, uint32_t n) noexcept nogil:
    """Write the record up to its payload."""
    p = put_u64(put_head(p, SUBMIT, flags, n), f.seq)
    p = put_u16(put_i64(p, f.created_us), f.max_retries)
    if flags & SUBMIT_RUN_AT:
        p = put_i64(p, f.run_at_us)
    if flags & SUBMIT_PRIORITY:
        p = put_u32(p, <uint32_t>f.priority)
    if flags & SUBMIT_QUEUE:
        p = put_text(p, f.queue)
    p = put_text(put_text(p, f.owner), f.key_id)
    if flags & SUBMIT_GROUP:
        p = put_text(p, f.group)
    if flags & SUBMIT_UNIQUE_KEY:
        p = put_text(p, f.unique_key)
    if flags & SUBMIT_IDEMPOTENCY_KEY:
        p = put_u64(put_text(p, f.idempotency_key), f.body_digest)
    if flags & SUBMIT_LEASE_MS:
        p = put_u32(p, f.lease_ms)
    if flags & SUBMIT_TRACE:
        p = put_text(p, f.trace)
    if flags & SUBMIT_EXPIRES:
        p = put_i64(p, f.expires_us)
    if flags & SUBMIT_BACKOFF:
        p = put_u32(put_double(put_u32(p, f.backoff_base_ms), f.backoff_factor), f.backoff_cap_ms)
    if flags & SUBMIT_TAGS:
        p = put_bytes(put_u16(p, f.tags_bytes), f.tags, f.tags_bytes)
    if flags & SUBMIT_LOST:
        p = put_u64(put_u64(p, f.lost_unique[0]), f.lost_unique[1])
    return p


# --- other records ----------------------------------------------------------------------------------------------------

cdef void read_lease(Reader* r, uint16_t flags, LeaseFields* f) noexcept nogil:
    memset(f, 0, sizeof(LeaseFields))
    f.lease_no = <uint32_t>get_int(r, 4)
    f.attempts = <uint16_t>get_int(r, 2)
    f.at_us = <int64_t>get_int(r, 8)
    f.until_us = <int64_t>get_int(r, 8)
    if flags & LEASE_WORKER:
        f.worker = read_name(r)
    if flags & LEASE_KEY_ID:
        f.key_id = read_name(r)
    if flags & LEASE_REQUEST_ID:
        f.request_id = read_name(r)


cdef void read_close(Reader* r, uint16_t flags, CloseFields* f) noexcept nogil:
    """Read all fields after the seq. The rest of the reader is the result."""
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
        f.key_id = read_name(r)
    if flags & CLOSE_LEASED:
        f.leased_us = <int64_t>get_int(r, 8)
        f.worker = read_name(r)
    if flags & CLOSE_PREVIOUS:
        f.previous = read_place(r)
    if flags & CLOSE_ERROR_CODE:
        f.error_code = read_name(r)


cdef void read_change(Reader* r, uint16_t flags, ChangeFields* f) noexcept nogil:
    """Read all fields after the seq."""
    memset(f, 0, sizeof(ChangeFields))
    f.what = <uint8_t>get_int(r, 1)
    f.state = <uint8_t>get_int(r, 1)
    f.attempts = <uint16_t>get_int(r, 2)
    f.at_us = <int64_t>get_int(r, 8)
    if flags & CHANGE_RUN_AT:
        f.run_at_us = <int64_t>get_int(r, 8)
    if flags & CHANGE_KEY_ID:
        f.key_id = read_name(r)
    if flags & CHANGE_PREVIOUS:
        f.previous = read_place(r)


cdef inline char* put_head(char* p, uint8_t type, uint16_t flags, uint32_t n) noexcept nogil:
    """Write a record's head. Its check comes when the record is complete: see `seal`."""
    p = put_u8(p, type)
    p = put_u8(p, RECORD_VERSION)
    p = put_u16(p, flags)
    return put_u32(put_u32(p, n), 0)


cdef uint32_t check_of(const char* record, uint32_t n) noexcept nogil:
    """The CRC32C of a record of n bytes without its check, and without the records in it: those have their own."""
    cdef uint32_t covered = n
    if record[0] == GROUP:
        covered = RECORD_HEAD_BYTES
    elif record[0] == JOB:
        covered = job_facts_end(record, n)
    return crc32c_of_pair(
        <const uint8_t*>record, <const uint8_t*>record + RECORD_HEAD_BYTES, covered - RECORD_HEAD_BYTES
    )  # its check begins after eight bytes


cdef uint32_t job_facts_end(const char* record, uint32_t n) noexcept nogil:
    """Where the records in a JOB record of n bytes begin."""
    cdef uint16_t flags
    cdef Reader r = reader_of(record, n, &flags)
    skip_job_facts(&r, flags)
    return <uint32_t>(r.p - record)


cdef inline void seal(char* record, uint32_t n) noexcept nogil:
    """Write the check of a complete record."""
    put_u32(record + RECORD_CHECK_AT, check_of(record, n))


cdef bint is_sound(const char* record, uint32_t n) noexcept nogil:
    """Whether n bytes are one record as it was written."""
    cdef uint32_t check
    if n == 0 or record_bytes(record, record + n) != n:
        return False
    memcpy(&check, record + RECORD_CHECK_AT, 4)
    return check == check_of(record, n)


def is_sound_record(bytes record):
    return is_sound(<const char*>record, <uint32_t>len(record))


cdef uint16_t known_flags(uint8_t type) noexcept nogil:
    if type == SUBMIT:
        return SUBMIT_KNOWN
    if type == LEASE:
        return LEASE_KNOWN
    if type == CLOSE:
        return CLOSE_KNOWN
    if type == JOB:
        return JOB_KNOWN
    if type == CHANGE:
        return CHANGE_KNOWN
    if type == REMEMBER:
        return REMEMBER_KNOWN
    return DOCUMENT_KNOWN if type == DOCUMENT else 0


cdef inline uint32_t record_bytes(const char* p, const char* end) noexcept nogil:
    """The length of the record that begins at p, head included; 0 if there is none that ends by end."""
    cdef uint32_t n
    if end - p < RECORD_HEAD_BYTES:
        return 0
    memcpy(&n, p + 4, 4)
    return n if RECORD_HEAD_BYTES <= n <= end - p else 0


cdef inline Reader reader_of(const char* record, uint32_t n, uint16_t* flags) noexcept nogil:
    """A reader after the head of a record of n bytes."""
    cdef Reader r
    memcpy(flags, record + 2, 2)
    r.p = record + RECORD_HEAD_BYTES
    r.end = record + n
    r.short = False
    return r


cdef inline uint64_t close_digest(SipKey key, uint8_t outcome, const char* error, size_t error_bytes,
                                  const char* result, size_t result_bytes) noexcept nogil:
    """The digest that a repeated ack shares. No result equals an empty one: JSON is never empty."""
    cdef char data[17]
    put_u8(put_u64(put_u64(data, siphash(key, error, error_bytes)), siphash(key, result, result_bytes)), outcome)
    return siphash(key, data, 17)


cdef bytes cut_text(bytes text, Py_ssize_t n):
    """At most n bytes of UTF-8 text, cut between characters."""
    if len(text) <= n:
        return text
    return text[:n].decode("utf-8", "ignore").encode()
