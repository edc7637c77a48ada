# The answers of a connection: one buffer that becomes visible batch by batch.

cdef extern from "<sys/socket.h>" nogil:
    Py_ssize_t socket_send "send"(int fd, const void* data, size_t n, int flags)
    int MSG_DONTWAIT, MSG_NOSIGNAL

cdef enum:
    TEXT_BYTES = 1024           # the first size of a connection's buffer
    TEXT_BYTES_KEPT = 16384     # a larger buffer is freed when it is empty
    TEXT_BYTES_MAX = 1 << 20    # above it a connection's next requests wait

cdef struct Mark:               # the text up to `end` may leave when batch `seq` is durable
    uint64_t seq
    size_t end
    uint32_t count              # answers since the previous mark


@cython.final
cdef class Answers:
    """The answers of one connection that are not sent yet, in order."""
    cdef object lane            # None when the connection is closed
    cdef object write, is_closing, buffered_bytes   # methods of its transport
    cdef object flow
    cdef int fd                 # -1: all writes go through the transport
    cdef char* text
    cdef size_t n, capacity
    cdef Mark* marks
    cdef uint32_t mark_count, mark_capacity
    cdef readonly uint32_t waiting  # answers
    cdef uint64_t put_count, sent_count
    cdef list undos             # (number of the answer, callable that takes it back if it cannot be sent)
    cdef bint listed            # in ShortWay.due
    cdef bint calm              # the connection has no work except these answers
    cdef bint idle_watched
    cdef bint has_received      # a first request arrived
    cdef Head head              # of the last request
    cdef bytes unknown_head     # a head that is not cached
    cdef readonly uint64_t taken    # requests that the short way answered

    def __dealloc__(self):
        free(self.text)
        free(self.marks)

    cdef char* reserve(self, size_t n) except NULL:
        """Return the address of the next n bytes."""
        cdef size_t capacity = max(self.capacity, <size_t>TEXT_BYTES)
        cdef char* text
        if self.n + n > self.capacity:
            while capacity < self.n + n:
                capacity *= 2
            text = <char*>realloc(self.text, capacity)
            if text == NULL:
                raise MemoryError
            self.text = text
            self.capacity = capacity
        return self.text + self.n

    cdef bint is_full(self) except *:
        """Whether the next request waits until answers are sent or read."""
        return self.waiting >= <uint32_t>PIPELINED_MAX or self.n > TEXT_BYTES_MAX or self.flow.write_paused

    cdef int put(self, size_t n, uint64_t seq, undo) except -1:
        """Add an answer: the next n bytes, which may leave when batch `seq` is durable."""
        cdef Mark* marks
        seq = max(seq, self.last_seq())
        if self.mark_count == 0 or self.marks[self.mark_count - 1].seq != seq:
            if self.mark_count == self.mark_capacity:
                marks = <Mark*>realloc(self.marks, (self.mark_capacity + 4) * sizeof(Mark))
                if marks == NULL:
                    raise MemoryError
                self.marks = marks
                self.mark_capacity += 4
            self.marks[self.mark_count].seq = seq
            self.marks[self.mark_count].count = 0
            self.mark_count += 1
        self.n += n
        self.marks[self.mark_count - 1].end = self.n
        self.marks[self.mark_count - 1].count += 1
        self.waiting += 1
        self.put_count += 1
        if undo is not None:
            self.undos.append((self.put_count, undo))
        return 0

    cdef uint64_t last_seq(self) noexcept:
        return self.marks[self.mark_count - 1].seq if self.mark_count else 0

    cdef uint32_t send_visible(self, uint64_t durable_seq) except? 0xffffffff:
        """Send the answers that may leave when `durable_seq` is durable. Return their number."""
        cdef uint32_t seen = 0, count = 0, i
        cdef size_t end
        while seen < self.mark_count and self.marks[seen].seq <= durable_seq:
            count += self.marks[seen].count
            seen += 1
        if seen == 0:
            return 0
        end = self.marks[seen - 1].end
        if not self.send(end):
            return 0  # connection_lost takes the answers back
        self.n -= end
        memmove(self.text, self.text + end, self.n)
        self.mark_count -= seen
        for i in range(self.mark_count):
            self.marks[i] = self.marks[i + seen]
            self.marks[i].end -= end
        self.waiting -= count
        self.sent_count += count
        if self.undos:
            self.undos = [undo for undo in self.undos if undo[0] > self.sent_count]
        if self.n == 0 and self.capacity > TEXT_BYTES_KEPT:
            free(self.text)
            self.text = NULL
            self.capacity = 0
        return count

    cdef bint send(self, size_t n) except -1:
        """Send n bytes, directly if the transport's buffer is empty. False if the connection is closed."""
        cdef Py_ssize_t sent = 0
        if self.is_closing():
            return False
        if self.fd >= 0 and self.buffered_bytes() == 0:
            sent = socket_send(self.fd, self.text, n, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent < 0 and (errno == EPIPE or errno == ECONNRESET):
                self.lane.transport.abort()
                return False
            sent = max(0, sent)
        if <size_t>sent < n:  # the transport handles every other error
            self.write(PyBytes_FromStringAndSize(self.text + sent, n - sent))
        return True

    cdef int drop(self) except -1:
        """Drop all answers of a closed connection and take back their leases."""
        undos, self.undos = self.undos, []
        self.n = self.mark_count = self.waiting = 0
        self.calm = False
        self.lane = self.write = self.is_closing = self.buffered_bytes = self.flow = None
        for _, undo in undos:
            undo()
        return 0
