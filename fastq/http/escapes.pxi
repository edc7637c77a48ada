# Escapes in JSON strings.

cdef inline int hex_value(unsigned char c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    if c'a' <= c <= c'f':
        return c - c'a' + 10
    return -1


cdef int code_unit(const unsigned char *at, const unsigned char *end) noexcept nogil:
    """Return the value of the escape `\\uXXXX` at `at`, -1 if there is none."""
    cdef int value = 0, digit, i
    if end - at < 6 or at[0] != c'\\' or at[1] != c'u':
        return -1
    for i in range(2, 6):
        digit = hex_value(at[i])
        if digit < 0:
            return -1
        value = value * 16 + digit
    return value
