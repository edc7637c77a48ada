# Deciding, continued: changes of a job, transactions, documents, and queue settings.

# --- one job ----------------------------------------------------------------------------------------------------------

cdef int append_change(Core core, uint32_t slot, int64_t now_us, uint8_t what, uint8_t state, Name key) except -1:
    cdef Job* job = job_at(&core.t, slot)
    cdef Run* run = NULL if job.run == NONE else run_at(&core.t, job.run)
    cdef uint16_t flags = 0
    cdef uint32_t n = RECORD_HEAD_BYTES + 20
    cdef Place place
    cdef char* p
    cdef char* record
    if what == CHANGE_REDRIVEN:
        flags |= CHANGE_RUN_AT
        n += 8
    if key.n:
        flags |= CHANGE_KEY_ID
        n += 1 + key.n
    if run != NULL and place_bytes(&run.history):
        flags |= CHANGE_PREVIOUS
        n += 12
    record = p = core.tail.reserve(n, &place)
    p = put_u8(put_u8(put_u64(put_head(p, CHANGE, flags, n), job.seq), what), state)
    p = put_i64(put_u16(p, 0 if what == CHANGE_REDRIVEN else job.attempts), now_us)
    if flags & CHANGE_RUN_AT:
        p = put_i64(p, now_us)
    if flags & CHANGE_KEY_ID:
        p = put_text(p, key)
    if flags & CHANGE_PREVIOUS:
        put_place(p, &run.history)
    return commit(core, record, n, &place)


cdef str cancel_job(Core core, int64_t now_us, Access access, str job_id, bint force, bytes key):
    cdef uint32_t slot = slot_of(core, access, job_id)
    cdef Job* job = job_at(&core.t, slot)
    if job.state >= TERMINAL:
        raise JobFinished(STATE_NAMES[job.state])
    if job.state != RUNNING:
        append_change(core, slot, now_us, CHANGE_CANCELLED, CANCELLED, name_in(key))
    elif force:
        append_close(core, slot, now_us, OUTCOME_CANCELLED, b"", None, b"", key, -1, 0)
    elif not job.flags & JOB_CANCEL:
        append_change(core, slot, now_us, CANCEL_REQUESTED, RUNNING, name_in(key))
    return STATE_NAMES[job.state]


cdef int redrive_job(Core core, int64_t now_us, Access access, str job_id, bytes key) except -1:
    cdef uint32_t slot = slot_of(core, access, job_id), other
    cdef Job* job = job_at(&core.t, slot)
    if job.state != DEAD:
        raise NotDead(state_name(core, job, now_us))
    if job.extra != NONE and extra_at(&core.t, job.extra).unique[1]:
        other = index_find_key(&core.t, BY_UNIQUE, extra_at(&core.t, job.extra).unique)
        if other != NONE:
            need_way(core, other, now_us)
            append_expired(core, other, now_us)
    return append_change(core, slot, now_us, CHANGE_REDRIVEN, READY, name_in(key))


cdef int need_way(Core core, uint32_t holder, int64_t now_us) except -1:
    """Check that the holder of a unique key gives way. Raises JobDuplicate."""
    if not gives_way(core, holder, now_us):
        raise JobDuplicate(job_id_of(core, job_at(&core.t, holder)))
    return 0


cdef bint edit_job(Core core, int64_t now_us, Access access, str job_id, RecordPlace place, bytes submit, bytes key,
                   bytes payload, priority, run_at_us, queue) except *:
    cdef uint32_t slot = slot_of(core, access, job_id), holder = NONE, n
    cdef Job* job = job_at(&core.t, slot)
    cdef SubmitFields f
    cdef Reader r
    cdef bytes queue_bytes
    cdef bint ours
    if job.state == RUNNING:
        raise JobRunning()
    if job.state >= TERMINAL and job.state != DEAD:
        raise JobFinished(STATE_NAMES[job.state])
    if not same_place(&job.place, &place.place):
        return False
    r = read_submit_of(submit, job_id, &f)
    f.seq = job.seq
    f.priority = job.priority if priority is None else priority
    f.run_at_us = job.run_at_us if run_at_us is None else max(now_us, <int64_t>run_at_us)
    f.idempotency_key = no_name()  # the earlier record keeps its answer
    if job.flags & JOB_NO_EXPIRY:
        f.expires_us = 0
    if queue is not None and queue != queue_name(core, group_by(core, job.group).queue):
        queue_bytes = (<str>queue).encode()
        holder = check_move(core, now_us, job, &f, queue, queue_bytes)
        f.queue = no_name() if queue == "default" else name_in(queue_bytes)
    if payload is None:
        payload = PyBytes_FromStringAndSize(r.p, r.end - r.p)
    n = submit_bytes(&f, submit_flags(&f)) + <uint32_t>len(payload)
    ours = begin_own_group(core, n + SMALL_RECORD_BYTES)
    try:
        if holder != NONE:
            append_expired(core, holder, now_us)
        append_change(core, slot, now_us, CHANGE_EDITED, job.state, name_in(key))  # first: it sets the time
        append_submit(core, &f, payload, SUBMIT_EDITED)
    finally:
        if ours:
            core.tail.end_group()
    return True


cdef uint32_t check_move(Core core, int64_t now_us, Job* job, SubmitFields* f, str queue,
                         bytes name) except? <uint32_t>NONE:
    """Check that a job may move to a queue. Returns the holder of its unique key there, which gives way, or NONE.

    Raises QueuesFull; if the job is unfinished: JobDuplicate, QueueFull.
    """
    cdef uint32_t holder, at = find_queue(core, name)
    if at == NONE and queues_are_full(core, 1):
        raise QueuesFull(core.settings.queues_max)
    if job.state >= TERMINAL:
        return NONE
    if f.unique_key.n:
        holder = unique_holder(core, f.owner, name_in(name), f.unique_key)
        if holder != NONE:
            need_way(core, holder, now_us)
            return holder  # the job takes its place: the depth stays
    if at != NONE and queue_by(core, at).max_depth:
        if unfinished_in(queue_by(core, at)) >= queue_by(core, at).max_depth:
            raise QueueFull(queue, queue_by(core, at).max_depth)
    return NONE


# --- several at once --------------------------------------------------------------------------------------------------

cdef tuple transact(Core core, int64_t now_us, Access access, list acks, list extends, list jobs, bytes caller,
                    bytes key, bytes idempotency_key, uint64_t body_digest):
    cdef uint64_t hash[2]
    cdef list untils = [], answers = []
    cdef dict keys = {}
    cdef uint32_t i, room
    cdef Ack ack
    cdef Extend extend
    cdef NewJob job
    cdef bytes owner
    if idempotency_key:  # first: the answer is the same when what the request names is gone
        scoped_hash(core, name_in(caller), no_name(), name_in(idempotency_key), hash)
        i = remembered_key(core, now_us, hash)
        if i != NONE:
            if remembered_at(&core.t, i).seq or remembered_at(&core.t, i).body_digest != body_digest:
                raise IdempotencyMismatch()
            return repeated_answer(core, remembered_at(&core.t, i))
        keys[hash[0], hash[1]] = None
    for ack in acks:
        check_held(core, now_us, access, ack.job_id, ack.token)
    for extend in extends:
        check_held(core, now_us, access, extend.job_id, extend.token)
    owner = owner_of_new(core, access, acks, caller) if jobs else caller
    check_new(core, now_us, jobs, owner, caller, keys, max(1, len(extends) + len(jobs)) if idempotency_key else 0)
    room = jobs_bytes_max(jobs) + acks_bytes_max(acks) + len(extends) * (RECORD_HEAD_BYTES + 28)
    core.tail.begin_group(room + <uint32_t>remember_bytes(len(extends) + len(jobs)))
    try:
        for ack in acks:
            append_ack(core, now_us, access, ack, key)
        for extend in extends:
            untils.append(append_extend(core, now_us, access, extend.job_id, extend.token, extend.lease_ms))
        for job in jobs:
            answers.append(submit_one(core, now_us, job, owner, caller, key))
        if idempotency_key:
            append_remember(core, now_us, hash, body_digest, answer_to_remember(core, untils, answers), True)
    finally:
        core.tail.end_group()
    return untils, answers, False


cdef int check_held(Core core, int64_t now_us, Access access, str job_id, str token) except -1:
    """Check that the token is the present lease's. Raises NotAckable, LeaseLost, also for a repeated ack."""
    cdef Job* job = job_at(&core.t, slot_of(core, access, job_id))
    if token is None and job.state != RUNNING:
        raise NotAckable(state_name(core, job, now_us))
    if not run_at(&core.t, job.run).legacy if token is None else not holds(core, job, token):
        raise LeaseLost(state_name(core, job, now_us))
    return 0


cdef bytes owner_of_new(Core core, Access access, list acks, bytes caller):
    """The owner of a transaction's new jobs: that of the acked jobs, else the caller. Raises InvalidRequest."""
    cdef set owners = set()
    cdef Ack ack
    for ack in acks:
        owners.add(name_at(core, job_at(&core.t, slot_of(core, access, ack.job_id)).owner))
    if len(owners) > 1:
        raise InvalidRequest("ops: the acked jobs must have one owner when there is also a submit")
    return owners.pop() if owners else caller


cdef bytes answer_to_remember(Core core, list untils, list answers):
    """A transaction's answer as a REMEMBER record has it."""
    cdef bytes text = PyBytes_FromStringAndSize(NULL, ANSWER_BYTES * (len(untils) + len(answers)))
    cdef char* p = <char*>text
    cdef int64_t created_us = 0
    cdef uint64_t seq
    for until_us in untils:
        p = put_answer(p, 0, until_us, EXTENDED)
    for job_id, how in answers:
        seq = id_seq(job_id, core.tag, &created_us)
        p = put_answer(p, seq, created_us, how)
    return text


cdef tuple repeated_answer(Core core, Remembered* entry):
    cdef Reader r
    cdef list untils = [], answers = []
    cdef uint64_t seq
    cdef int64_t value
    cdef int how
    r.p = entry.answer.text
    r.end = r.p + <size_t>entry.answers * ANSWER_BYTES
    r.short = False
    while r.p < r.end:
        seq = get_int(&r, 8)
        value = <int64_t>get_int(&r, 8)
        how = <int>get_int(&r, 1)
        if how == EXTENDED:
            untils.append(value)
        else:
            answers.append((id_text(value, seq, core.tag), how))
    return untils, answers, True


# --- documents, queues ------------------------------------------------------------------------------------------------

cdef int append_document(Core core, int64_t now_us, int kind, bytes name, bytes body, bytes key,
                         uint16_t flags) except -1:
    cdef Place place
    cdef uint32_t n = <uint32_t>document_bytes(len(name), len(body))
    cdef char* p
    cdef char* record
    assert 0 < len(name) <= 255 and len(key) <= 255 and 0 < kind <= 255
    if key:
        flags |= DOCUMENT_KEY_ID
        n += 1 + len(key)
    record = p = core.tail.reserve(n, &place)
    p = put_u8(put_i64(put_head(p, DOCUMENT, flags, n), now_us), <uint8_t>kind)
    p = put_name(p, name)
    if key:
        p = put_name(p, key)
    put_bytes(p, <const char*>body, len(body))
    return commit(core, record, n, &place)


cdef int configure_queue(Core core, int64_t now_us, bytes name, QueueSettings settings) except -1:
    cdef uint32_t index
    cdef Queue* queue
    cdef bint reordered, relimited
    if settings is None and find_queue(core, name) == NONE:
        return 0
    index = queue_of(core, name)
    queue = queue_by(core, index)
    queue.configured = settings is not None
    if settings is None:
        settings = QueueSettings()
    reordered = queue.fair != settings.fair
    relimited = queue.group_concurrency != settings.group_concurrency
    queue.paused = settings.paused
    queue.fair = settings.fair
    queue.concurrency = settings.concurrency
    queue.group_concurrency = settings.group_concurrency
    core.depth_limits += (settings.max_depth != 0) - (queue.max_depth != 0)
    queue.max_depth = settings.max_depth
    queue.lease_ms = settings.lease_ms
    queue.backoff_base_ms, queue.backoff_factor, queue.backoff_cap_ms = settings.backoff or (0, 0, 0)
    queue.retention_acked_ms = settings.retention_acked_ms
    queue.retention_dead_ms = settings.retention_dead_ms
    bound_finished(core, index, settings.finished_max)
    if queue.rate_n != settings.rate_n or queue.rate_per_us != settings.rate_per_ms * 1000:
        queue.rate_n = settings.rate_n
        queue.rate_per_us = settings.rate_per_ms * 1000
        queue.credit = 0
        queue.credit_us = now_us
    if reordered or relimited:
        settle_groups(core, index, reordered)
    if core.watching and queue.ready:
        core.touched.add(queue_name(core, index))
    return drop_queue(core, index)
