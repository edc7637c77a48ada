# Reading the few JSON bodies that make up the load, in place. What is read here is read as the decoder reads it; at
# anything unusual, also at what is wrong, this gives up, and the body goes to the decoder, which says what it is.

cdef enum:
    DEPTH_MAX = 64
    NUMBER_CHARS_MAX = 100      # so long and with a two-digit exponent it fits into a double
    DIGITS_MAX = 10             # of numbers that are fields
    SEEN_PAYLOAD = 1
    SEEN_QUEUE = 2
    SEEN_PRIORITY = 4
    SEEN_MAX_RETRIES = 8
    SEEN_DELAY = 16
    SEEN_TOKEN = 1
    SEEN_RESULT = 2
    SEEN_OUTCOME = 4

ctypedef const unsigned char* Text


cdef enum Found:            # what a reader of a list came to; where it came to is told apart from that
    NOT_PLAIN
    MORE                    # there must be another one
    LAST                    # the list is complete, and nothing but space follows


cdef struct Span:
    Text at
    Text end


cdef struct PlainAck:       # an attempt that ended well
    Span token              # at NULL: there is none
    Span result             # JSON; at NULL: there is none


cdef inline Text past_space(Text at, Text end) noexcept nogil:
    while at < end and (at[0] == c' ' or at[0] == c'\n' or at[0] == c'\r' or at[0] == c'\t'):
        at += 1
    return at


cdef Text past_escape(Text at, Text end) noexcept nogil:
    """`at` is at the backslash. NULL if it is none, or half a surrogate pair."""
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
    """`at` is behind the first quote. The text is known to be UTF-8. NULL if it is no string."""
    while at < end:
        if at[0] == c'"':
            return at + 1
        if at[0] < 0x20:
            return NULL
        if at[0] == c'\\':
            at = past_escape(at, end)
            if at == NULL:
                return NULL
        else:
            at += 1
    return NULL


cdef inline Text past_digits(Text at, Text end) noexcept nogil:
    while at < end and c'0' <= at[0] <= c'9':
        at += 1
    return at


cdef Text past_number(Text at, Text end) noexcept nogil:
    """NULL if it is none, or one that a double may not hold."""
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
    """`at` is behind the bracket of an array or object."""
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
    """Where the value that begins at `at` ends; NULL if there is none, or something about it is to be looked at."""
    if at == end:
        return NULL
    if at[0] == c'"':
        return past_string(at + 1, end)
    if at[0] == c'{' or at[0] == c'[':
        return NULL if depth == 0 else past_members(at + 1, end, at[0] + 2, depth - 1)  # a bracket's other half
    if at[0] == c't':
        return past_word(at, end, b"true", 4)
    if at[0] == c'f':
        return past_word(at, end, b"false", 5)
    if at[0] == c'n':
        return past_word(at, end, b"null", 4)
    return past_number(at, end)


cdef bint is_utf8(Text at, Py_ssize_t n) except *:
    cdef Text end = at + n
    cdef Text p = at
    cdef uint64_t word
    while end - p >= 8:
        memcpy(&word, p, 8)
        if word & <uint64_t>0x8080808080808080:
            break
        p += 8
    while p < end and p[0] < 0x80:
        p += 1
    if p == end:
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
    """Read one member of an object, `at` the place where its name begins. Where the next one begins, or behind the
    object if it was the last one; NULL for what is not plain.
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
    """Whether it is a plain integer within these limits."""
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
    return low <= value[0] <= high


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
    """Whether it is a string without escapes; then only its inside is left."""
    if value.at[0] != c'"' or memchr(value.at, c'\\', value.end - value.at) != NULL:
        return False
    value.at += 1
    value.end -= 1
    return True


cdef Text read_plain_job(Text at, Text end, PlainJob* job) noexcept nogil:
    """Read a job in a text that is UTF-8: where it ends; NULL if it is not plain. What it does not say stays."""
    cdef Span name, value
    cdef int64_t number = 0
    cdef int seen = 0, this
    cdef bint last = False
    at = first_member(at, end)
    while at != NULL and not last:
        at = next_member(at, end, &name, &value, &last)
        if at == NULL:
            return NULL
        if is_text(name, b"payload", 7):
            this = SEEN_PAYLOAD
            job.payload = <const char*>value.at
            job.payload_bytes = <uint32_t>(value.end - value.at)
            if is_text(value, b"null", 4) or is_text(value, b'""', 2):
                return NULL
        elif is_text(name, b"queue", 5):
            this = SEEN_QUEUE
            if not is_string(&value) or not is_queue_name(value):
                return NULL
            job.queue = <const char*>value.at
            job.queue_bytes = <uint8_t>(value.end - value.at)
        elif is_text(name, b"priority", 8):
            this = SEEN_PRIORITY
            if not read_integer(value, PRIORITY_MIN, PRIORITY_MAX, &number):
                return NULL
            job.priority = <int32_t>number
        elif is_text(name, b"max_retries", 11):
            this = SEEN_MAX_RETRIES
            if not read_integer(value, 0, MAX_RETRIES_MAX, &number):
                return NULL
            job.max_retries = <uint16_t>number
        elif is_text(name, b"delay_ms", 8):
            this = SEEN_DELAY
            if not read_integer(value, 0, DELAY_MS_MAX, &number):
                return NULL
            job.delay_us = number * 1000
        else:
            return NULL
        if seen & this:
            return NULL
        seen |= this
    return at if seen & SEEN_PAYLOAD else NULL


cdef bint read_plain_ack(Text at, Py_ssize_t n, PlainAck* ack) noexcept nogil:
    """Read an ack's body, which is UTF-8. False unless it says, in a plain way, that all went well."""
    cdef Text end = at + n
    cdef Span name, value
    cdef int seen = 0, this
    cdef bint last = False
    memset(ack, 0, sizeof(PlainAck))
    if n == 0:
        return True
    at = first_member(at, end)
    if at != NULL and at < end and at[0] == c'}':
        return past_space(at + 1, end) == end
    while at != NULL and not last:
        at = next_member(at, end, &name, &value, &last)
        if at == NULL:
            return False
        if is_text(name, b"lease_token", 11):
            this = SEEN_TOKEN
            if not is_string(&value) or value.end - value.at > TOKEN_CHARS_MAX:
                return False
            ack.token = value
        elif is_text(name, b"result", 6):
            this = SEEN_RESULT
            if not is_text(value, b"null", 4) and not is_text(value, b'""', 2):
                ack.result = value
        elif is_text(name, b"outcome", 7):
            this = SEEN_OUTCOME
            if not is_text(value, b'"ok"', 4):
                return False
        else:
            return False
        if seen & this:
            return False
        seen |= this
    return at != NULL and past_space(at, end) == end


cdef Found next_plain_job(Text* at, Text end, PlainJob* job) noexcept nogil:
    """Read the job of a batch that begins at `at`, and move `at` behind it: to the next job, or behind the batch."""
    cdef Text p = read_plain_job(at[0], end, job)
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


cdef Text first_plain_job(Text at, Text end) noexcept nogil:
    """Where the first job of a batch begins; NULL if its body does not begin with jobs."""
    at = first_member(at, end)
    if at == NULL or end - at < 6 or memcmp(at, b'"jobs"', 6) != 0:
        return NULL
    at = past_space(at + 6, end)
    if at == end or at[0] != c':':
        return NULL
    at = past_space(at + 1, end)
    return past_space(at + 1, end) if at < end and at[0] == c'[' else NULL
