# A cache of heads. The heads of a client differ only in the job id of the first line and in a few values: the body's
# length, the idempotency key, the trace. The cache has what llhttp said of a head, by the head's bytes without these
# values. A head with the same bytes is not parsed again. Its values are checked, and a head with a value that the
# reference may read in another way is parsed.

cdef enum:
    HEAD_REMEMBERED_BYTES_MAX = 1536
    HEADS_REMEMBERED_MAX = 4096     # a full cache is cleared
    ID_AT = 11                  # the offset of a job's id in the first line
    TRACE_CHARS = 55
    SUBMIT = 0
    LEASE = 1
    ACK = 2
    BATCH = 3
    ACKS = 4
    EXTEND = 5
    HEARTBEAT = 6
    NOT_HOT = 7

cdef enum:                  # holes in a head: values that differ between requests
    HOLE_LENGTH = 0
    HOLE_KEY = 1
    HOLE_TRACE = 2
    HOLES = 3               # a head has each at most once

cdef tuple SCOPES = ("jobs:submit", "jobs:lease", "jobs:ack", "jobs:submit", "jobs:ack", "jobs:ack", "jobs:ack")
cdef const char** HOLE_NAMES = [b"content-length", b"idempotency-key", b"traceparent"]


cdef struct HeadValues:     # the values in the holes of one head
    Py_ssize_t head_bytes
    Py_ssize_t body_bytes
    Span key                # at is NULL without the header
    Span trace


@cython.internal
@cython.final
cdef class Head:
    """The lines after the first one, and what llhttp and the key store said of them."""
    cdef bytes text                 # without the values in the holes
    cdef int hole_count
    cdef int holes[HOLES]           # kinds, in their order
    cdef Py_ssize_t ends[HOLES + 1] # the end in the text of the part before each hole; then the end of the text
    cdef str authorization
    # of the key; valid until `until_us` or until the authenticator's generation changes
    cdef int64_t until_us
    cdef int64_t generation
    cdef object principal
    cdef Access access          # the jobs that exist for the key
    cdef object bucket      # the token bucket of its rate limit, or None
    cdef bytes owner, key_id
    cdef int may            # a bit for each of SCOPES

    cdef bint fits(self, const char* p, Py_ssize_t n, HeadValues* values) noexcept:
        """Whether this head is at p, with plain values in its holes."""
        cdef const char* text = PyBytes_AS_STRING(self.text)
        cdef const char* start = p
        cdef const char* end = p + n
        cdef Py_ssize_t at = 0, size
        cdef int i
        memset(values, 0, sizeof(HeadValues))
        for i in range(self.hole_count + 1):
            size = self.ends[i] - at
            if end - p < size or memcmp(p, text + at, size) != 0:
                return False
            p += size
            at += size
            if i < self.hole_count:
                p = past_hole(self.holes[i], p, end, values)
                if p == NULL:
                    return False
        values.head_bytes = p - start
        return True


cdef const char* past_hole(int hole, const char* p, const char* end, HeadValues* values) noexcept nogil:
    """Read the value in a hole. Return its end, NULL if the value is not plain."""
    cdef Span* span
    cdef Text at = <Text>p
    cdef Text stop = <Text>end
    if hole == HOLE_LENGTH:
        while at < stop and c'0' <= at[0] <= c'9' and values.body_bytes <= HOT_BODY_BYTES_MAX:
            values.body_bytes = values.body_bytes * 10 + (at[0] - c'0')
            at += 1
        if at == <Text>p or values.body_bytes > HOT_BODY_BYTES_MAX:
            return NULL
        return <const char*>at
    span = &values.key if hole == HOLE_KEY else &values.trace
    span.at = at
    while at < stop and 0x21 <= at[0] <= 0x7e:
        at += 1
    span.end = at
    if not (1 <= at - span.at <= KEY_BYTES_MAX if hole == HOLE_KEY else is_traceparent(span[0])):
        return NULL
    return <const char*>at


cdef bint is_traceparent(Span text) noexcept nogil:
    """W3C Trace Context: 2, 32, 16 and 2 digits in lower-case hexadecimal with `-` between them."""
    cdef int i
    cdef unsigned char c
    if text.end - text.at != TRACE_CHARS:
        return False
    for i in range(TRACE_CHARS):
        c = text.at[i]
        if i == 2 or i == 35 or i == 52:
            if c != c'-':
                return False
        elif not (c'0' <= c <= c'9' or c'a' <= c <= c'f'):
            return False
    return True


cdef int hole_of(const char* line, const char* end) noexcept nogil:
    """Return the hole of a header line, HOLES for none."""
    cdef int hole
    cdef Py_ssize_t i, n
    for hole in range(HOLES):
        n = strlen(HOLE_NAMES[hole])
        if end - line <= n or line[n] != c':':
            continue
        i = 0
        while i < n and (line[i] | 0x20) == HOLE_NAMES[hole][i]:
            i += 1
        if i == n:
            return hole
    return HOLES


cdef Head shape_of(const char* p, Py_ssize_t n):
    """Return a head with the text of these lines, None if a hole is there twice."""
    cdef char text[HEAD_REMEMBERED_BYTES_MAX]
    cdef Py_ssize_t size = 0
    cdef const char* end = p + n
    cdef const char* start = p      # of the part that is not copied yet
    cdef const char* line_end
    cdef const char* value
    cdef int hole, seen = 0
    cdef Head head = Head.__new__(Head)
    if n > HEAD_REMEMBERED_BYTES_MAX:
        return None
    while p < end:
        line_end = <const char*>memchr(p, c'\r', end - p)
        if line_end == NULL:
            break
        hole = hole_of(p, line_end)
        if hole != HOLES:
            if seen >> hole & 1:
                return None
            seen |= 1 << hole
            value = p + strlen(HOLE_NAMES[hole]) + 1
            while value < line_end and (value[0] == c' ' or value[0] == c'\t'):
                value += 1
            memcpy(text + size, start, value - start)
            size += value - start
            head.holes[head.hole_count] = hole
            head.ends[head.hole_count] = size
            head.hole_count += 1
            start = line_end
        p = line_end + 2
    memcpy(text + size, start, end - start)
    size += end - start
    head.ends[head.hole_count] = size
    head.text = PyBytes_FromStringAndSize(text, size)
    return head


cdef inline bint is_id_text(const char* p) noexcept nogil:
    """Whether the text can be a job's id. Its characters need no escape."""
    cdef int i
    for i in range(HOT_ID_CHARS):
        if not (c'0' <= p[i] <= c'9' or c'a' <= p[i] <= c'f' or p[i] == c'-'):
            return False
    return True


cdef int kind_of(const char* p, Py_ssize_t n, Py_ssize_t* line_bytes) noexcept nogil:
    """Return the kind of the request at p and set the length of its first line. A job's id is at ID_AT."""
    if n < 28:
        return NOT_HOT
    if memcmp(p, b"POST /jobs", 10) != 0:
        line_bytes[0] = 34
        return HEARTBEAT if n >= 34 and memcmp(p, b"POST /workers/heartbeat HTTP/1.1\r\n", 34) == 0 else NOT_HOT
    if memcmp(p + 10, b" HTTP/1.1\r\n", 11) == 0:
        line_bytes[0] = 21
        return SUBMIT
    if memcmp(p + 10, b"/lease HTTP/1.1\r\n", 17) == 0:
        line_bytes[0] = 27
        return LEASE
    if memcmp(p + 10, b"/batch HTTP/1.1\r\n", 17) == 0:
        line_bytes[0] = 27
        return BATCH
    if memcmp(p + 10, b"/ack HTTP/1.1\r\n", 15) == 0:
        line_bytes[0] = 25
        return ACKS
    if n > ID_AT + HOT_ID_CHARS + 15 and p[10] == c'/' and is_id_text(p + ID_AT):
        if memcmp(p + ID_AT + HOT_ID_CHARS, b"/ack HTTP/1.1\r\n", 15) == 0:
            line_bytes[0] = ID_AT + HOT_ID_CHARS + 15
            return ACK
        if n > ID_AT + HOT_ID_CHARS + 18 and memcmp(p + ID_AT + HOT_ID_CHARS, b"/extend HTTP/1.1\r\n", 18) == 0:
            line_bytes[0] = ID_AT + HOT_ID_CHARS + 18
            return EXTEND
    return NOT_HOT


cdef bint is_rememberable(bytes text, Py_ssize_t header_count) except *:
    """Whether every line ends with CR LF and is a header that the parser saw, so that no other reading is possible."""
    return text.count(b"\r\n") == text.count(b"\n") == text.count(b"\r") == header_count + 1
