# The C surface: what fastq/http/lane/_lane.pyx calls without making objects of what a request says. Each does what the
# method of Core with the same name does, for the plain case only; hot.pxd declares them.

cdef bint has_room(Tail tail, uint64_t record_bytes, uint64_t unsynced_bytes_max) except *:
    """Whether a record so long can be appended now, on a disk that is not full."""
    return tail.unsynced_bytes <= unsynced_bytes_max and tail.has_room(record_bytes, 0)


cdef uint64_t appended_seq(Tail tail) noexcept:
    """The batch that holds the last change."""
    return tail.next_seq if tail.open_count else tail.next_seq - 1


cdef bint submit_plain(Core core, int64_t now_us, PlainJob* new, bytes owner, bytes key_id, char* job_id) except *:
    """Store a job that has no options, and write its id, HOT_ID_CHARS long. False: it may have to be refused."""
    cdef SubmitFields f
    if core.depth_limited:
        return False
    memset(&f, 0, sizeof(SubmitFields))
    f.seq = core.next_seq
    f.created_us = now_us
    f.run_at_us = now_us + new.delay_us
    f.priority = new.priority
    f.max_retries = new.max_retries
    f.owner = name_in(owner)
    f.key_id = name_in(key_id)
    if new.queue_bytes != 7 or memcmp(new.queue, b"default", 7) != 0:
        f.queue.p = new.queue
        f.queue.n = new.queue_bytes
    append_submit_text(core, &f, new.payload, new.payload_bytes, 0)
    put_id(job_id, now_us, f.seq, core.tag)
    return True


cdef bint submit_plain_many(Core core, int64_t now_us, PlainJob* new, int count, bytes owner, bytes key_id,
                            char* job_ids) except *:
    """Store jobs together, and write their ids as JSON strings with commas between them, HOT_ID_CHARS + 3 for each."""
    cdef uint32_t bytes_max = 0
    cdef int i
    if core.depth_limited:
        return False
    for i in range(count):
        bytes_max += SUBMIT_RECORD_BYTES + new[i].payload_bytes
    core.tail.begin_group(bytes_max)
    try:
        for i in range(count):
            job_ids[0] = c'"'
            submit_plain(core, now_us, &new[i], owner, key_id, job_ids + 1)
            job_ids[HOT_ID_CHARS + 1] = c'"'
            job_ids[HOT_ID_CHARS + 2] = c','
            job_ids += HOT_ID_CHARS + 3
    finally:
        core.tail.end_group()
    return True


cdef list lease_plain(Core core, int64_t now_us, object queues, int limit, int64_t lease_ms, bytes key_id,
                      bytes worker, bint legacy, uint64_t bytes_max):
    return lease_jobs(core, now_us, queues, limit, lease_ms, key_id, worker, legacy, b"", bytes_max)


cdef bint ack_plain(Core core, int64_t now_us, str job_id, str token, bytes result, bytes key_id) except *:
    """End an attempt well. Raises JobNotFound, NotAckable, LeaseLost."""
    append_ack(core, now_us, (job_id, token, "ok", result, "", "", -1, 0.0), key_id)
    return True


cdef Py_ssize_t leased_bytes(Leased lease) except -1:
    """What `put_leased` writes at most."""
    return LEASED_TEXT_BYTES + len(lease.queue) + <Py_ssize_t>place_bytes(&lease.place.place)


cdef Py_ssize_t put_leased(Core core, Leased lease, bint payload_as_string, char* p) except -1:
    """Write a lease as the JSON object that answers say it with; how long that is.

    0: it has what only some jobs have, or its record is not in memory; then somebody else says it.
    """
    cdef const char* record = core.tail.find(&lease.place.place)
    cdef uint16_t flags
    cdef Reader r
    cdef SubmitFields f
    cdef char* start = p
    if record == NULL or <uint8_t>record[0] != SUBMIT:
        return 0
    r = reader_of(record, place_bytes(&lease.place.place), &flags)
    get_int(&r, 8)
    read_submit(&r, flags, &f)
    if r.short or f.group.n or f.tags_bytes or f.trace.n or payload_as_string and r.p[0] != c'"':
        return 0
    p = put_text_of(put_bytes(p, b'{"job_id":"', 11), lease.job_id)
    p = put_bytes(put_bytes(p, b'","payload":', 12), r.p, r.end - r.p)
    p = put_time(put_bytes(p, b',"lease_until":"', 16), lease.lease_until_us)
    p = put_decimal(put_bytes(p, b'","attempt":', 12), lease.attempt)
    p = put_text_of(put_bytes(p, b',"lease_token":"', 16), lease.token)
    p = put_text_of(put_bytes(p, b'","queue":"', 11), lease.queue)
    p = put_decimal(put_bytes(p, b'","priority":', 13), lease.priority)
    p = put_decimal(put_bytes(p, b',"max_retries":', 15), lease.max_retries)
    p = put_time(put_bytes(p, b',"created_at":"', 15), lease.created_us)
    return put_bytes(p, b'"}', 2) - start


# --- text -------------------------------------------------------------------------------------------------------------

cdef enum:
    LEASED_TEXT_BYTES = 400     # of a lease, beside its queue's name and its payload


cdef char* put_text_of(char* p, str ascii) except NULL:
    cdef Py_ssize_t n
    cdef const char* text = PyUnicode_AsUTF8AndSize(ascii, &n)
    return put_bytes(p, text, n)


cdef char* put_decimal(char* p, int64_t value) noexcept nogil:
    cdef char digits[20]
    cdef int n = 0
    cdef uint64_t rest = <uint64_t>value
    if value < 0:
        p[0] = c'-'
        p += 1
        rest = -rest
    while True:
        digits[n] = <char>(c'0' + rest % 10)
        n += 1
        rest //= 10
        if rest == 0:
            break
    while n:
        n -= 1
        p[0] = digits[n]
        p += 1
    return p


cdef char* put_padded(char* p, uint64_t value, int digits) noexcept nogil:
    cdef int i
    for i in range(digits - 1, -1, -1):
        p[i] = <char>(c'0' + value % 10)
        value //= 10
    return p + digits


cdef char* put_time(char* p, int64_t unix_us) noexcept nogil:
    """RFC 3339 in UTC, to the microsecond unless that is 0. The date as in days_from_civil, backward (H. Hinnant)."""
    cdef int64_t second = unix_us // 1_000_000, us = unix_us % 1_000_000
    cdef int64_t day = second // 86400 + 719468, rest = second % 86400
    cdef int64_t era = day // 146097, of_era = day % 146097
    cdef int64_t year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    cdef int64_t of_year = of_era - (365 * year + year // 4 - year // 100)
    cdef int64_t month = (5 * of_year + 2) // 153
    p = put_padded(p, year + era * 400 + (1 if month >= 10 else 0), 4)
    p[0] = c'-'
    p = put_padded(p + 1, month + 3 if month < 10 else month - 9, 2)
    p[0] = c'-'
    p = put_padded(p + 1, of_year - (153 * month + 2) // 5 + 1, 2)
    p[0] = c'T'
    p = put_padded(p + 1, rest // 3600, 2)
    p[0] = c':'
    p = put_padded(p + 1, rest // 60 % 60, 2)
    p[0] = c':'
    p = put_padded(p + 1, rest % 60, 2)
    if us:
        p[0] = c'.'
        p = put_padded(p + 1, us, 6)
    p[0] = c'Z'
    return p + 1
