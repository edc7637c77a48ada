# Job ids and lease tokens as text.
#
# An id is a UUID, version 7: 48 bits of milliseconds, 12 bits of the microseconds within, 40 bits of the job's sequence
# number and 22 bits that differ between databases. So ids sort by creation, and an id names its index entry.
# A token is the lease's number and a MAC over job and number under a key made from the
# database id, of which ids show 22 bits and nothing shows more.

cdef enum:
    ID_CHARS = 36
    TOKEN_CHARS = 24
    SEQ_BITS = 40
    TAG_BITS = 22

cdef const char* HEX = "0123456789abcdef"


cdef char[512] HEX_PAIRS    # of each byte, its two digits


cdef int fill_hex_pairs() noexcept nogil:
    cdef int i
    for i in range(256):
        HEX_PAIRS[2 * i], HEX_PAIRS[2 * i + 1] = HEX[i >> 4], HEX[i & 15]
    return 0

fill_hex_pairs()


cdef inline char* put_hex(char* p, uint64_t value, int digits) noexcept nogil:
    """`digits` is even."""
    while digits:
        digits -= 2
        memcpy(p, HEX_PAIRS + 2 * (value >> (4 * digits) & 255), 2)
        p += 2
    return p


cdef inline bint get_hex(const char* p, int digits, uint64_t* value) noexcept nogil:
    """Read a number of hex digits, in lower case only: an id has one spelling."""
    cdef int i
    cdef uint64_t v = 0
    for i in range(digits):
        if c'0' <= p[i] <= c'9':
            v = v << 4 | <uint64_t>(p[i] - c'0')
        elif c'a' <= p[i] <= c'f':
            v = v << 4 | <uint64_t>(p[i] - c'a' + 10)
        else:
            return False
    value[0] = v
    return True


cdef void put_id(char* text, int64_t created_us, uint64_t seq, uint64_t tag) noexcept nogil:
    """Write an id, ID_CHARS long."""
    cdef uint64_t low = <uint64_t>2 << 62 | seq << TAG_BITS | tag
    cdef uint64_t ms = <uint64_t>created_us // 1000
    cdef char* p = put_hex(text, ms >> 16, 8)
    p[0] = c'-'
    p = put_hex(p + 1, ms & 0xffff, 4)
    p[0] = c'-'
    p = put_hex(p + 1, 0x7000 | <uint64_t>(created_us % 1000), 4)
    p[0] = c'-'
    p = put_hex(p + 1, low >> 48, 4)
    p[0] = c'-'
    put_hex(p + 1, low & <uint64_t>0xffffffffffff, 12)


cdef str id_text(int64_t created_us, uint64_t seq, uint64_t tag):
    cdef char text[ID_CHARS]
    put_id(text, created_us, seq, tag)
    return PyUnicode_FromStringAndSize(text, ID_CHARS)


cdef uint64_t id_seq(str text, uint64_t tag, int64_t* created_us):
    """The sequence number in an id and its creation time; 0 if the text is no id of this database."""
    cdef Py_ssize_t n
    cdef const char* p
    cdef uint64_t a, b, c, d, e, low
    if not text.isascii():
        return 0
    p = PyUnicode_AsUTF8AndSize(text, &n)
    if n != ID_CHARS or p[8] != c'-' or p[13] != c'-' or p[18] != c'-' or p[23] != c'-':
        return 0
    if not (
        get_hex(p, 8, &a) and get_hex(p + 9, 4, &b) and get_hex(p + 14, 4, &c) and get_hex(p + 19, 4, &d)
        and get_hex(p + 24, 12, &e)
    ):
        return 0
    low = d << 48 | e
    if c >> 12 != 7 or low >> 62 != 2 or low & ((1 << TAG_BITS) - 1) != tag:
        return 0
    created_us[0] = <int64_t>((a << 16 | b) * 1000 + (c & 0xfff))
    return (low >> TAG_BITS) & ((<uint64_t>1 << SEQ_BITS) - 1)


cdef inline uint64_t token_mac(SipKey key, uint64_t seq, uint32_t lease_no) noexcept nogil:
    cdef char data[12]
    put_u32(put_u64(data, seq), lease_no)
    return siphash(key, data, 12)


cdef str token_text(SipKey key, uint64_t seq, uint32_t lease_no):
    cdef char text[TOKEN_CHARS]
    put_hex(put_hex(text, lease_no, 8), token_mac(key, seq, lease_no), 16)
    return PyUnicode_FromStringAndSize(text, TOKEN_CHARS)


cdef uint32_t token_lease_no(SipKey key, uint64_t seq, str text):
    """The lease number in a token; 0 if it is no token of this job."""
    cdef Py_ssize_t n
    cdef const char* p
    cdef uint64_t lease_no, mac
    if not text.isascii():
        return 0
    p = PyUnicode_AsUTF8AndSize(text, &n)
    if n != TOKEN_CHARS or not get_hex(p, 8, &lease_no) or not get_hex(p + 8, 16, &mac):
        return 0
    return <uint32_t>lease_no if mac == token_mac(key, seq, <uint32_t>lease_no) else 0
