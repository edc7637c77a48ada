# Heads that come again and again. What a client sends before a body is the same from request to request but for the
# job id in the first line. So what llhttp said of a head is remembered by its bytes, and when the same bytes come again
# they are not parsed again.

cdef enum:
    HEAD_REMEMBERED_BYTES_MAX = 1024
    HEADS_REMEMBERED_MAX = 4096     # past it all are forgotten
    ID_AT = 11                  # where a job's id begins in the first line
    SUBMIT = 0
    LEASE = 1
    ACK = 2
    BATCH = 3
    NOT_HOT = 4

cdef tuple SCOPES = ("jobs:submit", "jobs:lease", "jobs:ack", "jobs:submit")


@cython.internal
@cython.final
cdef class Head:
    """The lines after the first one, and what llhttp and the key store said of them."""
    cdef bytes text
    cdef str authorization
    cdef Py_ssize_t body_bytes
    # of the key, until `until_us` or the key store forgets what it said
    cdef int64_t until_us
    cdef int64_t generation
    cdef object principal
    cdef object bucket      # of its rate limit, or None
    cdef bytes owner, key_id
    cdef int may            # a bit for each of SCOPES


cdef inline bint is_id_text(const char* p) noexcept nogil:
    """Whether it may be a job's id: nothing that has to be quoted or unescaped."""
    cdef int i
    for i in range(HOT_ID_CHARS):
        if not (c'0' <= p[i] <= c'9' or c'a' <= p[i] <= c'f' or p[i] == c'-'):
            return False
    return True


cdef int kind_of(const char* p, Py_ssize_t n, Py_ssize_t* line_bytes) noexcept nogil:
    """Which of the hot requests begins here, and how long its first line is. A job's id is at ID_AT."""
    if n < 28 or memcmp(p, b"POST /jobs", 10) != 0:
        return NOT_HOT
    if memcmp(p + 10, b" HTTP/1.1\r\n", 11) == 0:
        line_bytes[0] = 21
        return SUBMIT
    if memcmp(p + 10, b"/lease HTTP/1.1\r\n", 17) == 0:
        line_bytes[0] = 27
        return LEASE
    if memcmp(p + 10, b"/batch HTTP/1.1\r\n", 17) == 0:
        line_bytes[0] = 27
        return BATCH
    if n > ID_AT + HOT_ID_CHARS + 15 and p[10] == c'/' and is_id_text(p + ID_AT):
        if memcmp(p + ID_AT + HOT_ID_CHARS, b"/ack HTTP/1.1\r\n", 15) == 0:
            line_bytes[0] = ID_AT + HOT_ID_CHARS + 15
            return ACK
    return NOT_HOT


cdef bint is_rememberable(bytes text, Py_ssize_t header_count) except *:
    """Whether lines end where the parser says that they end, so that no other reading of them is possible."""
    return text.count(b"\r\n") == text.count(b"\n") == text.count(b"\r") == header_count + 1
