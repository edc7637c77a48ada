"""The HTTP protocol of one connection: uvicorn's, with limits on what a client sends.

The parser is llhttp. It calls back only with a whole value, so the protocol bounds what the parser collects: it feeds
the parser in pieces. A piece ends at the end of a head, as far as a blank line shows it. In a chunked body a piece is
so small that one without data and without the end of a chunk is a chunk extension that is too long.

A request that exceeds a limit is answered after all requests before it. Then the connection is closed.

The application's two memory limits (`fastq.http.connection.memory`) bound all connections together: one counts requests
that are incomplete or wait for their turn, the other one answers that the client does not read.
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
from fastq.http.connection.flow import AnswerTransport, ConnectionState, Flow, Unread
from fastq.http.connection.framing import framing_of
from fastq.http.reply import JSON
from fastq.http.scope import CONNECTION

_HEAD_END = b"\r\n\r\n"


class Protocol(HttpToolsProtocol):
    """The protocol class for uvicorn's setting `http`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.flow: Flow
        self.access_log = False  # uvicorn's log has whole paths, and a path may have a key
        self._requests = 0  # complete ones
        self._head_bytes = 0  # received of the current head
        self._in_head = False
        self._last_three = b""  # the last bytes that were parsed: the blank line after a head may be split
        self._header_count = 0
        self._in_body = False
        self._chunked = False
        self._body_left = 0  # bytes, if the body is not chunked
        self._progressed = False  # the last piece had data or the end of a part
        self._discarded_bytes = 0
        self._unparsed = b""
        self._bodies: deque[int] = deque()  # bytes received of the body of each unanswered request
        self._active: RequestResponseCycle | None = None
        self._refusal: bytes | None = None
        self._deaf = False  # received data is no longer parsed
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_for = ("", 0)

    # --- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        transport.set_write_buffer_limits(high=limits.UNREAD_BYTES_FREE)
        self._answers_to = AnswerTransport(transport, self.end)
        app = self.config.app
        self._requests_held = app.requests  # type: ignore[union-attr]
        self._unread = Unread(self.loop, transport, app.answers, self._unread_bytes)  # type: ignore[union-attr]
        self._state = ConnectionState(transport.abort)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = True
        self._state.close()
        self._stop_deadline()
        self._unread.stop()
        self._forget()
        if self._active is not None:
            self._active.disconnected = True
            self._active.message_event.set()
        super().connection_lost(exc)
        self._let_go()

    def _let_go(self) -> None:
        """Drop what leads back to this closed connection: the garbage collector may come late."""
        self._unset_keepalive_if_required()  # uvicorn lets the timer run after a reset
        self._answers_to.close = self.transport.close
        self._unread.let_go()
        self.cycle = None  # type: ignore[assignment]

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
        self._unread.watch()
        self.loop.call_soon(self._unread.count)  # later, so that what the kernel takes now is not counted

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._unread.stop()
        self._go_on_answering()

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self.close()

    def close(self) -> None:
        """Close the connection. What is written gets its time to be read."""
        self.transport.close()
        self._unread.watch()

    def _go_on_answering(self) -> None:
        if self._active is None and self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def end(self) -> None:
        """Close the connection after everything is written.

        While a request arrives, only the writing side is closed at first. A connection that is closed with unread input
        is reset, and the reset can overtake the answer.
        """
        self._deaf = True
        self._refusal = None  # the last answer asked for the end: nothing follows it
        self._stop_deadline()
        self._unset_keepalive_if_required()
        self._forget()
        if not self.transport.can_write_eof() or not (self._in_body or self._in_head):
            self.close()
            return
        self.transport.write_eof()
        self.flow.held = False
        self.flow.resume_reading()
        self._deadline = self.loop.call_later(limits.LINGER_S, self.close)

    # --- memory -------------------------------------------------------------------------------------------------------

    def _hold(self) -> None:
        held_bytes = sum(self._bodies) + len(self._unparsed) + len(self.pipeline) * limits.PIPELINED_BYTES
        self._requests_held.hold(self._release, held_bytes)

    def _release(self) -> bool:
        """Free the memory of requests that the application does not work on. False if there are none."""
        unfinished = self._in_body and not self.cycle.response_complete
        if self._deaf or not (unfinished or self.pipeline or self._unparsed):
            return False
        self.pipeline.clear()
        self._unparsed = b""
        self._refuse(Overloaded("other requests take all the memory for incomplete ones: try again"))
        return True

    def _forget(self) -> None:
        """Drop received data and requests that have not started."""
        if self._unparsed:
            self._in_head = True
        self._unparsed = b""
        self.pipeline.clear()
        self._bodies.clear()
        self._requests_held.hold(self._release, 0)

    def _unread_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    # --- feeding the parser -------------------------------------------------------------------------------------------

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
        """Return the size of the parser's next piece of data[at:end]. Raises BadHttp if the head exceeds its limit."""
        if self._in_body:
            return min(end - at, limits.CHUNK_PIECE_BYTES if self._chunked else max(1, self._body_left))
        head_bytes_left = limits.HEAD_BYTES_MAX - self._head_bytes
        if head_bytes_left == 0:
            raise errors.HeadTooLarge(f"the request's head must be at most {limits.HEAD_BYTES_MAX} bytes")
        before = self._last_three
        split = (before + data[at : at + 3]).find(_HEAD_END)
        if split >= 0:
            head_end = at + split + len(_HEAD_END) - len(before)
        else:
            found = data.find(_HEAD_END, at, end)
            head_end = end if found < 0 else found + len(_HEAD_END)
        return min(head_end - at, head_bytes_left)

    def _feed(self, piece: bytes) -> None:
        """Feed a piece to the parser and check its size. Raises BadHttp."""
        was_in_body = self._in_body
        if not was_in_body:
            self._head_bytes += len(piece)
        self._last_three = (self._last_three + piece[-3:])[-3:]
        self._progressed = False
        self._give(piece)
        if was_in_body and self._chunked and not self._progressed and len(piece) == limits.CHUNK_PIECE_BYTES:
            limit = limits.CHUNK_EXTENSION_BYTES_MAX
            raise errors.BadHttp(f"a chunk extension or trailer must be at most {limit} bytes")

    def _give(self, piece: bytes) -> None:
        """Feed a piece to the parser. Raises BadHttp."""
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            if rest := piece[upgrade.args[0] :]:
                self._feed(rest)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, errors.BadHttp):
                raise error.__context__ from None
            raise errors.BadHttp("the request is not valid HTTP") from None

    def _ignore_upgrade(self) -> None:
        """Ignore the header Upgrade. The parser stops at such a head, so a new parser gets it without the header.

        Raises:
            BadHttp.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise errors.BadHttp("the request is not valid HTTP")
        lines = [method + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
        self._feed(b"\r\n".join(lines) + _HEAD_END)

    # --- callbacks of the parser --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self._state  # type: ignore[literal-required]
        self._in_head = True
        self._header_count = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > limits.URL_BYTES_MAX:
            raise errors.UrlTooLong(f"the URL must be at most {limits.URL_BYTES_MAX} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._progressed = True
        self._header_count += 1
        if self._header_count > limits.HEADERS_MAX:
            raise errors.HeadTooLarge(f"there must be at most {limits.HEADERS_MAX} headers")
        if not self._in_body:  # trailers are ignored
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise errors.VersionNotSupported
        framing = framing_of(self.headers, version)
        if self.parser.should_upgrade():
            return  # `_ignore_upgrade` handles it
        super().on_headers_complete()
        self.cycle.transport = self._answers_to  # type: ignore[assignment]
        self._bodies.append(0)
        self._in_head = False
        self._in_body = True
        self._chunked, self._body_left = framing.chunked, framing.body_bytes
        self._discarded_bytes = 0

    def on_chunk_header(self) -> None:
        self._progressed = True

    def on_chunk_complete(self) -> None:
        self._progressed = True

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        self._body_left -= len(body)
        if self.cycle.response_complete:
            self._discard(len(body))
        else:
            self._bodies[-1] += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._progressed = True
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
        """Whether the next request waits until the client reads the answers before it."""
        return self.flow.write_paused

    def on_response_complete(self) -> None:
        self._active = None
        if self._bodies:
            self._bodies.popleft()
        self._requests_held.hold(self._release, 0)  # so that this connection counts as the newest
        if self._deaf and not self.pipeline:
            self.server_state.total_requests += 1
            self._send_refusal()
            return
        super().on_response_complete()
        if self._in_body or self._in_head:
            self._unset_keepalive_if_required()  # the arriving request has its own deadline
        if self._unparsed:
            self._go_on_parsing()
        elif self._bodies:
            self._hold()

    def _go_on_parsing(self) -> None:
        self._parse(self._unpark())

    def _park(self, data: bytes) -> None:
        """Keep `data` unparsed and stop reading until the pipeline takes more requests."""
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
        """Whether the pipeline has its maximum of requests."""
        return len(self.pipeline) >= limits.PIPELINED_MAX

    def _is_answering(self) -> bool:
        return self._active is not None or bool(self.pipeline)

    def _refuse(self, refusal: ApiError) -> None:
        """Answer with `refusal` after all answers before it, and close the connection. No more data is parsed."""
        self._deaf = True
        self._stop_deadline()
        self._unset_keepalive_if_required()
        self._refusal = self._answer(refusal)
        if self._in_body:  # the application already works on the refused request, the newest one
            cycle = self.cycle
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
            elif cycle.response_started:
                self.close()
                return
            elif cycle is self._active:
                self._active = None
                cycle.disconnected = True
                cycle.waiting_for_100_continue = False  # nobody is asked for the body any more
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
            self._in_head = True  # more of the refused request may arrive
            self.end()

    def _discard(self, size: int) -> None:
        self._discarded_bytes += size
        if self._discarded_bytes > limits.DISCARDED_BYTES_MAX:
            self._deaf = True
            self.transport.abort()

    # --- deadlines ----------------------------------------------------------------------------------------------------

    def _set_deadline(self) -> None:
        """Set the deadline of the arriving head or body, unless its timer already runs."""
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
        if self.flow.read_paused:  # the server does not read, so the client gets its time again
            self._deadline = self.loop.call_later(seconds, self._too_slow, what, seconds)
        elif what == "silence":
            self.close()
        else:
            self._refuse(errors.TooSlow(f"the request's {what} must arrive within {seconds:.0f} s"))
