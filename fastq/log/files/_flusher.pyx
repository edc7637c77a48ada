# cython: language_level=3
"""The log's work without the GIL: checksums, frames, scans, and the thread that writes and syncs.

docs/log-format.md describes a frame. `fastq/log/files/segments.py` has the head of a segment.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EINTR, EINVAL, EIO, ENOSYS, ESPIPE, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from fastq._clock cimport steady_us

import os

# --- CRC32C -----------------------------------------------------------------------------------------------------------

cdef extern from "../../core/crc32c.h":
    int crc32c_fast
    void crc32c_prepare()
    uint32_t crc32c_of(const uint8_t* p, size_t n) nogil
    uint32_t crc32c_slowly(const uint8_t* p, size_t n) nogil

crc32c_prepare()


def crc32c(data, *, bint by_table=False):
    """CRC32C (Castagnoli) of bytes. `by_table` avoids the CPU's instruction, to test the path of old CPUs."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    cdef uint32_t value
    with nogil:
        if by_table:
            value = crc32c_slowly(<const uint8_t*>view.buf, view.len)
        else:
            value = crc32c_of(<const uint8_t*>view.buf, view.len)
    PyBuffer_Release(&view)
    return value


def crc32c_by_instruction():
    """Whether this CPU has an instruction for checksums."""
    return bool(crc32c_fast)


# --- the frame --------------------------------------------------------------------------------------------------------

cdef enum:
    MAGIC = 0x4d524651      # "QFRM" in the file
    FORMAT = 1
    HEAD_BYTES = 64
    HEAD_CRC_BYTES = 60     # what head_crc covers
    FLAG_SEAL = 1           # the last frame of its segment: the log goes on in the next one
    FLAG_CLOSED = 2         # the server stopped in order; no segment need follow
    FLAGS_KNOWN = 3

cdef struct Head:           # 64 bytes, little-endian, without padding
    uint32_t magic
    uint16_t format
    uint16_t flags
    uint64_t seq
    uint64_t durable_seq    # every frame up to this number was durable when this head was written
    uint64_t epoch
    uint64_t salt           # the segment's: clients cannot know it, so no payload can contain a valid head
    uint32_t segment
    uint32_t record_bytes
    uint32_t count
    uint32_t prev_crc       # head_crc of the frame before it in this epoch; 0 for the first
    uint32_t payload_crc
    uint32_t head_crc

FRAME_MAGIC, FRAME_FORMAT, FRAME_HEAD_BYTES = MAGIC, FORMAT, HEAD_BYTES
SEAL, CLOSED = FLAG_SEAL, FLAG_CLOSED


cdef inline uint64_t _padded(uint64_t record_bytes, uint64_t align) noexcept nogil:
    return (HEAD_BYTES + record_bytes + align - 1) // align * align


cdef void _close_head(Head* head, uint8_t* frame) noexcept nogil:
    """Complete `head` over the records that follow it in `frame`, and write it there."""
    head.magic = MAGIC
    head.format = FORMAT
    head.payload_crc = crc32c_of(frame + HEAD_BYTES, head.record_bytes)
    head.head_crc = crc32c_of(<const uint8_t*>head, HEAD_CRC_BYTES)
    memcpy(frame, head, HEAD_BYTES)


def fill_head(frame, *, uint64_t seq, uint64_t durable_seq, uint64_t epoch, uint64_t salt, uint32_t segment,
              uint32_t record_bytes, uint32_t count, uint32_t prev_crc, uint16_t flags=0):
    """Write the head of `frame` (writable bytes: `FRAME_HEAD_BYTES`, then the records). Returns its head_crc."""
    cdef Head head
    cdef Py_buffer view
    memset(&head, 0, sizeof(Head))
    head.seq, head.durable_seq, head.epoch, head.salt = seq, durable_seq, epoch, salt
    head.segment, head.record_bytes, head.count, head.prev_crc = segment, record_bytes, count, prev_crc
    head.flags = flags
    PyObject_GetBuffer(frame, &view, PyBUF_WRITABLE)
    try:
        if view.len < HEAD_BYTES + <Py_ssize_t>record_bytes:
            raise ValueError(f"a frame of {record_bytes} record bytes does not fit into {view.len} bytes")
        _close_head(&head, <uint8_t*>view.buf)
    finally:
        PyBuffer_Release(&view)
    return head.head_crc


# --- reading frames back ----------------------------------------------------------------------------------------------

cdef enum Stop:             # why a scan ended
    AT_END = 0              # the end of the segment
    AT_STOP = 1             # the next segment holds the frames from here on
    AT_SEAL = 2
    AT_CLOSED = 3
    AT_NOTHING = 4          # no head: not even the magic
    AT_BAD_HEAD = 5
    AT_FOREIGN = 6          # a sound head of another segment, epoch or salt: left from an earlier use
    AT_ORDER = 7            # a sound head that does not follow from the one before
    AT_BAD_RECORDS = 8
    AT_FORMAT = 9           # a head of a later version

cdef struct Mark:           # one sound frame
    uint64_t seq
    uint64_t durable_seq
    uint32_t offset
    uint32_t record_bytes
    uint32_t count

cdef struct Scan:
    const uint8_t* bytes
    uint64_t length
    uint64_t align
    uint64_t epoch
    uint64_t salt
    uint32_t segment
    uint64_t stop_seq       # 0: none
    uint64_t end            # of the last sound frame; a seal does not count
    uint64_t next_seq
    uint32_t prev_crc
    uint64_t proven_seq     # highest durable_seq of a sound frame, seals included
    Mark* marks
    uint64_t marks_held
    uint64_t marks_room
    Stop why


cdef Stop _look_at(const Scan* scan, uint64_t at, Head* head) noexcept nogil:
    """Whether a sound head of this segment lies at offset `at`: AT_END if so, else why not."""
    if at + HEAD_BYTES > scan.length:
        return AT_NOTHING
    memcpy(head, scan.bytes + at, HEAD_BYTES)
    if head.magic != MAGIC:
        return AT_NOTHING
    if crc32c_of(<const uint8_t*>head, HEAD_CRC_BYTES) != head.head_crc:
        return AT_BAD_HEAD
    if head.salt != scan.salt or head.epoch != scan.epoch or head.segment != scan.segment:
        return AT_FOREIGN
    if head.format != FORMAT or head.flags & ~<uint32_t>FLAGS_KNOWN:
        return AT_FORMAT
    return AT_END


cdef Stop _step(Scan* scan, Mark* mark) noexcept nogil:
    """Take the frame at `scan.end`. Returns AT_END, or why it cannot be taken."""
    cdef Head head
    cdef uint64_t bytes
    if scan.end >= scan.length:
        return AT_END
    cdef Stop why = _look_at(scan, scan.end, &head)
    cdef bint stop = scan.stop_seq != 0 and scan.next_seq >= scan.stop_seq
    if why != AT_END:
        return AT_STOP if stop else why
    if head.flags:
        if head.count or head.record_bytes or head.seq + 1 != scan.next_seq or head.prev_crc != scan.prev_crc:
            return AT_STOP if stop else AT_ORDER
        scan.proven_seq = max(scan.proven_seq, head.durable_seq)
        if head.flags & FLAG_CLOSED:
            return AT_CLOSED  # nothing follows it: a later opening may write a seal in its place
        scan.prev_crc = head.head_crc
        return AT_SEAL
    if stop:
        return AT_STOP
    if head.seq != scan.next_seq or head.prev_crc != scan.prev_crc or head.durable_seq >= head.seq:
        return AT_ORDER
    bytes = _padded(head.record_bytes, scan.align)
    if scan.end + bytes > scan.length:
        return AT_ORDER
    if crc32c_of(scan.bytes + scan.end + HEAD_BYTES, head.record_bytes) != head.payload_crc:
        return AT_BAD_RECORDS
    mark.seq, mark.durable_seq, mark.offset = head.seq, head.durable_seq, <uint32_t>scan.end
    mark.record_bytes, mark.count = head.record_bytes, head.count
    scan.end += bytes
    scan.next_seq += 1
    scan.prev_crc = head.head_crc
    scan.proven_seq = max(scan.proven_seq, head.durable_seq)
    return AT_END


cdef int _scan(Scan* scan) noexcept nogil:
    """Take frames up to the first that cannot be taken. Returns -1 if memory runs out."""
    cdef uint64_t before
    cdef Mark* grown
    while True:
        if scan.marks_held == scan.marks_room:
            scan.marks_room = scan.marks_room * 2 + 256
            grown = <Mark*>realloc(scan.marks, scan.marks_room * sizeof(Mark))
            if grown == NULL:
                return -1
            scan.marks = grown
        before = scan.end
        scan.why = _step(scan, &scan.marks[scan.marks_held])
        if scan.end == before:
            return 0
        scan.marks_held += 1


cdef dict _WORDS = {
    AT_END: "end", AT_STOP: "stop", AT_SEAL: "seal", AT_CLOSED: "closed", AT_NOTHING: "nothing",
    AT_BAD_HEAD: "bad head", AT_FOREIGN: "foreign", AT_ORDER: "order", AT_BAD_RECORDS: "bad records",
    AT_FORMAT: "format",
}


@cython.final
@cython.freelist(64)
cdef class ScannedFrame:
    cdef readonly uint64_t seq, durable_seq
    cdef readonly uint32_t offset, record_bytes, count


@cython.final
cdef class Scanned:
    cdef readonly list frames
    cdef readonly uint64_t end, next_seq, proven_seq
    cdef readonly uint32_t prev_crc
    cdef readonly str why


cdef ScannedFrame scanned_frame(Mark* mark):
    cdef ScannedFrame frame = ScannedFrame.__new__(ScannedFrame)
    frame.seq, frame.offset, frame.durable_seq = mark.seq, mark.offset, mark.durable_seq
    frame.record_bytes, frame.count = mark.record_bytes, mark.count
    return frame


def scan_frames(data, *, uint64_t start, uint64_t align, uint32_t segment, uint64_t epoch, uint64_t salt,
                uint64_t next_seq, uint32_t prev_crc, uint64_t stop_seq=0, bint listed=True):
    """Check the frames of a segment from offset `start` on, up to the first that is not sound.

    Args:
        data: the whole segment file.
        stop_seq: stop before this frame; 0: check all frames.
        listed: whether to return the frames as a list, which takes the GIL.
    """
    cdef Scan scan
    cdef Scanned scanned = Scanned.__new__(Scanned)
    cdef Py_buffer view
    cdef uint64_t i
    cdef int failed
    memset(&scan, 0, sizeof(Scan))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    scan.bytes, scan.length = <const uint8_t*>view.buf, view.len
    scan.end, scan.align, scan.segment, scan.epoch, scan.salt = start, align, segment, epoch, salt
    scan.next_seq, scan.prev_crc, scan.stop_seq = next_seq, prev_crc, stop_seq
    with nogil:
        failed = _scan(&scan)
    PyBuffer_Release(&view)
    try:
        if failed:
            raise MemoryError
        scanned.frames = [scanned_frame(&scan.marks[i]) for i in range(scan.marks_held if listed else 0)]
    finally:
        free(scan.marks)
    scanned.end, scanned.next_seq, scanned.proven_seq = scan.end, scan.next_seq, scan.proven_seq
    scanned.prev_crc, scanned.why = scan.prev_crc, _WORDS[scan.why]
    return scanned


def find_later_frame(data, *, uint64_t start, uint64_t align, uint32_t segment, uint64_t epoch, uint64_t salt,
                     uint64_t durable_min):
    """Find the first sound head at or after offset `start` whose durable_seq is at least `durable_min`.

    Returns:
        (offset, seq, durable_seq), or None.
    """
    cdef Scan scan
    cdef Head head
    cdef Py_buffer view
    cdef uint64_t at = start
    cdef bint found = False
    memset(&scan, 0, sizeof(Scan))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    scan.bytes, scan.length = <const uint8_t*>view.buf, view.len
    scan.segment, scan.epoch, scan.salt = segment, epoch, salt
    with nogil:
        while at < scan.length:
            if _look_at(&scan, at, &head) in (AT_END, AT_FORMAT) and head.durable_seq >= durable_min:
                found = True
                break
            at += align
    PyBuffer_Release(&view)
    return (at, head.seq, head.durable_seq) if found else None


def used_bytes(data, *, uint64_t start):
    """The number of bytes from offset `start` up to the last one that is not zero."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    cdef const uint8_t* bytes = <const uint8_t*>view.buf
    cdef uint64_t end = view.len
    cdef uint64_t word
    with nogil:
        while end >= start + 8:
            memcpy(&word, bytes + end - 8, 8)
            if word:
                break
            end -= 8
        while end > start and bytes[end - 1] == 0:
            end -= 1
    PyBuffer_Release(&view)
    return max(end, start) - start


# --- filling ----------------------------------------------------------------------------------------------------------

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #if defined(SYNC_FILE_RANGE_WRITE)
    static int write_out(int fd, int64_t offset, int64_t bytes) {
        return sync_file_range(fd, offset, bytes, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE
                               | SYNC_FILE_RANGE_WAIT_AFTER);
    }
    #else
    static int write_out(int fd, int64_t offset, int64_t bytes) { errno = ENOSYS; return -1; }
    #endif
    """
    int write_out(int fd, int64_t offset, int64_t bytes) nogil


def send_to_device(int fd, int64_t offset, int64_t bytes):
    """Write dirty pages of this range to the device, and wait for that. Only a sync makes them durable.

    A later sync then has little to do, and syncs of other files need not wait for it. Does nothing on systems without
    this call.

    Raises:
        OSError: the device failed.
    """
    cdef int failed
    with nogil:
        failed = errno if write_out(fd, offset, bytes) != 0 else 0
    if failed and failed not in (ENOSYS, EINVAL, ESPIPE):
        raise OSError(failed, os.strerror(failed))


# --- the thread -------------------------------------------------------------------------------------------------------

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_create(pthread_t*, const void*, void* (*)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)
    int pthread_mutex_init(pthread_mutex_t*, const void*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_cond_init(pthread_cond_t*, const void*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_destroy(pthread_cond_t*)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    enum:
        SIG_SETMASK
    int sigfillset(sigset_t*)
    int pthread_sigmask(int, const sigset_t*, sigset_t*)

cdef extern from *:
    int clz "__builtin_clzll"(unsigned long long value) nogil

cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int, const void*, size_t, long)
    int fdatasync(int)

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned int, int)
    int eventfd_write(int, uint64_t)
    int eventfd_read(int, uint64_t*)

cdef enum Work:
    WORK_NONE = 0
    WORK_COMMIT = 1
    WORK_CLOSED = 2         # write the closing frame

cdef enum:
    SYNC_BUCKETS = 135

cdef struct Shared:
    pthread_mutex_t lock    # held to change the next two; the thread owns everything else while work is not NONE
    pthread_cond_t wake
    int work
    int stopping
    int done_fd             # an eventfd: readable when the work is done
    int error               # errno of the first failure; nothing is written after it
    int failed_sync         # whether it was a sync
    # the end of the log
    uint64_t epoch
    uint64_t align
    int fd
    uint32_t segment
    uint64_t salt
    uint64_t end            # of the last frame in the segment
    uint64_t seq            # of the last frame
    uint32_t prev_crc       # its head_crc
    uint8_t* empty          # align bytes: a frame without records
    # the next batch
    uint8_t* frame
    uint64_t frame_bytes
    uint64_t offset
    int next_fd
    uint64_t next_salt
    Head head
    # statistics
    uint64_t written_bytes
    uint64_t syncs
    uint64_t sync_counts[SYNC_BUCKETS]  # how long they took: the buckets of `fastq._core.LATENCY_BOUNDS_US`
    uint64_t sync_us


cdef void _count_sync(Shared* s, uint64_t us) noexcept nogil:
    cdef int octave, bucket = 0
    if us > 64:
        octave = 63 - clz(us - 1)
        bucket = min(SYNC_BUCKETS - 1, (octave - 6) * 4 + <int>(us - 1 >> (octave - 2) & 3) + 1)
    s.sync_counts[bucket] += 1
    s.sync_us += us


cdef int _write_and_sync(Shared* s, int fd, const uint8_t* bytes, uint64_t length, uint64_t offset) noexcept nogil:
    """Write bytes and sync them. Returns 0, or -1 with the error in `s`."""
    cdef uint64_t done = 0, begun_us
    cdef ssize_t n
    while done < length:
        n = pwrite(fd, bytes + done, length - done, offset + done)
        if n > 0:
            done += n
        elif n == 0 or errno != EINTR:
            s.error = errno if n < 0 else EIO
            return -1
    s.written_bytes += length
    s.syncs += 1
    begun_us = steady_us()
    if fdatasync(fd) != 0:
        s.error = errno
        s.failed_sync = 1
        return -1
    _count_sync(s, steady_us() - begun_us)
    return 0


cdef int _write_empty(Shared* s, uint16_t flags) noexcept nogil:
    """Write a frame without records after the last one."""
    cdef Head head
    memset(&head, 0, sizeof(Head))
    memset(s.empty, 0, s.align)
    head.flags, head.seq, head.durable_seq, head.epoch = flags, s.seq, s.seq, s.epoch
    head.salt, head.segment, head.prev_crc = s.salt, s.segment, s.prev_crc
    _close_head(&head, s.empty)
    if _write_and_sync(s, s.fd, s.empty, s.align, s.end) != 0:
        return -1
    s.end += s.align
    s.prev_crc = head.head_crc
    return 0


cdef void _commit(Shared* s) noexcept nogil:
    if s.head.segment != s.segment:
        if _write_empty(s, FLAG_SEAL) != 0:
            return
        s.fd, s.segment, s.salt = s.next_fd, s.head.segment, s.next_salt
    s.head.epoch, s.head.salt, s.head.prev_crc = s.epoch, s.salt, s.prev_crc
    _close_head(&s.head, s.frame)
    if _write_and_sync(s, s.fd, s.frame, s.frame_bytes, s.offset) != 0:
        return
    s.end = s.offset + s.frame_bytes
    s.seq = s.head.seq
    s.prev_crc = s.head.head_crc


cdef void* _run(void* argument) noexcept nogil:
    """The thread's main function. It never takes the GIL."""
    cdef Shared* s = <Shared*>argument
    cdef int work
    while True:
        pthread_mutex_lock(&s.lock)
        while s.work == WORK_NONE and not s.stopping:
            pthread_cond_wait(&s.wake, &s.lock)
        work = s.work
        pthread_mutex_unlock(&s.lock)
        if work == WORK_NONE:
            return NULL
        if s.error == 0:
            if work == WORK_COMMIT:
                _commit(s)
            else:
                _write_empty(s, FLAG_CLOSED)
        pthread_mutex_lock(&s.lock)
        s.work = WORK_NONE
        pthread_mutex_unlock(&s.lock)
        eventfd_write(s.done_fd, 1)


@cython.final
@cython.auto_pickle(False)
cdef class Flusher:
    """The native thread that makes batches durable, one at a time. It writes nothing after a failure."""

    cdef Shared* s
    cdef pthread_t thread
    cdef bint running
    cdef bint busy
    cdef bint holds
    cdef Py_buffer view

    def __init__(self, uint64_t epoch, uint64_t align, int fd, uint32_t segment, uint64_t salt, uint64_t end,
                 uint64_t seq, uint32_t prev_crc):
        cdef sigset_t all_signals, before
        assert self.s == NULL, "a flusher begins once"
        if align < HEAD_BYTES:
            raise ValueError(f"align {align} is less than a frame's head")
        self.s = <Shared*>calloc(1, sizeof(Shared))
        if self.s == NULL:
            raise MemoryError
        cdef Shared* s = self.s
        s.empty = <uint8_t*>calloc(1, align)
        s.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if s.empty == NULL or s.done_fd < 0:
            raise MemoryError
        s.epoch, s.align, s.fd, s.segment, s.salt = epoch, align, fd, segment, salt
        s.end, s.seq, s.prev_crc = end, seq, prev_crc
        pthread_mutex_init(&s.lock, NULL)
        pthread_cond_init(&s.wake, NULL)
        # The event loop handles signals: SIGTERM must not interrupt a write here.
        sigfillset(&all_signals)
        pthread_sigmask(SIG_SETMASK, &all_signals, &before)
        cdef int error = pthread_create(&self.thread, NULL, &_run, s)
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if error:
            raise OSError(error, os.strerror(error))
        self.running = True

    def __dealloc__(self):
        self._stop()
        if self.s != NULL:
            if self.s.done_fd >= 0:
                os.close(self.s.done_fd)
            free(self.s.empty)
            free(self.s)
            self.s = NULL

    def fileno(self):
        """An eventfd that becomes readable when the work is done: then call `finish`."""
        return self.s.done_fd

    def commit(self, batch, *, int fd, uint64_t salt, uint32_t segment, uint64_t offset, uint64_t seq,
               uint64_t durable_seq, uint32_t record_bytes, uint32_t count):
        """Complete, write and sync the frame in `batch` (writable bytes that do not change until `finish`).

        If the batch lies in a new segment, the one before is sealed first.

        Args:
            fd, salt: of the batch's segment.
        """
        cdef Shared* s = self.s
        self._expect_idle()
        assert seq == s.seq + 1, f"batch {seq} after {s.seq}"
        assert segment != s.segment or offset == s.end, f"batch at {offset}, the log ends at {s.end}"
        PyObject_GetBuffer(batch, &self.view, PyBUF_WRITABLE)
        self.holds = True
        s.frame, s.frame_bytes, s.offset = <uint8_t*>self.view.buf, self.view.len, offset
        assert s.frame_bytes == _padded(record_bytes, s.align), f"{s.frame_bytes} bytes for {record_bytes} of records"
        s.next_fd, s.next_salt = fd, salt
        memset(&s.head, 0, sizeof(Head))
        s.head.seq, s.head.durable_seq, s.head.segment = seq, durable_seq, segment
        s.head.record_bytes, s.head.count = record_bytes, count
        self._begin(WORK_COMMIT)

    def sync_durations(self):
        cdef int i
        return tuple([self.s.sync_counts[i] for i in range(SYNC_BUCKETS)]), self.s.sync_us

    def mark_closed(self):
        """Write the closing frame: the server stopped in order. Call `finish` after it, as after `commit`."""
        self._expect_idle()
        self._begin(WORK_CLOSED)

    def finish(self):
        """Take the result of the work that `fileno` announced.

        Returns:
            The sequence number up to which every frame is durable.
        Raises:
            BlockingIOError: the work is not done yet.
            OSError: a write or a sync failed. The flusher stays failed.
        """
        cdef uint64_t ignored
        cdef Shared* s = self.s
        if eventfd_read(s.done_fd, &ignored) != 0:
            raise BlockingIOError("the batch is still in flight")
        # The thread gave up ownership when it set `work` under the lock.
        pthread_mutex_lock(&s.lock)
        pthread_mutex_unlock(&s.lock)
        self._release()
        self.busy = False
        if s.error:
            what = "fdatasync" if s.failed_sync else "write"
            raise OSError(s.error, f"{os.strerror(s.error)} ({what} in segment {s.segment})")
        return s.seq

    def stop(self):
        """End the thread, after any work in progress."""
        self._stop()

    @property
    def end(self):
        """(segment, offset) after the last frame. Do not call it while a batch is in flight."""
        self._expect_idle()
        return self.s.segment, self.s.end

    @property
    def written_bytes(self):
        return self.s.written_bytes

    @property
    def syncs(self):
        return self.s.syncs

    cdef _expect_idle(self):
        assert self.running, "the flusher was stopped"
        assert not self.busy, "one batch at a time"

    cdef _begin(self, int work):
        cdef Shared* s = self.s
        self.busy = True
        pthread_mutex_lock(&s.lock)
        s.work = work
        pthread_cond_signal(&s.wake)
        pthread_mutex_unlock(&s.lock)

    cdef _release(self):
        if self.holds:
            self.holds = False
            PyBuffer_Release(&self.view)

    cdef _stop(self):
        cdef Shared* s = self.s
        if not self.running:
            return
        self.running = False
        with nogil:
            pthread_mutex_lock(&s.lock)
            s.stopping = 1
            pthread_cond_signal(&s.wake)
            pthread_mutex_unlock(&s.lock)
            pthread_join(self.thread, NULL)
            pthread_mutex_destroy(&s.lock)
            pthread_cond_destroy(&s.wake)
        self._release()
