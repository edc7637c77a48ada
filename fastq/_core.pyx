# cython: language_level=3
# The pure core. Its data is in _core.pxd, its Python interface in _core.pyi, its code by subject in core/.

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.math cimport pow
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from collections import OrderedDict, deque
from heapq import heappop, heappush

from fastq.errors import (
    ApiError,
    CoreFailed,
    IdempotencyFull,
    IdempotencyMismatch,
    InvalidRequest,
    JobDuplicate,
    JobFinished,
    JobNotFound,
    JobRunning,
    LeaseLost,
    LogDamaged,
    NotAckable,
    NotDead,
    OwnerFull,
    QueueFull,
    QueuesFull,
    RecordTooLarge,
    RecordUnreadable,
    UnsupportedFormat,
)

cdef extern from "Python.h":
    str PyUnicode_FromStringAndSize(const char* text, Py_ssize_t n)

cdef extern from "<sys/mman.h>":
    enum: PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS
    void* MAP_FAILED
    void* mmap(void* at, size_t size, int protection, int flags, int fd, long offset) nogil
    int munmap(void* at, size_t size) nogil

cdef extern from "<stdlib.h>":
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef extern from "core/crc32c.h":
    void crc32c_prepare()
    uint32_t crc32c_of_pair(const uint8_t* word, const uint8_t* p, size_t n) nogil

crc32c_prepare()

globals().update(
    FRAME_HEAD_BYTES=FRAME_HEAD_BYTES, FRAME_RECORD_BYTES_MAX=FRAME_RECORD_BYTES_MAX,
    RECORD_VERSION=RECORD_VERSION, SMALL_RECORD_BYTES=SMALL_RECORD_BYTES,
    SUBMIT_RECORD_BYTES=SUBMIT_RECORD_BYTES, CLOSE_RECORD_BYTES=CLOSE_RECORD_BYTES,
    CREATED=CREATED, DUPLICATE=DUPLICATE, REPLACED=REPLACED, REPEATED=REPEATED,
    CLOSE=CLOSE, ATTEMPTS_KEPT=ATTEMPTS_KEPT, EVENTS_KEPT=EVENTS_KEPT, HISTORY_BYTES_MAX=HISTORY_BYTES_MAX,
)

include "core/bytes.pxi"
include "core/places.pxi"
include "core/records.pxi"
include "core/tail.pxi"
include "core/tables.pxi"
include "core/live.pxi"
include "core/settings.pxi"
include "core/commands.pxi"
include "core/ids.pxi"
include "core/views.pxi"
include "core/names.pxi"
include "core/ages.pxi"
include "core/traffic.pxi"
include "core/feed.pxi"
include "core/failures.pxi"
include "core/queues.pxi"
include "core/holdings.pxi"
include "core/finished.pxi"
include "core/machine.pxi"
include "core/keys.pxi"
include "core/deciding.pxi"
include "core/changing.pxi"
include "core/applying.pxi"
include "core/listing.pxi"
include "core/losing.pxi"
include "core/moving.pxi"
include "core/proof.pxi"
include "core/dump.pxi"
include "core/hot.pxi"
