# Deciding: a command and the present state give records. A refused command raises before it appends a record.

cdef int commit(Core core, char* record, uint32_t n, Place* place) except -1:
    """Seal and apply a record that was just appended. It cannot be removed, so a failure here ends the process."""
    seal(record, n)
    try:
        return apply(core, record, n, place)
    except BaseException as failure:
        raise CoreFailed(f"the record at {place_text(place)} could not be applied: {failure!r}") from failure


cdef bint begin_own_group(Core core, uint32_t bytes_max) except *:
    """Begin a group unless one is open. Returns whether the caller must end it."""
    if core.tail.group_start:
        return False
    core.tail.begin_group(bytes_max)
    return True


# --- submit -----------------------------------------------------------------------------------------------------------

cdef int check_new(Core core, int64_t now_us, list jobs, bytes owner, bytes caller, dict keys,
                   uint64_t answers) except -1:
    """Check new jobs' keys and limits, then make room for their keys.

    Args:
        owner: of the jobs. caller: the owner of the request, whose idempotency keys they are.
        keys: the transaction's own key, which no job may have.
        answers: how many it remembers.
    Raises:
        IdempotencyMismatch, IdempotencyFull, QueueFull, OwnerFull, QueuesFull.
    """
    cdef SubmitOptions options
    cdef uint64_t key[2]
    cdef uint64_t fresh = 0
    cdef int64_t repeated_us = NEVER_US   # first use of the oldest key that gets its earlier answer
    cdef uint32_t i
    cdef dict depths = {}
    cdef bint bounded = core.depth_limits or queues_are_full(core, len(jobs))
    cdef set uniques = set()
    cdef bytes name
    cdef NewJob job
    for job in jobs:
        options = job.options
        if options is not None and options.idempotency_key:
            scoped_hash(core, name_in(caller), no_name(), name_in(options.idempotency_key), key)
            i = remembered_key(core, now_us, key)
            if i != NONE:
                if remembered_at(&core.t, i).seq == 0 or remembered_at(&core.t, i).body_digest != options.body_digest:
                    raise IdempotencyMismatch()
                repeated_us = min(repeated_us, remembered_at(&core.t, i).used_us)
                continue
            if (key[0], key[1]) in keys:
                if keys[key[0], key[1]] != options.body_digest:
                    raise IdempotencyMismatch()
                continue
            keys[key[0], key[1]] = options.body_digest
            answers += 1
        if options is not None and options.unique_key:
            name = job.queue.encode()
            if (name, options.unique_key) in uniques:
                continue
            uniques.add((name, options.unique_key))
            if unique_holder(core, name_in(owner), name_in(name), name_in(options.unique_key)) != NONE:
                continue  # also if the holder gives way: the new job takes its place
        fresh += 1
        if bounded:
            depths[job.queue] = depths.get(job.queue, 0) + 1
    if answers and keys_are_full(core, now_us, answers, repeated_us):
        raise IdempotencyFull()
    if bounded:
        check_depths(core, depths, owner, fresh)
    return make_room_for_keys(core, now_us, answers) if answers else 0


cdef int check_depths(Core core, dict depths, bytes owner, uint64_t fresh) except -1:
    """Check the number of new jobs, by queue and for the owner, and of new queues.

    Raises QueueFull, OwnerFull, QueuesFull.
    """
    cdef Queue* queue
    cdef uint32_t at, missing = 0
    for name, count in depths.items():
        at = find_queue(core, (<str>name).encode())
        if at == NONE:
            missing += 1
            continue
        queue = queue_by(core, at)
        if queue.max_depth and unfinished_in(queue) + <uint64_t>count > queue.max_depth:
            raise QueueFull(name, queue.max_depth)
    if missing and queues_are_full(core, missing):
        raise QueuesFull(core.settings.queues_max)
    if core.settings.owner_depth_max and fresh:
        at = find_name(core, owner)
        if (0 if at == NONE else named(core, at).unfinished) + fresh > core.settings.owner_depth_max:
            raise OwnerFull(core.settings.owner_depth_max)
    return 0


cdef inline uint64_t unfinished_in(Queue* queue) noexcept:
    return queue.counts[READY] + queue.counts[RUNNING] + queue.counts[RETRY]


cdef tuple submit_one(Core core, int64_t now_us, NewJob job, bytes owner, bytes caller, bytes key):
    """Store a job, unless its keys name an existing one. Call `check_new` first."""
    cdef SubmitFields f
    cdef uint64_t hash[2]
    cdef bytes queue_bytes
    memset(&f, 0, sizeof(SubmitFields))
    f.seq = core.next_seq
    f.created_us = now_us
    f.run_at_us = max(now_us, job.run_at_us)
    f.priority = job.priority
    f.max_retries = job.max_retries
    f.owner = name_in(owner)
    f.key_id = name_in(key)
    if job.queue != "default":
        queue_bytes = job.queue.encode()
        f.queue = name_in(queue_bytes)
    if job.options is not None:
        known = known_answer(core, now_us, &f, job, caller)
        if known is not None:
            return known
        set_options(&f, job.options)
        if caller != owner:  # the record's key is its owner's: the caller's has a record of its own
            f.idempotency_key = no_name()
    append_submit(core, &f, job.payload, 0)
    if caller != owner and job.options is not None and job.options.idempotency_key:
        scoped_hash(core, name_in(caller), no_name(), name_in(job.options.idempotency_key), hash)
        append_remember_job(core, now_us, hash, job.options.body_digest, f.seq, now_us)
    return (id_text(now_us, f.seq, core.tag), CREATED)


cdef int set_options(SubmitFields* f, SubmitOptions options) except -1:
    f.expires_us = options.expires_us
    f.lease_ms = options.lease_ms
    f.backoff_base_ms = options.backoff_base_ms
    f.backoff_factor = options.backoff_factor
    f.backoff_cap_ms = options.backoff_cap_ms
    f.group = name_in(options.group)
    f.unique_key = name_in(options.unique_key)
    f.idempotency_key = name_in(options.idempotency_key)
    f.body_digest = options.body_digest
    f.trace = name_in(options.trace)
    f.tags = <const char*>options.tags
    f.tags_bytes = <uint16_t>len(options.tags)
    return 0


cdef tuple known_answer(Core core, int64_t now_us, SubmitFields* f, NewJob new, bytes caller):
    """The answer to a submit whose idempotency or unique key is taken; None: both are free."""
    cdef uint64_t key[2]
    cdef Remembered* entry
    cdef Job* job
    cdef uint32_t i
    cdef int how = DUPLICATE
    cdef SubmitOptions options = new.options
    cdef bytes name
    cdef bint ours
    if options.idempotency_key:
        scoped_hash(core, name_in(caller), no_name(), name_in(options.idempotency_key), key)
        i = remembered_key(core, now_us, key)
        if i != NONE:
            entry = remembered_at(&core.t, i)
            return (id_text(entry.answer.created_us, entry.seq, core.tag), REPEATED)
    if not options.unique_key:
        return None
    name = new.queue.encode()
    i = unique_holder(core, f.owner, name_in(name), name_in(options.unique_key))
    if i == NONE:
        return None
    if gives_way(core, i, now_us):
        append_expired(core, i, now_us)
        return None
    job = job_at(&core.t, i)
    ours = begin_own_group(core, options.record_bytes + SUBMIT_RECORD_BYTES + len(new.payload))
    try:
        if options.replace and job.state != RUNNING:
            replace_job(core, i, now_us, f, options, new.payload)
            how = REPLACED
        if options.idempotency_key:
            append_remember_job(core, now_us, key, options.body_digest, job.seq, job.created_us)
    finally:
        if ours:
            core.tail.end_group()
    return (id_text(job.created_us, job.seq, core.tag), how)


cdef int replace_job(Core core, uint32_t slot, int64_t now_us, SubmitFields* new, SubmitOptions options,
                     bytes payload) except -1:
    """Replace a waiting job's payload, priority and run_at; its other values stay."""
    cdef Job* job = job_at(&core.t, slot)
    cdef Extra* extra = extra_at(&core.t, job.extra)
    cdef SubmitFields f = new[0]
    cdef bytes group, tags
    f.seq = job.seq
    f.created_us = job.created_us
    f.max_retries = job.max_retries
    f.unique_key = name_in(options.unique_key)
    f.trace = name_in(options.trace)
    group = b"" if group_by(core, job.group).name == NONE else name_at(core, group_by(core, job.group).name)
    f.group = name_in(group)
    f.expires_us = extra.expires_us
    f.lease_ms = extra.lease_ms
    f.backoff_base_ms = extra.backoff_base_ms
    f.backoff_factor = extra.backoff_factor
    f.backoff_cap_ms = extra.backoff_cap_ms
    if extra.tags != NONE:
        tags = name_at(core, extra.tags)
        f.tags = <const char*>tags
        f.tags_bytes = <uint16_t>len(tags)
    append_change(core, slot, now_us, CHANGE_REPLACED, job.state, new.key_id)  # first: it sets the time
    return append_submit(core, &f, payload, SUBMIT_EDITED)


cdef int append_submit(Core core, SubmitFields* f, bytes payload, uint16_t more_flags) except -1:
    return append_submit_text(core, f, <const char*>payload, <uint32_t>len(payload), more_flags)


cdef int append_submit_text(Core core, SubmitFields* f, const char* payload, uint32_t payload_bytes,
                            uint16_t more_flags) except -1:
    cdef Place place
    cdef uint16_t flags = submit_flags(f) | more_flags
    cdef uint32_t n = submit_bytes(f, flags & ~<uint16_t>SUBMIT_EDITED) + payload_bytes
    cdef char* record = core.tail.reserve(n, &place)
    put_bytes(put_submit(record, f, flags, n), payload, payload_bytes)
    return commit(core, record, n, &place)


# --- lease ------------------------------------------------------------------------------------------------------------

cdef list lease_jobs(Core core, int64_t now_us, queues, int limit, int64_t lease_ms, bytes key, bytes worker,
                     bint legacy, bytes request, uint64_t bytes_max):
    cdef Asked asked
    cdef Shares shares = shares_of(core, queues) if isinstance(queues, dict) else None
    cdef list leased = []
    cdef uint32_t available, at, group, slot
    cdef uint64_t payload_bytes = 0
    assert len(key) <= 255 and len(worker) <= 255 and len(request) <= 255 and len(queues) <= QUEUES_ASKED_MAX
    if core.expiring.count:
        expire_waiting(core, now_us, ADVANCE_AT_LEASE)
    admit_due(core, now_us, ADVANCE_AT_LEASE)
    available = min(<uint32_t>limit, find_asked(core, queues, shares, now_us, &asked))
    if available == 0:
        return leased
    if available > 1:
        core.tail.begin_group(available * <uint32_t>(RECORD_HEAD_BYTES + 33 + len(key) + len(worker) + len(request)))
    try:
        while len(leased) < <Py_ssize_t>available:
            at = choose(core, &asked, shares, now_us)
            if at == NONE:
                break
            group = queue_by(core, asked.queues[at]).groups[0]
            slot = group_by(core, group).ready.slots[0]
            payload_bytes += place_bytes(&job_at(&core.t, slot).place)
            if leased and payload_bytes > bytes_max or has_expired(core, slot, now_us):
                break
            if shares is not None:
                share_served(shares, asked.share[at])
            if queue_by(core, asked.queues[at]).configured:
                charge(queue_by(core, asked.queues[at]), group_by(core, group))
            append_lease(core, slot, now_us, lease_ms, key, worker, request, legacy)
            leased.append(leased_view(core, slot))
    finally:
        if available > 1:
            core.tail.end_group()
    return leased


cdef inline bint has_expired(Core core, uint32_t slot, int64_t now_us) noexcept:
    cdef uint32_t extra = job_at(&core.t, slot).extra
    return extra != NONE and 0 < extra_at(&core.t, extra).expires_us <= now_us


cdef int64_t lease_ms_of(Core core, Job* job) noexcept:
    """The length of a lease that the request does not set: the job's, its queue's or the server's."""
    if job.extra != NONE and extra_at(&core.t, job.extra).lease_ms:
        return extra_at(&core.t, job.extra).lease_ms
    return queue_at(core, job.group).lease_ms or core.settings.lease_ms


cdef int append_lease(Core core, uint32_t slot, int64_t now_us, int64_t lease_ms, bytes key, bytes worker,
                      bytes request, bint legacy) except -1:
    cdef Job* job = job_at(&core.t, slot)
    cdef uint32_t lease_no = max(0 if job.run == NONE else run_at(&core.t, job.run).lease_no, core.lease_fence) + 1
    cdef uint16_t flags = LEASE_KEY_ID
    cdef uint32_t n = RECORD_HEAD_BYTES + 30 + 1 + len(key)
    cdef int64_t until_us = now_us + (lease_ms or lease_ms_of(core, job)) * 1000
    cdef Place place
    cdef char* p
    cdef char* record
    if legacy:
        flags |= LEASE_LEGACY
    if worker:
        flags |= LEASE_WORKER
        n += 1 + len(worker)
    if request:
        flags |= LEASE_REQUEST_ID
        n += 1 + len(request)
    record = p = core.tail.reserve(n, &place)
    p = put_u32(put_u64(put_head(p, LEASE, flags, n), job.seq), lease_no)
    p = put_i64(put_i64(put_u16(p, job.attempts + 1), now_us), until_us)
    if worker:
        p = put_name(p, worker)
    p = put_name(p, key)
    if request:
        put_name(p, request)
    return commit(core, record, n, &place)


cdef list leased_before(Core core, int64_t now_us, bytes key, bytes request):
    cdef list leased = []
    cdef uint32_t slot
    cdef uint64_t seq
    cdef uint32_t lease_no
    cdef Job* job
    found = core.requests.get((key, request))
    if found is None or found[0] + REQUEST_US <= now_us:
        return leased
    for seq, lease_no in found[1].items():
        slot = index_find(&core.t, seq)
        if slot == NONE:
            continue
        job = job_at(&core.t, slot)
        if job.state == RUNNING and run_at(&core.t, job.run).lease_no == lease_no:
            leased.append(leased_view(core, slot))
    return leased


# --- ack --------------------------------------------------------------------------------------------------------------

cdef bint holds(Core core, Job* job, str token) except *:
    """Whether the token is the present lease's."""
    cdef uint32_t lease_no = token_lease_no(core.key, job.seq, token)
    return lease_no != 0 and job.state == RUNNING and run_at(&core.t, job.run).lease_no == lease_no


cdef bint end_attempt(Core core, int64_t now_us, Access access, str job_id, str token, uint8_t outcome, bytes error,
                      bytes result, bytes code, bytes key, int64_t wait_ms, double jitter) except *:
    """End an attempt with its worker's outcome. False: the ack repeats an earlier one."""
    cdef uint32_t slot = slot_of(core, access, job_id), lease_no
    cdef Job* job = job_at(&core.t, slot)
    assert len(key) <= 64
    if token is None:
        if job.state != RUNNING:
            raise NotAckable(state_name(core, job, now_us))
        if not run_at(&core.t, job.run).legacy:
            raise LeaseLost("RUNNING")
    elif not holds(core, job, token):
        lease_no = token_lease_no(core.key, job.seq, token)
        if lease_no and job.run != NONE:
            if is_repetition(core, run_at(&core.t, job.run), lease_no, outcome, error, result):
                return False
        raise LeaseLost(state_name(core, job, now_us))
    append_close(core, slot, now_us, outcome, error, result, code, key, wait_ms, jitter)
    return True


cdef bint close_by_server(Core core, int64_t now_us, str job_id, str token, uint8_t outcome, bytes error) except *:
    """End an attempt whose lease was not delivered. False: the token is not the present lease's."""
    cdef uint32_t slot = slot_of(core, ALL, job_id)
    if not holds(core, job_at(&core.t, slot), token):
        return False
    append_close(core, slot, now_us, outcome, error, None, b"", b"", -1, 0)
    return True


cdef bint append_ack(Core core, int64_t now_us, Access access, Ack ack, bytes key) except *:
    return end_attempt(core, now_us, access, ack.job_id, ack.token, ack.outcome, ack.error, ack.result, ack.error_code,
                       key, ack.wait_ms, ack.jitter)


cdef bint is_repetition(Core core, Run* run, uint32_t lease_no, uint8_t outcome, bytes error, bytes result) except *:
    """Whether this ack repeats the one that closed the attempt."""
    cdef uint32_t i = run.closing
    cdef Closing* closing
    cdef bytes body = b"" if result is None else result
    while i != NONE:
        closing = closing_at(&core.t, i)
        if closing.lease_no == lease_no:
            return closing.digest == close_digest(
                core.key, outcome, <const char*>error, len(error), <const char*>body, len(body)
            )
        i = closing.next
    return False


cdef inline bint is_uncounted(uint8_t outcome) noexcept:
    """Whether an outcome does not count against max_retries."""
    if outcome == OUTCOME_UNDELIVERED or outcome == OUTCOME_UNREADABLE:
        return True
    return outcome == OUTCOME_SNOOZE or outcome == OUTCOME_RELEASE


cdef uint8_t state_after(Job* job, uint8_t outcome) noexcept:
    """The state of a running job after its attempt ends with this outcome."""
    if outcome == OUTCOME_OK:
        return ACKED
    if outcome == OUTCOME_DISCARD:
        return DEAD
    if outcome == OUTCOME_CANCELLED or job.flags & JOB_CANCEL:
        return CANCELLED
    if outcome == OUTCOME_POISONED or outcome == OUTCOME_UNREADABLE:
        return DEAD
    if is_uncounted(outcome):
        return RETRY if job.flags & JOB_FAILED else READY
    return RETRY if job.attempts < job.max_retries else DEAD


cdef int64_t backoff_us(Core core, Job* job, double jitter) noexcept:
    """How long a job waits after the attempt that has just failed."""
    cdef double base = core.settings.backoff_base_ms, factor = core.settings.backoff_factor
    cdef double cap = core.settings.backoff_cap_ms
    cdef Queue* queue = queue_at(core, job.group)
    cdef Extra* extra
    if job.extra != NONE and extra_at(&core.t, job.extra).backoff_base_ms:
        extra = extra_at(&core.t, job.extra)
        base, factor, cap = extra.backoff_base_ms, extra.backoff_factor, extra.backoff_cap_ms
    elif queue.backoff_base_ms:
        base, factor, cap = queue.backoff_base_ms, queue.backoff_factor, queue.backoff_cap_ms
    return <int64_t>(min(cap, base * pow(factor, job.attempts - 1)) * 1000 * jitter)


cdef int append_close(Core core, uint32_t slot, int64_t now_us, uint8_t outcome, bytes error, bytes result, bytes code,
                      bytes key, int64_t wait_ms, double jitter) except -1:
    cdef Job* job = job_at(&core.t, slot)
    cdef Run* run = run_at(&core.t, job.run)
    cdef uint8_t state = state_after(job, outcome)
    cdef uint16_t flags = 0
    cdef int64_t run_at_us = 0
    cdef uint32_t n = RECORD_HEAD_BYTES + 24
    cdef Name worker = no_name()
    cdef Place place
    cdef char* p
    cdef char* record
    cdef uint16_t attempts = job.attempts - is_uncounted(outcome)
    if outcome <= OUTCOME_ERROR or OUTCOME_DISCARD <= outcome <= OUTCOME_RELEASE:
        flags |= CLOSE_BY_CLIENT
    if state <= RETRY and (outcome == OUTCOME_ERROR or outcome == OUTCOME_EXPIRED or outcome == OUTCOME_SNOOZE):
        if wait_ms < 0:  # the worker does not say
            run_at_us = now_us + (0 if outcome == OUTCOME_SNOOZE else backoff_us(core, job, jitter))
        else:
            run_at_us = now_us + wait_ms * 1000
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
    if outcome != OUTCOME_UNDELIVERED:
        flags |= CLOSE_LEASED
        if run.worker != NONE:
            worker = name_in(name_at(core, run.worker))
        n += 9 + worker.n
        if place_bytes(&run.history):
            flags |= CLOSE_PREVIOUS
            n += 12
    if code:
        flags |= CLOSE_ERROR_CODE
        n += 1 + len(code)
    record = p = core.tail.reserve(n, &place)
    p = put_u32(put_u64(put_head(p, CLOSE, flags, n), job.seq), run.lease_no)
    p = put_i64(put_u8(put_u8(put_u16(p, attempts), outcome), state), now_us)
    if flags & CLOSE_RUN_AT:
        p = put_i64(p, run_at_us)
    if error:
        p = put_bytes(put_u16(p, <uint16_t>len(error)), <const char*>error, len(error))
    if key:
        p = put_name(p, key)
    if flags & CLOSE_LEASED:
        p = put_text(put_i64(p, run.leased_us), worker)
    if flags & CLOSE_PREVIOUS:
        p = put_place(p, &run.history)
    if code:
        p = put_name(p, code)
    if result is not None:
        put_bytes(p, <const char*>result, len(result))
    return commit(core, record, n, &place)


# --- extend and report ------------------------------------------------------------------------------------------------

cdef int64_t append_extend(Core core, int64_t now_us, Access access, str job_id, str token,
                           int64_t lease_ms) except? -1:
    cdef uint32_t slot = slot_of(core, access, job_id), n = RECORD_HEAD_BYTES + 28
    cdef Job* job = job_at(&core.t, slot)
    cdef Run* run
    cdef Place place
    cdef char* p
    cdef int64_t until_us
    if not holds(core, job, token):
        raise LeaseLost(state_name(core, job, now_us))
    run = run_at(&core.t, job.run)
    until_us = now_us + (lease_ms or <int64_t>run.lease_ms) * 1000
    if until_us > run.lease_until_us:
        p = core.tail.reserve(n, &place)
        put_i64(put_i64(put_u32(put_u64(put_head(p, EXTEND, 0, n), job.seq), run.lease_no), now_us), until_us)
        commit(core, p, n, &place)
    return run.lease_until_us


cdef bint cancel_requested(Core core, Access access, str job_id) except *:
    return job_at(&core.t, slot_of(core, access, job_id)).flags & JOB_CANCEL != 0


cdef int append_progress(Core core, int64_t now_us, Access access, str job_id, str token, int percent,
                         bytes note) except -1:
    cdef Job* job = job_at(&core.t, slot_of(core, access, job_id))
    cdef uint32_t n = RECORD_HEAD_BYTES + 21 + len(note)
    cdef Place place
    cdef char* record
    cdef char* p
    assert len(note) <= 255 and 0 <= percent <= 100
    if not holds(core, job, token):
        raise LeaseLost(state_name(core, job, now_us))
    record = core.tail.reserve(n, &place)
    p = put_u32(put_u64(put_head(record, PROGRESS, 0, n), job.seq), run_at(&core.t, job.run).lease_no)
    put_bytes(put_u8(put_i64(p, now_us), <uint8_t>percent), <const char*>note, len(note))
    return commit(core, record, n, &place)


# --- time -------------------------------------------------------------------------------------------------------------

cdef int expire_leases(Core core, int64_t now_us, jitter, int limit) except -1:
    cdef int n = 0
    cdef uint32_t slot
    cdef uint8_t outcome
    cdef Run* run
    cdef double share
    while n < limit and core.leased.count:
        slot = core.leased.slots[0]
        run = run_at(&core.t, job_at(&core.t, slot).run)
        if run.lease_until_us > now_us:
            break
        outcome = OUTCOME_EXPIRED
        if 0 < core.settings.poison_expiries <= run.expiries + 1:
            outcome = OUTCOME_POISONED
        share = jitter() if state_after(job_at(&core.t, slot), outcome) == RETRY else 0
        append_close(core, slot, now_us, outcome, b"", None, b"", b"", -1, share)
        n += 1
    return n


cdef int expire_waiting(Core core, int64_t now_us, int limit) except -1:
    """Make up to limit waiting jobs EXPIRED that are past expires_at."""
    cdef int n = 0
    cdef uint32_t slot
    while n < limit and core.expiring.count:
        slot = core.expiring.slots[0]
        if extra_at(&core.t, job_at(&core.t, slot).extra).expires_us > now_us:
            break
        append_expired(core, slot, now_us)
        n += 1
    return n


cdef int append_expired(Core core, uint32_t slot, int64_t now_us) except -1:
    """Make a waiting job EXPIRED."""
    return append_change(core, slot, now_us, CHANGE_EXPIRED, EXPIRED, no_name())


cdef int admit_due(Core core, int64_t now_us, int limit) except -1:
    """Move up to limit delayed jobs that are due to their ready heaps."""
    cdef int n = 0
    cdef uint32_t slot
    while n < limit and core.delayed.count:
        slot = core.delayed.slots[0]
        if job_at(&core.t, slot).run_at_us > now_us:
            break
        heap_remove(&core.t, &core.delayed, slot)
        make_ready(core, slot)
        n += 1
    return n
