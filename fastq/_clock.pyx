"""The engine's clock, natively: it is read for every request."""

cimport cython

from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

cdef enum:
    PULL_SHARE = 10     # at most so much of the time that went is given to catching up with the wall clock, or waiting


cdef inline int64_t machine_us(int which) noexcept nogil:
    cdef timespec at
    clock_gettime(which, &at)
    return <int64_t>at.tv_sec * 1_000_000 + at.tv_nsec // 1000


@cython.final
cdef class Clock:
    def __init__(self, int64_t start_us, monotonic=None, wall=None):
        self.monotonic, self.wall = monotonic, wall
        self.now = start_us
        self.read_us = machine_us(CLOCK_MONOTONIC) if monotonic is None else monotonic()

    cpdef int64_t now_us(self) except? -1:
        cdef int64_t read_us = machine_us(CLOCK_MONOTONIC) if self.monotonic is None else self.monotonic()
        cdef int64_t wall_us = machine_us(CLOCK_REALTIME) if self.wall is None else self.wall()
        cdef int64_t elapsed_us = read_us - self.read_us
        cdef int64_t pull_us_max = elapsed_us // PULL_SHARE
        cdef int64_t pull_us = wall_us - (self.now + elapsed_us)
        self.read_us = read_us
        self.now += elapsed_us + max(-pull_us_max, min(pull_us_max, pull_us))
        return self.now


cdef int64_t steady_us() noexcept nogil:
    """Microseconds of the machine's monotonic clock, for code without the GIL."""
    return machine_us(CLOCK_MONOTONIC)
