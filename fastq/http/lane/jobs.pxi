# Reading submitted jobs in place, and writing them as the reference does for the digest of a keyed request.

cdef enum:                  # members of a job; those in the digest come first, in the reference's order
    FIELD_PAYLOAD
    FIELD_MAX_RETRIES
    FIELD_PRIORITY
    FIELD_DELAY_MS
    FIELD_RUN_AT
    FIELD_QUEUE
    FIELD_GROUP
    FIELD_LEASE_MS
    FIELD_BACKOFF
    FIELD_EXPIRES_MS
    FIELD_EXPIRES_AT
    FIELD_UNIQUE_KEY
    FIELD_ON_DUPLICATE
    FIELD_TAGS
    FIELDS_DIGESTED
    FIELD_IDEMPOTENCY_KEY = FIELDS_DIGESTED
    FIELD_TRACEPARENT
    FIELDS

cdef const char** FIELD_NAMES = [
    b"payload", b"max_retries", b"priority", b"delay_ms", b"run_at", b"queue", b"group", b"lease_ms", b"backoff",
    b"expires_ms", b"expires_at", b"unique_key", b"on_duplicate", b"tags", b"idempotency_key", b"traceparent",
]

cdef enum:
    PLAIN_FIELDS = 1 << FIELD_PAYLOAD | 1 << FIELD_MAX_RETRIES | 1 << FIELD_PRIORITY | 1 << FIELD_DELAY_MS \
        | 1 << FIELD_QUEUE      # of a job without options
    FACTOR_SCALE_MAX = 1000000  # up to six digits after the point, so that the number is written as it was read
    TAGS_READ_MAX = 16


cdef struct JobText:        # a job's members, JSON in the request
    uint32_t seen           # a bit for each member
    Span given[FIELDS]


cdef Py_ssize_t[FIELDS] FIELD_BYTES     # of the names


cdef int measure_fields() noexcept nogil:
    cdef int field
    for field in range(FIELDS):
        FIELD_BYTES[field] = strlen(FIELD_NAMES[field])
    return 0

measure_fields()


cdef inline int field_of(Span name) noexcept nogil:
    cdef int field
    for field in range(FIELDS):
        if name.end - name.at == FIELD_BYTES[field] and is_text(name, FIELD_NAMES[field], FIELD_BYTES[field]):
            return field
    return FIELDS


cdef Text read_job_text(Text at, Text end, JobText* job) noexcept nogil:
    """Find the members of the job at `at`, in UTF-8. Return its end, NULL if it is not plain."""
    cdef Span name, value
    cdef bint last = False
    cdef int field
    job.seen = 0
    at = first_member(at, end)
    while at != NULL and not last:
        at = next_member(at, end, &name, &value, &last)
        if at == NULL:
            return NULL
        field = field_of(name)
        if field == FIELDS or job.seen >> field & 1:
            return NULL
        job.seen |= 1 << field
        job.given[field] = value
    return at


cdef bint read_job(JobText* text, int64_t now_us, PlainJob* job, char** spare) noexcept nogil:
    """Read a job's members. Without a member the default stays. False if one is not plain.

    `spare`: where the tags are written; it moves to their end.
    """
    cdef SubmitFields* f = &job.fields
    cdef Span value = text.given[FIELD_PAYLOAD]
    cdef int64_t number = 0
    if not text.seen >> FIELD_PAYLOAD & 1 or is_text(value, b"null", 4) or is_text(value, b'""', 2):
        return False
    job.payload = <const char*>value.at
    job.payload_bytes = <uint32_t>(value.end - value.at)
    if text.seen >> FIELD_MAX_RETRIES & 1:
        if not read_integer(text.given[FIELD_MAX_RETRIES], 0, MAX_RETRIES_MAX, &number):
            return False
        f.max_retries = <uint16_t>number
    if text.seen >> FIELD_PRIORITY & 1:
        if not read_integer(text.given[FIELD_PRIORITY], PRIORITY_MIN, PRIORITY_MAX, &number):
            return False
        f.priority = <int32_t>number
    if text.seen >> FIELD_DELAY_MS & 1:
        if not read_integer(text.given[FIELD_DELAY_MS], 0, DELAY_MS_MAX, &number):
            return False
        f.run_at_us = now_us + number * 1000
    if text.seen >> FIELD_QUEUE & 1:
        if not read_queue_name(text.given[FIELD_QUEUE], &f.queue):
            return False
        if f.queue.n == 7 and memcmp(f.queue.p, b"default", 7) == 0:
            f.queue.n = 0
    return not text.seen & ~<uint32_t>PLAIN_FIELDS or read_options(text, now_us, job, spare)


cdef bint read_options(JobText* text, int64_t now_us, PlainJob* job, char** spare) noexcept nogil:
    """Read the members that only some jobs have."""
    cdef SubmitFields* f = &job.fields
    cdef uint32_t seen = text.seen
    cdef Span value
    cdef int64_t number = 0
    if seen >> FIELD_RUN_AT & 1:
        if seen >> FIELD_DELAY_MS & 1 or not read_time_ahead(text.given[FIELD_RUN_AT], now_us, &f.run_at_us):
            return False
    if seen >> FIELD_GROUP & 1 and not read_queue_name(text.given[FIELD_GROUP], &f.group):
        return False
    if seen >> FIELD_LEASE_MS & 1:
        if not read_integer(text.given[FIELD_LEASE_MS], LEASE_MS_MIN, LEASE_MS_MAX, &number):
            return False
        f.lease_ms = <uint32_t>number
    if seen >> FIELD_BACKOFF & 1 and not read_backoff(text.given[FIELD_BACKOFF], f):
        return False
    if seen >> FIELD_EXPIRES_MS & 1:
        if seen >> FIELD_EXPIRES_AT & 1 or not read_integer(text.given[FIELD_EXPIRES_MS], 1, DELAY_MS_MAX, &number):
            return False
        f.expires_us = now_us + number * 1000
    if seen >> FIELD_EXPIRES_AT & 1:
        if not read_time_ahead(text.given[FIELD_EXPIRES_AT], now_us, &f.expires_us):
            return False
        f.expires_us = max(<int64_t>1, f.expires_us)
    if seen >> FIELD_UNIQUE_KEY & 1 and not read_key(text.given[FIELD_UNIQUE_KEY], &f.unique_key):
        return False
    if seen >> FIELD_ON_DUPLICATE & 1:
        job.replace = is_text(text.given[FIELD_ON_DUPLICATE], b'"replace"', 9)
        if not seen >> FIELD_UNIQUE_KEY & 1 or not (
            job.replace or is_text(text.given[FIELD_ON_DUPLICATE], b'"keep"', 6)
        ):
            return False
    if seen >> FIELD_TAGS & 1 and not read_tags(text.given[FIELD_TAGS], f, spare):
        return False
    if seen >> FIELD_IDEMPOTENCY_KEY & 1 and not read_key(text.given[FIELD_IDEMPOTENCY_KEY], &f.idempotency_key):
        return False
    if seen >> FIELD_TRACEPARENT & 1:
        value = text.given[FIELD_TRACEPARENT]
        if not is_string(&value) or not is_traceparent(value):
            return False
        f.trace = name_of(value)
    return True


# --- members ----------------------------------------------------------------------------------------------------------

cdef inline Name name_of(Span text) noexcept nogil:
    cdef Name name
    name.p = <const char*>text.at
    name.n = <uint8_t>(text.end - text.at)
    return name


cdef bint read_queue_name(Span value, Name* name) noexcept nogil:
    if not is_string(&value) or not is_queue_name(value):
        return False
    name[0] = name_of(value)
    return True


cdef bint is_printable(Span text, Py_ssize_t bytes_max) noexcept nogil:
    """Whether the text is printable ASCII and not empty. Falcon checks other characters."""
    cdef Text p = text.at
    if not 1 <= text.end - p <= bytes_max:
        return False
    while p < text.end:
        if not 0x20 <= p[0] <= 0x7e:
            return False
        p += 1
    return True


cdef bint read_key(Span value, Name* name) noexcept nogil:
    if not is_string(&value) or not is_printable(value, KEY_BYTES_MAX):
        return False
    name[0] = name_of(value)
    return True


cdef bint read_tags(Span value, SubmitFields* f, char** spare) noexcept nogil:
    """Write the tags to `spare` with zero bytes between them."""
    cdef Text at = past_space(value.at + 1, value.end)
    cdef Span tag, other
    cdef char* text = spare[0]
    cdef char* p = text
    cdef int count = 0, i
    cdef Span tags[TAGS_READ_MAX]
    if value.at[0] != c'[':
        return False
    while True:
        tag.at = at
        if at == value.end or at[0] != c'"' or count == min(TAGS_MAX, TAGS_READ_MAX):
            return False
        at = past_string(at + 1, value.end)
        tag.end = at
        if at == NULL or not is_string(&tag) or not is_printable(tag, TAG_BYTES_MAX):
            return False
        for i in range(count):
            other = tags[i]
            if is_text(other, <const char*>tag.at, tag.end - tag.at):
                return False
        tags[count] = tag
        if count:
            p[0] = 0
            p += 1
        memcpy(p, tag.at, tag.end - tag.at)
        p += tag.end - tag.at
        count += 1
        at = past_space(at, value.end)
        if at[0] == c']':
            break
        at = past_space(at + 1, value.end)
    f.tags = text
    f.tags_bytes = <uint16_t>(p - text)
    spare[0] = p
    return True


cdef bint read_backoff(Span value, SubmitFields* f) noexcept nogil:
    cdef Span name, member
    cdef Text at = first_member(value.at, value.end)
    cdef bint last = False
    cdef int64_t base_ms = BACKOFF_BASE_MS, cap_ms = BACKOFF_CAP_MS
    cdef double factor = BACKOFF_FACTOR
    cdef int seen = 0, this
    while at != NULL and not last:
        at = next_member(at, value.end, &name, &member, &last)
        if at == NULL:
            return False
        if is_text(name, b"base_ms", 7):
            this = 1
            if not read_integer(member, 1, BACKOFF_BASE_MS_MAX, &base_ms):
                return False
        elif is_text(name, b"factor", 6):
            this = 2
            if not read_factor(member, &factor):
                return False
        elif is_text(name, b"cap_ms", 6):
            this = 4
            if not read_integer(member, 1, BACKOFF_CAP_MS_MAX, &cap_ms):
                return False
        else:
            return False
        if seen & this:
            return False
        seen |= this
    if at == NULL or cap_ms < base_ms:
        return False
    f.backoff_base_ms, f.backoff_factor, f.backoff_cap_ms = <uint32_t>base_ms, factor, <uint32_t>cap_ms
    return True


cdef bint read_factor(Span text, double* factor) noexcept nogil:
    """Read a number from 1 to 100 with few digits."""
    cdef Text p = text.at
    cdef int64_t number = 0, scale = 1
    cdef bint fraction = False
    if text.end - p > 10:
        return False
    while p < text.end:
        if p[0] == c'.':
            fraction = True
        elif c'0' <= p[0] <= c'9':
            number = number * 10 + (p[0] - c'0')
            if fraction:
                scale *= 10
        else:
            return False
        p += 1
    factor[0] = <double>number / <double>scale
    return scale <= FACTOR_SCALE_MAX and scale <= number <= 100 * scale


cdef int read_digits(Text at, int n) noexcept nogil:
    """Return the value of n digits, -1 if there are others."""
    cdef int value = 0, i
    for i in range(n):
        if not c'0' <= at[i] <= c'9':
            return -1
        value = value * 10 + (at[i] - c'0')
    return value


cdef bint read_time_ahead(Span value, int64_t now_us, int64_t* at_us) noexcept nogil:
    """Read an RFC 3339 time, not before 1970 and at most 10 years ahead, as Unix microseconds."""
    cdef int year, month, day, hour, minute, second, digit, digits = 0, offset_h = 0, offset_m = 0
    cdef int64_t us = 0, days, of_year
    cdef Text p
    if not is_string(&value) or value.end - value.at < 20:
        return False
    p = value.at
    year, month, day = read_digits(p, 4), read_digits(p + 5, 2), read_digits(p + 8, 2)
    hour, minute, second = read_digits(p + 11, 2), read_digits(p + 14, 2), read_digits(p + 17, 2)
    if p[4] != c'-' or p[7] != c'-' or p[10] != c'T' or p[13] != c':' or p[16] != c':':
        return False
    if not (1970 <= year and 1 <= month <= 12 and 1 <= day <= days_in(year, month)):
        return False
    if not (0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 59):
        return False
    p += 19
    if p[0] == c'.':
        p += 1
        while p < value.end and c'0' <= p[0] <= c'9':
            if digits < 6:
                us = us * 10 + (p[0] - c'0')
                digits += 1
            p += 1
        if digits == 0:
            return False
        while digits < 6:
            us *= 10
            digits += 1
    if p == value.end:
        return False
    if p[0] == c'+' or p[0] == c'-':
        if value.end - p != 6 or p[3] != c':':
            return False
        offset_h, offset_m = read_digits(p + 1, 2), read_digits(p + 4, 2)
        if not (0 <= offset_h <= 23 and 0 <= offset_m <= 59):
            return False
        if p[0] == c'+':
            offset_h, offset_m = -offset_h, -offset_m
    elif p[0] != c'Z' or value.end - p != 1:
        return False
    days = days_since_1970(year, month, day)
    us += (((days * 24 + hour + offset_h) * 60 + minute + offset_m) * 60 + second) * 1_000_000
    at_us[0] = max(<int64_t>0, us)
    return us <= now_us + RUN_AT_AHEAD_US_MAX


cdef int days_in(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


cdef int64_t days_since_1970(int year, int month, int day) noexcept nogil:
    """Return the days since 1970 in the Gregorian calendar (days_from_civil, H. Hinnant)."""
    cdef int64_t y = year - 1 if month <= 2 else year
    cdef int64_t era = y // 400, of_era = y % 400
    cdef int64_t of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


# --- the digest -------------------------------------------------------------------------------------------------------

cdef char* put_canonical(char* p, JobText* text, PlainJob* job) noexcept nogil:
    """Write a job as `fastq.http.resources.submit.digest_of` does: without idempotency_key and traceparent."""
    cdef int field
    cdef Py_ssize_t n
    cdef char before = c'{'
    for field in range(FIELDS_DIGESTED):
        if not text.seen >> field & 1:
            continue
        p[0], p[1] = before, c'"'
        before = c','
        n = FIELD_BYTES[field]
        memcpy(p + 2, FIELD_NAMES[field], n)
        p += n + 2
        p[0], p[1] = c'"', c':'
        p += 2
        if field == FIELD_TAGS:
            p = put_tags(p, &job.fields)
        elif field == FIELD_BACKOFF:
            p = put_backoff(p, &job.fields)
        else:
            n = text.given[field].end - text.given[field].at
            memcpy(p, text.given[field].at, n)
            p += n
    p[0] = c'}'
    return p + 1


cdef char* put_tags(char* p, SubmitFields* f) noexcept nogil:
    cdef int i
    p[0], p[1] = c'[', c'"'
    p += 2
    for i in range(f.tags_bytes):
        if f.tags[i] == 0:
            memcpy(p, b'","', 3)
            p += 3
        else:
            p[0] = f.tags[i]
            p += 1
    p[0], p[1] = c'"', c']'
    return p + 2


cdef char* put_backoff(char* p, SubmitFields* f) noexcept nogil:
    """Write a factor with a point and without trailing zeros: the shortest text with the same value."""
    cdef int64_t scale = FACTOR_SCALE_MAX, millionths = <int64_t>(f.backoff_factor * scale + 0.5)
    memcpy(p, b'{"base_ms":', 11)
    p = put_number(p + 11, f.backoff_base_ms, 10)
    memcpy(p, b',"factor":', 10)
    p = put_number(p + 10, millionths // scale, 10)
    p[0] = c'.'
    p += 1
    millionths %= scale
    while True:
        scale //= 10
        p[0] = <char>(c'0' + millionths // scale)
        p += 1
        millionths %= scale
        if millionths == 0:
            break
    memcpy(p, b',"cap_ms":', 10)
    p = put_number(p + 10, f.backoff_cap_ms, 10)
    p[0] = c'}'
    return p + 1
