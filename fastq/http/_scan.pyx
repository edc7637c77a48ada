"""Checks of a JSON text that the decoder does not make: nesting, lone surrogate escapes, the size of numbers.

The decoder skips over a payload without reading it closely, and it recurses at each level. So this module checks both
first, at memory speed. The decoder checks whether the text is JSON. A text that is not JSON may pass these checks.
"""

from libc.math cimport isfinite
from libc.stdlib cimport strtod
from libc.string cimport memchr, memcpy

cdef enum:
    FINE = 0
    TOO_DEEP = 1
    LONE_SURROGATE = 2

cdef enum:
    NUMBER_MAX = 400
    DIGITS_SAFE = 300  # a number of fewer digits without an exponent is below 10 ** 300


include "escapes.pxi"


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
                at += 1  # the escaped character, which may be a quote or a backslash
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
    """Look for nesting deeper than `depth_max` and for lone surrogate escapes.

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


cdef bint is_of_number(unsigned char c) noexcept nogil:
    return c'0' <= c <= c'9' or c == c'.' or c == c'-' or c == c'+' or c == c'e' or c == c'E'


cdef bint number_fits(const unsigned char *at, Py_ssize_t length, Py_ssize_t length_max) noexcept nogil:
    """Whether the number is in the range of a double."""
    cdef char copy[NUMBER_MAX + 1]
    if length > length_max:
        return False
    if length < DIGITS_SAFE and memchr(at, c'e', length) == NULL and memchr(at, c'E', length) == NULL:
        return True
    memcpy(copy, at, length)
    copy[length] = 0
    return isfinite(strtod(copy, NULL))


cdef const unsigned char *string_end(const unsigned char *at, const unsigned char *end) noexcept nogil:
    """Return the closing quote of the string whose first quote is before `at`, `end` if there is none."""
    cdef const unsigned char *quote = at
    cdef const unsigned char *before
    while True:
        quote = <const unsigned char *>memchr(quote, c'"', end - quote)
        if quote == NULL:
            return end
        before = quote
        while before > at and (before - 1)[0] == c'\\':
            before -= 1
        if (quote - before) % 2 == 0:  # an odd number of backslashes: the last one escapes the quote
            return quote
        quote += 1


cdef bint all_fit(const unsigned char *at, const unsigned char *end, Py_ssize_t length_max) noexcept nogil:
    cdef const unsigned char *begin
    while at < end:
        if at[0] == c'"':
            at = string_end(at + 1, end)
        elif c'0' <= at[0] <= c'9':
            begin = at
            while at < end and is_of_number(at[0]):
                at += 1
            if not number_fits(begin, at - begin, length_max):
                return False
            continue
        at += 1
    return True


def numbers_fit(const unsigned char[::1] text not None, int length_max):
    """Whether each number of a JSON text has at most `length_max` (0 to 400) characters and fits into a double."""
    cdef const unsigned char *start
    cdef bint fit
    if not 0 <= length_max <= NUMBER_MAX:
        raise ValueError("length_max")
    if text.shape[0] == 0:
        return True
    start = &text[0]
    with nogil:
        fit = all_fit(start, start + text.shape[0], length_max)
    return fit
