# What is live: the bytes that a rewrite of everything that replay needs would append. Every record that is applied
# keeps the account, in O(1). proof.pxi counts it anew, and a test rewrites everything and measures.

cdef enum:
    JOB_HEAD_BYTES = RECORD_HEAD_BYTES + 20     # of a JOB record: what each job has
    RUN_FACTS_BYTES = 36        # of its facts about the job's run, without the closings
    CLOSING_BYTES = 13

cdef uint32_t OF_ATTEMPT = 0x80000000   # a bit in Sizes.bytes


# --- one job ----------------------------------------------------------------------------------------------------------

cdef inline uint64_t kept_bytes(Tables* t, Job* job) noexcept nogil:
    """The length of a JOB record of this job, without its progress."""
    cdef uint64_t n = JOB_HEAD_BYTES + place_bytes(&job.place)
    cdef Run* run
    if job.run != NONE:
        run = run_at(t, job.run)
        n += run_facts_bytes(t, run) + run.history_bytes
        if job.state == RUNNING:
            n += place_bytes(&run.lease_place)
        if run.outcome and not run.attempts_kept:  # the record of its result is older than the history that is kept
            n += place_bytes(&run.place)
    return n


cdef inline uint32_t run_facts_bytes(Tables* t, Run* run) noexcept nogil:
    cdef uint32_t n = RUN_FACTS_BYTES, i = run.closing
    while i != NONE:
        n += CLOSING_BYTES
        i = closing_at(t, i).next
    return n


cdef inline void recount_job(Core core, Job* job, uint64_t before) noexcept:
    """Count a job's bytes after a change. before: what it took until then."""
    core.live_bytes += kept_bytes(&core.t, job) - before


cdef inline uint64_t progress_bytes(object progress):
    """progress: (percent, note, time)."""
    return 10 + len((<str>progress[1]).encode())


cdef int set_progress(Core core, uint64_t seq, tuple progress) except -1:
    drop_progress(core, seq)
    core.progress[seq] = progress
    core.live_bytes += progress_bytes(progress)
    return 0


cdef int drop_progress(Core core, uint64_t seq) except -1:
    if core.progress:
        progress = core.progress.pop(seq, None)
        if progress is not None:
            core.live_bytes -= progress_bytes(progress)
    return 0


# --- the history that is kept: its newest records, until one of the three bounds is reached ---------------------------

cdef inline bint is_history_full(uint32_t attempts, uint32_t events, uint64_t size) noexcept nogil:
    return attempts >= ATTEMPTS_KEPT or events >= EVENTS_KEPT or size >= HISTORY_BYTES_MAX


cdef int grow_history(Tables* t, Job* job, uint32_t n, bint is_attempt) except -1:
    """Count a new record of n bytes, and no longer count those that are not kept any more."""
    cdef Run* run = run_at(t, job.run)
    cdef uint32_t size = n | (OF_ATTEMPT if is_attempt else 0), oldest
    if job.events == 1:
        push_size(t, job, run.history_bytes | (OF_ATTEMPT if run.attempts_kept else 0))
    if job.events:
        push_size(t, job, size)
    job.events += 1
    run.history_bytes += n
    run.attempts_kept += is_attempt
    while job.events > 1:
        oldest = oldest_size(t, job)
        if not is_history_full(
            run.attempts_kept - (oldest >> 31), job.events - 1,
            run.history_bytes - (oldest & ~OF_ATTEMPT)
        ):
            break
        drop_size(t, job)
        job.events -= 1
        run.history_bytes -= oldest & ~OF_ATTEMPT
        run.attempts_kept -= oldest >> 31
    if job.events == 1:
        drop_sizes(t, job)
    return 0


cdef void clear_history(Tables* t, Job* job) noexcept:
    drop_sizes(t, job)
    job.events = 0
    run_at(t, job.run).history_bytes = run_at(t, job.run).attempts_kept = 0
    memset(&run_at(t, job.run).history, 0, sizeof(Place))


cdef int push_size(Tables* t, Job* job, uint32_t size) except -1:
    cdef uint32_t i = job.sizes
    cdef Sizes* sizes
    if i == NONE or sizes_at(t, i).end == SIZES_EACH:
        i = pool_take(&t.sizes)
        sizes_at(t, i).next = job.sizes
        job.sizes = i
    sizes = sizes_at(t, i)
    sizes.bytes[sizes.end] = size
    sizes.end += 1
    return 0


cdef uint32_t oldest_size(Tables* t, Job* job) noexcept nogil:
    cdef uint32_t i = job.sizes
    while sizes_at(t, i).next != NONE:
        i = sizes_at(t, i).next
    return sizes_at(t, i).bytes[sizes_at(t, i).first]


cdef void drop_size(Tables* t, Job* job) noexcept nogil:
    """Drop the oldest size."""
    cdef uint32_t* link = &job.sizes
    cdef uint32_t i = job.sizes
    while sizes_at(t, i).next != NONE:
        link = &sizes_at(t, i).next
        i = link[0]
    sizes_at(t, i).first += 1
    if sizes_at(t, i).first == sizes_at(t, i).end:
        link[0] = NONE
        pool_give(&t.sizes, i)


cdef void drop_sizes(Tables* t, Job* job) noexcept nogil:
    cdef uint32_t i = job.sizes, next
    while i != NONE:
        next = sizes_at(t, i).next
        pool_give(&t.sizes, i)
        i = next
    job.sizes = NONE


# --- documents and keys -----------------------------------------------------------------------------------------------

cdef inline uint64_t document_bytes(Py_ssize_t name_bytes, Py_ssize_t body_bytes) noexcept nogil:
    """The length of a DOCUMENT record without a key_id."""
    return RECORD_HEAD_BYTES + 10 + name_bytes + body_bytes


cdef uint64_t remember_bytes(uint64_t answers) noexcept nogil:
    """The length of a REMEMBER record."""
    return RECORD_HEAD_BYTES + 32 + ANSWER_BYTES * answers


cdef inline uint64_t key_bytes(Remembered* entry) noexcept nogil:
    """The length of a REMEMBER record of this key; of a job's as if the job's SUBMIT record did not state it."""
    return remember_bytes(entry.answers if entry.seq == 0 else 1)


cdef inline uint64_t answer_count(Remembered* entry) noexcept nogil:
    """How often a key counts against `idempotency_keys_max`: once for each answer that it remembers."""
    return entry.answers if entry.seq == 0 and entry.answers > 1 else 1


cdef void count_key(Core core, Remembered* entry) noexcept:
    core.remembered_count += answer_count(entry)
    core.live_bytes += key_bytes(entry)


cdef void uncount_key(Core core, Remembered* entry) noexcept:
    cdef uint32_t slot
    core.remembered_count -= answer_count(entry)
    core.live_bytes -= key_bytes(entry)
    if entry.seq and entry.answers == 0:
        slot = index_find(&core.t, entry.seq)
        if slot != NONE:
            end_keyed(core, job_at(&core.t, slot))


cdef inline void begin_keyed(Core core, Job* job) noexcept:
    """A job's SUBMIT record states a key that is remembered: no other record of that key is needed."""
    job.flags |= JOB_KEYED
    core.keyed_jobs += 1
    core.live_bytes -= remember_bytes(1)


cdef inline void end_keyed(Core core, Job* job) noexcept:
    """The key is forgotten, or the job, or that SUBMIT record is no longer the job's."""
    if job.flags & JOB_KEYED:
        job.flags &= ~JOB_KEYED
        core.keyed_jobs -= 1
        core.live_bytes += remember_bytes(1)
