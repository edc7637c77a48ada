# Plain submits, leases, extensions and acks: from the bytes of a request to the core and to the bytes of its answer.
# A request goes to Falcon and the engine whenever their answer could differ.

cdef enum:
    ASKS_MAX = 1024             # cached bodies of lease requests; a full cache is cleared
    ASK_BYTES_MAX = 512
    TRUST_US = 1_000_000        # how long a key is cached; a change of a key ends it at once
    HEAD_MORE_BYTES = 64        # of an answer's head after its beginning
    IDS_RESERVED = 4096         # request ids at a time
    SPARE_BYTES = 4 * HOT_BODY_BYTES_MAX    # a text is at most twice as long as the JSON that it is made of

cdef bytes CREATED_END = b'"}'
cdef bytes DUPLICATE_END = b'","duplicate":true}'


@cython.internal
@cython.final
cdef class Ask:
    """The decoded body of a lease request."""
    cdef object command, queues
    cdef bint many
    cdef bytes worker


@cython.final
cdef class ShortWay:
    """A server has one. All its methods run in the event loop's thread."""
    cdef Core core
    cdef Tail tail
    cdef object engine, commits, admission, auth, request_ids, serve_waiters, note_asked, note_seen
    cdef Clock clock
    cdef dict heads             # text -> Head
    cdef dict asks              # body -> Ask
    cdef list due               # Answers that wait for a batch
    cdef uint64_t told_seq      # the last batch after which send_due is called
    cdef object when_durable, next_turn, call_soon
    cdef bint in_turn           # begin_turn was called in this turn of the loop
    cdef bint is_open           # the engine admits everything
    cdef int max_retries
    cdef bytes no_jobs          # the body of the answer to a lease without a ready job
    cdef PlainJob* jobs         # the jobs of the current batch
    cdef int jobs_capacity
    cdef char* spare            # SPARE_BYTES for rewritten parts of a request: tags, then the digest's text
    cdef object sha256
    # the beginnings of answers, up to the number in the request id
    cdef object headers_of
    cdef bytes created, found, leased, acked, absent
    cdef size_t head_bytes_max
    cdef uint64_t unsynced_bytes_max, sent_count, counted
    cdef Py_ssize_t batch_bytes_max     # of a body
    cdef uint64_t next_id, ids_end

    def __init__(self, engine, core, auth, request_ids):
        self.engine, self.auth, self.request_ids = engine, auth, request_ids
        self.core, self.tail, self.commits, self.clock = core, engine.tail, engine.commits, engine.clock
        self.admission = engine.admission
        self.serve_waiters, self.note_asked = engine.serve_waiters, engine.note_asked
        self.note_seen = engine.last_seen.note
        self.max_retries = engine.options.max_retries
        self.unsynced_bytes_max = self.commits.unsynced_bytes_max
        self.batch_bytes_max = min(BATCH_BYTES_MAX, engine.record_bytes_max // 2)
        self.heads, self.asks, self.due = {}, {}, []
        self.sha256 = sha256
        self.spare = <char*>malloc(SPARE_BYTES)
        if self.spare == NULL:
            raise MemoryError
        self.when_durable, self.next_turn = self.send_due, self.end_turn
        self.no_jobs = error_body(NoJobsAvailable())

    def __dealloc__(self):
        free(self.jobs)
        free(self.spare)

    # --- once a turn of the loop --------------------------------------------------------------------------------------

    cdef int begin_turn(self, state) except -1:
        self.in_turn = True
        if self.call_soon is None:
            self.call_soon = get_running_loop().call_soon
        self.call_soon(self.next_turn)
        state.total_requests += self.sent_count  # uvicorn's count
        self.counted += self.sent_count
        self.sent_count = 0
        self.is_open = self.admission.takes_everything
        if state.default_headers is not self.headers_of:
            self.headers_of = state.default_headers
            self.begin_answers()
        return 0

    def end_turn(self):
        self.in_turn = False

    @property
    def answered_count(self):
        return self.counted + self.sent_count

    cdef int begin_answers(self) except -1:
        cdef bytes always = b"".join([name + b": " + value + b"\r\n" for name, value in self.headers_of])
        cdef bytes request_id = b"x-request-id: %b-" % (<str>self.request_ids.instance).encode()
        self.created = _STATUS_LINE[201] + always + CONTENT_TYPE + request_id
        self.found = self.leased = _STATUS_LINE[200] + always + CONTENT_TYPE + request_id
        self.absent = _STATUS_LINE[404] + always + CONTENT_TYPE + request_id
        self.acked = _STATUS_LINE[200] + always + request_id
        self.head_bytes_max = len(self.absent) + HEAD_MORE_BYTES
        return 0

    # --- requests -----------------------------------------------------------------------------------------------------

    cdef Py_ssize_t take(self, Answers answers, const char* p, Py_ssize_t n) except -1:
        """Answer the request at p. Return its length, 0 if it is not plain; then nothing was changed."""
        cdef Py_ssize_t line_bytes = 0
        cdef int kind = kind_of(p, n, &line_bytes)
        cdef Head head
        cdef HeadValues values
        cdef Span body
        cdef int64_t now_us
        cdef bint done
        if kind == NOT_HOT:
            return 0
        head = self.head_at(answers, p + line_bytes, n - line_bytes, &values)
        if head is None:
            return 0
        if n - line_bytes - values.head_bytes < values.body_bytes or not self.is_open or self.admission.draining:
            return 0
        body.at = <Text>p + line_bytes + values.head_bytes
        body.end = body.at + values.body_bytes
        now_us = self.clock.now_us()
        if not self.admits(head, kind, now_us) or not is_utf8(body.at, values.body_bytes):
            return 0
        if kind == SUBMIT:
            done = self.submit(answers, head, &values, body, now_us)
        elif kind == BATCH:
            done = self.submit_many(answers, head, &values, body, now_us)
        elif kind == LEASE:
            done = self.lease(answers, head, body, now_us)
        elif kind == ACK:
            done = self.ack(answers, head, p + ID_AT, body, now_us)
        elif kind == ACKS:
            done = self.ack_many(answers, head, body, now_us)
        elif kind == EXTEND:
            done = self.extend(answers, head, p + ID_AT, body, now_us)
        else:
            done = self.heartbeat(answers, head, body, now_us)
        if not done:
            return 0
        if head.bucket is not None:
            head.bucket.take(now_us)
        return body.end - <Text>p

    cdef Head head_at(self, Answers answers, const char* p, Py_ssize_t n, HeadValues* values):
        """Return the head at p from the cache. None: the parser must read it."""
        cdef Head head = answers.head, shape
        cdef const char* end
        if head is not None and head.fits(p, n, values):
            return head
        end = <const char*>memmem(p, min(n, <Py_ssize_t>HEAD_REMEMBERED_BYTES_MAX), b"\r\n\r\n", 4)
        if end == NULL:
            return None
        shape = shape_of(p, end + 4 - p)
        if shape is None:
            return None
        head = self.heads.get(shape.text)
        if head is None:
            answers.unknown_head = PyBytes_FromStringAndSize(p, end + 4 - p)
        elif head.fits(p, n, values):
            answers.head = head
            return head
        return None

    cdef int learn(self, bytes text, list headers, str authorization) except -1:
        """Cache a head that is plain for the parser. The parser would say the same of any head of its shape.

        Args:
            headers: (name in lower case, value) as the parser read them.
        """
        cdef HeadValues values
        cdef Head head = shape_of(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        if head is None or not is_rememberable(text, len(headers)) or self.auth.look(authorization) is None:
            return 0
        if not head.fits(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), &values):
            return 0
        for name, value in headers:  # each hole is there once: see `shape_of`
            if name == b"content-length" and int(value) != values.body_bytes:
                return 0
            if name == b"idempotency-key" and value != bytes_of(values.key):
                return 0
            if name == b"traceparent" and value != bytes_of(values.trace):
                return 0
        if len(self.heads) >= HEADS_REMEMBERED_MAX:
            self.heads.clear()
        head.authorization = authorization
        self.heads[head.text] = head
        return 0

    cdef bint admits(self, Head head, int kind, int64_t now_us) except *:
        """Whether the cached key may make a request of this kind now."""
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
        head.principal, head.access, head.bucket = who, who.sees, known.bucket
        head.owner, head.key_id = who.owner_id.encode(), who.key_id.encode()
        head.may = 0
        for kind in range(NOT_HOT):
            # Falcon checks the queues that a bound key names, and refuses leases to a client key.
            if may(who, SCOPES[kind]) and (
                who.sees.is_all
                or (who.queues is None if kind == SUBMIT or kind == BATCH else kind != LEASE)
            ):
                head.may |= 1 << kind
        return 0

    cdef bint has_room(self, uint64_t record_bytes, uint32_t segments_left) except *:
        """Whether records of this length can be appended now, and Falcon would not refuse them as too large."""
        if record_bytes > ROOM_BYTES_LARGE and record_bytes > <uint64_t>self.tail.record_bytes_max:
            return False
        return has_room(self.tail, record_bytes, segments_left, self.unsynced_bytes_max)

    # --- new jobs -----------------------------------------------------------------------------------------------------

    cdef inline void begin_job(self, PlainJob* job) noexcept:
        """Set a job's defaults."""
        memset(job, 0, sizeof(PlainJob))
        job.fields.max_retries = <uint16_t>self.max_retries

    cdef bint submit(self, Answers answers, Head head, HeadValues* values, Span body, int64_t now_us) except *:
        cdef PlainJob job
        cdef JobText text
        cdef char* spare = self.spare
        cdef Text end = read_job_text(body.at, body.end, &text)
        cdef char job_id[HOT_ID_CHARS]
        cdef bytes ending
        cdef char* start
        cdef char* p
        cdef int how
        self.begin_job(&job)
        if end == NULL or past_space(end, body.end) != body.end or not read_job(&text, now_us, &job, &spare):
            return False
        if values.trace.at != NULL and job.fields.trace.n == 0:
            job.fields.trace = name_of(values.trace)
        if values.key.at != NULL:
            if job.fields.idempotency_key.n and not is_name(job.fields.idempotency_key, values.key):
                return False
            job.fields.idempotency_key = name_of(values.key)
        if job.fields.idempotency_key.n:
            job.fields.body_digest = self.digest(spare, put_canonical(spare, &text, &job))
        if not self.has_room(plain_bytes(&job) + ROOM_BYTES_SMALL, RESERVE_SEGMENTS):
            return False
        start = answers.reserve(self.head_bytes_max + 11 + HOT_ID_CHARS + 19)
        try:
            how = submit_plain(self.core, now_us, &job, head.owner, head.key_id, job_id)
        except CoreFailed as failure:
            self.commits.fail(failure)
            raise
        if how == ELSEWHERE:
            return False
        ending = DUPLICATE_END if how == DUPLICATE else CREATED_END
        p = self.put_head(
            start, self.created if how == CREATED else self.found, 11 + HOT_ID_CHARS + PyBytes_GET_SIZE(ending)
        )
        memcpy(p, b'{"job_id":"', 11)
        memcpy(p + 11, job_id, HOT_ID_CHARS)
        p += 11 + HOT_ID_CHARS
        memcpy(p, PyBytes_AS_STRING(ending), PyBytes_GET_SIZE(ending))
        return self.answered(answers, p + PyBytes_GET_SIZE(ending) - start, None)

    cdef bint submit_many(self, Answers answers, Head head, HeadValues* values, Span body, int64_t now_us) except *:
        cdef char* texts_end = self.spare + SPARE_BYTES // 2    # the digest's text follows the tags
        cdef uint64_t digest = 0, record_bytes
        cdef int count = self.read_jobs(values, body, now_us, &texts_end)
        cdef size_t ids_bytes
        cdef char* start
        cdef char* ids
        cdef char* p
        cdef int i
        cdef Name key
        if count == 0 or body.end - body.at > self.batch_bytes_max:
            return False
        key.n = 0
        record_bytes = ROOM_BYTES_SMALL
        if values.key.at != NULL:
            key = name_of(values.key)
            digest = self.digest(self.spare + SPARE_BYTES // 2, texts_end)
            record_bytes += remember_bytes(count)
        for i in range(count):
            record_bytes += plain_bytes(&self.jobs[i])
        if not self.has_room(record_bytes, RESERVE_SEGMENTS):
            return False
        ids_bytes = count * (HOT_ID_CHARS + 3) - 1
        start = answers.reserve(self.head_bytes_max + 12 + ids_bytes + 3)
        ids = start + self.head_bytes_max + 12  # after the longest head; the head is written later
        try:
            if submit_plain_many(
                self.core, now_us, self.jobs, count, head.owner, head.key_id, key, digest, ids
            ) == ELSEWHERE:
                return False
        except CoreFailed as failure:
            self.commits.fail(failure)
            raise
        p = self.put_head(start, self.created, 12 + ids_bytes + 2)
        memcpy(p, b'{"job_ids":[', 12)
        p += 12
        memmove(p, ids, ids_bytes)
        p += ids_bytes
        memcpy(p, b"]}", 2)
        return self.answered(answers, p + 2 - start, None)

    cdef int read_jobs(self, HeadValues* values, Span body, int64_t now_us, char** texts_end) except -1:
        """Read a batch's jobs into `jobs`. If the batch has an idempotency key, write their texts for its digest.

        Returns:
            The number of jobs, 0 if one is not plain.
        """
        cdef Text at = first_in_batch(body.at, body.end, b'"jobs"')
        cdef JobText text
        cdef PlainJob* job
        cdef char* spare = self.spare
        cdef Found found = MORE
        cdef int count = 0
        if at == NULL:
            return 0
        while found == MORE and count < BATCH_JOBS_MAX:
            if count == self.jobs_capacity:
                self.grow_jobs()
            job = &self.jobs[count]
            self.begin_job(job)
            at = read_job_text(at, body.end, &text)
            found = after_one_in_batch(&at, body.end)
            if found == NOT_PLAIN or not read_job(&text, now_us, job, &spare):
                return 0
            if values.trace.at != NULL and job.fields.trace.n == 0:
                job.fields.trace = name_of(values.trace)
            if job.fields.idempotency_key.n:
                if values.key.at != NULL:
                    return 0
                job.fields.body_digest = self.digest(texts_end[0], put_canonical(texts_end[0], &text, job))
            elif values.key.at != NULL:
                texts_end[0] = put_canonical(texts_end[0], &text, job)
            count += 1
        return count if found == LAST else 0

    cdef uint64_t digest(self, const char* text, const char* end) except? 0:
        """Return the digest of a text: see `fastq.http.resources.submit.digest_of`."""
        cdef bytes whole = self.sha256(PyBytes_FromStringAndSize(text, end - text)).digest()
        cdef uint64_t first
        memcpy(&first, PyBytes_AS_STRING(whole), 8)  # the machine is little-endian, as the log requires
        return first

    cdef int grow_jobs(self) except -1:
        cdef PlainJob* jobs = <PlainJob*>realloc(self.jobs, 2 * (self.jobs_capacity + 64) * sizeof(PlainJob))
        if jobs == NULL:
            raise MemoryError
        self.jobs = jobs
        self.jobs_capacity = 2 * (self.jobs_capacity + 64)
        return 0

    # --- leases -------------------------------------------------------------------------------------------------------

    cdef bint lease(self, Answers answers, Head head, Span body, int64_t now_us) except *:
        cdef Span request
        cdef Ask ask = self.ask_of(body, &request)
        cdef bytes request_id
        cdef list leased
        cdef Py_ssize_t n
        cdef char* start
        cdef char* p
        if ask is None:
            return False
        request_id = bytes_of(request)
        command = ask.command
        if self.core.watching and not self.serve_waiters(command):  # waiting lease requests come first
            return False
        if not self.has_room(command.limit * SMALL_RECORD_BYTES + ROOM_BYTES_SMALL, CLEANER_SEGMENTS):
            return False
        if request_id and was_leased(self.core, now_us, head.key_id, request_id):
            return False
        self.note_seen(command.worker_id, now_us, command.queues)
        self.note_asked(command, now_us)
        try:
            leased = lease_plain(self.core, now_us, ask.queues, command.limit, command.lease_ms or 0, head.key_id,
                                 ask.worker, not command.had_body, request_id, LEASED_BYTES_MAX)
        except CoreFailed as failure:
            self.commits.fail(failure)
            raise
        if not leased and command.wait_ms:
            return False
        if not leased and not ask.many:
            n = PyBytes_GET_SIZE(self.no_jobs)
            start = answers.reserve(self.head_bytes_max + n)
            p = self.put_head(start, self.absent, n)
            memcpy(p, PyBytes_AS_STRING(self.no_jobs), n)
            return self.answered(answers, p + n - start, None)
        if self.put_leases(answers, leased, ask.many, not command.had_body):
            return True
        answers.lane._hand_on(Granted(self.engine, leased))
        return False

    cdef bint put_leases(self, Answers answers, list leased, bint many, bint as_string) except *:
        """Answer with leases. False without an answer if a payload must be read from the disk."""
        cdef Py_ssize_t n = 16, size
        cdef list missing = []  # places of records that are not in memory, in the order of the leases
        cdef list read = []     # those records
        cdef const char* record
        cdef char* text
        cdef char* p
        cdef char* start
        cdef int next_read = 0
        cdef bint first = True, was_read
        cdef Leased lease
        for lease in leased:
            n += leased_bytes(lease, as_string) + 1
            if record_in_memory(self.core, lease) == NULL:
                missing.append(lease.place)
        if missing:
            found = self.commits.records_now(missing)
            if found is None:
                return False
            read = found
        # The body is written first, after the longest head; then the head with the body's length, and the body moves.
        start = answers.reserve(2 * self.head_bytes_max + n)
        text = p = start + self.head_bytes_max
        if many:
            memcpy(p, b'{"jobs":[', 9)
            p += 9
        for lease in leased:
            if not first:
                p[0] = c','
                p += 1
            first = False
            record = record_in_memory(self.core, lease)
            was_read = record == NULL
            if was_read:
                record = PyBytes_AS_STRING(<bytes>read[next_read])
                next_read += 1
            size = put_leased(lease, record, was_read, as_string, p)
            if size == 0:  # the other way says what is wrong with the record
                return False
            p += size
        if many:
            memcpy(p, b']}', 2)
            p += 2
        n = p - text
        p = self.put_head(start, self.leased, n)
        memmove(p, text, n)
        return self.answered(answers, p + n - start, partial(self.engine.take_back, leased) if leased else None)

    cdef Ask ask_of(self, Span body, Span* request):
        """Decode a lease's body and find its request_id. None if it is not plain.

        The cache has the body without its request_id, which differs each time.
        """
        cdef bytes text
        cdef Ask ask
        if body.end - body.at > ASK_BYTES_MAX or not find_request_id(body, request):
            return None
        text = PyBytes_FromStringAndSize(<const char*>body.at, request.at - body.at)
        text += PyBytes_FromStringAndSize(<const char*>request.end, body.end - request.end)
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

    cdef bint ack(self, Answers answers, Head head, const char* job_id, Span body, int64_t now_us) except *:
        cdef PlainAck ack
        cdef Py_ssize_t result_bytes
        cdef str token = None
        cdef bytes result = None
        cdef char* start
        if not read_plain_ack(body, &ack):
            return False
        result_bytes = ack.result.end - ack.result.at
        if not self.has_room(result_bytes + CLOSE_RECORD_BYTES + ROOM_BYTES_SMALL, CLEANER_SEGMENTS):
            return False
        if ack.token.at != NULL:
            token = str_of(ack.token)
        if ack.result.at != NULL:
            result = bytes_of(ack.result)
        try:
            ack_plain(
                self.core, now_us, head.access, PyUnicode_DecodeUTF8(job_id, HOT_ID_CHARS, NULL), token, result,
                head.key_id,
            )
        except CoreFailed as failure:
            self.commits.fail(failure)
            raise
        except ApiError:
            return False  # nothing was changed; Falcon answers with the error
        start = answers.reserve(self.head_bytes_max)
        return self.answered(answers, self.put_head(start, self.acked, 0) - start, None)

    cdef bint ack_many(self, Answers answers, Head head, Span body, int64_t now_us) except *:
        cdef Text at = first_in_batch(body.at, body.end, b'"acks"')
        cdef Found found = MORE
        cdef PlainAck ack
        cdef list acks = [], refusals
        cdef Py_ssize_t n
        if at == NULL or body.end - body.at > self.batch_bytes_max:
            return False
        while found == MORE and len(acks) < BATCH_JOBS_MAX:
            at = read_ack_members(at, body.end, &ack)
            found = after_one_in_batch(&at, body.end)
            if found == NOT_PLAIN or ack.job_id.at == NULL:
                return False
            acks.append(ack_of(
                str_of(ack.job_id), None if ack.token.at == NULL else str_of(ack.token),
                None if ack.result.at == NULL else bytes_of(ack.result),
            ))
        n = len(acks) * CLOSE_RECORD_BYTES + (body.end - body.at) + ROOM_BYTES_SMALL
        if found != LAST or not self.has_room(n, CLEANER_SEGMENTS):
            return False
        try:
            refusals = self.core.ack_many(now_us, head.access, acks, key_id=head.principal.key_id)
        except CoreFailed as failure:
            self.commits.fail(failure)
            raise
        return self.answer_ok(
            answers,
            acks_answered(
                [(<Ack>one).job_id for one in acks], [refusal and ack_refused(refusal) for refusal in refusals]
            ),
        )

    cdef bint extend(self, Answers answers, Head head, const char* id_at, Span body, int64_t now_us) except *:
        cdef PlainHold hold
        cdef Text end = read_hold(body.at, body.end, &hold)
        cdef str job_id
        if end == NULL or past_space(end, body.end) != body.end:
            return False
        if hold.job_id.at != NULL or hold.token.at == NULL:
            return False
        job_id = PyUnicode_DecodeUTF8(id_at, HOT_ID_CHARS, NULL)
        extended = self.extend_all(head.access, [extend_of(job_id, str_of(hold.token), hold.lease_ms)], now_us)
        if extended is None or isinstance(extended[0], ApiError):
            return False  # nothing was changed; the other way says why
        return self.answer_ok(answers, lease_extended(job_id, extended[0]))

    cdef bint heartbeat(self, Answers answers, Head head, Span body, int64_t now_us) except *:
        cdef PlainHeartbeat beat
        cdef list leases
        if not read_heartbeat(body, &beat):
            return False
        leases = self.read_leases(beat.leases, beat.lease_ms)
        if leases is None:
            return False
        extended = self.extend_all(head.access, leases, now_us)
        if extended is None:
            return False
        self.note_seen(str_of(beat.worker), now_us)
        return self.answer_ok(answers, leases_answered([(<Extend>one).job_id for one in leases], extended))

    cdef list read_leases(self, Span array, int64_t lease_ms):
        """An Extend for each; None if one is not plain."""
        cdef list leases = []
        cdef PlainHold hold
        cdef Text at
        if array.at == NULL:
            return leases
        at = past_space(array.at + 1, array.end)
        if at[0] == c']':
            return leases
        while len(leases) < LEASES_EXTENDED_MAX:
            at = read_hold(at, array.end, &hold)
            if at == NULL or hold.seen != (SEEN_JOB_ID | SEEN_TOKEN):
                return None
            leases.append(extend_of(str_of(hold.job_id), str_of(hold.token), lease_ms))
            at = past_space(at, array.end)
            if at[0] == c']':  # the array is known to be whole
                return leases
            at = past_space(at + 1, array.end)
        return None

    cdef list extend_all(self, Access access, list leases, int64_t now_us):
        """As `Core.extend_many`; None without room."""
        cdef uint64_t record_bytes = len(leases) * EXTEND_RECORD_BYTES + ROOM_BYTES_SMALL
        if not self.has_room(record_bytes, CLEANER_SEGMENTS):
            return None
        try:
            return self.core.extend_many(now_us, access, leases)
        except CoreFailed as failure:
            self.commits.fail(failure)
            raise

    # --- answers ------------------------------------------------------------------------------------------------------

    cdef char* put_head(self, char* p, bytes begin, size_t body_bytes) except NULL:
        """Write an answer's head with the next request id. Return its end."""
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

    cdef bint answer_ok(self, Answers answers, bytes text) except *:
        """200 with this body."""
        cdef Py_ssize_t n = PyBytes_GET_SIZE(text)
        cdef char* start = answers.reserve(self.head_bytes_max + n)
        cdef char* p = self.put_head(start, self.found, n)
        memcpy(p, PyBytes_AS_STRING(text), n)
        return self.answered(answers, p + n - start, None)

    cdef bint answered(self, Answers answers, size_t n, undo) except *:
        """Add the answer of n bytes that was written. It is sent when everything that it may show is durable."""
        cdef uint64_t seq = appended_seq(self.tail)
        answers.put(n, seq, undo)
        answers.taken += 1
        if seq > self.tail.durable_seq or not self.may_send():
            self.list_until(answers, seq)
        return True

    cdef bint may_send(self) except *:
        """Whether durable answers may leave. They may not if the log failed or this node does not lead."""
        return self.commits.may_leave(self.tail.durable_seq)

    cdef int send_now(self, Answers answers) except -1:
        """Send the answers that may leave now."""
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
        """Send the answers that wait for a batch that is now durable."""
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
