from libc.stdint cimport int64_t


cdef class Clock:
    cdef object monotonic, wall     # callables that give microseconds; None: the machine's
    cdef int64_t now, read_us

    cpdef int64_t now_us(self) except? -1


cdef int64_t steady_us() noexcept nogil
