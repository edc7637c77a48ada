"""The hot lane: the few requests that make up the load, from parsed bytes to the engine and back, without ASGI.

It is `Protocol` with another way through. When a request's head is complete, `Lane` looks whether it is one of a few
that it knows, from a key that is known, with nothing unusual about it. If so its body goes straight to the engine, and
the answer is written when what it says is durable. All else takes the way through Falcon, which is the reference:
both give the same bytes, but for ids, times and Date.

Answers leave a connection in the order of its requests. A hot one waits in a queue of the connection until its batch is
durable; one that takes the way through Falcon is started when that queue is empty, and no request is hot behind it.
"""

cimport cython

import logging
from asyncio import get_running_loop
from collections import deque
from functools import partial

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport ECONNRESET, EPIPE, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from fastq._clock cimport Clock
from fastq._core cimport (
    CLOSE_RECORD_BYTES, HOT_ID_CHARS, SMALL_RECORD_BYTES, SUBMIT_RECORD_BYTES, Core, PlainJob, Tail, ack_plain,
    appended_seq, has_room, lease_plain, leased_bytes, put_leased, submit_plain, submit_plain_many,
)

from uvicorn.protocols.http.httptools_impl import STATUS_LINE as _STATUS_LINE, HttpToolsProtocol

from fastq.engine import commands as _commands
from fastq.engine import life as _life
from fastq.errors import ApiError, ConnectionRefused, CoreFailed, NoJobsAvailable, Refused
from fastq.http.resources import bodies as _bodies
from fastq.http.connection import protocol as _protocol
from fastq.http.resources import work_bodies as _work_bodies
from fastq.http.errors import JSON as _JSON, defect_body, error_body
from fastq.http.connection.protocol import Protocol, is_host
from fastq.http.routes import may
from fastq.http.resources.work_bodies import lease_command

cdef extern from "<string.h>" nogil:
    void* memmem(const void* text, size_t n, const void* part, size_t part_bytes)

cdef enum:
    HOT_BODY_BYTES_MAX = 64 << 10   # larger ones take the other way, which bounds what all of them take
    IDLE_S = 75

_log = logging.getLogger("fastq.http")
cdef int HEAD_BYTES_MAX = _protocol.HEAD_BYTES_MAX, HEADERS_MAX = _protocol.HEADERS_MAX
cdef int URL_BYTES_MAX = _protocol.URL_BYTES_MAX, PIPELINED_MAX = _protocol.PIPELINED_MAX
cdef int64_t PRIORITY_MIN = _commands.PRIORITY_MIN, PRIORITY_MAX = _commands.PRIORITY_MAX
cdef int BATCH_JOBS_MAX = _commands.BATCH_JOBS_MAX
cdef int64_t MAX_RETRIES_MAX = _commands.MAX_RETRIES_MAX, DELAY_MS_MAX = _bodies.DELAY_MS_MAX
cdef int64_t TOKEN_CHARS_MAX = _work_bodies.TOKEN_CHARACTERS_MAX
cdef uint64_t LEASED_BYTES_MAX = _commands.LEASED_BYTES_MAX
cdef uint64_t ROOM_BYTES_SMALL = _life.ROOM_BYTES_SMALL
cdef bytes CONTENT_TYPE = b"content-type: " + _JSON.encode() + b"\r\n"

include "../escapes.pxi"
include "json.pxi"
include "heads.pxi"
include "answers.pxi"
include "short_way.pxi"


@cython.internal
@cython.final
cdef class Slot:
    """One hot request, from its head to its answer."""
    cdef object route       # the HotRoute that answers it
    cdef str job_id         # in the path, or None
    cdef object known       # the key that was shown
    cdef str request_id     # the caller's, or None
    cdef bytes body
    cdef object undo        # what takes it back if nobody is there for the answer, or None
    cdef bytes answer       # None until there is one
    cdef uint64_t seq       # the batch that the answer waits for


# --- heads ------------------------------------------------------------------------------------------------------------

cdef inline bint is_name(bytes name, const char* lower, Py_ssize_t n) noexcept:
    """Whether a header's name is this one, which is written in lower case here."""
    cdef const char* p = PyBytes_AS_STRING(name)
    cdef Py_ssize_t i
    if PyBytes_GET_SIZE(name) != n:
        return False
    for i in range(n):
        if p[i] != lower[i] and not (c'A' <= p[i] <= c'Z' and p[i] + 32 == lower[i]):
            return False
    return True


cdef bint is_harmless(bytes name, bytes value) except *:
    """Whether a header changes nothing about how a request is answered."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(name)
    if n == 10:
        if is_name(name, b"connection", 10):
            return value == b"keep-alive" or value == b"Keep-Alive"
        return is_name(name, b"user-agent", 10)
    if n == 12:
        return is_name(name, b"content-type", 12)
    return n == 6 and is_name(name, b"accept", 6) or n == 15 and is_name(name, b"accept-encoding", 15)


cdef bint may_have_chunks(bytes data) except *:
    """Whether some line begins with a T: it may be Transfer-Encoding, whose chunks the parser gets in small pieces."""
    return b"\r\nT" in data or b"\r\nt" in data


class Lane(Protocol):
    """To be given to uvicorn as `http=`. The application's `hot` says what is answered here, and how."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._hot = self.config.app.hot
        self._short = self._hot.short_way
        self._answers = Answers.__new__(Answers)
        self._slots = deque()       # hot requests that are not answered, oldest first
        self._slot = None           # the one whose body is coming in
        self._held = None           # a request for Falcon that waits for the hot ones before it
        self._leaving = False       # the server stops: close when all is answered
        self._good_host = b""
        self._length = 0            # of the newest request's body
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

    # --- what comes in ------------------------------------------------------------------------------------------------

    def data_received(self, bytes data not None):
        cdef Answers answers = self._answers
        cdef ShortWay short = self._short
        cdef const char* start = PyBytes_AS_STRING(data)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data), at = 0, size = 1
        if not answers.calm and not self._calms():
            self._receive(data)
            return
        if not short.in_turn:
            short.begin_turn(self.server_state)
        while at < n and size and answers.calm:
            size = short.take(answers, start + at, n - at)
            at += size
        if not answers.heard and answers.taken:
            answers.heard = True
            self._requests += 1
            self._stop_deadline()
        if answers.mark_count and answers.marks[0].seq <= short.tail.durable_seq:
            short.send_visible(answers, short.tail.durable_seq)
        if at < n:
            answers.calm = False
            self._receive(data[at:] if at else data)
            answers.unknown_head = None

    def _calms(self):
        """Whether nothing is under way but answers that wait to be sent."""
        cdef Answers answers = self._answers
        if self._deaf or self._unparsed or self._leaving or self._in_body or self._in_head or self._head_bytes:
            return False
        if self._slots or self._held is not None or self._active is not None or self.pipeline or self._bodies:
            return False
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        answers.calm = True
        return True

    def _receive(self, bytes data):
        if self._deaf or self._unparsed or self.timeout_keep_alive_task is not None:
            Protocol.data_received(self, data)
        else:
            self._parse(data)

    def _parse(self, bytes data):
        """Give the parser all at once where no limit can be passed within, else in the pieces that limits need."""
        cdef Py_ssize_t n = PyBytes_GET_SIZE(data)
        if self._in_body or self._in_head or self._head_bytes or n > HEAD_BYTES_MAX or self._is_full():
            Protocol._parse(self, data)
        elif may_have_chunks(data) or not self._fits(data.count(b"\r\n\r\n")):
            Protocol._parse(self, data)
        else:
            self._parse_whole(data, n)
        if self._slot is not None:
            self._cool()

    def _parse_whole(self, bytes data, Py_ssize_t n):
        cdef Py_ssize_t rest
        cdef int64_t before = self._requests
        self._last_three = data[max(0, n - 3):]
        try:
            self._give(data)
        except ConnectionRefused as refusal:
            self._refuse(refusal)
            return
        if not self._in_body:  # what is left is of a head that is not there in full
            rest = data.rfind(b"\r\n\r\n")
            if rest < 0 or self._requests == before:
                self._head_bytes = n
            elif self._length == 0:  # blank lines may follow
                self._head_bytes = max(n - rest, n - <Py_ssize_t>len(data.rstrip(b"\r\n"))) - 4
            else:
                self._head_bytes = max(0, n - rest - 4 - <Py_ssize_t>self._length)
        if self._head_bytes or self._in_body or self._deadline is not None:
            self._set_deadline()
        if self._bodies or self.pipeline:
            self._hold()

    def _cool(self):
        """A body that did not come at once takes the other way, where what connections hold is bounded."""
        cdef Slot slot = self._slot
        self._slot = None
        self._take_the_other_way()
        if slot.body:
            Protocol.on_body(self, slot.body)
        self._set_deadline()
        self._hold()

    def on_message_begin(self):
        self.url = b""
        self.headers = []
        self._in_head = True
        self._header_count = 0

    def on_url(self, bytes url):
        self.url = url if not self.url else self.url + url
        if PyBytes_GET_SIZE(self.url) > URL_BYTES_MAX:
            raise ConnectionRefused(414, f"the URL must be at most {URL_BYTES_MAX} bytes")

    def on_header(self, bytes name, bytes value):
        cdef int count = self._header_count + 1
        self._moved = True
        self._header_count = count
        if count > HEADERS_MAX:
            raise ConnectionRefused(431, f"there must be at most {HEADERS_MAX} headers")
        if not self._in_body:
            self.headers.append((name, value))

    def on_headers_complete(self):
        cdef Slot slot = self._hot_slot()
        if slot is None:
            self._take_the_other_way()
            return
        self._slot = slot
        self._in_head = False
        self._in_body = True
        self._chunked = False

    def _take_the_other_way(self):
        """Tell the protocol that we derive from what the parser has said so far."""
        url, headers = self.url, self.headers
        Protocol.on_message_begin(self)
        Protocol.on_url(self, url)
        for name, value in headers:
            HttpToolsProtocol.on_header(self, name, value)
        Protocol.on_headers_complete(self)
        self._header_count = len(headers)
        self._length = self._body_left

    def _hot_slot(self):
        """The request as a hot one; None if anything about it asks for the other way."""
        cdef Slot slot
        cdef Answers answers = self._answers
        cdef bytes name, value, authorization = None, unknown = answers.unknown_head
        cdef int hosts = 0
        cdef Py_ssize_t length = 0
        cdef str request_id = None
        answers.unknown_head = None
        if self._active is not None or self._held is not None or self.pipeline or self._bodies:
            return None
        if self.flow.write_paused:  # it waits until what was answered before is read
            return None
        if self.parser.get_method() != b"POST":
            return None
        route, job_id = self._hot.find(self.url)
        if route is None:
            return None
        for name, value in self.headers:
            if is_name(name, b"host", 4):
                hosts += 1
                if value != self._good_host:
                    if not is_host(value):
                        return None
                    self._good_host = value
            elif is_name(name, b"authorization", 13):
                if authorization is not None:
                    return None
                authorization = value
            elif is_name(name, b"content-length", 14):
                length = int(value)
            elif is_name(name, b"x-request-id", 12):
                request_id = value.decode("latin-1")
                unknown = None
            elif not is_harmless(name, value):
                return None
        if hosts != 1 or authorization is None or length > HOT_BODY_BYTES_MAX:
            return None
        if self.parser.get_http_version() != "1.1" or self.parser.should_upgrade():
            return None
        shown = authorization.decode("latin-1")
        known = self._hot.known(shown, route.scope)
        if known is None:
            return None
        if unknown is not None:
            (<ShortWay>self._short).learn(unknown, len(self.headers), shown, length)
        self._body_left = self._length = length
        slot = Slot.__new__(Slot)
        slot.route = route
        slot.job_id = job_id
        slot.known = known
        slot.request_id = request_id
        slot.body = b""
        return slot

    def on_body(self, bytes body):
        cdef Slot slot = self._slot
        if slot is None:
            Protocol.on_body(self, body)
            return
        self._moved = True
        self._body_left -= PyBytes_GET_SIZE(body)
        slot.body = body if not slot.body else slot.body + body

    def on_message_complete(self):
        cdef Slot slot = self._slot
        if slot is None:
            Protocol.on_message_complete(self)
            return
        self._slot = None
        self._moved = True
        self._in_body = False
        self._head_bytes = 0
        self._requests += 1
        self._slots.append(slot)
        self._begin(slot)

    # --- to the engine ------------------------------------------------------------------------------------------------

    def _begin(self, Slot slot):
        """Do what a hot request asks for."""
        cdef bytes body = slot.body
        slot.body = None
        try:
            self._hot.charge(slot.known)
        except ApiError as error:
            self._refuse_slot(slot, error)
        else:
            self._run(slot, slot.route.handle(slot.known.principal, slot.job_id, body, self._line))

    def _deliver(self, who, command, many, leased):
        """Answer a lease that was granted the short way with what that does not say."""
        cdef Slot slot = Slot.__new__(Slot)
        slot.route = self._hot.lease_route
        (<Answers>self._answers).calm = False
        self._requests += 1
        self._stop_deadline()
        self._slots.append(slot)
        self._run(slot, self._hot.deliver(command, many, leased, self._line))

    def _run(self, Slot slot, coroutine):
        """The answer is there at once, or comes from a task."""
        try:
            reply, rest = self._hot.run(coroutine)
        except ApiError as error:
            self._refuse_slot(slot, error)
        except Exception as error:
            self._answer_defect(slot, error)
        else:
            if rest is None:
                slot.undo = reply[2]
                self._answer_slot(slot, reply[0], reply[1], None)
            else:
                task = self.loop.create_task(self._finish(slot, rest))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    async def _finish(self, Slot slot, rest):
        """The answer comes later, and everything that it shows is durable then."""
        try:
            reply = await rest
        except ApiError as error:
            self._refuse_slot(slot, error)
        except Exception as error:
            self._answer_defect(slot, error)
        else:
            slot.undo = reply[2]
            self._answer_slot(slot, reply[0], reply[1], None)

    def _refuse_slot(self, Slot slot, error):
        self._answer_slot(slot, error.status, error_body(error), error.headers())

    def _answer_defect(self, Slot slot, error):
        slot.request_id = self._hot.request_ids.choose(slot.request_id)
        _log.error("POST %s failed", slot.route.path, exc_info=error, extra={"request_id": slot.request_id})
        self._answer_slot(slot, 500, defect_body(slot.request_id), None)

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answer_slot(self, Slot slot, int status, bytes body, headers):
        """It may be seen when all that it could show is durable, and those before it were."""
        cdef bytes more = b""
        if headers:
            more = b"".join([f"{name.lower()}: {value}\r\n".encode() for name, value in headers.items()])
        slot.answer = b"%b%b%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            _STATUS_LINE[status], self._hot.headers_always(self.server_state.default_headers),
            CONTENT_TYPE if body else b"", more, (<str>self._hot.request_ids.choose(slot.request_id)).encode(),
            len(body), body,
        )
        slot.seq = appended_seq((<ShortWay>self._short).tail)
        if self._slots and self._slots[0] is slot:
            self._hand_over()

    def _hand_over(self):
        """The answers at the head of the queue are on their way out."""
        cdef Slot slot
        cdef Answers answers = self._answers
        cdef ShortWay short = self._short
        slots = self._slots
        while slots and (<Slot>slots[0]).answer is not None:
            slot = slots.popleft()
            memcpy(answers.room(PyBytes_GET_SIZE(slot.answer)), PyBytes_AS_STRING(slot.answer),
                   PyBytes_GET_SIZE(slot.answer))
            short.put(answers, PyBytes_GET_SIZE(slot.answer), slot.seq, slot.undo)
        self._send()
        self._hold_unread()

    def _send(self):
        cdef ShortWay short = self._short
        short.send_visible(self._answers, short.tail.durable_seq)

    def _drained(self):
        """Nothing that was answered is left to be sent."""
        if self._slots:
            return
        if self._held is not None:
            (cycle, app), self._held = self._held, None
            if self._leaving:
                cycle.keep_alive = False
            Protocol._start_asgi_task(self, cycle, app)
        elif self._deaf and self._active is None and not self.pipeline:
            self._send_refusal()
        elif self._leaving:
            self.end()
        elif self._idle is None:
            self._watch_idle()
        if self._unparsed and self._held is None and not self._deaf:
            self._go_on_parsing()

    def _go_on_answering(self):
        self._send()
        if self._held is None:  # else it is older than what is in the pipeline
            Protocol._go_on_answering(self)

    def _unread_bytes(self):
        return Protocol._unread_bytes(self) + (<Answers>self._answers).n

    def _start_asgi_task(self, cycle, app):
        if self._slots or (<Answers>self._answers).waiting:
            self._held = cycle, app
        else:
            Protocol._start_asgi_task(self, cycle, app)

    def _let_go(self):
        held, self._held = self._held, None
        if Protocol._let_go(self):
            return True
        self._held = held
        return False

    def _fits(self, int more):
        """Whether so many more requests may be read ahead."""
        cdef Answers answers = self._answers
        if answers.n > TEXT_BYTES_MAX:
            return False
        return len(self._slots) + answers.waiting + len(self.pipeline) + more <= PIPELINED_MAX

    def _is_full(self):
        return not self._fits(1)

    def _is_answering(self):
        return self._has_answers() or self._held is not None or Protocol._is_answering(self)

    def _has_answers(self):
        return bool(self._slots) or (<Answers>self._answers).waiting > 0

    # --- the end ------------------------------------------------------------------------------------------------------

    def _request_count(self):
        return self._requests + (<Answers>self._answers).taken

    def _look_idle(self):
        """Close the connection if nothing came in since the last look."""
        self._idle = None
        (<Answers>self._answers).idle_watched = False
        if self._request_count() == self._idle_requests and not self._is_answering() and not self._in_head:
            if not self.transport.is_closing():
                self.transport.close()
        else:
            self._watch_idle()

    def _watch_idle(self):
        self._idle_requests = self._request_count()
        self._idle = self.loop.call_later(IDLE_S, self._look_idle)
        (<Answers>self._answers).idle_watched = True

    def shutdown(self):
        (<Answers>self._answers).calm = False
        if self._has_answers() or self._held is not None:
            self._leaving = True
        else:
            Protocol.shutdown(self)

    def connection_lost(self, exc):
        cdef Slot slot
        (<Answers>self._answers).drop()
        for slot in self._slots:
            if slot.undo is not None:
                slot.undo()
        self._slots.clear()
        self._held = self._slot = None
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        Protocol.connection_lost(self, exc)
