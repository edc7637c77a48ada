# The state machine. A command is decided against the present state and becomes a record; applying a record is the only
# thing that changes state, live as in replay.

cdef enum:
    RESTART_GRACE_US = 30_000_000   # what a lease has at least after a restart, if it was as long
    ADVANCE_AT_LEASE = 64           # delayed jobs that a lease lets in first; the engine's timer does the bulk
    ERROR_BYTES_MAX = 2048
    SMALL_RECORD_BYTES = 1200       # head, fixed part and every name there can be: enough for a record without a body
    STATES = 6

cdef int64_t NEVER_US = <int64_t>1 << 62


@cython.final
cdef class Core:
    cdef Tail tail
    cdef Tables t
    cdef Heap delayed, leased
    cdef Queue* queues
    cdef uint32_t queue_count
    cdef list names                 # index -> bytes, of queues and owners
    cdef dict name_index            # bytes -> index
    cdef dict queue_index           # name index -> queue index
    cdef dict documents_by_kind     # kind -> {name: body}
    cdef uint64_t counts_by_state[STATES]
    cdef uint64_t next_seq, epoch, skipped_count
    cdef readonly int64_t last_us
    cdef readonly bytes database_id
    cdef SipKey key
    cdef uint64_t tag

    def __cinit__(self, Tail tail):
        pool_init(&self.t.jobs, sizeof(Job))
        pool_init(&self.t.runs, sizeof(Run))
        pool_init(&self.t.closings, sizeof(Closing))

    def __init__(self, Tail tail):
        self.tail = tail
        self.delayed.kind = IN_DELAYED
        self.leased.kind = IN_LEASED
        self.names = []
        self.name_index = {}
        self.queue_index = {}
        self.documents_by_kind = {}
        self.next_seq = 1
        self.database_id = b""

    def __dealloc__(self):
        cdef uint32_t i
        pool_clear(&self.t.jobs)
        pool_clear(&self.t.runs)
        pool_clear(&self.t.closings)
        for i in range(SHARDS):
            free(self.t.index[i].slots)
        for i in range(self.queue_count):
            free(self.queues[i].ready.slots)
        free(self.queues)
        free(self.delayed.slots)
        free(self.leased.slots)

    # --- deciding: the start ------------------------------------------------------------------------------------------

    def genesis(self, bytes database_id, bytes token_key):
        cdef Place place
        cdef uint32_t n = RECORD_HEAD_BYTES + 32
        cdef char* p
        assert len(database_id) == 16 and len(token_key) == 16 and not self.database_id
        p = self.tail.reserve(n, &place)
        put_bytes(put_bytes(put_head(p, GENESIS, 0, n), <const char*>database_id, 16), <const char*>token_key, 16)
        self.commit(p, n, &place)

    def resume(self, int64_t now_us, uint64_t epoch):
        cdef Place place
        cdef uint32_t n = RECORD_HEAD_BYTES + 24
        cdef char* p
        assert self.database_id, "genesis comes first"
        p = self.tail.reserve(n, &place)
        put_u64(put_u64(put_i64(put_head(p, RESUME, 0, n), now_us), epoch), self.next_seq)
        self.commit(p, n, &place)

    # --- deciding: jobs -----------------------------------------------------------------------------------------------

    def submit(self, int64_t now_us, bytes payload, *, str owner_id, str key_id, int max_retries, int priority=0,
               int64_t run_at_us=0, str queue="default"):
        cdef Place place
        cdef bytes owner = owner_id.encode(), key = key_id.encode(), queue_name = queue.encode()
        cdef uint16_t flags = SUBMIT_OWNER | SUBMIT_KEY_ID
        cdef uint32_t n = RECORD_HEAD_BYTES + 18 + 2 + len(owner) + len(key) + len(payload)
        cdef uint64_t seq = self.next_seq
        cdef char* p
        cdef char* record
        assert self.database_id and len(owner) <= 255 and len(key) <= 255 and 0 < len(queue_name) <= 255
        if run_at_us > now_us:
            flags |= SUBMIT_RUN_AT
            n += 8
        if priority:
            flags |= SUBMIT_PRIORITY
            n += 4
        if queue != "default":
            flags |= SUBMIT_QUEUE
            n += 1 + len(queue_name)
        record = p = self.tail.reserve(n, &place)
        p = put_u64(put_head(p, SUBMIT, flags, n), seq)
        p = put_u16(put_i64(p, now_us), <uint16_t>max_retries)
        if flags & SUBMIT_RUN_AT:
            p = put_i64(p, run_at_us)
        if flags & SUBMIT_PRIORITY:
            p = put_u32(p, <uint32_t>priority)
        if flags & SUBMIT_QUEUE:
            p = put_name(p, queue_name)
        p = put_name(put_name(p, owner), key)
        put_bytes(p, <const char*>payload, len(payload))
        self.commit(record, n, &place)
        return id_text(now_us, seq, self.tag)

    def lease(self, int64_t now_us, *, int64_t lease_ms, str key_id, str worker_id="", bint legacy=False,
              str queue="default"):
        cdef uint32_t slot
        cdef Job* job
        cdef Run* run
        cdef Leased leased
        cdef bytes key = key_id.encode(), worker = worker_id.encode()
        self.let_in(now_us, ADVANCE_AT_LEASE)
        slot = self.first_ready(queue.encode())
        if slot == NONE:
            return None
        self.append_lease(slot, now_us, now_us + lease_ms * 1000, key, worker, legacy)
        job = job_at(&self.t, slot)
        run = run_at(&self.t, job.run)
        leased = Leased.__new__(Leased)
        leased.job_id = id_text(job.created_us, job.seq, self.tag)
        leased.token = token_text(self.key, job.seq, run.lease_no)
        leased.queue = self.queue_name(job.queue)
        leased.place = place_tuple(&job.place)
        leased.lease_until_us = run.lease_until_us
        leased.created_us = job.created_us
        leased.priority = job.priority
        leased.attempt = job.attempts
        leased.max_retries = job.max_retries
        return leased

    def ack(self, int64_t now_us, str job_id, token, *, str key_id, bytes result=None, str error="", retry_at=None):
        cdef uint32_t slot = self.slot_of(job_id)
        cdef Job* job = job_at(&self.t, slot)
        cdef Run* run
        cdef bytes text = cut_text(error.encode(), ERROR_BYTES_MAX)
        cdef uint8_t outcome = OUTCOME_ERROR if text else OUTCOME_OK
        cdef uint32_t lease_no
        if token is None:
            if job.state != RUNNING:
                raise NotAckable(self.state_name(job, now_us))
            if not run_at(&self.t, job.run).legacy:
                raise LeaseLost("RUNNING")
        else:
            lease_no = token_lease_no(self.key, job.seq, token)
            run = NULL if job.run == NONE else run_at(&self.t, job.run)
            if lease_no == 0 or run == NULL:
                raise LeaseLost(self.state_name(job, now_us))
            if job.state != RUNNING or lease_no != run.lease_no:
                if self.is_repetition(run, lease_no, outcome, text, result):
                    return False
                raise LeaseLost(self.state_name(job, now_us))
        self.append_close(slot, now_us, outcome, text, result, key_id.encode(), retry_at)
        return True

    def expire(self, int64_t now_us, retry_at, int limit):
        cdef int n = 0
        cdef uint32_t slot
        while n < limit and self.leased.count:
            slot = self.leased.slots[0]
            if run_at(&self.t, job_at(&self.t, slot).run).lease_until_us > now_us:
                break
            self.append_close(slot, now_us, OUTCOME_EXPIRED, b"", None, b"", retry_at)
            n += 1
        return n

    def advance(self, int64_t now_us, int limit):
        return self.let_in(now_us, limit)

    def next_due_us(self):
        cdef int64_t due_us = NEVER_US
        if self.delayed.count:
            due_us = job_at(&self.t, self.delayed.slots[0]).run_at_us
        if self.leased.count:
            due_us = min(due_us, run_at(&self.t, job_at(&self.t, self.leased.slots[0]).run).lease_until_us)
        return due_us

    # --- deciding: documents ------------------------------------------------------------------------------------------

    def put_document(self, int64_t now_us, int kind, str name, bytes body, str key_id=""):
        self.append_document(now_us, kind, name.encode(), body, key_id.encode(), 0)

    def drop_document(self, int64_t now_us, int kind, str name, str key_id=""):
        self.append_document(now_us, kind, name.encode(), b"", key_id.encode(), DOCUMENT_DROPPED)

    cdef int append_document(
        self, int64_t now_us, int kind, bytes name, bytes body, bytes key, uint16_t flags
    ) except -1:
        cdef Place place
        cdef uint32_t n = RECORD_HEAD_BYTES + 10 + len(name) + len(body)
        cdef char* p
        cdef char* record
        assert 0 < len(name) <= 255 and len(key) <= 255 and 0 < kind <= 255
        if key:
            flags |= DOCUMENT_KEY_ID
            n += 1 + len(key)
        record = p = self.tail.reserve(n, &place)
        p = put_u8(put_i64(put_head(p, DOCUMENT, flags, n), now_us), <uint8_t>kind)
        p = put_name(p, name)
        if key:
            p = put_name(p, key)
        put_bytes(p, <const char*>body, len(body))
        self.commit(record, n, &place)
        return 0

    # --- reading ------------------------------------------------------------------------------------------------------

    def job(self, int64_t now_us, str job_id):
        cdef Job* job = job_at(&self.t, self.slot_of(job_id))
        cdef Run* run
        cdef JobView view = JobView.__new__(JobView)
        view.job_id = job_id
        view.state = self.state_name(job, now_us)
        view.queue = self.queue_name(job.queue)
        view.owner_id = (<bytes>self.names[job.owner]).decode()
        view.place = place_tuple(&job.place)
        view.created_us = job.created_us
        view.run_at_us = job.run_at_us
        view.priority = job.priority
        view.attempts = job.attempts
        view.max_retries = job.max_retries
        if job.run != NONE:
            run = run_at(&self.t, job.run)
            view.lease_until_us = run.lease_until_us
            view.expired = run.outcome == OUTCOME_EXPIRED
            if run.outcome:
                view.close_place = place_tuple(&run.place)
        return view

    def documents(self, int kind):
        return dict(self.documents_by_kind.get(kind, {}))

    def counts(self):
        counts = {STATE_NAMES[i]: self.counts_by_state[i] for i in range(1, STATES)}
        counts["delayed"] = self.delayed.count
        counts["jobs"] = self.t.jobs.live
        return counts

    def skipped(self):
        return self.skipped_count

    # --- applying -----------------------------------------------------------------------------------------------------

    def replay(self, records, uint32_t segment, uint32_t offset):
        cdef Py_buffer buffer
        cdef int n = 0
        cdef Place place
        cdef const char* p
        cdef const char* end
        PyObject_GetBuffer(records, &buffer, PyBUF_SIMPLE)
        try:
            p = <const char*>buffer.buf
            end = p + buffer.len
            place.segment = segment
            while p < end:
                place.offset = offset + <uint32_t>(p - <const char*>buffer.buf)
                place.bytes = 0
                if end - p >= RECORD_HEAD_BYTES:
                    memcpy(&place.bytes, p + 4, 4)
                if place.bytes < RECORD_HEAD_BYTES or place.bytes > end - p:
                    raise LogDamaged(f"no record at {segment}:{place.offset}, though the frame is whole")
                self.apply(p, place.bytes, &place)
                p += place.bytes
                n += 1
        finally:
            PyBuffer_Release(&buffer)
        return n

    cdef int commit(self, char* record, uint32_t n, Place* place) except -1:
        """Apply a record that was just appended. It can not be taken back, so what fails here ends the process."""
        try:
            return self.apply(record, n, place)
        except BaseException as failure:
            raise CoreFailed(f"record at {place.segment}:{place.offset} could not be applied: {failure!r}") from failure

    cdef int apply(self, const char* record, uint32_t n, Place* place) except -1:
        cdef Reader r
        cdef uint8_t type
        cdef uint8_t version
        cdef uint16_t flags
        r.p = record
        r.end = record + n
        r.short = False
        type = <uint8_t>get_int(&r, 1)
        version = <uint8_t>get_int(&r, 1)
        flags = <uint16_t>get_int(&r, 2)
        get_int(&r, 4)
        if type < GENESIS or type > DOCUMENT or version != RECORD_VERSION or flags & ~known_flags(type):
            raise UnsupportedFormat(
                f"record of type {type}, version {version}, flags {flags:#x} at {place.segment}:{place.offset}: "
                f"this fastq reads record version {RECORD_VERSION}; a later one is needed"
            )
        if type == SUBMIT:
            self.apply_submit(&r, flags, place)
        elif type == LEASE:
            self.apply_lease(&r, flags)
        elif type == CLOSE:
            self.apply_close(&r, flags, place)
        elif type == DOCUMENT:
            self.apply_document(&r, flags)
        elif type == RESUME:
            self.apply_resume(&r)
        else:
            self.apply_genesis(&r)
        if r.short:
            raise LogDamaged(f"the record at {place.segment}:{place.offset} is cut short")
        return 0

    cdef int apply_genesis(self, Reader* r) except -1:
        cdef const char* p = get_bytes(r, 32)
        cdef uint64_t tag
        if p == NULL:
            return 0
        if self.database_id:
            raise LogDamaged("the log begins twice")
        self.database_id = p[:16]
        memcpy(&tag, p, 8)
        self.tag = tag & ((1 << TAG_BITS) - 1)
        memcpy(&self.key, p + 16, 16)
        return 0

    cdef int apply_resume(self, Reader* r) except -1:
        cdef int64_t at_us = <int64_t>get_int(r, 8)
        cdef uint64_t epoch = get_int(r, 8), next_seq = get_int(r, 8)
        cdef uint32_t i
        cdef Run* run
        if r.short:
            return 0
        self.saw(at_us)
        self.epoch = epoch
        self.next_seq = max(self.next_seq, next_seq)
        for i in range(self.leased.count):
            run = run_at(&self.t, job_at(&self.t, self.leased.slots[i]).run)
            run.lease_until_us = max(
                run.lease_until_us, at_us + min(<int64_t>run.lease_ms * 1000, <int64_t>RESTART_GRACE_US)
            )
        heap_rebuild(&self.t, &self.leased)
        return 0

    cdef int apply_submit(self, Reader* r, uint16_t flags, Place* place) except -1:
        cdef SubmitFields f
        cdef uint64_t seq = get_int(r, 8)
        cdef uint32_t slot
        cdef Job* job
        read_submit(r, flags, &f)
        if r.short:
            return 0
        if seq == 0 or seq >> SEQ_BITS or index_find(&self.t, seq) != NONE:
            raise LogDamaged(f"job {seq} is submitted twice, or has no valid number")
        slot = pool_take(&self.t.jobs)
        job = job_at(&self.t, slot)
        job.seq = seq
        job.created_us = f.created_us
        job.run_at_us = f.run_at_us
        job.place = place[0]
        job.priority = f.priority
        job.queue = self.queue_of(f.queue.p[:f.queue.n] if flags & SUBMIT_QUEUE else b"default")
        job.owner = self.name_of(f.owner.p[:f.owner.n] if flags & SUBMIT_OWNER else b"")
        job.run = NONE
        job.max_retries = f.max_retries
        index_add(&self.t, slot)
        self.set_state(job, READY)
        self.wait(slot, f.created_us)
        self.next_seq = max(self.next_seq, seq + 1)
        self.saw(f.created_us)
        return 0

    cdef int apply_lease(self, Reader* r, uint16_t flags) except -1:
        cdef LeaseFields f
        cdef uint32_t slot = self.known(get_int(r, 8))
        cdef Job* job
        cdef Run* run
        read_lease(r, flags, &f)
        if r.short or slot == NONE:
            return 0
        job = job_at(&self.t, slot)
        if job.state != READY and job.state != RETRY:
            raise LogDamaged(f"job {job.seq} is leased in state {STATE_NAMES[job.state]}")
        self.leave_heap(slot)
        if job.run == NONE:
            job.run = pool_take(&self.t.runs)
            run_at(&self.t, job.run).closing = NONE
        run = run_at(&self.t, job.run)
        run.lease_no = f.lease_no
        run.lease_until_us = f.until_us
        run.lease_ms = <uint32_t>((f.until_us - f.at_us) // 1000)
        run.legacy = flags & LEASE_LEGACY
        job.attempts = f.attempts
        self.set_state(job, RUNNING)
        heap_push(&self.t, &self.leased, slot)
        self.saw(f.at_us)
        return 0

    cdef int apply_close(self, Reader* r, uint16_t flags, Place* place) except -1:
        cdef CloseFields f
        cdef uint32_t slot = self.known(get_int(r, 8))
        cdef Job* job
        cdef Run* run
        read_close(r, flags, &f)
        if r.short or slot == NONE:
            return 0
        job = job_at(&self.t, slot)
        run = NULL if job.run == NONE else run_at(&self.t, job.run)
        if job.state != RUNNING or run.lease_no != f.lease_no or f.state < RETRY or f.state > DEAD:
            raise LogDamaged(f"attempt {f.lease_no} of job {job.seq} is closed in state {STATE_NAMES[job.state]}")
        self.leave_heap(slot)
        job.attempts = f.attempts
        self.set_state(job, f.state)
        run.ended_us = f.at_us
        run.outcome = f.outcome
        run.place = place[0]
        if flags & CLOSE_BY_CLIENT:
            self.remember_closing(
                run, f.outcome, close_digest(self.key, f.outcome, f.error, f.error_bytes, r.p, r.end - r.p)
            )
        if f.state == RETRY:
            job.run_at_us = f.run_at_us
            self.wait(slot, f.at_us)
        self.saw(f.at_us)
        return 0

    cdef int apply_document(self, Reader* r, uint16_t flags) except -1:
        cdef int64_t at_us = <int64_t>get_int(r, 8)
        cdef int kind = <int>get_int(r, 1)
        cdef bytes name = get_name(r)
        if flags & DOCUMENT_KEY_ID:
            get_name(r)
        if r.short:
            return 0
        self.saw(at_us)
        if flags & DOCUMENT_DROPPED:
            self.documents_by_kind.get(kind, {}).pop(name.decode(), None)
        else:
            self.documents_by_kind.setdefault(kind, {})[name.decode()] = r.p[:r.end - r.p]
        return 0

    # --- pieces of deciding -------------------------------------------------------------------------------------------

    cdef uint32_t first_ready(self, bytes queue):
        """The slot of the queue's first job, NONE if none is due."""
        cdef object name = self.name_index.get(queue)
        cdef object index = None if name is None else self.queue_index.get(name)
        cdef Heap* ready
        if index is None:
            return NONE
        ready = &self.queues[<uint32_t>index].ready
        return ready.slots[0] if ready.count else NONE

    cdef int append_lease(self, uint32_t slot, int64_t now_us, int64_t until_us, bytes key, bytes worker,
                          bint legacy) except -1:
        cdef Job* job = job_at(&self.t, slot)
        cdef uint32_t lease_no = 1 if job.run == NONE else run_at(&self.t, job.run).lease_no + 1
        cdef uint16_t flags = LEASE_KEY_ID
        cdef uint32_t n = RECORD_HEAD_BYTES + 30 + 1 + len(key)
        cdef Place place
        cdef char* p
        cdef char* record
        assert len(key) <= 255 and len(worker) <= 255
        if legacy:
            flags |= LEASE_LEGACY
        if worker:
            flags |= LEASE_WORKER
            n += 1 + len(worker)
        record = p = self.tail.reserve(n, &place)
        p = put_u32(put_u64(put_head(p, LEASE, flags, n), job.seq), lease_no)
        p = put_i64(put_i64(put_u16(p, job.attempts + 1), now_us), until_us)
        if worker:
            p = put_name(p, worker)
        put_name(p, key)
        return self.commit(record, n, &place)

    cdef int append_close(self, uint32_t slot, int64_t now_us, uint8_t outcome, bytes error, bytes result, bytes key,
                          retry_at) except -1:
        cdef Job* job = job_at(&self.t, slot)
        cdef uint8_t state = ACKED
        cdef uint16_t flags = 0
        cdef int64_t run_at_us = 0
        cdef uint32_t n = RECORD_HEAD_BYTES + 24
        cdef Place place
        cdef char* p
        cdef char* record
        if outcome != OUTCOME_OK:
            state = RETRY if job.attempts < job.max_retries else DEAD
        if outcome != OUTCOME_EXPIRED:
            flags |= CLOSE_BY_CLIENT
        if state == RETRY:
            run_at_us = max(now_us, <int64_t>retry_at(job.attempts))
            flags |= CLOSE_RUN_AT
            n += 8
        if error:
            flags |= CLOSE_ERROR
            n += 2 + len(error)
        if key:
            flags |= CLOSE_KEY_ID
            n += 1 + len(key)
        if result is not None:
            flags |= CLOSE_RESULT
            n += len(result)
        record = p = self.tail.reserve(n, &place)
        p = put_u32(put_u64(put_head(p, CLOSE, flags, n), job.seq), run_at(&self.t, job.run).lease_no)
        p = put_i64(put_u8(put_u8(put_u16(p, job.attempts), outcome), state), now_us)
        if state == RETRY:
            p = put_i64(p, run_at_us)
        if error:
            p = put_bytes(put_u16(p, <uint16_t>len(error)), <const char*>error, len(error))
        if key:
            p = put_name(p, key)
        if result is not None:
            put_bytes(p, <const char*>result, len(result))
        return self.commit(record, n, &place)

    cdef bint is_repetition(self, Run* run, uint32_t lease_no, uint8_t outcome, bytes error, bytes result):
        """Whether the client that closed this attempt says the same once more."""
        cdef uint32_t i = run.closing
        cdef Closing* closing
        cdef bytes body = b"" if result is None else result
        while i != NONE:
            closing = closing_at(&self.t, i)
            if closing.lease_no == lease_no:
                return closing.digest == close_digest(
                    self.key, outcome, <const char*>error, len(error), <const char*>body, len(body)
                )
            i = closing.next
        return False

    cdef int let_in(self, int64_t now_us, int limit) except -1:
        """Move up to limit delayed jobs that are due to their ready heaps."""
        cdef int n = 0
        cdef uint32_t slot
        cdef Job* job
        while n < limit and self.delayed.count:
            slot = self.delayed.slots[0]
            job = job_at(&self.t, slot)
            if job.run_at_us > now_us:
                break
            heap_remove(&self.t, &self.delayed, slot)
            heap_push(&self.t, &self.queues[job.queue].ready, slot)
            n += 1
        return n

    # --- pieces of applying -------------------------------------------------------------------------------------------

    cdef inline void saw(self, int64_t at_us) noexcept:
        if at_us > self.last_us:
            self.last_us = at_us

    cdef inline void set_state(self, Job* job, uint8_t state) noexcept:
        if job.state:
            self.counts_by_state[job.state] -= 1
        job.state = state
        self.counts_by_state[state] += 1

    cdef int wait(self, uint32_t slot, int64_t now_us) except -1:
        """Put a job that is not leased where it waits: for its time, or for a worker."""
        cdef Job* job = job_at(&self.t, slot)
        return heap_push(
            &self.t, &self.delayed if job.run_at_us > now_us else &self.queues[job.queue].ready, slot
        )

    cdef void leave_heap(self, uint32_t slot) noexcept:
        cdef Job* job = job_at(&self.t, slot)
        if job.heap == IN_LEASED:
            heap_remove(&self.t, &self.leased, slot)
        elif job.heap == IN_DELAYED:
            heap_remove(&self.t, &self.delayed, slot)
        elif job.heap == IN_READY:
            heap_remove(&self.t, &self.queues[job.queue].ready, slot)

    cdef int remember_closing(self, Run* run, uint8_t outcome, uint64_t digest) except -1:
        """Put it in front of the job's chain, and cut the chain at CLOSINGS_KEPT."""
        cdef uint32_t i = pool_take(&self.t.closings), next
        cdef int kept = 1
        cdef Closing* closing = closing_at(&self.t, i)
        closing.digest = digest
        closing.lease_no = run.lease_no
        closing.outcome = outcome
        closing.next = run.closing
        run.closing = i
        while closing.next != NONE:
            next = closing.next
            if kept == CLOSINGS_KEPT:
                closing.next = NONE
                pool_give(&self.t.closings, next)
                break
            closing = closing_at(&self.t, next)
            kept += 1
        return 0

    cdef uint32_t known(self, uint64_t seq) noexcept:
        """The slot of a record's job; records of jobs that are gone are counted and passed over."""
        cdef uint32_t slot = index_find(&self.t, seq)
        if slot == NONE:
            self.skipped_count += 1
        return slot

    cdef uint32_t name_of(self, bytes name) except NONE:
        index = self.name_index.get(name)
        if index is None:
            index = self.name_index[name] = len(self.names)
            self.names.append(name)
        return index

    cdef uint32_t queue_of(self, bytes name) except NONE:
        cdef Queue* queues
        cdef uint32_t name_index = self.name_of(name)
        index = self.queue_index.get(name_index)
        if index is None:
            queues = <Queue*>realloc(self.queues, (self.queue_count + 1) * sizeof(Queue))
            if queues == NULL:
                raise MemoryError
            self.queues = queues
            memset(&queues[self.queue_count], 0, sizeof(Queue))
            queues[self.queue_count].ready.kind = IN_READY
            queues[self.queue_count].name = name_index
            index = self.queue_index[name_index] = self.queue_count
            self.queue_count += 1
        return index

    # --- pieces of reading --------------------------------------------------------------------------------------------

    cdef uint32_t slot_of(self, str job_id) except NONE:
        cdef int64_t created_us = 0
        cdef uint64_t seq = id_seq(job_id, self.tag, &created_us)
        cdef uint32_t slot = NONE if seq == 0 else index_find(&self.t, seq)
        if slot == NONE or job_at(&self.t, slot).created_us != created_us:
            raise JobNotFound(job_id)
        return slot

    cdef str state_name(self, Job* job, int64_t now_us):
        if job.state == READY and job.run_at_us > now_us:
            return "SCHEDULED"
        return STATE_NAMES[job.state]

    cdef str queue_name(self, uint32_t queue):
        return (<bytes>self.names[self.queues[queue].name]).decode()

    # --- proof --------------------------------------------------------------------------------------------------------

    def state_hash(self):
        cdef uint64_t total = siphash(self.key, <const char*>self.database_id, len(self.database_id))
        cdef uint32_t slot
        cdef Job* job
        for slot in range(self.t.jobs.used):
            job = job_at(&self.t, slot)
            if job.state:
                total += self.hash_text(repr(self.job_facts(job)))
        for kind, named in self.documents_by_kind.items():
            for name, body in named.items():
                total += self.hash_text(repr((kind, name, body)))
        return (total + self.hash_text(repr((self.next_seq, self.epoch, self.last_us)))) & 0xffffffffffffffff

    cdef uint64_t hash_text(self, str text):
        cdef bytes data = text.encode()
        return siphash(self.key, <const char*>data, len(data))

    cdef tuple job_facts(self, Job* job):
        """All that records state about a job."""
        cdef Run* run
        cdef Closing* closing
        cdef uint32_t i
        facts = (
            job.seq, job.created_us, job.run_at_us, job.priority, job.attempts, job.max_retries, job.state,
            self.names[self.queues[job.queue].name], self.names[job.owner], job.place.bytes,
        )
        if job.run != NONE:
            run = run_at(&self.t, job.run)
            facts += (run.lease_until_us, run.ended_us, run.lease_no, run.lease_ms, run.legacy, run.outcome)
            i = run.closing
            while i != NONE:
                closing = closing_at(&self.t, i)
                facts += (closing.lease_no, closing.outcome, closing.digest)
                i = closing.next
        return facts

    def check(self):
        cdef uint64_t in_heaps = self.delayed.count + self.leased.count, waiting = 0, found = 0
        cdef uint64_t counts[STATES]
        cdef uint32_t slot, i
        cdef Job* job
        memset(counts, 0, sizeof(counts))
        self.check_heap(&self.delayed)
        self.check_heap(&self.leased)
        for i in range(self.queue_count):
            self.check_heap(&self.queues[i].ready)
            in_heaps += self.queues[i].ready.count
        for slot in range(self.t.jobs.used):
            job = job_at(&self.t, slot)
            if not job.state:
                continue
            found += 1
            counts[job.state] += 1
            assert index_find(&self.t, job.seq) == slot, f"job {job.seq} is not in the index"
            assert (job.heap == IN_LEASED) == (job.state == RUNNING), f"job {job.seq} is in the wrong heap"
            waiting += job.state <= RETRY
            assert (job.heap == IN_NONE) == (job.state > RETRY), f"job {job.seq} is in a heap though it is finished"
        assert found == self.t.jobs.live and in_heaps == waiting, "jobs, heaps and states do not add up"
        for i in range(STATES):
            assert counts[i] == self.counts_by_state[i], f"{STATE_NAMES[i]} is counted wrongly"

    cdef int check_heap(self, Heap* heap) except -1:
        cdef uint32_t i
        for i in range(heap.count):
            assert job_at(&self.t, heap.slots[i]).heap_pos == i and job_at(&self.t, heap.slots[i]).heap == heap.kind
            assert i == 0 or not before(&self.t, heap.kind, heap.slots[i], heap.slots[(i - 1) // 4]), "heap order"
        return 0


cdef bytes cut_text(bytes text, Py_ssize_t n):
    """At most n bytes of UTF-8 text, cut between characters."""
    if len(text) <= n:
        return text
    return text[:n].decode("utf-8", "ignore").encode()
