"""The HTTP protocol of one connection: uvicorn's, with limits on what comes in.

The parser is llhttp's. It calls back only when it has a whole value, so what it may gather is bounded here, before it
is fed: a piece given to it never goes past the end of a head (as far as a blank line tells), and a chunked body is
given to it in pieces so small that one which brings no data and ends no chunk is an extension that is too long.

What breaks a limit is answered once, after all requests that came before it on the connection, and the connection
is closed.

What all connections hold together is bounded too, by the application's two rooms (`fastq.http.connection.memory`):
requests that did not come to their end or wait for their turn, and answers that nobody reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from fastq.errors import ApiError, Overloaded
from fastq.http import errors
from fastq.http.connection import limits
from fastq.http.connection.flow import AnswersTo, Flow, Line
from fastq.http.reply import JSON
from fastq.http.scope import CONNECTION

_HEAD_END = b"\r\n\r\n"


class Protocol(HttpToolsProtocol):
    """To be given to uvicorn as `http=`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.flow: Flow
        self.access_log = False  # uvicorn's shows whole paths, and a path may hold a key
        self._requests = 0  # messages that came to an end
        self._head_bytes = 0  # of the head that is coming in, so far
        self._in_head = False  # the parser has seen the beginning of one
        self._last_three = b""  # of the bytes that were parsed: the blank line after a head may be split
        self._header_count = 0
        self._in_body = False
        self._chunked = False
        self._body_left = 0  # of a body that is not chunked
        self._moved = False  # whether the last piece brought data or ended something
        self._discarded_bytes = 0
        self._unparsed = b""
        self._bodies: deque[int] = deque()  # what came of the body of each request that is not answered, in bytes
        self._active: RequestResponseCycle | None = None
        self._refusal: bytes | None = None
        self._deaf = False  # nothing that comes is parsed any more
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_for = ("", 0)
        self._unread: asyncio.TimerHandle | None = None

    # --- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._answers_to = AnswersTo(transport, self.end)
        app = self.config.app
        self._requests_held, self._answers_held = app.requests, app.answers  # type: ignore[union-attr]
        self._line = Line()
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = True
        self._line.close()
        self._stop_deadline()
        self._stop_unread()
        self._forget()
        if self._active is not None:
            self._active.disconnected = True
            self._active.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._discard(len(data))
            return
        self._unset_keepalive_if_required()
        if self._unparsed:
            self._unparsed += data
            self._hold()
            return
        self._parse(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(limits.UNREAD_S_MAX, self.transport.abort)
        self.loop.call_soon(self._hold_unread)  # what the system takes at once does not count

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread()
        self._go_on_answering()

    def _go_on_answering(self) -> None:
        if self._active is None and self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def end(self) -> None:
        """Close the connection when all is written.

        While a request is coming in, only our side is closed at first: a connection that is closed with input unread
        is reset, and the reset can overtake the answer.
        """
        self._deaf = True
        self._stop_deadline()
        self._unset_keepalive_if_required()
        self._forget()
        if not self.transport.can_write_eof() or not (self._in_body or self._in_head):
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.held = False
        self.flow.resume_reading()
        self._deadline = self.loop.call_later(limits.LINGER_S, self.transport.close)

    # --- what it holds ------------------------------------------------------------------------------------------------

    def _hold(self) -> None:
        held_bytes = sum(self._bodies) + len(self._unparsed) + len(self.pipeline) * limits.PIPELINED_BYTES
        self._requests_held.hold(self._let_go, held_bytes)

    def _let_go(self) -> bool:
        """Give up what is not yet a request under way. False if there is nothing of that kind."""
        unfinished = self._in_body and not self.cycle.response_complete
        if self._deaf or not (unfinished or self.pipeline or self._unparsed):
            return False
        self.pipeline.clear()
        self._unparsed = b""
        self._refuse(Overloaded("other requests take all the memory for incomplete ones: try again"))
        return True

    def _forget(self) -> None:
        """Nothing that came in and was not begun matters any more."""
        if self._unparsed:
            self._in_head = True
        self._unparsed = b""
        self.pipeline.clear()
        self._bodies.clear()
        self._requests_held.hold(self._let_go, 0)

    def _hold_unread(self) -> None:
        if self._unread is not None:
            self._answers_held.hold(self._abort, self._unread_bytes())

    def _unread_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def _abort(self) -> bool:
        self.transport.abort()
        return True

    def _stop_unread(self) -> None:
        self._answers_held.hold(self._abort, 0)
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    # --- pieces for the parser ----------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end and not self._deaf:
            if self._is_full():
                self._park(data[at:])
                break
            try:
                size = self._piece_bytes(data, at, end)
                self._feed(data if size == end else data[at : at + size])
            except errors.BadHttp as refusal:
                self._refuse(refusal)
                return
            at += size
        self._set_deadline()
        self._hold()

    def _piece_bytes(self, data: bytes, at: int, end: int) -> int:
        """How much of data[at:end] the parser gets next. Raises BadHttp if the head is at its limit."""
        if self._in_body:
            return min(end - at, limits.CHUNK_PIECE_BYTES if self._chunked else max(1, self._body_left))
        room = limits.HEAD_BYTES_MAX - self._head_bytes
        if room == 0:
            raise errors.HeadTooLarge(f"the request's head must be at most {limits.HEAD_BYTES_MAX} bytes")
        before = self._last_three
        split = (before + data[at : at + 3]).find(_HEAD_END)
        if split >= 0:
            head_end = at + split + len(_HEAD_END) - len(before)
        else:
            found = data.find(_HEAD_END, at, end)
            head_end = end if found < 0 else found + len(_HEAD_END)
        return min(head_end - at, room)

    def _feed(self, piece: bytes) -> None:
        """Give a piece to the parser. Raises BadHttp for what is wrong with it."""
        was_in_body = self._in_body
        if not was_in_body:
            self._head_bytes += len(piece)
        self._last_three = (self._last_three + piece[-3:])[-3:]
        self._moved = False
        self._give(piece)
        if was_in_body and self._chunked and not self._moved and len(piece) == limits.CHUNK_PIECE_BYTES:
            limit = limits.CHUNK_EXTENSION_BYTES_MAX
            raise errors.BadHttp(f"a chunk extension or trailer must be at most {limit} bytes")

    def _give(self, piece: bytes) -> None:
        """Have the parser take a piece. Raises BadHttp."""
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as offer:
            self._ignore_offer()
            if rest := piece[offer.args[0] :]:
                self._feed(rest)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, errors.BadHttp):
                raise error.__context__ from None
            raise errors.BadHttp("the request is not valid HTTP") from None

    def _ignore_offer(self) -> None:
        """No other protocol is spoken here. The parser stops at a head that offers one: a new one gets it without.

        Raises BadHttp.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise errors.BadHttp("the request is not valid HTTP")
        lines = [method + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the one before had it
        self._feed(b"\r\n".join(lines) + _HEAD_END)

    # --- what the parser says -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self._line  # type: ignore[literal-required]
        self._in_head = True
        self._header_count = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > limits.URL_BYTES_MAX:
            raise errors.UrlTooLong(f"the URL must be at most {limits.URL_BYTES_MAX} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._moved = True
        self._header_count += 1
        if self._header_count > limits.HEADERS_MAX:
            raise errors.HeadTooLarge(f"there must be at most {limits.HEADERS_MAX} headers")
        if not self._in_body:  # trailers are read and forgotten
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise errors.VersionNotSupported
        hosts, lengths, codings = [], [], []
        for name, value in self.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                lengths.append(value)
            elif name == b"transfer-encoding":
                codings.append(value.lower())
        if len(hosts) > 1 or (not hosts and version == "1.1") or (hosts and not limits.is_host(hosts[0])):
            raise errors.BadHttp("there must be exactly one valid Host header")
        if codings and (codings != [b"chunked"] or lengths or version == "1.0"):
            raise errors.BadHttp("Transfer-Encoding must be chunked, alone, and without Content-Length")
        if self.parser.should_upgrade():
            return  # `_ignore_offer` comes next
        super().on_headers_complete()
        self.cycle.transport = self._answers_to  # type: ignore[assignment]
        self._bodies.append(0)
        self._in_head = False
        self._in_body = True
        self._chunked = bool(codings)
        self._body_left = int(lengths[0]) if lengths else 0
        self._discarded_bytes = 0

    def on_chunk_header(self) -> None:
        self._moved = True

    def on_chunk_complete(self) -> None:
        self._moved = True

    def on_body(self, body: bytes) -> None:
        self._moved = True
        self._body_left -= len(body)
        if self.cycle.response_complete:
            self._discard(len(body))
        else:
            self._bodies[-1] += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._moved = True
        self._in_body = False
        self._head_bytes = 0
        self._requests += 1
        super().on_message_complete()

    # --- requests and answers -----------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._must_wait():
            self.pipeline.append((cycle, app))
            return
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def _must_wait(self) -> bool:
        """Whether the next request waits until what was answered before is read."""
        return self.flow.write_paused

    def on_response_complete(self) -> None:
        self._active = None
        if self._bodies:
            self._bodies.popleft()
        self._requests_held.hold(self._let_go, 0)  # from here on it is the newest again
        if self._deaf and not self.pipeline:
            self.server_state.total_requests += 1
            self._send_refusal()
            return
        super().on_response_complete()
        if self._in_body or self._in_head:
            self._unset_keepalive_if_required()  # a request is coming in: it has a deadline of its own
        if self._unparsed:
            self._go_on_parsing()
        elif self._bodies:
            self._hold()

    def _go_on_parsing(self) -> None:
        self._parse(self._unpark())

    def _park(self, data: bytes) -> None:
        """Keep what is read until there is room for more requests; read nothing meanwhile."""
        self._unparsed = data
        self.flow.pause_reading()
        self.flow.held = True
        self._hold()

    def _unpark(self) -> bytes:
        data, self._unparsed = self._unparsed, b""
        self.flow.held = False
        self.flow.resume_reading()
        self._hold()
        return data

    def _is_full(self) -> bool:
        """Whether as many requests wait for their turn as may be read ahead."""
        return len(self.pipeline) >= limits.PIPELINED_MAX

    def _is_answering(self) -> bool:
        return self._active is not None or bool(self.pipeline)

    def _refuse(self, refusal: ApiError) -> None:
        """Answer with `refusal`, in its turn, and close the connection. Nothing that comes is parsed any more."""
        self._deaf = True
        self._stop_deadline()
        self._unset_keepalive_if_required()
        self._refusal = self._answer(refusal)
        if self._in_body:  # the refused request is the newest one, and the application has it already
            cycle = self.cycle
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
            elif cycle.response_started:
                self.transport.close()
                return
            elif cycle is self._active:
                self._active = None
                cycle.disconnected = True
                cycle.message_event.set()
        if not self._is_answering():
            self._send_refusal()

    def _answer(self, refusal: ApiError) -> bytes:
        body = errors.error_body(refusal)
        request_id = self.config.app.request_ids.choose(None)  # type: ignore[union-attr]
        headers = [
            *self.server_state.default_headers,
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
            *((name.lower().encode(), value.encode()) for name, value in errors.headers_of(refusal).items()),
        ]
        lines = [
            STATUS_LINE[errors.status_of(refusal)],
            *(name + b": " + value + b"\r\n" for name, value in headers),
            b"\r\n",
        ]
        return b"".join(lines) + body

    def _send_refusal(self) -> None:
        if self._refusal is not None and not self.transport.is_closing():
            self.transport.write(self._refusal)
            self._refusal = None
            self._in_head = True  # for all we know: what was refused has no end
            self.end()

    def _discard(self, size: int) -> None:
        self._discarded_bytes += size
        if self._discarded_bytes > limits.DISCARDED_BYTES_MAX:
            self._deaf = True
            self.transport.abort()

    # --- time ---------------------------------------------------------------------------------------------------------

    def _set_deadline(self) -> None:
        """Keep a timer for what is coming in now; one that runs for the same thing goes on."""
        if self._deaf:
            return
        if self._in_body:
            what = "body"
        elif self._in_head or self._head_bytes:
            what = "head"
        else:
            what = "" if self._requests else "silence"
        if self._deadline_for == (what, self._requests):
            return
        self._stop_deadline()
        self._deadline_for = (what, self._requests)
        if what:
            seconds = limits.BODY_S_MAX if what == "body" else limits.HEAD_S_MAX
            self._deadline = self.loop.call_later(seconds, self._too_slow, what, seconds)

    def _stop_deadline(self) -> None:
        self._deadline_for = ("", 0)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self, what: str, seconds: float) -> None:
        if self.flow.read_paused:  # it is us who do not read: the client gets its time again
            self._deadline = self.loop.call_later(seconds, self._too_slow, what, seconds)
        elif what == "silence":
            self.transport.close()
        else:
            self._refuse(errors.TooSlow(f"the request's {what} must come within {seconds:.0f} s"))
