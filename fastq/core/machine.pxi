# The state machine. A command is decided against the present state and becomes a record; applying a record is the only
# thing that changes state, live as in replay.

cdef enum:
    RESTART_GRACE_US = 30_000_000   # what a lease has at least after a restart, if it was as long
    ADVANCE_AT_LEASE = 64           # delayed jobs that a lease lets in first; the engine's timer does the bulk
    REQUESTS_MAX = 100_000          # request_ids that are remembered at most,
    REQUEST_US = 60_000_000         # and for how long
    STATES = 6

cdef int64_t NEVER_US = <int64_t>1 << 62


@cython.final
cdef class Core:
    cdef Tail tail
    cdef Tables t
    cdef Heap delayed, leased
    cdef Finished finished[STATES]  # of the terminal states
    cdef Queue* queues
    cdef uint32_t queue_count
    cdef list queues_free           # indexes of queues that are not there
    cdef list names                 # index -> bytes, of queues and owners; None where free
    cdef list name_uses             # index -> how many jobs and queues name it
    cdef list names_free
    cdef dict name_index            # bytes -> index
    cdef dict queue_index           # queue name -> queue index
    cdef dict documents_by_kind     # kind -> {name: (body, segment, offset)}
    cdef dict requests              # (key_id, request_id) -> (leased at, [(seq, lease_no)]), oldest first
    cdef object touched             # names of queues in which jobs became ready, while `watching`
    cdef public bint watching
    cdef uint64_t counts_by_state[STATES]
    cdef uint64_t next_seq, epoch, skipped_count
    cdef readonly uint64_t live_bytes
    cdef readonly uint32_t oldest_segment
    cdef readonly int64_t last_us
    cdef readonly bytes database_id
    cdef SipKey key
    cdef uint64_t tag

    def __cinit__(self, Tail tail):
        pool_init(&self.t.jobs, sizeof(Job))
        pool_init(&self.t.runs, sizeof(Run))
        pool_init(&self.t.closings, sizeof(Closing))

    def __init__(self, Tail tail):
        cdef int i
        self.tail = tail
        self.delayed.kind = IN_DELAYED
        self.leased.kind = IN_LEASED
        self.names = []
        self.name_index = {}
        self.name_uses = []
        self.names_free = []
        self.queue_index = {}
        self.queues_free = []
        self.documents_by_kind = {}
        self.requests = {}
        self.touched = set()
        self.next_seq = 1
        self.oldest_segment = 1
        self.database_id = b""
        for i in range(STATES):
            self.finished[i].oldest = self.finished[i].newest = self.finished[i].last_added = NONE

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

    def identify(self, bytes database_id):
        cdef SipKey seed
        assert len(database_id) == 16 and not self.database_id
        self.database_id = database_id
        memcpy(&seed, <const char*>database_id, 16)
        self.tag = seed.k0 & ((1 << TAG_BITS) - 1)
        self.key.k0 = siphash(seed, b"lease token 0", 13)
        self.key.k1 = siphash(seed, b"lease token 1", 13)

    def resume(self, int64_t now_us, uint64_t epoch):
        cdef Place place
        cdef uint32_t n = RECORD_HEAD_BYTES + 24
        cdef char* p
        assert self.database_id, "identify comes first"
        p = self.tail.reserve(n, &place)
        put_u64(put_u64(put_i64(put_head(p, RESUME, 0, n), now_us), epoch), self.next_seq)
        self.commit(p, n, &place)

    # --- deciding: jobs -----------------------------------------------------------------------------------------------

    def submit(self, int64_t now_us, bytes payload, *, str owner_id, str key_id, int max_retries, int priority=0,
               int64_t run_at_us=0, str queue="default"):
        cdef bytes owner = owner_id.encode(), key = key_id.encode(), queue_name = queue.encode()
        assert self.database_id and len(owner) <= 255 and len(key) <= 255 and 0 < len(queue_name) <= 255
        return self.append_submit(now_us, payload, owner, key, queue_name, max_retries, priority, run_at_us)

    def submit_many(self, int64_t now_us, list jobs, *, str owner_id, str key_id):
        cdef bytes owner = owner_id.encode(), key = key_id.encode(), payload
        cdef uint64_t bytes_max = 0
        cdef int max_retries, priority
        cdef int64_t run_at_us
        cdef str queue
        cdef list ids = []
        assert self.database_id and len(owner) <= 255 and len(key) <= 255
        for payload, max_retries, priority, run_at_us, queue in jobs:
            bytes_max += SUBMIT_RECORD_BYTES + len(payload)
        self.tail.begin_group(bytes_max)
        try:
            for payload, max_retries, priority, run_at_us, queue in jobs:
                ids.append(self.append_submit(
                    now_us, payload, owner, key, queue.encode(), max_retries, priority, run_at_us
                ))
        finally:
            self.tail.end_group()
        return ids

    cdef str append_submit(self, int64_t now_us, bytes payload, bytes owner, bytes key, bytes queue, int max_retries,
                           int priority, int64_t run_at_us):
        cdef Place place
        cdef uint16_t flags = SUBMIT_OWNER | SUBMIT_KEY_ID
        cdef uint32_t n = RECORD_HEAD_BYTES + 18 + 2 + len(owner) + len(key) + len(payload)
        cdef uint64_t seq = self.next_seq
        cdef char* p
        cdef char* record
        if run_at_us > now_us:
            flags |= SUBMIT_RUN_AT
            n += 8
        if priority:
            flags |= SUBMIT_PRIORITY
            n += 4
        if queue != b"default":
            flags |= SUBMIT_QUEUE
            n += 1 + len(queue)
        record = p = self.tail.reserve(n, &place)
        p = put_u64(put_head(p, SUBMIT, flags, n), seq)
        p = put_u16(put_i64(p, now_us), <uint16_t>max_retries)
        if flags & SUBMIT_RUN_AT:
            p = put_i64(p, run_at_us)
        if flags & SUBMIT_PRIORITY:
            p = put_u32(p, <uint32_t>priority)
        if flags & SUBMIT_QUEUE:
            p = put_name(p, queue)
        p = put_name(put_name(p, owner), key)
        put_bytes(p, <const char*>payload, len(payload))
        self.commit(record, n, &place)
        return id_text(now_us, seq, self.tag)

    def lease(self, int64_t now_us, list queues, int limit, *, int64_t lease_ms, str key_id, str worker_id="",
              bint legacy=False, str request_id="", uint64_t bytes_max=1 << 40):
        cdef bytes key = key_id.encode(), worker = worker_id.encode(), request = request_id.encode()
        cdef list leased = []
        cdef uint32_t available, slot
        cdef uint64_t payload_bytes = 0
        self.let_in(now_us, ADVANCE_AT_LEASE)
        available = min(<uint32_t>limit, self.ready_in(queues))
        if available == 0:
            return leased
        if available > 1:
            self.tail.begin_group(
                available * <uint32_t>(RECORD_HEAD_BYTES + 33 + len(key) + len(worker) + len(request))
            )
        try:
            while len(leased) < <Py_ssize_t>available:
                slot = self.first_ready(queues)
                payload_bytes += job_at(&self.t, slot).place.bytes
                if leased and payload_bytes > bytes_max:
                    break
                self.append_lease(slot, now_us, now_us + lease_ms * 1000, key, worker, request, legacy)
                leased.append(self.leased_view(job_at(&self.t, slot)))
        finally:
            if available > 1:
                self.tail.end_group()
        return leased

    def leased_before(self, int64_t now_us, str key_id, str request_id):
        cdef list leased = []
        cdef uint32_t slot
        cdef uint64_t seq
        cdef uint32_t lease_no
        cdef Job* job
        found = self.requests.get((key_id.encode(), request_id.encode()))
        if found is None or found[0] + REQUEST_US <= now_us:
            return leased
        for seq, lease_no in found[1]:
            slot = index_find(&self.t, seq)
            if slot == NONE:
                continue
            job = job_at(&self.t, slot)
            if job.state == RUNNING and run_at(&self.t, job.run).lease_no == lease_no:
                leased.append(self.leased_view(job))
        return leased

    cdef Leased leased_view(self, Job* job):
        cdef Run* run = run_at(&self.t, job.run)
        cdef Leased leased = Leased.__new__(Leased)
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
        return self.append_ack(now_us, job_id, token, key_id.encode(), result, error, retry_at)

    def ack_many(self, int64_t now_us, list acks, *, str key_id):
        cdef bytes key = key_id.encode(), result
        cdef str job_id, error
        cdef uint64_t bytes_max = 0
        cdef list outcomes = []
        for job_id, token, result, error, retry_at in acks:
            bytes_max += close_bytes_max(result, error)
        self.tail.begin_group(bytes_max)
        try:
            for job_id, token, result, error, retry_at in acks:
                try:
                    self.append_ack(now_us, job_id, token, key, result, error, retry_at)
                except ApiError as refusal:
                    outcomes.append(refusal)
                else:
                    outcomes.append(None)
        finally:
            self.tail.end_group()
        return outcomes

    cdef bint append_ack(self, int64_t now_us, str job_id, token, bytes key, bytes result, str error,
                         retry_at) except -1:
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
        elif not self.holds(job, token):
            lease_no = token_lease_no(self.key, job.seq, token)
            run = NULL if job.run == NONE else run_at(&self.t, job.run)
            if lease_no and run != NULL and self.is_repetition(run, lease_no, outcome, text, result):
                return False
            raise LeaseLost(self.state_name(job, now_us))
        self.append_close(slot, now_us, outcome, text, result, key, retry_at)
        return True

    cdef bint holds(self, Job* job, str token):
        """Whether the token is the present lease's."""
        cdef uint32_t lease_no = token_lease_no(self.key, job.seq, token)
        return lease_no != 0 and job.state == RUNNING and run_at(&self.t, job.run).lease_no == lease_no

    def extend(self, int64_t now_us, str job_id, str token, int64_t lease_ms):
        cdef uint32_t slot = self.slot_of(job_id), n = RECORD_HEAD_BYTES + 28
        cdef Job* job = job_at(&self.t, slot)
        cdef Run* run
        cdef Place place
        cdef char* p
        cdef int64_t until_us = now_us + lease_ms * 1000
        if not self.holds(job, token):
            raise LeaseLost(self.state_name(job, now_us))
        run = run_at(&self.t, job.run)
        if until_us > run.lease_until_us:
            p = self.tail.reserve(n, &place)
            put_i64(put_i64(put_u32(put_u64(put_head(p, EXTEND, 0, n), job.seq), run.lease_no), now_us), until_us)
            self.commit(p, n, &place)
        return run.lease_until_us

    def undelivered(self, int64_t now_us, str job_id, str token):
        cdef uint32_t slot = self.slot_of(job_id)
        if not self.holds(job_at(&self.t, slot), token):
            return False
        self.append_close(slot, now_us, OUTCOME_UNDELIVERED, b"", None, b"", None)
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

    # --- deciding: what may go ----------------------------------------------------------------------------------------

    def forget(self, int64_t now_us, str state, int64_t ended_before_us, uint64_t count_max, uint64_t bytes_max,
               int limit):
        cdef Finished* list = &self.finished[STATE_NAMES.index(state)]
        cdef uint32_t slot = list.oldest, n = 0, size
        cdef uint64_t over_count = list.count - min(list.count, count_max), bytes_left = list.bytes
        cdef Place place
        cdef char* p
        cdef char* record
        while slot != NONE and n < <uint32_t>limit and (
            n < over_count or bytes_left > bytes_max or finished_us(&self.t, slot) < ended_before_us
        ):
            bytes_left -= kept_bytes(&self.t, job_at(&self.t, slot))
            slot = run_at(&self.t, job_at(&self.t, slot).run).newer
            n += 1
        if n == 0:
            return 0
        size = RECORD_HEAD_BYTES + 8 + 8 * n
        record = p = self.tail.reserve(size, &place)
        p = put_i64(put_head(p, FORGET, 0, size), now_us)
        slot = list.oldest
        for _ in range(n):
            p = put_u64(p, job_at(&self.t, slot).seq)
            slot = run_at(&self.t, job_at(&self.t, slot).run).newer
        self.commit(record, size, &place)
        return n

    def trim(self, int64_t now_us, uint32_t oldest_segment):
        cdef Place place
        cdef uint32_t n = RECORD_HEAD_BYTES + 28
        cdef char* p
        assert oldest_segment > self.oldest_segment
        p = self.tail.reserve(n, &place)
        put_u64(put_u64(put_u32(put_i64(put_head(p, TRIM, 0, n), now_us), oldest_segment), self.next_seq), self.epoch)
        self.commit(p, n, &place)

    def live_records(self, records, uint32_t segment, uint32_t offset):
        cdef Py_buffer buffer
        cdef list found = []
        PyObject_GetBuffer(records, &buffer, PyBUF_SIMPLE)
        try:
            find_live(self, <const char*>buffer.buf, <const char*>buffer.buf + buffer.len, segment, offset, found)
        finally:
            PyBuffer_Release(&buffer)
        return found

    def move_job(self, LiveJob live, bytes submit, bytes close, bytes lease):
        return append_job(self, live, submit, close, lease)

    def move_document(self, int64_t now_us, LiveDocument live):
        cdef bytes name = live.name.encode()
        place = self.documents_by_kind.get(live.kind, {}).get(live.name)
        if place is None or place[1:] != (live.segment, live.offset):
            return False
        self.append_document(now_us, live.kind, name, place[0], b"", 0)
        return True

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
        return {name: found[0] for name, found in self.documents_by_kind.get(kind, {}).items()}

    def counts(self):
        counts = {STATE_NAMES[i]: self.counts_by_state[i] for i in range(1, STATES)}
        counts["delayed"] = self.delayed.count
        counts["jobs"] = self.t.jobs.live
        return counts

    def skipped(self):
        return self.skipped_count

    def take_touched(self):
        touched, self.touched = self.touched, set()
        return touched

    # --- applying -----------------------------------------------------------------------------------------------------

    def replay(self, records, uint32_t segment, uint32_t offset):
        cdef Py_buffer buffer
        PyObject_GetBuffer(records, &buffer, PyBUF_SIMPLE)
        try:
            return self.apply_each(
                <const char*>buffer.buf, <const char*>buffer.buf + buffer.len, segment, offset
            )
        finally:
            PyBuffer_Release(&buffer)

    cdef int apply_each(self, const char* p, const char* end, uint32_t segment, uint32_t offset) except -1:
        """Apply the records that lie one after the other from p to end; how many there were."""
        cdef int n = 0
        cdef Place place
        place.segment = segment
        place.offset = offset
        while p < end:
            place.bytes = record_bytes(p, end)
            if place.bytes == 0:
                raise LogDamaged(f"no record at {segment}:{place.offset}, though the frame is whole")
            self.apply(p, place.bytes, &place)
            p += place.bytes
            place.offset += place.bytes
            n += 1
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
        if type < TRIM or type > FORGET or version != RECORD_VERSION or flags & ~known_flags(type):
            raise UnsupportedFormat(
                f"record of type {type}, version {version}, flags {flags:#x} at {place.segment}:{place.offset}: "
                f"this fastq reads record version {RECORD_VERSION}; a later one is needed"
            )
        if type == SUBMIT:
            self.apply_submit(&r, flags, place)
        elif type == LEASE:
            self.apply_lease(&r, flags, place)
        elif type == CLOSE:
            self.apply_close(&r, flags, place)
        elif type == DOCUMENT:
            self.apply_document(&r, flags, place)
        elif type == RESUME:
            self.apply_resume(&r)
        elif type == EXTEND:
            self.apply_extend(&r)
        elif type == GROUP:
            self.apply_each(r.p, r.end, place.segment, place.offset + RECORD_HEAD_BYTES)
        elif type == JOB:
            apply_job(self, &r, flags, place)
        elif type == FORGET:
            self.apply_forget(&r)
        else:
            self.apply_trim(&r)
        if r.short:
            raise LogDamaged(f"the record at {place.segment}:{place.offset} is cut short")
        return 0

    cdef int apply_trim(self, Reader* r) except -1:
        cdef int64_t at_us = <int64_t>get_int(r, 8)
        cdef uint32_t oldest_segment = <uint32_t>get_int(r, 4)
        cdef uint64_t next_seq = get_int(r, 8), epoch = get_int(r, 8)
        if r.short:
            return 0
        self.saw(at_us)
        self.oldest_segment = oldest_segment
        self.next_seq = max(self.next_seq, next_seq)
        self.epoch = max(self.epoch, epoch)
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
        self.queues[job.queue].jobs += 1
        self.live_bytes += place.bytes
        index_add(&self.t, slot)
        self.set_state(job, READY)
        self.wait(slot, f.created_us)
        self.next_seq = max(self.next_seq, seq + 1)
        self.saw(f.created_us)
        return 0

    cdef int apply_lease(self, Reader* r, uint16_t flags, Place* place) except -1:
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
        self.live_bytes -= kept_bytes(&self.t, job)
        run = self.run_of(job)
        run.lease_place = place[0]
        run.lease_no = f.lease_no
        run.lease_until_us = f.until_us
        run.lease_ms = <uint32_t>((f.until_us - f.at_us) // 1000)
        run.legacy = flags & LEASE_LEGACY
        job.attempts = f.attempts
        self.set_state(job, RUNNING)
        self.live_bytes += kept_bytes(&self.t, job)
        heap_push(&self.t, &self.leased, slot)
        if flags & LEASE_REQUEST_ID:
            self.remember_request(
                f.at_us, f.key_id.p[:f.key_id.n], f.request_id.p[:f.request_id.n], job.seq, f.lease_no
            )
        self.saw(f.at_us)
        return 0

    cdef int apply_extend(self, Reader* r) except -1:
        cdef uint32_t slot = self.known(get_int(r, 8)), lease_no = <uint32_t>get_int(r, 4)
        cdef int64_t at_us = <int64_t>get_int(r, 8), until_us = <int64_t>get_int(r, 8)
        cdef Job* job
        if r.short or slot == NONE:
            return 0
        job = job_at(&self.t, slot)
        if job.state != RUNNING or run_at(&self.t, job.run).lease_no != lease_no:
            raise LogDamaged(f"lease {lease_no} of job {job.seq} is extended in state {STATE_NAMES[job.state]}")
        heap_remove(&self.t, &self.leased, slot)
        run_at(&self.t, job.run).lease_until_us = until_us
        heap_push(&self.t, &self.leased, slot)
        self.saw(at_us)
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
        if job.state != RUNNING or run.lease_no != f.lease_no or not READY <= f.state <= DEAD or f.state == RUNNING:
            raise LogDamaged(f"attempt {f.lease_no} of job {job.seq} is closed in state {STATE_NAMES[job.state]}")
        self.leave_heap(slot)
        self.live_bytes -= kept_bytes(&self.t, job)
        job.attempts = f.attempts
        self.set_state(job, f.state)
        if f.outcome != OUTCOME_UNDELIVERED:  # which was no attempt: what the one before left stays
            run.ended_us = f.at_us
            run.outcome = f.outcome
            run.place = place[0]
        self.live_bytes += kept_bytes(&self.t, job)
        if flags & CLOSE_BY_CLIENT:
            self.remember_closing(
                run, f.outcome, close_digest(self.key, f.outcome, f.error, f.error_bytes, r.p, r.end - r.p)
            )
        if f.state >= ACKED:
            finished_add(&self.t, &self.finished[f.state], slot)
        else:
            if flags & CLOSE_RUN_AT:
                job.run_at_us = f.run_at_us
            self.wait(slot, f.at_us)
        self.saw(f.at_us)
        return 0

    cdef int apply_forget(self, Reader* r) except -1:
        cdef uint32_t slot
        self.saw(<int64_t>get_int(r, 8))
        while r.p < r.end and not r.short:
            slot = self.known(get_int(r, 8))
            if slot != NONE:
                self.forget_job(slot)
        return 0

    cdef int apply_document(self, Reader* r, uint16_t flags, Place* place) except -1:
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
            self.documents_by_kind.setdefault(kind, {})[name.decode()] = (
                r.p[:r.end - r.p], place.segment, place.offset
            )
        return 0

    # --- pieces of deciding -------------------------------------------------------------------------------------------

    cdef uint32_t ready_in(self, list queues) except NONE:
        """How many jobs of these queues are due."""
        cdef uint32_t n = 0
        for queue in queues:
            index = self.queue_index.get(queue)
            if index is not None:
                n += self.queues[<uint32_t>index].ready.count
        return n

    cdef uint32_t first_ready(self, list queues) except? NONE:
        """The slot of the first job that is due, of the first queue that has one; NONE if none has."""
        cdef Heap* ready
        for queue in queues:
            index = self.queue_index.get(queue)
            if index is not None:
                ready = &self.queues[<uint32_t>index].ready
                if ready.count:
                    return ready.slots[0]
        return NONE

    cdef int append_lease(self, uint32_t slot, int64_t now_us, int64_t until_us, bytes key, bytes worker,
                          bytes request, bint legacy) except -1:
        cdef Job* job = job_at(&self.t, slot)
        cdef uint32_t lease_no = 1 if job.run == NONE else run_at(&self.t, job.run).lease_no + 1
        cdef uint16_t flags = LEASE_KEY_ID
        cdef uint32_t n = RECORD_HEAD_BYTES + 30 + 1 + len(key)
        cdef Place place
        cdef char* p
        cdef char* record
        assert len(key) <= 255 and len(worker) <= 255 and len(request) <= 255
        if legacy:
            flags |= LEASE_LEGACY
        if worker:
            flags |= LEASE_WORKER
            n += 1 + len(worker)
        if request:
            flags |= LEASE_REQUEST_ID
            n += 1 + len(request)
        record = p = self.tail.reserve(n, &place)
        p = put_u32(put_u64(put_head(p, LEASE, flags, n), job.seq), lease_no)
        p = put_i64(put_i64(put_u16(p, job.attempts + 1), now_us), until_us)
        if worker:
            p = put_name(p, worker)
        p = put_name(p, key)
        if request:
            put_name(p, request)
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
        cdef uint16_t attempts = job.attempts
        if outcome == OUTCOME_UNDELIVERED:
            attempts -= 1
            state = RETRY if run_at(&self.t, job.run).outcome else READY
        elif outcome != OUTCOME_OK:
            state = RETRY if attempts < job.max_retries else DEAD
        if outcome <= OUTCOME_ERROR:
            flags |= CLOSE_BY_CLIENT
        if state == RETRY and outcome != OUTCOME_UNDELIVERED:
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
        p = put_i64(put_u8(put_u8(put_u16(p, attempts), outcome), state), now_us)
        if flags & CLOSE_RUN_AT:
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
            self.make_ready(slot)
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
        if job_at(&self.t, slot).run_at_us > now_us:
            return heap_push(&self.t, &self.delayed, slot)
        return self.make_ready(slot)

    cdef int make_ready(self, uint32_t slot) except -1:
        cdef uint32_t queue = job_at(&self.t, slot).queue
        if self.watching:
            self.touched.add(self.queue_name(queue))
        return heap_push(&self.t, &self.queues[queue].ready, slot)

    cdef Run* run_of(self, Job* job) except NULL:
        """The job's run, made if it has none yet."""
        if job.run == NONE:
            job.run = pool_take(&self.t.runs)
            run_at(&self.t, job.run).closing = NONE
        return run_at(&self.t, job.run)

    cdef int forget_job(self, uint32_t slot) except -1:
        """Free all that memory has of a job."""
        cdef Job* job = job_at(&self.t, slot)
        cdef uint32_t closing, next
        self.leave_heap(slot)
        if job.state >= ACKED:
            finished_drop(&self.t, &self.finished[job.state], slot)
        self.live_bytes -= kept_bytes(&self.t, job)
        self.counts_by_state[job.state] -= 1
        index_drop(&self.t, slot)
        self.queues[job.queue].jobs -= 1
        if self.queues[job.queue].jobs == 0:
            self.drop_queue(job.queue)
        self.drop_name(job.owner)
        if job.run != NONE:
            closing = run_at(&self.t, job.run).closing
            while closing != NONE:
                next = closing_at(&self.t, closing).next
                pool_give(&self.t.closings, closing)
                closing = next
            pool_give(&self.t.runs, job.run)
        pool_give(&self.t.jobs, slot)
        return 0

    cdef int remember_request(self, int64_t at_us, bytes key, bytes request, uint64_t seq, uint32_t lease_no) except -1:
        """So that the same request is answered with the same leases for a while."""
        self.drop_requests(at_us)
        known = self.requests.get((key, request))
        if known is None or known[0] != at_us:
            self.requests.pop((key, request), None)
            known = self.requests[key, request] = (at_us, [])
        if (seq, lease_no) not in known[1]:
            known[1].append((seq, lease_no))
        return 0

    cdef int drop_requests(self, int64_t now_us) except -1:
        while self.requests:
            oldest = next(iter(self.requests))
            if len(self.requests) <= REQUESTS_MAX and self.requests[oldest][0] + REQUEST_US > now_us:
                break
            del self.requests[oldest]
        return 0

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
        """The index of a name, which has one more user now: see `drop_name`."""
        index = self.name_index.get(name)
        if index is None:
            if self.names_free:
                index = self.names_free.pop()
                self.names[index] = name
            else:
                index = len(self.names)
                self.names.append(name)
                self.name_uses.append(0)
            self.name_index[name] = index
        self.name_uses[index] += 1
        return index

    cdef int drop_name(self, uint32_t index) except -1:
        self.name_uses[index] -= 1
        if self.name_uses[index] == 0:
            del self.name_index[self.names[index]]
            self.names[index] = None
            self.names_free.append(index)
        return 0

    cdef uint32_t queue_of(self, bytes name) except NONE:
        """The index of a queue, which is made if it is not there."""
        cdef Queue* queues
        cdef uint32_t at
        text = name.decode()
        index = self.queue_index.get(text)
        if index is not None:
            return index
        if self.queues_free:
            at = self.queues_free.pop()
        else:
            queues = <Queue*>realloc(self.queues, (self.queue_count + 1) * sizeof(Queue))
            if queues == NULL:
                raise MemoryError
            self.queues = queues
            at = self.queue_count
            self.queue_count += 1
        memset(&self.queues[at], 0, sizeof(Queue))
        self.queues[at].ready.kind = IN_READY
        self.queues[at].name = self.name_of(name)
        self.queue_index[text] = at
        return at

    cdef int drop_queue(self, uint32_t index) except -1:
        """Its last job is gone."""
        del self.queue_index[self.queue_name(index)]
        self.drop_name(self.queues[index].name)
        free(self.queues[index].ready.slots)
        memset(&self.queues[index], 0, sizeof(Queue))
        self.queues_free.append(index)
        return 0

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
        return hash_state(self)

    def check(self):
        check_core(self)
