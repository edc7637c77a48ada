# The C interface for fastq/http/lane/_lane.pyx, which makes no Python objects of a request. Each function does the same
# as the method of Core with its name, for the plain case only. hot.pxd declares them.

cdef bint has_room(Tail tail, uint64_t record_bytes, uint32_t segments_left, uint64_t unsynced_bytes_max) except *:
    """Whether a record of this length can be appended now, as `Commits.has_room` on a disk that is not full."""
    if tail.unsynced_bytes > unsynced_bytes_max:
        return False
    return tail.goes_here(record_bytes) or tail.has_room(record_bytes, segments_left)


cdef uint64_t appended_seq(Tail tail) noexcept:
    """The batch that holds the last change."""
    return tail.next_seq if tail.open_count else tail.next_seq - 1


cdef int submit_plain(Core core, int64_t now_us, PlainJob* new, bytes owner, bytes key_id, char* job_id) except -1:
    """Store a job and write its id, HOT_ID_CHARS long: returns CREATED. If its keys name an existing job, write that
    id: returns REPEATED or DUPLICATE. Else returns ELSEWHERE.
    """
    cdef int how
    if core.depth_limits or queues_are_full(core, 1):
        return ELSEWHERE
    new.fields.owner = name_in(owner)
    how = found_plain(core, now_us, new, job_id)
    if how == CREATED:
        if new.fields.idempotency_key.n:
            if keys_are_full(core, now_us, 1, NEVER_US):
                return ELSEWHERE
            make_room_for_keys(core, now_us, 1)
        store_plain(core, now_us, new, key_id, job_id)
    return how


cdef int found_plain(Core core, int64_t now_us, PlainJob* new, char* job_id) except -1:
    """REPEATED or DUPLICATE and the id, if a new job's keys name an existing job; CREATED if they are free."""
    cdef SubmitFields* f = &new.fields
    cdef Name queue = f.queue
    cdef uint64_t key[2]
    cdef uint32_t i
    if f.idempotency_key.n:
        scoped_hash(core, f.owner, no_name(), f.idempotency_key, key)
        i = remembered_key(core, now_us, key)
        if i != NONE:
            if remembered_at(&core.t, i).seq == 0 or remembered_at(&core.t, i).body_digest != f.body_digest:
                return ELSEWHERE
            put_id(job_id, remembered_at(&core.t, i).answer.created_us, remembered_at(&core.t, i).seq, core.tag)
            return REPEATED
    if f.unique_key.n:
        if queue.n == 0:
            queue = name_in(b"default")
        i = unique_holder(core, f.owner, queue, f.unique_key)
        if i != NONE:
            if new.replace or f.idempotency_key.n or gives_way(core, i, now_us):
                return ELSEWHERE
            put_id(job_id, job_at(&core.t, i).created_us, job_at(&core.t, i).seq, core.tag)
            return DUPLICATE
    return CREATED


cdef int store_plain(Core core, int64_t now_us, PlainJob* new, bytes key_id, char* job_id) except -1:
    cdef SubmitFields* f = &new.fields
    f.seq = core.next_seq
    f.created_us = now_us
    f.run_at_us = max(now_us, f.run_at_us)
    f.key_id = name_in(key_id)
    append_submit_text(core, f, new.payload, new.payload_bytes, 0)
    put_id(job_id, now_us, f.seq, core.tag)
    return 0


cdef int submit_plain_many(Core core, int64_t now_us, PlainJob* new, int count, bytes owner, bytes key_id, Name key,
                           uint64_t body_digest, char* job_ids) except -1:
    """Store jobs together, and write their ids as JSON strings with commas between them, HOT_ID_CHARS + 3 for each.

    Args:
        key: idempotency key of the whole batch; empty: none.
    Returns:
        CREATED; or ELSEWHERE if any of the keys is in use.
    """
    cdef uint64_t bytes_max = 0
    cdef uint64_t hash[2]
    cdef bytes answer = b""
    cdef char* p
    cdef int i, answers
    if core.depth_limits or queues_are_full(core, count):
        return ELSEWHERE
    for i in range(count):
        new[i].fields.owner = name_in(owner)
        bytes_max += plain_bytes(&new[i])
    if key.n:
        scoped_hash(core, name_in(owner), no_name(), key, hash)
        bytes_max += remember_bytes(count)
        answer = PyBytes_FromStringAndSize(NULL, ANSWER_BYTES * count)
    p = <char*>answer
    answers = free_keys(core, now_us, new, count, hash if key.n else NULL)
    if answers < 0:
        return ELSEWHERE
    if answers:
        make_room_for_keys(core, now_us, answers)
    core.tail.begin_group(<uint32_t>bytes_max)
    try:
        for i in range(count):
            job_ids[0] = c'"'
            store_plain(core, now_us, &new[i], key_id, job_ids + 1)
            job_ids[HOT_ID_CHARS + 1] = c'"'
            job_ids[HOT_ID_CHARS + 2] = c','
            job_ids += HOT_ID_CHARS + 3
            if key.n:
                p = put_answer(p, new[i].fields.seq, now_us, CREATED)
        if key.n:
            append_remember(core, now_us, hash, body_digest, answer, True)
    finally:
        core.tail.end_group()
    return CREATED


cdef uint64_t plain_bytes(PlainJob* new) noexcept nogil:
    """An upper bound of the bytes that a new job's records take, as Falcon counts them."""
    cdef SubmitFields* f = &new.fields
    return (SUBMIT_RECORD_BYTES + new.payload_bytes + f.group.n + f.unique_key.n + f.idempotency_key.n + f.trace.n
            + f.tags_bytes + OPTIONS_RECORD_BYTES + (EXPIRED_RECORD_BYTES if f.unique_key.n else 0))


cdef int free_keys(Core core, int64_t now_us, PlainJob* new, int count, uint64_t* whole) except -2:
    """How many answers are remembered for these jobs' keys. -1: a key is in use or given twice, or there is no room.

    Args:
        whole: hash of the batch's own key, or NULL.
    """
    cdef char job_id[HOT_ID_CHARS]
    cdef set seen = set()
    cdef int i, keyed = 0, answers = 0
    cdef Name queue
    if whole != NULL:
        if remembered_key(core, now_us, whole) != NONE:
            return -1
        seen.add((whole[0], whole[1]))
        answers = count
    for i in range(count):
        if new[i].fields.idempotency_key.n == 0 and new[i].fields.unique_key.n == 0:
            continue
        if found_plain(core, now_us, &new[i], job_id) != CREATED:
            return -1
        if new[i].fields.idempotency_key.n:
            answers += 1
            keyed += 1
            seen.add(key_hash(core, new[i].fields.owner, no_name(), new[i].fields.idempotency_key))
        if new[i].fields.unique_key.n:
            queue = new[i].fields.queue
            keyed += 1
            seen.add(key_hash(core, new[i].fields.owner, queue if queue.n else name_in(b"default"),
                              new[i].fields.unique_key))
    if <Py_ssize_t>len(seen) != keyed + (0 if whole == NULL else 1):
        return -1
    return -1 if answers and keys_are_full(core, now_us, answers, NEVER_US) else answers


cdef tuple key_hash(Core core, Name owner, Name queue, Name key):
    cdef uint64_t hash[2]
    scoped_hash(core, owner, queue, key, hash)
    return hash[0], hash[1]


cdef list lease_plain(Core core, int64_t now_us, object queues, int limit, int64_t lease_ms, bytes key_id,
                      bytes worker, bint legacy, bytes request, uint64_t bytes_max):
    return lease_jobs(core, now_us, queues, limit, lease_ms, key_id, worker, legacy, request, bytes_max)


cdef bint was_leased(Core core, int64_t now_us, bytes key_id, bytes request) except *:
    """Whether leases of a request with this id are still held."""
    return (key_id, request) in core.requests and bool(leased_before(core, now_us, key_id, request))


cdef bint ack_plain(Core core, int64_t now_us, Access access, str job_id, str token, bytes result,
                    bytes key_id) except *:
    """Ack an attempt with outcome ok. Raises JobNotFound, NotAckable, LeaseLost."""
    end_attempt(core, now_us, access, job_id, token, OUTCOME_OK, b"", result, b"", key_id, -1, 0)
    return True


cdef const char* record_in_memory(Core core, Leased lease) noexcept:
    """The SUBMIT record of a leased job, valid until the next append; NULL if it must be read from the log."""
    return core.tail.find(&lease.place.place)


cdef Py_ssize_t leased_bytes(Leased lease, bint payload_as_string) noexcept:
    """An upper bound of the bytes that `put_leased` writes."""
    cdef Py_ssize_t record_bytes = place_bytes(&lease.place.place)
    return LEASED_TEXT_BYTES + (2 * record_bytes if payload_as_string else record_bytes)


cdef Py_ssize_t put_leased(Leased lease, const char* record, bint was_read, bint payload_as_string,
                           char* p) except -1:
    """Write a lease as the JSON object of an answer. Returns its length; 0: the record is not the job's.

    Args:
        record: the job's SUBMIT record.
        was_read: it comes from a file, so it is checked.
    """
    cdef uint32_t n = place_bytes(&lease.place.place)
    cdef uint16_t flags
    cdef SubmitFields f
    cdef char* start = p
    cdef Reader r = reader_of(record, n, &flags)
    if <uint8_t>record[0] != SUBMIT or get_int(&r, 8) != lease.seq or (was_read and not is_sound(record, n)):
        return 0
    read_submit(&r, flags, &f)
    if r.short or flags & SUBMIT_LOST:
        return 0
    p = put_text_of(put_bytes(p, b'{"job_id":"', 11), lease.job_id)
    p = put_bytes(p, b'","payload":', 12)
    if payload_as_string and r.p[0] != c'"':
        p = put_string(p, r.p, r.end - r.p)
    else:
        p = put_bytes(p, r.p, r.end - r.p)
    p = put_time(put_bytes(p, b',"lease_until":"', 16), lease.lease_until_us)
    p = put_decimal(put_bytes(p, b'","attempt":', 12), lease.attempt)
    p = put_text_of(put_bytes(p, b',"lease_token":"', 16), lease.token)
    p = put_text_of(put_bytes(p, b'","queue":"', 11), lease.queue)
    p = put_decimal(put_bytes(p, b'","priority":', 13), lease.priority)
    p = put_decimal(put_bytes(p, b',"max_retries":', 15), lease.max_retries)
    p = put_time(put_bytes(p, b',"created_at":"', 15), lease.created_us)
    p = put_bytes(p, b'"', 1)
    if lease.group:
        p = put_bytes(put_text_of(put_bytes(p, b',"group":"', 10), lease.group), b'"', 1)
    if f.tags_bytes:
        p = put_tags(put_bytes(p, b',"tags":', 8), f.tags, f.tags_bytes)
    if f.trace.n:
        p = put_string(put_bytes(p, b',"traceparent":', 15), f.trace.p, f.trace.n)
    return put_bytes(p, b'}', 1) - start


# --- text -------------------------------------------------------------------------------------------------------------

cdef enum:
    LEASED_TEXT_BYTES = 1536    # of a lease's JSON without its payload: names, escaped tags, and the rest


cdef char* put_text_of(char* p, str ascii) except NULL:
    cdef Py_ssize_t n
    cdef const char* text = PyUnicode_AsUTF8AndSize(ascii, &n)
    return put_bytes(p, text, n)


cdef char* put_string(char* p, const char* text, Py_ssize_t n) noexcept nogil:
    """Write UTF-8 text as a JSON string."""
    cdef Py_ssize_t i
    p[0] = c'"'
    p += 1
    for i in range(n):
        if text[i] == c'"' or text[i] == c'\\':
            p[0], p[1] = c'\\', text[i]
            p += 2
        elif <unsigned char>text[i] >= 0x20:
            p[0] = text[i]
            p += 1
        else:
            p = put_escaped(p, text[i])
    p[0] = c'"'
    return p + 1


cdef char* put_escaped(char* p, char control) noexcept nogil:
    cdef const char* short = b"........btn.fr.................."
    p[0] = c'\\'
    if short[<int>control] != c'.':
        p[1] = short[<int>control]
        return p + 2
    return put_hex(put_bytes(p + 1, b"u", 1), <uint64_t>control, 4)


cdef char* put_tags(char* p, const char* tags, Py_ssize_t n) noexcept nogil:
    """Write tags, given with zero bytes between them, as a JSON array."""
    cdef const char* end = tags + n
    cdef const char* next_tag
    p[0] = c'['
    p += 1
    while True:
        next_tag = <const char*>memchr(tags, 0, end - tags)
        if next_tag == NULL:
            break
        p = put_string(p, tags, next_tag - tags)
        p[0] = c','
        p += 1
        tags = next_tag + 1
    p = put_string(p, tags, end - tags)
    p[0] = c']'
    return p + 1


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
    """Write a time as RFC 3339 in UTC, with microseconds unless they are 0. The date: civil_from_days (H. Hinnant)."""
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
