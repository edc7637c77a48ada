# Reading plain JSON bodies in place, with the same result as the decoder. A reader gives up at anything unusual or
# wrong; then the decoder reads the body.

cdef enum:
    DEPTH_MAX = 64
    NUMBER_CHARS_MAX = 100      # with a two-digit exponent such a number fits into a double
    DIGITS_MAX = 10             # of a field's number
    SEEN_TOKEN = 1
    SEEN_RESULT = 2
    SEEN_OUTCOME = 4
    SEEN_JOB_ID = 8
    SEEN_LEASE_MS = 16
    SEEN_WORKER = 32
    SEEN_LEASES = 64

ctypedef const unsigned char* Text


cdef enum Found:            # what follows a member of a list
    NOT_PLAIN
    MORE                    # another member
    LAST                    # the list's end, and only space after it


cdef struct Span:
    Text at
    Text end


cdef struct PlainAck:       # an ack with the outcome ok
    Span token              # at is NULL without one
    Span result             # JSON; at is NULL without one
    Span job_id             # of an ack in a batch


cdef struct PlainHold:      # a lease that is to last longer
    int seen
    Span job_id
    Span token
    int64_t lease_ms        # 0: as long as it was granted


cdef struct PlainHeartbeat:
    Span worker
    Span leases             # the array; at NULL: there is none
    int64_t lease_ms


cdef inline bytes bytes_of(Span text):
    return PyBytes_FromStringAndSize(<const char*>text.at, text.end - text.at)


cdef inline str str_of(Span text):
    return PyUnicode_DecodeUTF8(<const char*>text.at, text.end - text.at, NULL)


cdef inline bint is_name(Name name, Span text) noexcept nogil:
    return text.end - text.at == name.n and memcmp(text.at, name.p, name.n) == 0


cdef inline Text past_space(Text at, Text end) noexcept nogil:
    while at < end and (at[0] == c' ' or at[0] == c'\n' or at[0] == c'\r' or at[0] == c'\t'):
        at += 1
    return at


cdef Text past_escape(Text at, Text end) noexcept nogil:
    """Return the end of the escape whose backslash is at `at`. NULL if it is invalid or half a surrogate pair."""
    cdef int unit
    if end - at < 2:
        return NULL
    if at[1] != c'u':
        return at + 2 if memchr(b'"\\/bfnrt', at[1], 8) != NULL else NULL
    unit = code_unit(at, end)
    if unit < 0 or 0xDC00 <= unit <= 0xDFFF:
        return NULL
    if 0xD800 <= unit <= 0xDBFF:
        unit = code_unit(at + 6, end)
        return at + 12 if 0xDC00 <= unit <= 0xDFFF else NULL
    return at + 6


cdef Text past_string(Text at, Text end) noexcept nogil:
    """Return the end of the string whose first quote is before `at`, in UTF-8. NULL if it is invalid."""
    at = past_plain(at, end)
    while at < end:
        if at[0] == c'"':
            return at + 1
        if at[0] < 0x20:
            return NULL
        if at[0] == c'\\':
            at = past_escape(at, end)
            if at == NULL:
                return NULL
            at = past_plain(at, end)
        else:
            at += 1
    return NULL


cdef inline Text past_digits(Text at, Text end) noexcept nogil:
    while at < end and c'0' <= at[0] <= c'9':
        at += 1
    return at


cdef Text past_number(Text at, Text end) noexcept nogil:
    """Return the end of a number. NULL if it is invalid or may not fit into a double."""
    cdef Text start = at
    cdef Text digits
    if at[0] == c'-':
        at += 1
    digits = at
    at = past_digits(at, end)
    if at == digits or digits[0] == c'0' and at - digits > 1:
        return NULL
    if at < end and at[0] == c'.':
        digits = at + 1
        at = past_digits(digits, end)
        if at == digits:
            return NULL
    if at < end and (at[0] == c'e' or at[0] == c'E'):
        at += 1
        if at < end and (at[0] == c'+' or at[0] == c'-'):
            at += 1
        digits = at
        at = past_digits(at, end)
        if not 1 <= at - digits <= 2:
            return NULL
    return at if at - start <= NUMBER_CHARS_MAX else NULL


cdef inline Text past_word(Text at, Text end, const char* word, Py_ssize_t n) noexcept nogil:
    return at + n if end - at >= n and memcmp(at, word, n) == 0 else NULL


cdef Text past_members(Text at, Text end, unsigned char close, int depth) noexcept nogil:
    """Return the end of the array or object whose bracket is before `at`."""
    at = past_space(at, end)
    if at < end and at[0] == close:
        return at + 1
    while True:
        if close == c'}':
            if at == end or at[0] != c'"':
                return NULL
            at = past_string(at + 1, end)
            if at == NULL:
                return NULL
            at = past_space(at, end)
            if at == end or at[0] != c':':
                return NULL
            at = past_space(at + 1, end)
        at = past_value(at, end, depth)
        if at == NULL:
            return NULL
        at = past_space(at, end)
        if at == end:
            return NULL
        if at[0] == close:
            return at + 1
        if at[0] != c',':
            return NULL
        at = past_space(at + 1, end)


cdef Text past_value(Text at, Text end, int depth) noexcept nogil:
    """Return the end of the value at `at`. NULL if it is invalid or not plain."""
    if at == end:
        return NULL
    if at[0] == c'"':
        return past_string(at + 1, end)
    if at[0] == c'{' or at[0] == c'[':
        if depth == 0:
            return NULL
        return past_members(at + 1, end, at[0] + 2, depth - 1)  # the closing bracket
    if at[0] == c't':
        return past_word(at, end, b"true", 4)
    if at[0] == c'f':
        return past_word(at, end, b"false", 5)
    if at[0] == c'n':
        return past_word(at, end, b"null", 4)
    return past_number(at, end)


cdef bint is_utf8(Text at, Py_ssize_t n) except *:
    if past_ascii(at, at + n) == at + n:
        return True
    try:
        PyUnicode_DecodeUTF8(<const char*>at, n, NULL)
    except UnicodeDecodeError:
        return False
    return True


# --- objects ----------------------------------------------------------------------------------------------------------

cdef inline bint is_text(Span span, const char* text, Py_ssize_t n) noexcept nogil:
    return span.end - span.at == n and memcmp(span.at, text, n) == 0


cdef Text next_member(Text at, Text end, Span* name, Span* value, bint* last) noexcept nogil:
    """Read the member of an object whose name is at `at`.

    Returns the start of the next member, after the last one the end of the object. NULL if it is not plain.
    """
    if at == end or at[0] != c'"':
        return NULL
    name.at = at + 1
    at = past_string(at + 1, end)
    if at == NULL:
        return NULL
    name.end = at - 1
    at = past_space(at, end)
    if at == end or at[0] != c':':
        return NULL
    value.at = past_space(at + 1, end)
    value.end = past_value(value.at, end, DEPTH_MAX - 1)
    if value.end == NULL:
        return NULL
    at = past_space(value.end, end)
    if at == end:
        return NULL
    last[0] = at[0] == c'}'
    if last[0]:
        return at + 1
    return past_space(at + 1, end) if at[0] == c',' else NULL


cdef Text first_member(Text at, Text end) noexcept nogil:
    at = past_space(at, end)
    return past_space(at + 1, end) if at < end and at[0] == c'{' else NULL


cdef bint read_integer(Span text, int64_t low, int64_t high, int64_t* value) noexcept nogil:
    """Whether the text is a plain integer within the limits."""
    cdef Text p = text.at
    cdef bint negative = p[0] == c'-'
    cdef int64_t sum = 0
    if negative:
        p += 1
    if not 1 <= text.end - p <= DIGITS_MAX:
        return False
    while p < text.end:
        if not c'0' <= p[0] <= c'9':
            return False
        sum = sum * 10 + (p[0] - c'0')
        p += 1
    value[0] = -sum if negative else sum
    return low <= value[0] <= high and not (negative and sum == 0)


cdef bint is_queue_name(Span text) noexcept nogil:
    cdef Text p = text.at
    if not 1 <= text.end - p <= 64:
        return False
    while p < text.end:
        if not (c'a' <= p[0] <= c'z' or c'A' <= p[0] <= c'Z' or c'0' <= p[0] <= c'9'
                or p[0] == c'-' or p[0] == c'_' or p[0] == c'.'):
            return False
        p += 1
    return True


cdef inline bint is_string(Span* value) noexcept nogil:
    """Whether the value is a string without escapes. Cut off its quotes."""
    if value.at[0] != c'"' or memchr(value.at, c'\\', value.end - value.at) != NULL:
        return False
    value.at += 1
    value.end -= 1
    return True


cdef Text read_ack_members(Text at, Text end, PlainAck* ack) noexcept nogil:
    """Read a plain ack with the outcome ok, in UTF-8. Return its end, NULL if it is not plain."""
    cdef Span name, value
    cdef int seen = 0, this
    cdef bint last = False
    memset(ack, 0, sizeof(PlainAck))
    at = first_member(at, end)
    if at != NULL and at < end and at[0] == c'}':
        return at + 1
    while at != NULL and not last:
        at = next_member(at, end, &name, &value, &last)
        if at == NULL:
            return NULL
        if is_text(name, b"lease_token", 11):
            this = SEEN_TOKEN
            if not is_string(&value) or value.end - value.at > TOKEN_CHARS_MAX:
                return NULL
            ack.token = value
        elif is_text(name, b"result", 6):
            this = SEEN_RESULT
            if not is_text(value, b"null", 4) and not is_text(value, b'""', 2):
                ack.result = value
        elif is_text(name, b"outcome", 7):
            this = SEEN_OUTCOME
            if not is_text(value, b'"ok"', 4):
                return NULL
        elif is_text(name, b"job_id", 6):
            this = SEEN_JOB_ID
            if not is_string(&value) or value.end - value.at != HOT_ID_CHARS or not is_id_text(<const char*>value.at):
                return NULL
            ack.job_id = value
        else:
            return NULL
        if seen & this:
            return NULL
        seen |= this
    return at


cdef bint read_plain_ack(Span body, PlainAck* ack) noexcept nogil:
    """Read the ack of one job, in UTF-8. No body is the outcome ok. False if it is not plain."""
    cdef Text end
    memset(ack, 0, sizeof(PlainAck))
    if body.at == body.end:
        return True
    end = read_ack_members(body.at, body.end, ack)
    return end != NULL and ack.job_id.at == NULL and past_space(end, body.end) == body.end


cdef Text read_hold(Text at, Text end, PlainHold* hold) noexcept nogil:
    """Read a lease that is to last longer, in a text that is UTF-8. Where it ends; NULL if it is not plain."""
    cdef Span name, value
    cdef int this
    cdef bint last = False
    memset(hold, 0, sizeof(PlainHold))
    at = first_member(at, end)
    while at != NULL and not last:
        at = next_member(at, end, &name, &value, &last)
        if at == NULL:
            return NULL
        if is_text(name, b"lease_token", 11):
            this = SEEN_TOKEN
            if not is_string(&value) or value.end - value.at > TOKEN_CHARS_MAX:
                return NULL
            hold.token = value
        elif is_text(name, b"job_id", 6):
            this = SEEN_JOB_ID
            if not is_string(&value) or value.end - value.at != HOT_ID_CHARS or not is_id_text(<const char*>value.at):
                return NULL
            hold.job_id = value
        elif is_text(name, b"lease_ms", 8):
            this = SEEN_LEASE_MS
            if not read_integer(value, LEASE_MS_MIN, LEASE_MS_MAX, &hold.lease_ms):
                return NULL
        else:
            return NULL
        if hold.seen & this:
            return NULL
        hold.seen |= this
    return at


cdef bint read_heartbeat(Span body, PlainHeartbeat* beat) noexcept nogil:
    """Read a heartbeat, which is UTF-8, but for its leases. False if it is not plain."""
    cdef Span name, value
    cdef int seen = 0, this
    cdef bint last = False
    cdef Text at = first_member(body.at, body.end)
    memset(beat, 0, sizeof(PlainHeartbeat))
    while at != NULL and not last:
        at = next_member(at, body.end, &name, &value, &last)
        if at == NULL:
            return False
        if is_text(name, b"worker_id", 9):
            this = SEEN_WORKER
            if not is_string(&value) or not is_printable(value, WORKER_ID_BYTES_MAX):
                return False
            beat.worker = value
        elif is_text(name, b"leases", 6):
            this = SEEN_LEASES
            if value.at[0] != c'[':
                return False
            beat.leases = value
        elif is_text(name, b"lease_ms", 8):
            this = SEEN_LEASE_MS
            if not read_integer(value, LEASE_MS_MIN, LEASE_MS_MAX, &beat.lease_ms):
                return False
        else:
            return False
        if seen & this:
            return False
        seen |= this
    return at != NULL and past_space(at, body.end) == body.end and seen & SEEN_WORKER != 0


# --- batches ----------------------------------------------------------------------------------------------------------

cdef Text first_in_batch(Text at, Text end, const char* name) noexcept nogil:
    """Return the start of the first item of a batch, in the array `name`. NULL if the body starts otherwise."""
    cdef size_t n = strlen(name)
    at = first_member(at, end)
    if at == NULL or end - at < <Py_ssize_t>n or memcmp(at, name, n) != 0:
        return NULL
    at = past_space(at + n, end)
    if at == end or at[0] != c':':
        return NULL
    at = past_space(at + 1, end)
    return past_space(at + 1, end) if at < end and at[0] == c'[' else NULL


cdef Found after_one_in_batch(Text* at, Text end) noexcept nogil:
    """Return what follows the item that ends at `at`. Move `at` to the next item, or to the end of the batch.

    `at` is NULL if the item was not plain.
    """
    cdef Text p = at[0]
    if p == NULL:
        return NOT_PLAIN
    p = past_space(p, end)
    if p == end:
        return NOT_PLAIN
    if p[0] == c',':
        at[0] = past_space(p + 1, end)
        return MORE
    if p[0] != c']':
        return NOT_PLAIN
    p = past_space(p + 1, end)
    if p == end or p[0] != c'}':
        return NOT_PLAIN
    at[0] = p + 1
    return LAST if past_space(p + 1, end) == end else NOT_PLAIN


cdef bint find_request_id(Span body, Span* found) noexcept nogil:
    """Find the plain request_id in a lease's body, in UTF-8. Without one the span is empty, at the body's end.

    False if the request_id is not plain, or the body is not one object.
    """
    cdef Text at = body.at
    cdef Span name, value
    cdef bint last = False
    found.at = found.end = body.end
    if at == body.end:
        return True
    at = first_member(at, body.end)
    if at != NULL and at < body.end and at[0] == c'}':
        return past_space(at + 1, body.end) == body.end
    while at != NULL and not last:
        at = next_member(at, body.end, &name, &value, &last)
        if at == NULL:
            return False
        if memchr(name.at, c'\\', name.end - name.at) != NULL:
            return False
        if is_text(name, b"request_id", 10):
            if found.at != body.end or not is_string(&value):
                return False
            if value.at != value.end and not is_printable(value, REQUEST_ID_BYTES_MAX):
                return False
            found[0] = value
    return at != NULL and past_space(at, body.end) == body.end
