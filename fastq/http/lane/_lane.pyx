"""The lane: plain, frequent requests go from bytes to bytes, without ASGI.

A request has two ways. The short way (`lane/short_way.pxi`) takes a plain, frequent request with a cached key and
writes its answer at once. The answer is sent when the batch of the change is durable. All other requests go through
llhttp and Falcon, the reference. Both ways give the same bytes except ids, times and Date.

Answers leave a connection in the order of its requests. A request for Falcon waits in the pipeline until every answer
of the short way is sent. No request takes the short way while one for Falcon is being answered.
"""

cimport cython

from asyncio import get_running_loop
from functools import partial
from hashlib import sha256

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport ECONNRESET, EPIPE, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strlen

from fastq._clock cimport Clock
from fastq._core cimport (
    CLOSE_RECORD_BYTES, CREATED, DUPLICATE, ELSEWHERE, HOT_ID_CHARS, SMALL_RECORD_BYTES, Access, Ack, Core, Extend,
    Leased, Name, PlainJob, SubmitFields, Tail, ack_of, ack_plain, appended_seq, extend_of, has_room, lease_plain,
    leased_bytes, plain_bytes, put_leased, record_in_memory, remember_bytes, submit_plain, submit_plain_many,
    was_leased,
)

from uvicorn.protocols.http.httptools_impl import STATUS_LINE as _STATUS_LINE

from fastq.engine import acks as _acks
from fastq.engine import commands as _commands
from fastq.engine import commits as _commits
from fastq.services import queues as _queues
from fastq.errors import ApiError, CoreFailed
from fastq.http import fields as _fields
from fastq.http.connection import limits as _limits
from fastq.http.errors import NoJobsAvailable, error_body
from fastq.http.reply import JSON as _JSON
from fastq.http.lane.granted import Granted
from fastq.http.scope import GRANTED as _GRANTED
from fastq.http.connection.limits import is_host
from fastq.http.connection.protocol import Protocol
from fastq.http.routes import may
from fastq.log.protocol import RESERVE_SEGMENTS as _RESERVE_SEGMENTS
from fastq.http.resources.ack import ack_refused, acks_answered
from fastq.http.resources.extend import lease_extended, leases_answered
from fastq.http.resources.lease import lease_command

cdef extern from "<string.h>" nogil:
    void* memmem(const void* text, size_t n, const void* part, size_t part_bytes)

cdef extern from "plain.h" nogil:
    const unsigned char* past_plain(const unsigned char* at, const unsigned char* end)
    const unsigned char* past_ascii(const unsigned char* at, const unsigned char* end)

cdef enum:
    HOT_BODY_BYTES_MAX = 64 << 10   # larger bodies go to Falcon, which bounds their memory
    IDLE_S = 75
    ROOM_BYTES_LARGE = 32 << 10     # every log takes records up to here; above it the log is asked

cdef int PIPELINED_MAX = _limits.PIPELINED_MAX
cdef int64_t PRIORITY_MIN = _commands.PRIORITY_MIN, PRIORITY_MAX = _commands.PRIORITY_MAX
cdef Py_ssize_t BATCH_BYTES_MAX = _commands.BATCH_BYTES_MAX
cdef int BATCH_JOBS_MAX = _commands.BATCH_JOBS_MAX
cdef int64_t MAX_RETRIES_MAX = _commands.MAX_RETRIES_MAX, DELAY_MS_MAX = _fields.DELAY_MS_MAX
cdef int64_t LEASE_MS_MIN = _commands.LEASE_MS_MIN, LEASE_MS_MAX = _commands.LEASE_MS_MAX
cdef int64_t RUN_AT_AHEAD_US_MAX = _commands.RUN_AT_AHEAD_US_MAX
cdef int KEY_BYTES_MAX = _commands.KEY_BYTES_MAX, REQUEST_ID_BYTES_MAX = _commands.REQUEST_ID_BYTES_MAX
cdef int WORKER_ID_BYTES_MAX = _commands.WORKER_ID_BYTES_MAX
cdef int LEASES_EXTENDED_MAX = _commands.LEASES_EXTENDED_MAX, EXTEND_RECORD_BYTES = _acks.EXTEND_RECORD_BYTES
cdef int TAGS_MAX = _commands.TAGS_MAX, TAG_BYTES_MAX = _commands.TAG_BYTES_MAX
cdef int64_t BACKOFF_BASE_MS = _queues.Backoff().base_ms, BACKOFF_BASE_MS_MAX = _queues.BACKOFF_BASE_MS_MAX
cdef int64_t BACKOFF_CAP_MS = _queues.Backoff().cap_ms, BACKOFF_CAP_MS_MAX = _queues.BACKOFF_CAP_MS_MAX
cdef double BACKOFF_FACTOR = _queues.Backoff().factor
cdef int64_t TOKEN_CHARS_MAX = _fields.TOKEN_CHARACTERS_MAX
cdef uint64_t LEASED_BYTES_MAX = _commands.LEASED_BYTES_MAX
cdef uint64_t ROOM_BYTES_SMALL = _commits.ROOM_BYTES_SMALL
cdef uint32_t CLEANER_SEGMENTS = _commits.CLEANER_SEGMENTS
cdef uint32_t RESERVE_SEGMENTS = _RESERVE_SEGMENTS
cdef frozenset HARMLESS = frozenset((  # headers without an effect on the answer, or with a value in `HeadValues`
    b"user-agent", b"content-type", b"accept", b"accept-encoding",
    b"content-length", b"idempotency-key", b"traceparent",
))
cdef bytes CONTENT_TYPE = b"content-type: " + _JSON.encode() + b"\r\n"

include "../escapes.pxi"
include "json.pxi"
include "jobs.pxi"
include "heads.pxi"
include "answers.pxi"
include "short_way.pxi"


# --- heads ------------------------------------------------------------------------------------------------------------

cdef bint is_harmless(bytes name, bytes value) except *:
    """Whether a header has no effect on the answer. `name` is in lower case."""
    if name == b"connection":
        return value == b"keep-alive" or value == b"Keep-Alive"
    return name in HARMLESS


class Lane(Protocol):
    """The protocol class for uvicorn's setting `http`. The application's `short_way` answers plain requests."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._short = self.config.app.short_way
        self._answers = Answers.__new__(Answers)
        self._leaving = False       # the server stops: close after the last answer
        self._next_granted = None   # leases of the next request that is parsed: see `_hand_on`
        self._granted = None        # leases of the oldest request for Falcon
        self._idle = None
        self._idle_requests = 0

    def connection_made(self, transport):
        cdef Answers answers = self._answers
        Protocol.connection_made(self, transport)
        answers.lane, answers.undos, answers.fd = self, [], -1
        answers.write, answers.is_closing = transport.write, transport.is_closing
        answers.buffered_bytes, answers.flow = transport.get_write_buffer_size, self.flow
        if transport.get_extra_info("sslcontext") is None:
            socket = transport.get_extra_info("socket")
            answers.fd = -1 if socket is None else socket.fileno()

    # --- receiving ----------------------------------------------------------------------------------------------------

    def data_received(self, bytes data not None):
        cdef Answers answers = self._answers
        cdef ShortWay short = self._short
        cdef const char* start = PyBytes_AS_STRING(data)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data), at = 0, size
        if not answers.calm and not self._calms():
            Protocol.data_received(self, data)
            return
        if not short.in_turn:
            short.begin_turn(self.server_state)
        while at < n:
            size = 0 if answers.is_full() else short.take(answers, start + at, n - at)
            at += size
            if size == 0 and not (answers.is_full() and self._send_some()):
                break
        if not answers.has_received and answers.taken:
            answers.has_received = True
            self._requests += 1
            self._stop_deadline()
        if answers.mark_count and answers.marks[0].seq <= short.tail.durable_seq:
            short.send_now(answers)
        if at < n:
            self._receive(data[at:] if at else data)

    def _send_some(self):
        """Send durable answers. Whether the short way can go on."""
        cdef Answers answers = self._answers
        cdef ShortWay short = self._short
        short.send_now(answers)
        return answers.calm and not answers.is_full()

    def _receive(self, bytes data):
        """Give data to the parser that the short way does not take."""
        cdef Answers answers = self._answers
        answers.calm = False
        if answers.is_full() and self._next_granted is None:
            self._park(data)
        else:
            Protocol.data_received(self, data)
        answers.unknown_head = None

    def _calms(self):
        """Whether the connection has no work except answers that wait to be sent."""
        cdef Answers answers = self._answers
        if self._deaf or self._unparsed or self._leaving or self._in_body or self._in_head or self._head_bytes:
            return False
        if self._active is not None or self.pipeline or self._bodies:
            return False
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        answers.calm = True
        return True

    def _go_on_parsing(self):
        self.data_received(self._unpark())

    def _hand_on(self, granted):
        """Give the leases to the next request that is parsed."""
        self._next_granted = granted

    def on_headers_complete(self):
        cdef Answers answers = self._answers
        cdef bytes text = answers.unknown_head
        answers.unknown_head = None
        if text is not None and self.parser.get_http_version() == "1.1" and not self.parser.should_upgrade():
            self._learn(text)
        if self._next_granted is not None:
            self._granted, self._next_granted = self._next_granted, None
            self.scope[_GRANTED] = self._granted
        Protocol.on_headers_complete(self)

    def on_response_complete(self):
        self._give_back()
        Protocol.on_response_complete(self)

    def _give_back(self):
        """Give back the leases that a request was handed and did not take."""
        for granted in (self._granted, self._next_granted):
            if granted is not None:
                granted.give_back()
        self._granted = self._next_granted = None

    def _learn(self, bytes text):
        """Cache the head if its key is known and all its headers are harmless."""
        cdef bytes name, value, authorization = None
        cdef int hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
                if not is_host(value):
                    return
            elif name == b"authorization":
                if authorization is not None:
                    return
                authorization = value
            elif not is_harmless(name, value):
                return
        if hosts == 1 and authorization is not None:
            (<ShortWay>self._short).learn(text, self.headers, authorization.decode("latin-1"))

    # --- answers ------------------------------------------------------------------------------------------------------

    def _drained(self):
        """Go on after the last answer of the short way is sent."""
        if self._active is None and self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._active is None and self._deaf:
            self._send_refusal()
        elif self._leaving:
            self.end()
        elif self._unparsed:
            self._go_on_parsing()
        elif self._idle is None:
            self._watch_idle()

    def _go_on_answering(self):
        cdef ShortWay short = self._short
        short.send_now(self._answers)

    def _start_asgi_task(self, cycle, app):
        if self._leaving:
            cycle.keep_alive = False
        Protocol._start_asgi_task(self, cycle, app)

    def _must_wait(self):
        return (<Answers>self._answers).waiting > 0 or Protocol._must_wait(self)

    def _unread_bytes(self):
        return Protocol._unread_bytes(self) + (<Answers>self._answers).n

    def _is_full(self):
        cdef Answers answers = self._answers
        return answers.n > TEXT_BYTES_MAX or answers.waiting + len(self.pipeline) >= PIPELINED_MAX

    def _is_answering(self):
        return self._has_answers() or Protocol._is_answering(self)

    def _has_answers(self):
        return (<Answers>self._answers).waiting > 0

    # --- closing ------------------------------------------------------------------------------------------------------

    def _request_count(self):
        return self._requests + (<Answers>self._answers).taken

    def _check_idle(self):
        """Close the connection if no request arrived since the last check."""
        self._idle = None
        (<Answers>self._answers).idle_watched = False
        if self._request_count() == self._idle_requests and not self._is_answering() and not self._in_head:
            if not self.transport.is_closing():
                self.close()
        else:
            self._watch_idle()

    def _watch_idle(self):
        self._idle_requests = self._request_count()
        self._idle = self.loop.call_later(IDLE_S, self._check_idle)
        (<Answers>self._answers).idle_watched = True

    def shutdown(self):
        (<Answers>self._answers).calm = False
        if self._has_answers() and not self.pipeline:
            self._leaving = True
        else:
            Protocol.shutdown(self)

    def connection_lost(self, exc):
        (<Answers>self._answers).drop()
        self._give_back()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        Protocol.connection_lost(self, exc)
