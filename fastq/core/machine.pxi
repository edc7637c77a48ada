# The state machine's methods. Deciding turns a command and the present state into records (deciding.pxi, changing.pxi).
# Applying a record (applying.pxi) is the only thing that changes state, in live work and in replay.

cdef enum:
    ADVANCE_AT_LEASE = 64           # due jobs that a lease moves first; the timer moves most of them
    REQUEST_US = 60_000_000         # how long a repeated request_id gets the same leases

cdef int64_t NEVER_US = <int64_t>1 << 62


@cython.final
cdef class Core:
    def __cinit__(self, Tail tail not None, CoreSettings settings not None):
        assert sizeof(Place) == 12 and sizeof(Job) == 72 and sizeof(Run) == 96 and sizeof(Remembered) == 64
        tables_init(&self.t)

    def __init__(self, Tail tail not None, CoreSettings settings not None):
        cdef int i
        self.tail = tail
        self.settings = settings
        self.delayed.kind = IN_DELAYED
        self.leased.kind = IN_LEASED
        self.expiring.kind = IN_EXPIRING
        self.idle_groups, self.shares = deque(), {}
        self.due.kind = BY_DUE
        for i in range(FINAL_COUNT):
            self.ended_first[i].kind = BY_END
            self.kept_ms[i] = -1
        self.finished_max = self.finished_bytes_max = <uint64_t>-1
        self.documents_by_kind, self.requests, self.progress, self.blocks = {}, {}, {}, {}
        self.request_of = {}
        self.touched, self.ended, self.forgotten = set(), [], []
        self.failure_groups = OrderedDict()
        self.oldest_key = self.newest_key = self.last_key = NONE
        self.last_owner = self.last_queue = self.last_holding = NONE
        self.first_active = self.last_active = NONE
        self.next_seq = 1
        self.oldest_frame = 1
        self.database_id = b""
        self.depth_limits = 1 if settings.owner_depth_max else 0

    def __dealloc__(self):
        cdef uint32_t i
        cdef int state
        free_answers(self)
        free_traffic(self)
        free(self.feed.ring)
        for i in range(pool_end(&self.t.queues)):
            if queue_exists(self, i):
                free(queue_by(self, i).groups)
                free(queue_by(self, i).ages.spans)
        for i in range(pool_end(&self.t.groups)):
            if group_exists(self, i):
                free(group_by(self, i).ready.slots)
        names_clear(self)
        tables_clear(&self.t)
        free(self.due.items)
        for state in range(FINAL_COUNT):
            free(self.ended_first[state].items)
        free(self.delayed.slots)
        free(self.leased.slots)
        free(self.expiring.slots)

    # --- the start ----------------------------------------------------------------------------------------------------

    def identify(self, bytes database_id):
        cdef SipKey seed
        assert len(database_id) == 16 and not self.database_id
        self.database_id = database_id
        memcpy(&seed, <const char*>database_id, 16)
        self.tag = seed.k0 & ((1 << TAG_BITS) - 1)
        self.key.k0 = siphash(seed, b"lease token 0", 13)
        self.key.k1 = siphash(seed, b"lease token 1", 13)

    def fence(self, uint32_t lease_no):
        self.lease_fence = lease_no

    def configure_queue(self, int64_t now_us, str name, QueueSettings settings):
        configure_queue(self, now_us, name.encode(), settings)

    def resume(self, int64_t now_us, uint64_t epoch):
        cdef Place place
        cdef uint32_t n = RECORD_HEAD_BYTES + 28
        cdef char* p
        assert self.database_id, "identify comes first"
        p = self.tail.reserve(n, &place)
        put_u32(
            put_u64(put_u64(put_i64(put_head(p, RESUME, 0, n), now_us), epoch), self.next_seq), self.settings.grace_ms
        )
        commit(self, p, n, &place)
        begin_feed(self, now_us)
        self.serves = True

    def replay(self, records, uint64_t frame):
        cdef Py_buffer buffer
        PyObject_GetBuffer(records, &buffer, PyBUF_SIMPLE)
        try:
            return apply_each(self, <const char*>buffer.buf, <const char*>buffer.buf + buffer.len, frame, 0)
        finally:
            PyBuffer_Release(&buffer)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def submit(self, int64_t now_us, NewJob job not None, *, str owner_id, str key_id):
        cdef bytes owner = owner_id.encode(), key = key_id.encode()
        assert self.database_id
        if job.options is not None or self.depth_limits or queues_are_full(self, 1):
            check_new(self, now_us, [job], owner, owner, {}, 0)
        return submit_one(self, now_us, job, owner, owner, key)

    def submit_many(self, int64_t now_us, list jobs, *, str owner_id, str key_id):
        cdef bytes owner = owner_id.encode(), key = key_id.encode()
        cdef list answers = []
        cdef NewJob job
        assert self.database_id
        check_new(self, now_us, jobs, owner, owner, {}, 0)
        self.tail.begin_group(jobs_bytes_max(jobs))
        try:
            for job in jobs:
                answers.append(submit_one(self, now_us, job, owner, owner, key))
        finally:
            self.tail.end_group()
        return answers

    def lease(self, int64_t now_us, queues, int limit, *, int64_t lease_ms, str key_id, str worker_id="",
              bint legacy=False, str request_id="", uint64_t bytes_max=1 << 40):
        return lease_jobs(self, now_us, queues, limit, lease_ms, key_id.encode(), worker_id.encode(), legacy,
                          request_id.encode(), bytes_max)

    def leased_before(self, int64_t now_us, str key_id, str request_id):
        return leased_before(self, now_us, key_id.encode(), request_id.encode())

    def ack(self, int64_t now_us, Access access not None, Ack ack not None, *, str key_id):
        return append_ack(self, now_us, access, ack, key_id.encode())

    def ack_many(self, int64_t now_us, Access access not None, list acks, *, str key_id):
        cdef bytes key = key_id.encode()
        cdef list refusals = []
        cdef Ack ack
        self.tail.begin_group(acks_bytes_max(acks))
        try:
            for ack in acks:
                try:
                    append_ack(self, now_us, access, ack, key)
                except ApiError as refusal:
                    refusals.append(refusal)
                else:
                    refusals.append(None)
        finally:
            self.tail.end_group()
        return refusals

    def extend(self, int64_t now_us, Access access not None, str job_id, str token, int64_t lease_ms):
        return append_extend(self, now_us, access, job_id, token, lease_ms)

    def extend_many(self, int64_t now_us, Access access not None, list extends):
        cdef list answers = []
        cdef Extend extend
        self.tail.begin_group(len(extends) * (RECORD_HEAD_BYTES + 28))
        try:
            for extend in extends:
                try:
                    until_us = append_extend(self, now_us, access, extend.job_id, extend.token, extend.lease_ms)
                except ApiError as refusal:
                    answers.append(refusal)
                else:
                    answers.append((until_us, cancel_requested(self, access, extend.job_id)))
        finally:
            self.tail.end_group()
        return answers

    def report(self, int64_t now_us, Access access not None, str job_id, str token, int percent, str note):
        append_progress(self, now_us, access, job_id, token, percent, note.encode())

    def undelivered(self, int64_t now_us, str job_id, str token):
        return close_by_server(self, now_us, job_id, token, OUTCOME_UNDELIVERED, b"")

    def unreadable(self, int64_t now_us, str job_id, str token, str reason):
        return close_by_server(self, now_us, job_id, token, OUTCOME_UNREADABLE,
                               cut_text(reason.encode(), ERROR_BYTES_MAX))

    def transact(self, int64_t now_us, Access access not None, list acks, list extends, list jobs, *, str owner_id,
                 str key_id, str idempotency_key="", uint64_t body_digest=0):
        return transact(self, now_us, access, acks, extends, jobs, owner_id.encode(), key_id.encode(),
                        idempotency_key.encode(), body_digest)

    def cancel(self, int64_t now_us, Access access not None, str job_id, *, bint force, str key_id):
        return cancel_job(self, now_us, access, job_id, force, key_id.encode())

    def redrive(self, int64_t now_us, Access access not None, str job_id, *, str key_id):
        redrive_job(self, now_us, access, job_id, key_id.encode())

    def edit(self, int64_t now_us, Access access not None, str job_id, RecordPlace place not None, bytes submit, *,
             str key_id, bytes payload=None, priority=None, run_at_us=None, queue=None):
        return edit_job(self, now_us, access, job_id, place, submit, key_id.encode(), payload, priority, run_at_us,
                        queue)

    def delete(self, int64_t now_us, Access access not None, list job_ids):
        cdef list seqs = []
        cdef Job* job
        for job_id in job_ids:
            job = job_at(&self.t, slot_of(self, access, job_id))
            if job.state == RUNNING:
                raise JobRunning()
            seqs.append(job.seq)
        if seqs:
            append_forget(self, now_us, seqs)

    # --- reads --------------------------------------------------------------------------------------------------------

    def job(self, int64_t now_us, Access access not None, str job_id):
        return job_view(self, now_us, slot_of(self, access, job_id))

    def page(self, int64_t now_us, Access access not None, Filter filter not None, uint64_t before, int limit,
             int examine_max):
        return find_page(self, now_us, access, before, limit, examine_max, filter)

    def running(self, Access access not None, uint32_t first, uint32_t end):
        return running_jobs(self, access, first, end)

    def rising(self, int64_t now_us, Access access not None, Filter filter not None, uint64_t after, uint64_t until,
               int limit, int examine_max):
        return find_rising(self, now_us, access, after, until, limit, examine_max, filter)

    @property
    def next_number(self):
        return self.next_seq

    def position(self, Access access not None, str job_id, uint32_t count_max):
        return position_of(self, access, slot_of(self, access, job_id), count_max)

    def queues(self, Access access not None):
        if access.owner is not None:
            return sorted(name for name in holding_names(self, access.owner) if access.has_queue(name))
        return sorted(self.queues_in(access, 0, pool_end(&self.t.queues), ""))

    def queues_in(self, Access access not None, uint32_t first, uint32_t end, str after):
        cdef list found = []
        cdef uint32_t i
        for i in range(first, min(end, pool_end(&self.t.queues))):
            if queue_exists(self, i) and has_queue(self, access, i):
                name = queue_name(self, i)
                if name > after:
                    found.append(name)
        return found

    @property
    def queue_places(self):
        return pool_end(&self.t.queues)

    @property
    def queue_count(self):
        return self.t.queues.live

    def holdings(self, str owner_id not None, uint32_t first, uint32_t end, uint32_t names_max):
        return holdings_counted(self, owner_id.encode(), first, end, names_max)

    @property
    def holding_places(self):
        return pool_end(&self.t.holdings)

    def queue(self, int64_t now_us, Access access not None, str name):
        return queue_view(self, now_us, access, name)

    def worst_queues(self, Access access not None, uint32_t first, uint32_t end, uint32_t limit):
        return worst_queues(self, access, first, end, limit)

    def blocked_by(self, int64_t now_us, str name, str group):
        return blocked_by(self, now_us, name.encode(), None if group is None else group.encode())

    # --- time ---------------------------------------------------------------------------------------------------------

    def expire(self, int64_t now_us, jitter, int limit):
        cdef int n = expire_leases(self, now_us, jitter, limit)
        return n + expire_waiting(self, now_us, limit - n)

    def advance(self, int64_t now_us, int limit):
        return admit_due(self, now_us, limit)

    def next_due_us(self):
        cdef int64_t due_us = NEVER_US
        if self.delayed.count:
            due_us = job_at(&self.t, self.delayed.slots[0]).run_at_us
        if self.leased.count:
            due_us = min(due_us, run_at(&self.t, job_at(&self.t, self.leased.slots[0]).run).lease_until_us)
        if self.expiring.count:
            due_us = min(due_us, extra_at(&self.t, job_at(&self.t, self.expiring.slots[0]).extra).expires_us)
        return due_us

    def rate_due_us(self, str name):
        cdef Queue* queue
        cdef uint32_t at = find_queue(self, name.encode())
        if at == NONE:
            return 0
        queue = queue_by(self, at)
        if queue.rate_n == 0 or queue.credit >= queue.rate_per_us:
            return 0
        return queue.credit_us + (queue.rate_per_us - queue.credit + queue.rate_n - 1) // queue.rate_n

    # --- retention and cleaning ---------------------------------------------------------------------------------------

    def retain(self, int64_t acked_ms, int64_t dead_ms, uint64_t count_max, uint64_t bytes_max):
        retain(self, acked_ms, dead_ms, count_max, bytes_max)

    def tidy(self, int64_t now_us):
        if self.idle_groups:
            drop_idle(self)
        return has_old_keys(self, now_us) or has_old_jobs(self, now_us)

    def forget(self, int64_t now_us, int limit):
        return forget_finished(self, now_us, limit)

    def forget_keys(self, int64_t now_us, uint32_t limit):
        return forget_old_keys(self, now_us, limit)

    def trim(self, int64_t now_us, uint64_t oldest_frame):
        cdef Place place
        cdef uint32_t n = RECORD_HEAD_BYTES + 32
        cdef char* p
        assert oldest_frame > self.oldest_frame
        p = self.tail.reserve(n, &place)
        put_u64(put_u64(put_u64(put_i64(put_head(p, TRIM, 0, n), now_us), oldest_frame), self.next_seq), self.epoch)
        commit(self, p, n, &place)

    def live_records(self, records, uint64_t frame):
        cdef Py_buffer buffer
        cdef list found = []
        PyObject_GetBuffer(records, &buffer, PyBUF_SIMPLE)
        try:
            find_live(self, <const char*>buffer.buf, <const char*>buffer.buf + buffer.len, frame, 0, found)
        finally:
            PyBuffer_Release(&buffer)
        return found

    def live_in(self, set frames):
        return find_live_in(self, frames)

    def move_job(self, LiveJob live, bytes submit, bytes lease, list history):
        return append_job(self, live, submit, lease, history)

    def move_document(self, int64_t now_us, LiveDocument live):
        body, place = self.documents_by_kind.get(live.kind, {}).get(live.name, (None, None))
        if place != live.place:
            return False
        append_document(self, now_us, live.kind, live.name.encode(), body, b"", 0)
        return True

    def move_key(self, int64_t now_us, LiveKey live):
        return move_key(self, now_us, live)

    # --- documents ----------------------------------------------------------------------------------------------------

    def put_document(self, int64_t now_us, int kind, str name, bytes body, str key_id=""):
        append_document(self, now_us, kind, name.encode(), body, key_id.encode(), 0)

    def drop_document(self, int64_t now_us, int kind, str name, str key_id=""):
        append_document(self, now_us, kind, name.encode(), b"", key_id.encode(), DOCUMENT_DROPPED)

    def documents(self, int kind):
        return {name: found[0] for name, found in self.documents_by_kind.get(kind, {}).items()}

    def begin_group(self, uint32_t bytes_max):
        self.tail.begin_group(bytes_max)

    def end_group(self):
        self.tail.end_group()

    # --- counts and state ---------------------------------------------------------------------------------------------

    def remembers(self, int64_t now_us, str owner_id, str idempotency_key):
        cdef uint64_t key[2]
        cdef bytes owner = owner_id.encode(), text = idempotency_key.encode()
        scoped_hash(self, name_in(owner), no_name(), name_in(text), key)
        return remembered_key(self, now_us, key) != NONE

    @property
    def idempotency_keys(self):
        return self.t.remembered.live

    @property
    def idempotency_count(self):
        return self.remembered_count

    @property
    def table_bytes(self):
        return table_bytes(self)

    def take_touched(self):
        touched, self.touched = self.touched, set()
        return touched

    def watch_end(self, str job_id):
        cdef Job* job = job_at(&self.t, slot_of(self, ALL, job_id))
        if job.state >= TERMINAL:
            self.ended.append((job_id, job_view(self, self.last_us, slot_of(self, ALL, job_id))))
        else:
            job.flags |= JOB_WATCHED

    def unwatch_end(self, str job_id):
        try:
            job_at(&self.t, slot_of(self, ALL, job_id)).flags &= ~JOB_WATCHED
        except JobNotFound:
            pass  # the job was removed

    def has_ends(self):
        return len(self.ended) != 0 or len(self.forgotten) != 0

    def take_ended(self):
        ended, self.ended = self.ended, []
        return ended

    def take_forgotten(self):
        forgotten, self.forgotten = self.forgotten, []
        return forgotten

    def counts(self):
        counts = {STATE_NAMES[i]: self.counts_by_state[i] for i in range(1, STATE_COUNT)}
        counts["delayed"] = self.delayed.count
        counts["jobs"] = self.t.jobs.live
        return counts

    def skipped(self):
        return self.skipped_count

    # --- what happened since `resume` -------------------------------------------------------------------------------

    def traffic(self, str queue=None):
        return traffic_view(self, queue)

    def latencies(self, str queue=None):
        return latencies_view(self, queue)

    def active_queues(self, int limit):
        return take_active(self, limit)

    def changes(self, uint64_t after_seq, uint64_t until_frame, int limit):
        return changes_after(self, after_seq, until_frame, limit)

    @property
    def last_change(self):
        return self.feed.next - 1 if self.feed.next else 0

    def failures(self, Access access not None, str queue, int64_t since_us, int limit):
        return find_failures(self, access, queue, since_us, limit)

    def add_failures(self, list groups not None):
        add_failures(self, groups)

    @property
    def failures_dropped(self):
        return self.dropped_failures

    # --- proof --------------------------------------------------------------------------------------------------------

    def state_hash(self):
        return hash_state(self)

    def check(self):
        check_core(self)
