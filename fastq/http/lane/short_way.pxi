# Submit, lease and ack in their plain forms, from the bytes of a request to the core and to the bytes of its answer.
# Nothing here decides anything that the way through the engine decides otherwise: at the least doubt it is taken.

cdef enum:
    ASKS_MAX = 1024             # bodies of lease requests that are remembered; past it all are forgotten
    ASK_BYTES_MAX = 512
    TRUST_US = 1_000_000        # how long a key is taken for what it was; a change of it ends that at once
    HEAD_MORE_BYTES = 64        # of an answer's head, behind its beginning
    IDS_RESERVED = 4096         # request ids at a time

cdef bytes CREATED_BODY = b'{"job_id":"'


@cython.internal
@cython.final
cdef class Ask:
    """A lease request's body, as it was understood once."""
    cdef object command, queues
    cdef bint many
    cdef bytes worker


@cython.final
cdef class ShortWay:
    """One for the server. All its methods belong to the event loop's thread."""
    cdef Core core
    cdef Tail tail
    cdef object engine, commits, admission, auth, request_ids, serve_waiters, note_asked, note_seen
    cdef Clock clock
    cdef dict heads             # text -> Head
    cdef dict asks              # body -> Ask
    cdef list due               # Answers that wait for a batch
    cdef uint64_t told_seq      # the last batch at whose end we are called
    cdef object when_durable, next_turn, call_soon
    cdef bint in_turn           # what holds for one turn of the loop was looked up
    cdef bint is_open           # the engine takes what comes
    cdef int max_retries
    cdef bytes no_jobs          # what an empty lease is answered with
    cdef PlainJob* jobs         # of the batch that is being read
    cdef int jobs_capacity
    # the beginnings of answers, up to the request id's count
    cdef object headers_of
    cdef bytes created, leased, acked, absent
    cdef size_t head_bytes_max
    cdef uint64_t unsynced_bytes_max, sent_count
    cdef uint64_t next_id, ids_end

    def __init__(self, engine, core, auth, request_ids):
        self.engine, self.auth, self.request_ids = engine, auth, request_ids
        self.core, self.tail, self.commits, self.clock = core, engine.tail, engine.commits, engine.clock
        self.admission = engine.admission
        self.serve_waiters, self.note_asked = engine.serve_waiters, engine.note_asked
        self.note_seen = engine.last_seen.note
        self.max_retries = engine.options.max_retries
        self.unsynced_bytes_max = self.commits.unsynced_bytes_max
        self.heads, self.asks, self.due = {}, {}, []
        self.when_durable, self.next_turn = self.send_due, self.end_turn
        self.no_jobs = error_body(Refused("no jobs available", NoJobsAvailable()))

    def __dealloc__(self):
        free(self.jobs)

    # --- once a turn of the loop --------------------------------------------------------------------------------------

    cdef int begin_turn(self, state) except -1:
        self.in_turn = True
        if self.call_soon is None:
            self.call_soon = get_running_loop().call_soon
        self.call_soon(self.next_turn)
        state.total_requests += self.sent_count  # uvicorn's count
        self.sent_count = 0
        self.is_open = self.admission.takes_everything
        if state.default_headers is not self.headers_of:
            self.headers_of = state.default_headers
            self.begin_answers()
        return 0

    def end_turn(self):
        self.in_turn = False

    cdef int begin_answers(self) except -1:
        cdef bytes always = b"".join([name + b": " + value + b"\r\n" for name, value in self.headers_of])
        cdef bytes request_id = b"x-request-id: %b-" % (<str>self.request_ids.instance).encode()
        self.created = _STATUS_LINE[201] + always + CONTENT_TYPE + request_id
        self.leased = _STATUS_LINE[200] + always + CONTENT_TYPE + request_id
        self.absent = _STATUS_LINE[404] + always + CONTENT_TYPE + request_id
        self.acked = _STATUS_LINE[200] + always + request_id
        self.head_bytes_max = len(self.absent) + HEAD_MORE_BYTES
        return 0

    # --- requests -----------------------------------------------------------------------------------------------------

    cdef Py_ssize_t take(self, Answers answers, const char* p, Py_ssize_t n) except -1:
        """Answer the request that begins at p; how long it is. 0: it is not for here, and nothing was done."""
        cdef Py_ssize_t line_bytes = 0, head_bytes, body_bytes
        cdef int kind = kind_of(p, n, &line_bytes)
        cdef Head head
        cdef Text body
        cdef int64_t now_us
        cdef bint done
        if kind == NOT_HOT:
            return 0
        head = self.head_at(answers, p + line_bytes, n - line_bytes)
        if head is None:
            return 0
        head_bytes, body_bytes = PyBytes_GET_SIZE(head.text), head.body_bytes
        if n - line_bytes - head_bytes < body_bytes or not self.is_open or self.admission.draining:
            return 0
        body = <Text>p + line_bytes + head_bytes
        now_us = self.clock.now_us()
        if not self.admits(head, kind, now_us) or not is_utf8(body, body_bytes):
            return 0
        if kind == SUBMIT:
            done = self.submit(answers, head, body, body_bytes, now_us)
        elif kind == BATCH:
            done = self.submit_many(answers, head, body, body_bytes, now_us)
        elif kind == LEASE:
            done = self.lease(answers, head, body, body_bytes, now_us)
        else:
            done = self.ack(answers, head, p + ID_AT, body, body_bytes, now_us)
        if not done:
            return 0
        if head.bucket is not None:
            head.bucket.take(now_us)
        return line_bytes + head_bytes + body_bytes

    cdef Head head_at(self, Answers answers, const char* p, Py_ssize_t n):
        """The head at p if it was seen before, else None; then the parser is to say what it is."""
        cdef Head head = answers.head
        cdef Py_ssize_t size
        cdef const char* end
        cdef bytes text
        if head is not None:
            size = PyBytes_GET_SIZE(head.text)
            if n >= size and memcmp(p, PyBytes_AS_STRING(head.text), size) == 0:
                return head
        end = <const char*>memmem(p, min(n, <Py_ssize_t>HEAD_REMEMBERED_BYTES_MAX), b"\r\n\r\n", 4)
        if end == NULL:
            return None
        text = PyBytes_FromStringAndSize(p, end + 4 - p)
        head = self.heads.get(text)
        if head is None:
            answers.unknown_head = text
        else:
            answers.head = head
        return head

    cdef int learn(self, bytes text, Py_ssize_t header_count, str authorization, Py_ssize_t body_bytes) except -1:
        """The parser found nothing unusual in this head, and would find nothing in the same bytes again."""
        cdef Head head
        if not is_rememberable(text, header_count) or self.auth.look(authorization) is None:
            return 0
        if len(self.heads) >= HEADS_REMEMBERED_MAX:
            self.heads.clear()
        head = Head.__new__(Head)
        head.text = text
        head.authorization = authorization
        head.body_bytes = body_bytes
        self.heads[text] = head
        return 0

    cdef bint admits(self, Head head, int kind, int64_t now_us) except *:
        """Whether this key may do this now, without anything more to be looked at."""
        if now_us >= head.until_us or head.generation != self.auth.generation:
            head.until_us = 0
            known = self.auth.look(head.authorization)
            if known is None:
                return False
            head.generation = self.auth.generation
            head.until_us = min(<int64_t>self.auth.until_us(known), now_us + TRUST_US)
            self.read_key(head, known)
        if head.bucket is not None and head.bucket.wait_us(now_us):
            return False
        return head.may >> kind & 1

    cdef int read_key(self, Head head, known) except -1:
        cdef int kind
        self.auth.touch(known)
        who = known.principal
        head.principal, head.bucket = who, known.bucket
        head.owner, head.key_id = who.owner_id.encode(), who.key_id.encode()
        head.may = 0
        for kind in range(NOT_HOT):
            if may(who, SCOPES[kind]) and (kind == SUBMIT or kind == BATCH or not self.engine.is_bounded(who)):
                head.may |= 1 << kind
        return 0

    cdef PlainJob new_job(self) noexcept:
        """What holds of a job that does not say otherwise."""
        cdef PlainJob job
        memset(&job, 0, sizeof(PlainJob))
        job.queue = b"default"
        job.queue_bytes = 7
        job.max_retries = <uint16_t>self.max_retries
        return job

    cdef bint submit(self, Answers answers, Head head, Text body, Py_ssize_t n, int64_t now_us) except *:
        cdef PlainJob job = self.new_job()
        cdef Text end = read_plain_job(body, body + n, &job)
        cdef char* start
        cdef char* p
        if end == NULL or past_space(end, body + n) != body + n:
            return False
        if not has_room(self.tail, job.payload_bytes + SUBMIT_RECORD_BYTES + ROOM_BYTES_SMALL, self.unsynced_bytes_max):
            return False
        start = answers.room(self.head_bytes_max + HOT_ID_CHARS)
        p = self.put_head(start, self.created, 11 + HOT_ID_CHARS + 2)
        memcpy(p, PyBytes_AS_STRING(CREATED_BODY), 11)
        try:
            if not submit_plain(self.core, now_us, &job, head.owner, head.key_id, p + 11):
                return False
        except CoreFailed as failure:
            self.commits.fail(failure)
            raise
        p += 11 + HOT_ID_CHARS
        memcpy(p, b'"}', 2)
        return self.answered(answers, p + 2 - start, None)

    cdef bint submit_many(self, Answers answers, Head head, Text body, Py_ssize_t n, int64_t now_us) except *:
        cdef Text end = body + n
        cdef Text at = first_plain_job(body, end)
        cdef Found found = MORE
        cdef int count = 0
        cdef uint64_t record_bytes = ROOM_BYTES_SMALL
        cdef size_t ids_bytes
        cdef char* start
        cdef char* p
        if at == NULL:
            return False
        while found == MORE and count < BATCH_JOBS_MAX:
            if count == self.jobs_capacity:
                self.grow_jobs()
            self.jobs[count] = self.new_job()
            found = next_plain_job(&at, end, &self.jobs[count])
            if found == NOT_PLAIN:
                return False
            record_bytes += SUBMIT_RECORD_BYTES + self.jobs[count].payload_bytes
            count += 1
        if found != LAST:
            return False
        if not has_room(self.tail, record_bytes, self.unsynced_bytes_max):
            return False
        ids_bytes = count * (HOT_ID_CHARS + 3) - 1
        start = answers.room(self.head_bytes_max + 12 + ids_bytes + 3)
        p = self.put_head(start, self.created, 12 + ids_bytes + 2)
        memcpy(p, b'{"job_ids":[', 12)
        try:
            if not submit_plain_many(self.core, now_us, self.jobs, count, head.owner, head.key_id, p + 12):
                return False
        except CoreFailed as failure:
            self.commits.fail(failure)
            raise
        p += 12 + ids_bytes
        memcpy(p, b"]}", 2)
        return self.answered(answers, p + 2 - start, None)

    cdef int grow_jobs(self) except -1:
        cdef PlainJob* jobs = <PlainJob*>realloc(self.jobs, 2 * (self.jobs_capacity + 64) * sizeof(PlainJob))
        if jobs == NULL:
            raise MemoryError
        self.jobs = jobs
        self.jobs_capacity = 2 * (self.jobs_capacity + 64)
        return 0

    cdef bint lease(self, Answers answers, Head head, Text body, Py_ssize_t n, int64_t now_us) except *:
        cdef Ask ask = self.ask_of(body, n)
        cdef list leased
        cdef char* start
        cdef char* p
        if ask is None:
            return False
        if self.core.watching:
            self.serve_waiters()  # whoever waits came first
        command = ask.command
        if not has_room(self.tail, command.limit * SMALL_RECORD_BYTES + ROOM_BYTES_SMALL, self.unsynced_bytes_max):
            return False
        self.note_seen(command.worker_id, now_us)
        self.note_asked(command, now_us)
        try:
            leased = lease_plain(self.core, now_us, ask.queues, command.limit, command.lease_ms or 0, head.key_id,
                                 ask.worker, not command.had_body, LEASED_BYTES_MAX)
        except CoreFailed as failure:
            self.commits.fail(failure)
            raise
        if not leased and command.wait_ms:
            return False
        if not leased and not ask.many:
            n = PyBytes_GET_SIZE(self.no_jobs)
            start = answers.room(self.head_bytes_max + n)
            p = self.put_head(start, self.absent, n)
            memcpy(p, PyBytes_AS_STRING(self.no_jobs), n)
            return self.answered(answers, p + n - start, None)
        if self.put_leases(answers, leased, ask.many, not command.had_body):
            return True
        answers.lane._hand_on(Granted(self.engine, leased))
        return False

    cdef bint put_leases(self, Answers answers, list leased, bint many, bint as_string) except *:
        """Answer with leases. False if some have what is not said here: then nothing was answered."""
        cdef Py_ssize_t n = 16, size
        cdef char* text
        cdef char* p
        cdef char* start
        cdef bint first = True
        for lease in leased:
            n += leased_bytes(lease) + 1
        # The body comes first, behind the longest head that there may be; then the head, which says how long it is.
        start = answers.room(2 * self.head_bytes_max + n)
        text = p = start + self.head_bytes_max
        if many:
            memcpy(p, b'{"jobs":[', 9)
            p += 9
        for lease in leased:
            if not first:
                p[0] = c','
                p += 1
            first = False
            size = put_leased(self.core, lease, as_string, p)
            if size == 0:
                return False
            p += size
        if many:
            memcpy(p, b']}', 2)
            p += 2
        n = p - text
        p = self.put_head(start, self.leased, n)
        memmove(p, text, n)
        return self.answered(answers, p + n - start, partial(self.engine.take_back, leased) if leased else None)

    cdef Ask ask_of(self, Text body, Py_ssize_t n):
        """What a lease's body asks for; None if it is not plain."""
        cdef bytes text
        cdef Ask ask
        if n > ASK_BYTES_MAX:
            return None
        text = PyBytes_FromStringAndSize(<const char*>body, n)
        ask = self.asks.get(text)
        if ask is not None:
            return ask
        try:
            command, many = lease_command(text)
        except ApiError:
            return None
        if command.request_id:
            return None
        ask = Ask.__new__(Ask)
        ask.command, ask.many, ask.worker = command, many, (<str>command.worker_id).encode()
        ask.queues = dict(zip(command.queues, command.weights)) if command.weights else list(command.queues)
        if len(self.asks) >= ASKS_MAX:
            self.asks.clear()
        self.asks[text] = ask
        return ask

    cdef bint ack(self, Answers answers, Head head, const char* job_id, Text body, Py_ssize_t n,
                  int64_t now_us) except *:
        cdef PlainAck ack
        cdef Py_ssize_t result_bytes
        cdef str token = None
        cdef bytes result = None
        cdef char* start
        if not read_plain_ack(body, n, &ack):
            return False
        result_bytes = ack.result.end - ack.result.at
        if not has_room(self.tail, result_bytes + CLOSE_RECORD_BYTES + ROOM_BYTES_SMALL, self.unsynced_bytes_max):
            return False
        if ack.token.at != NULL:
            token = PyUnicode_DecodeUTF8(<const char*>ack.token.at, ack.token.end - ack.token.at, NULL)
        if ack.result.at != NULL:
            result = PyBytes_FromStringAndSize(<const char*>ack.result.at, result_bytes)
        try:
            ack_plain(self.core, now_us, PyUnicode_DecodeUTF8(job_id, HOT_ID_CHARS, NULL), token, result, head.key_id)
        except CoreFailed as failure:
            self.commits.fail(failure)
            raise
        except ApiError:
            return False  # nothing was changed; the other way says why
        start = answers.room(self.head_bytes_max)
        return self.answered(answers, self.put_head(start, self.acked, 0) - start, None)

    # --- answers ------------------------------------------------------------------------------------------------------

    cdef char* put_head(self, char* p, bytes begin, size_t body_bytes) except NULL:
        """Write an answer's head, whose request id is the next one."""
        cdef size_t n = PyBytes_GET_SIZE(begin)
        if self.next_id == self.ids_end:
            self.next_id = self.request_ids.reserve(IDS_RESERVED)
            self.ids_end = self.next_id + IDS_RESERVED
        memcpy(p, PyBytes_AS_STRING(begin), n)
        p = put_number(p + n, self.next_id, 16)
        self.next_id += 1
        memcpy(p, b"\r\ncontent-length: ", 18)
        p = put_number(p + 18, body_bytes, 10)
        memcpy(p, b"\r\n\r\n", 4)
        return p + 4

    cdef bint answered(self, Answers answers, size_t n, undo) except *:
        """An answer of n bytes is written; have it sent when all that it could show is durable."""
        cdef uint64_t seq = appended_seq(self.tail)
        answers.put(n, seq, undo)
        answers.taken += 1
        if seq > self.tail.durable_seq or not self.may_send():
            self.list_until(answers, seq)
        return True

    cdef bint may_send(self) except *:
        """Whether answers whose frame is durable may leave: not when the log has failed, or a node may not speak."""
        return self.commits.may_leave(self.tail.durable_seq)

    cdef int send_now(self, Answers answers) except -1:
        """Send what may be seen by now."""
        if self.may_send():
            self.send_visible(answers, self.tail.durable_seq)
        return 0

    cdef int list_until(self, Answers answers, uint64_t seq) except -1:
        if not answers.listed:
            answers.listed = True
            self.due.append(answers)
        if seq != self.told_seq or seq <= self.tail.durable_seq:
            self.told_seq = seq
            self.commits.call_at(seq, self.when_durable)
        return 0

    def send_due(self):
        """A batch is durable: send what waited for it."""
        cdef Answers answers
        cdef list due = self.due
        cdef uint64_t seq = self.tail.durable_seq
        self.due = []
        for answers in due:
            answers.listed = False
            self.send_visible(answers, seq)
            if answers.mark_count and answers.last_seq() > seq and not answers.listed:
                answers.listed = True
                self.due.append(answers)

    cdef int send_visible(self, Answers answers, uint64_t seq) except -1:
        lane = answers.lane
        if lane is None or answers.flow.write_paused:
            return 0
        self.sent_count += answers.send_visible(seq)
        if answers.n == 0 and not (answers.calm and answers.idle_watched):
            lane._drained()
        return 0


cdef char* put_number(char* p, uint64_t value, int base) noexcept nogil:
    cdef char digits[20]
    cdef int n = 0
    while True:
        digits[n] = b"0123456789abcdef"[value % base]
        n += 1
        value //= base
        if value == 0:
            break
    while n:
        n -= 1
        p[0] = digits[n]
        p += 1
    return p
