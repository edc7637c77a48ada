"""One pass over a JSON text for what the decoder does not look at: nesting, and surrogate escapes that stand alone.

The decoder takes a payload as a span without reading it closely, and it recurses once for each level. So both are
checked here first, at memory speed. Whether the text is JSON at all is the decoder's business: what is no JSON may
pass here.
"""

cdef enum:
    FINE = 0
    TOO_DEEP = 1
    LONE_SURROGATE = 2


cdef inline int hex_value(unsigned char c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    if c'a' <= c <= c'f':
        return c - c'a' + 10
    return -1


cdef int code_unit(const unsigned char *at, const unsigned char *end) noexcept nogil:
    """The value of `\\uXXXX` at `at`; -1 if that is not what stands there."""
    cdef int value = 0, digit, i
    if end - at < 6 or at[0] != c'\\' or at[1] != c'u':
        return -1
    for i in range(2, 6):
        digit = hex_value(at[i])
        if digit < 0:
            return -1
        value = value * 16 + digit
    return value


cdef int scan_text(const unsigned char *at, const unsigned char *end, int depth_max) noexcept nogil:
    cdef int depth = 0, unit
    cdef bint in_string = False
    cdef unsigned char c
    while at < end:
        c = at[0]
        if in_string:
            if c == c'"':
                in_string = False
            elif c == c'\\':
                unit = code_unit(at, end)
                if 0xDC00 <= unit <= 0xDFFF:
                    return LONE_SURROGATE
                if 0xD800 <= unit <= 0xDBFF:
                    unit = code_unit(at + 6, end)
                    if not 0xDC00 <= unit <= 0xDFFF:
                        return LONE_SURROGATE
                    at += 10
                at += 1  # the escaped character: it may be a quote or a backslash
        elif c == c'"':
            in_string = True
        elif c == c'[' or c == c'{':
            depth += 1
            if depth > depth_max:
                return TOO_DEEP
        elif c == c']' or c == c'}':
            depth -= 1
        at += 1
    return FINE


def scan(const unsigned char[::1] text not None, int depth_max):
    """Look for nesting past `depth_max` and for surrogate escapes without their other half.

    Returns:
        "" if there is neither, else "depth" or "surrogate": whichever comes first.
    """
    cdef const unsigned char *start
    cdef int found
    if text.shape[0] == 0:
        return ""
    start = &text[0]
    with nogil:
        found = scan_text(start, start + text.shape[0], depth_max)
    if found == TOO_DEEP:
        return "depth"
    return "surrogate" if found == LONE_SURROGATE else ""
