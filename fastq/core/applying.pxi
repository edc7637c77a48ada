# Applying: records change the state, in live work and in replay. Nothing else changes it.

cdef int apply_each(Core core, const char* p, const char* end, uint64_t frame, uint32_t offset) except -1:
    """Apply consecutive records from p, at offset in the frame, up to end. Returns how many there were."""
    cdef int count = 0
    cdef uint32_t n
    cdef Place place
    while p < end:
        n = record_bytes(p, end)
        if n == 0:
            raise LogDamaged(f"there is no record at offset {offset} of frame {frame}, though the frame is whole")
        place = new_place(frame, offset, n)
        apply(core, p, n, &place)
        p += n
        offset += n
        count += 1
    return count


cdef int apply(Core core, const char* record, uint32_t n, Place* place) except -1:
    cdef uint8_t type = <uint8_t>record[0], version = <uint8_t>record[1]
    cdef uint16_t flags
    cdef Reader r = reader_of(record, n, &flags)
    if type < TRIM or type > RECORD_TYPE_LAST or version != RECORD_VERSION or flags & ~known_flags(type):
        raise UnsupportedFormat(
            f"record of type {type}, version {version}, flags {flags:#x} at {place_text(place)}: "
            f"this fastq reads record version {RECORD_VERSION}; a later one is needed"
        )
    if type == SUBMIT:
        apply_submit(core, &r, flags, place, False)
    elif type == LEASE:
        apply_lease(core, &r, flags, place)
    elif type == CLOSE:
        apply_close(core, &r, flags, place)
    elif type == DOCUMENT:
        apply_document(core, &r, flags, place)
    elif type == RESUME:
        apply_resume(core, &r)
    elif type == EXTEND:
        apply_extend(core, &r)
    elif type == GROUP:
        apply_each(core, r.p, r.end, place_frame(place), place_offset(place) + RECORD_HEAD_BYTES)
    elif type == JOB:
        apply_job(core, &r, flags, place)
    elif type == FORGET:
        apply_forget(core, &r, place)
    elif type == CHANGE:
        apply_change(core, &r, flags, place)
    elif type == PROGRESS:
        apply_progress(core, &r)
    elif type == REMEMBER:
        apply_remember(core, &r, flags, place)
    elif type == FORGET_KEYS:
        apply_forget_keys(core, &r)
    else:
        apply_trim(core, &r, place)
    if r.short:
        raise LogDamaged(f"the record at {place_text(place)} is cut short")
    return 0


cdef inline void note_time(Core core, int64_t at_us) noexcept:
    if at_us > core.last_us:
        core.last_us = at_us


cdef uint32_t known_slot(Core core, uint64_t seq) noexcept:
    """The slot of a record's job, or NONE. Records of jobs that do not exist are counted and skipped."""
    cdef uint32_t slot = index_find(&core.t, seq)
    if slot == NONE:
        core.skipped_count += 1
    return slot


# --- the log itself ---------------------------------------------------------------------------------------------------

cdef int apply_trim(Core core, Reader* r, Place* place) except -1:
    cdef int64_t at_us = <int64_t>get_int(r, 8)
    cdef uint64_t oldest_frame = get_int(r, 8), next_seq = get_int(r, 8), epoch = get_int(r, 8)
    if r.short:
        return 0
    if oldest_frame > place_frame(place):  # earlier frames are deleted: do not trust a wrong number
        raise LogDamaged(f"the record at {place_text(place)} says that no frame before {oldest_frame} is needed")
    note_time(core, at_us)
    core.oldest_frame = oldest_frame
    core.next_seq = max(core.next_seq, next_seq)
    core.epoch = max(core.epoch, epoch)
    return 0


cdef int apply_resume(Core core, Reader* r) except -1:
    cdef int64_t at_us = <int64_t>get_int(r, 8)
    cdef uint64_t epoch = get_int(r, 8), next_seq = get_int(r, 8)
    cdef int64_t grace_ms = <int64_t>get_int(r, 4)
    cdef uint32_t i
    cdef Run* run
    if r.short:
        return 0
    core.last_us = at_us  # it may go back if the operator accepts a clock that was set back
    core.epoch = epoch
    core.next_seq = max(core.next_seq, next_seq)
    for i in range(core.leased.count):
        run = run_at(&core.t, job_at(&core.t, core.leased.slots[i]).run)
        run.lease_until_us = max(run.lease_until_us, at_us + min(<int64_t>run.lease_ms, grace_ms) * 1000)
    heap_rebuild(&core.t, &core.leased)
    return 0


# --- submit -----------------------------------------------------------------------------------------------------------

cdef int apply_submit(Core core, Reader* r, uint16_t flags, Place* place, bint whole,
                      bint states_key=True) except -1:
    """Create a job; or with SUBMIT_EDITED set a job's new values.

    Args:
        whole: the record is in a JOB record, which sets the rest.
        states_key: remember its idempotency key, if it has one.
    """
    cdef SubmitFields f
    cdef uint64_t seq = get_int(r, 8)
    cdef uint64_t key[2]
    cdef uint32_t slot
    cdef Job* job
    read_submit(r, flags, &f)
    if r.short:
        return 0
    if flags & SUBMIT_EDITED and not whole:
        return apply_edit(core, seq, &f, place)
    if seq == 0 or seq >> SEQ_BITS or (seq < core.next_seq and index_find(&core.t, seq) != NONE):
        raise LogDamaged(f"job {seq} is submitted twice, or has no valid number")
    slot = pool_take(&core.t.jobs)
    job = job_at(&core.t, slot)
    job.seq = seq
    job.created_us = f.created_us
    job.run_at_us = f.run_at_us
    job.place = place[0]
    job.priority = f.priority
    job.owner = owner_of(core, f.owner)
    job.run = job.extra = job.sizes = NONE
    job.max_retries = f.max_retries
    job.state = READY
    join_group(core, job, &f)
    join_holding(core, job)
    set_extra(core, job, &f)
    recount_job(core, job, 0)
    index_add(&core.t, BY_SEQ, slot)
    count_in_block(core, seq)
    count_new(core, job)
    if not whole:
        hold_unique(core, slot)
    wait(core, slot, f.created_us)
    if f.idempotency_key.n and states_key:
        scoped_hash(core, f.owner, no_name(), f.idempotency_key, key)
        if remember_job(core, f.created_us, key, f.body_digest, seq, f.created_us, place_frame(place), True):
            begin_keyed(core, job)
    core.next_seq = max(core.next_seq, seq + 1)
    note_time(core, f.created_us)
    if core.serves:
        count(core, core.last_queue, WAS_SUBMITTED, f.created_us, WINDOW_IN)
        tell(core, job, WAS_SUBMITTED, f.created_us, place)
    return 0


cdef int join_group(Core core, Job* job, SubmitFields* f) except -1:
    cdef uint32_t queue = job_queue_of(core, f.queue)
    job.group = NONE if f.group.n else queue_by(core, queue).default_group
    if job.group == NONE:
        job.group = group_of(core, queue, name_bytes(f.group))
    group_by(core, job.group).jobs += 1
    return 0


cdef int set_extra(Core core, Job* job, SubmitFields* f) except -1:
    """Set the Extra of a job."""
    cdef Extra* extra
    cdef bytes queue
    if not (f.expires_us or f.unique_key.n or f.tags_bytes or f.lease_ms or f.backoff_base_ms or f.lost_unique[0]):
        return 0
    job.extra = pool_take(&core.t.extras)
    extra = extra_at(&core.t, job.extra)
    extra.expires_us = f.expires_us
    extra.lease_ms = f.lease_ms
    extra.backoff_base_ms = f.backoff_base_ms
    extra.backoff_factor = f.backoff_factor
    extra.backoff_cap_ms = f.backoff_cap_ms
    extra.expiry_pos = extra.tags = NONE
    if f.tags_bytes:
        extra.tags = name_of(core, f.tags[:f.tags_bytes])
    if f.unique_key.n:
        queue = name_at(core, queue_by(core, group_by(core, job.group).queue).name)
        scoped_hash(core, f.owner, name_in(queue), f.unique_key, extra.unique)
    elif f.lost_unique[0]:
        extra.unique[0] = f.lost_unique[0]
        extra.unique[1] = f.lost_unique[1]
    return 0


cdef int drop_extra(Core core, Job* job) except -1:
    if job.extra != NONE:
        if extra_at(&core.t, job.extra).tags != NONE:
            drop_name(core, extra_at(&core.t, job.extra).tags)
        pool_give(&core.t.extras, job.extra)
        job.extra = NONE
    return 0


cdef int apply_edit(Core core, uint64_t seq, SubmitFields* f, Place* place) except -1:
    cdef uint32_t slot = known_slot(core, seq), group
    cdef uint64_t before
    cdef Job* job
    cdef Run* run
    if slot == NONE:
        return 0
    job = job_at(&core.t, slot)
    if job.state == RUNNING or (job.state >= TERMINAL and job.state != DEAD):
        raise LogDamaged(f"job {seq} is edited in state {STATE_NAMES[job.state]}")
    leave_place(core, slot)
    group = job.group
    before = kept_bytes(&core.t, job)
    end_keyed(core, job)
    queue_at(core, group).counts[job.state] -= 1
    leave_holding(core, group_by(core, group).queue, job)
    job.run_at_us = f.run_at_us
    job.priority = f.priority
    run = run_of(core, job)
    if run.anchor == 0:
        run.anchor = anchor_at(place_frame(&job.place))
    job.place = place[0]
    drop_extra(core, job)
    join_group(core, job, f)
    join_holding(core, job)
    set_extra(core, job, f)
    recount_job(core, job, before)
    queue_at(core, job.group).counts[job.state] += 1
    leave_group(core, group)
    if core.serves:
        count_change(core, job, core.edited_as, core.last_us)
        tell(core, job, WAS_CHANGED + core.edited_as, core.last_us, place)
    if job.state == DEAD:
        return add_finished(core, slot)
    hold_unique(core, slot)
    return wait(core, slot, core.last_us)


# --- lease and extend -------------------------------------------------------------------------------------------------

cdef int apply_lease(Core core, Reader* r, uint16_t flags, Place* place) except -1:
    cdef LeaseFields f
    cdef uint32_t slot = known_slot(core, get_int(r, 8))
    cdef uint64_t before
    cdef Job* job
    cdef Run* run
    read_lease(r, flags, &f)
    if r.short or slot == NONE:
        return 0
    job = job_at(&core.t, slot)
    if job.state != READY and job.state != RETRY:
        raise LogDamaged(f"job {job.seq} is leased in state {STATE_NAMES[job.state]}")
    stop_waiting(core, slot)
    if core.serves:
        count_lease(core, job, f.at_us)
    before = kept_bytes(&core.t, job)
    run = run_of(core, job)
    run.lease_place = place[0]
    run.lease_no = f.lease_no
    run.leased_us = f.at_us
    run.lease_until_us = f.until_us
    run.lease_ms = <uint32_t>((f.until_us - f.at_us) // 1000)
    run.legacy = flags & LEASE_LEGACY
    if f.worker.n:
        run.worker = name_of(core, name_bytes(f.worker))
    job.attempts = f.attempts
    set_state(core, job, RUNNING)
    recount_job(core, job, before)
    heap_push(&core.t, &core.leased, slot)
    count_running(core, job.group)
    drop_progress(core, job.seq)
    if flags & LEASE_REQUEST_ID:
        remember_request(core, f.at_us, name_bytes(f.key_id), name_bytes(f.request_id), job.seq, f.lease_no)
    note_time(core, f.at_us)
    if core.serves:
        tell(core, job, WAS_LEASED, f.at_us, place)
    return 0


cdef inline int count_running(Core core, uint32_t group) except -1:
    """One more job of a group runs."""
    group_by(core, group).running += 1
    return settle_group(core, group) if queue_at(core, group).group_concurrency else 0


cdef inline int uncount_running(Core core, uint32_t group) except -1:
    """One job of a group no longer runs: the group or its queue may be eligible again."""
    group_by(core, group).running -= 1
    if core.watching and queue_at(core, group).ready:
        core.touched.add(queue_name(core, group_by(core, group).queue))
    return settle_group(core, group) if queue_at(core, group).group_concurrency else 0


cdef int apply_extend(Core core, Reader* r) except -1:
    cdef uint32_t slot = known_slot(core, get_int(r, 8)), lease_no = <uint32_t>get_int(r, 4)
    cdef int64_t at_us = <int64_t>get_int(r, 8), until_us = <int64_t>get_int(r, 8)
    cdef Job* job
    if r.short or slot == NONE:
        return 0
    job = running_job(core, slot, lease_no)
    heap_remove(&core.t, &core.leased, slot)
    run_at(&core.t, job.run).lease_until_us = until_us
    heap_push(&core.t, &core.leased, slot)
    note_time(core, at_us)
    return 0


cdef Job* running_job(Core core, uint32_t slot, uint32_t lease_no) except NULL:
    """The job of a record that names its present lease. Raises LogDamaged if it runs under no such lease."""
    cdef Job* job = job_at(&core.t, slot)
    if job.state != RUNNING or run_at(&core.t, job.run).lease_no != lease_no:
        raise LogDamaged(f"the log goes on with lease {lease_no} of job {job.seq}, which is {STATE_NAMES[job.state]}")
    return job


cdef int apply_progress(Core core, Reader* r) except -1:
    cdef uint32_t slot = known_slot(core, get_int(r, 8)), lease_no = <uint32_t>get_int(r, 4)
    cdef int64_t at_us = <int64_t>get_int(r, 8)
    cdef int percent = <int>get_int(r, 1)
    if r.short or slot == NONE:
        return 0
    running_job(core, slot, lease_no)
    set_progress(core, job_at(&core.t, slot).seq, (percent, r.p[:r.end - r.p].decode(), at_us))
    note_time(core, at_us)
    return 0


# --- close ------------------------------------------------------------------------------------------------------------

cdef int apply_close(Core core, Reader* r, uint16_t flags, Place* place) except -1:
    cdef CloseFields f
    cdef uint32_t slot = known_slot(core, get_int(r, 8))
    cdef uint64_t before
    cdef Job* job
    cdef Run* run
    read_close(r, flags, &f)
    if r.short or slot == NONE:
        return 0
    if not READY <= f.state < STATE_COUNT or f.state == RUNNING or not OUTCOME_OK <= f.outcome <= OUTCOME_UNREADABLE:
        raise LogDamaged(f"attempt {f.lease_no} is closed with outcome {f.outcome}, state {f.state}")
    job = running_job(core, slot, f.lease_no)
    run = run_at(&core.t, job.run)
    heap_remove(&core.t, &core.leased, slot)
    if core.request_of:
        forget_request(core, job.seq)
    before = kept_bytes(&core.t, job)
    job.attempts = f.attempts
    if run.worker != NONE:
        drop_name(core, run.worker)
        run.worker = NONE
    set_state(core, job, f.state)
    if core.serves:
        count_close(core, job, f.outcome, f.at_us)
    if f.outcome != OUTCOME_UNDELIVERED:  # an undelivered lease is no attempt: the result of the one before stays
        run.ended_us = f.at_us
        run.outcome = f.outcome
        run.place = place[0]
        add_to_history(core, job, place, &f.previous, True)
        end_row(job, run, &f)
    if flags & CLOSE_BY_CLIENT:
        remember_closing(
            core, run, f.outcome, close_digest(core.key, f.outcome, f.error, f.error_bytes, r.p, r.end - r.p)
        )
    recount_job(core, job, before)
    uncount_running(core, job.group)
    if f.state >= TERMINAL:
        run.ended_us = f.at_us
        finish(core, slot)
    else:
        if flags & CLOSE_RUN_AT:
            job.run_at_us = f.run_at_us
        wait(core, slot, f.at_us)
    note_time(core, f.at_us)
    if core.serves:
        tell(core, job, WAS_CLOSED + f.outcome, f.at_us, place)
        if is_failure(f.outcome):
            note_failure(core, job, &f)
    return 0


cdef int add_to_history(Core core, Job* job, Place* place, Place* previous, bint is_attempt) except -1:
    """Add a record to the job's history. previous: the place of the one before, as the record has it."""
    cdef Run* run = run_at(&core.t, job.run)
    if not same_place(previous, &run.history):
        core.broken_links += 1
    run.history = place[0]
    return grow_history(&core.t, job, place_bytes(place), is_attempt)


cdef inline void end_row(Job* job, Run* run, CloseFields* f) noexcept:
    """Count expired leases in a row, and mark a job after a failed attempt."""
    if f.outcome != OUTCOME_EXPIRED and f.outcome != OUTCOME_POISONED:
        run.expiries = 0
    elif run.expiries < 255:
        run.expiries += 1
    if f.state == RETRY:
        job.flags |= JOB_FAILED


cdef int finish(Core core, uint32_t slot) except -1:
    """Finish a job that has reached a terminal state."""
    cdef Job* job = job_at(&core.t, slot)
    job.flags &= ~JOB_CANCEL
    release_unique(core, slot)
    if job.flags & JOB_WATCHED:
        job.flags &= ~JOB_WATCHED
        core.ended.append((job_id_of(core, job), job_view(core, core.last_us, slot)))
    return add_finished(core, slot)


# --- change -----------------------------------------------------------------------------------------------------------

cdef int apply_change(Core core, Reader* r, uint16_t flags, Place* place) except -1:
    cdef ChangeFields f
    cdef uint32_t slot = known_slot(core, get_int(r, 8))
    cdef uint64_t before
    cdef Job* job
    cdef Run* run
    read_change(r, flags, &f)
    if r.short or slot == NONE:
        return 0
    job = job_at(&core.t, slot)
    if not change_fits(job, &f):
        raise LogDamaged(f"change {f.what} of job {job.seq}, which is {STATE_NAMES[job.state]}")
    if f.what == CHANGE_REDRIVEN:
        leave_place(core, slot)
    before = kept_bytes(&core.t, job)
    run = run_of(core, job)
    add_to_history(core, job, place, &f.previous, False)
    recount_job(core, job, before)
    if job.state == DEAD and f.what != CHANGE_REDRIVEN:  # its list counts what it keeps
        grow_finished(core, job, kept_bytes(&core.t, job) - before)
    if f.what == CANCEL_REQUESTED:
        job.flags |= JOB_CANCEL
    elif f.what == CHANGE_CANCELLED or f.what == CHANGE_EXPIRED:
        stop_waiting(core, slot)
        run.ended_us = f.at_us
        set_state(core, job, f.state)
        finish(core, slot)
    elif f.what == CHANGE_REDRIVEN:
        redrive(core, slot, &f)
    note_time(core, f.at_us)
    if f.what == CHANGE_EDITED or f.what == CHANGE_REPLACED:
        core.edited_as = f.what  # its new values come with the next record
    elif core.serves:
        count_change(core, job, f.what, f.at_us)
        tell(core, job, WAS_CHANGED + f.what, f.at_us, place)
    return 0


cdef bint change_fits(Job* job, ChangeFields* f) noexcept:
    """Whether this change is valid in the job's present state."""
    if f.what == CANCEL_REQUESTED:
        return job.state == RUNNING and f.state == RUNNING
    if f.what == CHANGE_CANCELLED or f.what == CHANGE_EXPIRED:
        return (job.state == READY or job.state == RETRY) and f.state == (
            CANCELLED if f.what == CHANGE_CANCELLED else EXPIRED
        )
    if f.what == CHANGE_REDRIVEN:
        return job.state == DEAD and f.state == READY
    return CHANGE_EDITED <= f.what <= CHANGE_REPLACED and job.state == f.state and job.state != RUNNING


cdef int redrive(Core core, uint32_t slot, ChangeFields* f) except -1:
    """Redrive a dead letter. It keeps its history and its lease number."""
    cdef Job* job = job_at(&core.t, slot)
    job.attempts = f.attempts
    job.run_at_us = f.run_at_us
    job.flags &= ~(JOB_FAILED | JOB_CANCEL)
    run_at(&core.t, job.run).expiries = 0
    if job.extra != NONE and extra_at(&core.t, job.extra).expires_us:
        extra_at(&core.t, job.extra).expires_us = 0
        job.flags |= JOB_NO_EXPIRY
    set_state(core, job, READY)
    hold_unique(core, slot)
    return wait(core, slot, f.at_us)


# --- forget -----------------------------------------------------------------------------------------------------------

cdef int apply_forget(Core core, Reader* r, Place* place) except -1:
    cdef uint32_t slot
    cdef Job* job
    cdef int64_t at_us = <int64_t>get_int(r, 8)
    note_time(core, at_us)
    while r.p < r.end and not r.short:
        slot = known_slot(core, get_int(r, 8))
        if slot != NONE:
            job = job_at(&core.t, slot)
            if core.serves:
                count(core, group_by(core, job.group).queue, WAS_DELETED, at_us)
                tell(core, job, WAS_DELETED, at_us, place)
            forget_job(core, slot)
    return 0


cdef int forget_job(Core core, uint32_t slot) except -1:
    """Free all memory of a job."""
    cdef Job* job = job_at(&core.t, slot)
    cdef uint32_t closing, next, group = job.group
    cdef Run* run
    leave_place(core, slot)
    if job.state == RUNNING:
        raise LogDamaged(f"job {job.seq} is removed while it runs")
    if job.flags & JOB_WATCHED:
        core.ended.append((job_id_of(core, job), None))
    core.live_bytes -= kept_bytes(&core.t, job)
    end_keyed(core, job)
    core.counts_by_state[job.state] -= 1
    queue_at(core, group).counts[job.state] -= 1
    leave_holding(core, group_by(core, group).queue, job)
    if job.state < TERMINAL:
        named(core, job.owner).unfinished -= 1
    index_drop(&core.t, BY_SEQ, slot)
    uncount_in_block(core, job.seq)
    drop_extra(core, job)
    drop_name(core, job.owner)
    drop_progress(core, job.seq)
    drop_sizes(&core.t, job)
    if job.run != NONE:
        run = run_at(&core.t, job.run)
        closing = run.closing
        while closing != NONE:
            next = closing_at(&core.t, closing).next
            pool_give(&core.t.closings, closing)
            closing = next
        pool_give(&core.t.runs, job.run)
    pool_give(&core.t.jobs, slot)
    leave_group(core, group)
    return drop_idle(core) if core.idle_groups else 0


cdef int leave_place(Core core, uint32_t slot) except -1:
    """Remove a job that does not run from its heaps, or from its list of finished jobs."""
    cdef Job* job = job_at(&core.t, slot)
    if job.state >= TERMINAL:
        return drop_finished(core, slot)
    release_unique(core, slot)
    return stop_waiting(core, slot)


cdef int apply_document(Core core, Reader* r, uint16_t flags, Place* place) except -1:
    cdef int64_t at_us = <int64_t>get_int(r, 8)
    cdef int kind = <int>get_int(r, 1)
    cdef bytes name = get_name(r)
    if flags & DOCUMENT_KEY_ID:
        get_name(r)
    if r.short:
        return 0
    note_time(core, at_us)
    named = core.documents_by_kind.setdefault(kind, {})
    earlier = named.get(name.decode())
    if earlier is not None:
        core.live_bytes -= document_bytes(len(name), len(<bytes>earlier[0]))
    if flags & DOCUMENT_DROPPED:
        named.pop(name.decode(), None)
    else:
        named[name.decode()] = (r.p[:r.end - r.p], place_of(place))
        core.live_bytes += document_bytes(len(name), r.end - r.p)
    return 0


# --- pieces -----------------------------------------------------------------------------------------------------------

cdef inline void count_new(Core core, Job* job) noexcept:
    """Count a new job, which is READY, in its queue and for its owner. `join_holding` has counted it there."""
    core.counts_by_state[READY] += 1
    queue_at(core, job.group).counts[READY] += 1
    named(core, job.owner).unfinished += 1


cdef inline void set_state(Core core, Job* job, uint8_t state) noexcept:
    """Set a job's state, and count it in its queue and for its owner."""
    cdef Queue* queue = queue_at(core, job.group)
    cdef Holding* holding = holding_at(core, job)
    cdef bint was_unfinished = job.state < TERMINAL
    holding.counts[job.state] -= 1
    holding.counts[state] += 1
    core.counts_by_state[job.state] -= 1
    queue.counts[job.state] -= 1
    if was_unfinished != (state < TERMINAL):
        if was_unfinished:
            named(core, job.owner).unfinished -= 1
        else:
            named(core, job.owner).unfinished += 1
    job.state = state
    core.counts_by_state[state] += 1
    queue.counts[state] += 1


cdef Run* run_of(Core core, Job* job) except NULL:
    """The job's run; makes one if it has none."""
    cdef Run* run
    if job.run == NONE:
        job.run = pool_take(&core.t.runs)
        run = run_at(&core.t, job.run)
        run.closing = run.worker = NONE
    return run_at(&core.t, job.run)


cdef int remember_request(Core core, int64_t at_us, bytes key, bytes request, uint64_t seq,
                          uint32_t lease_no) except -1:
    """Remember the leases of a request: a repeated request gets the same leases while they last."""
    cdef tuple asked = (key, request)
    found = core.requests.get(asked)
    if found is not None and found[0] > at_us:
        return 0  # an older request's lease, which the cleaner has moved
    if found is not None and found[0] < at_us:
        for older in found[1]:
            del core.request_of[older]
        found = None
    if found is None:
        found = core.requests[asked] = (at_us, {})
    found[1][seq] = lease_no
    core.request_of[seq] = asked
    return 0


cdef int forget_request(Core core, uint64_t seq) except -1:
    """Forget a lease that has ended: no repeated request gets it."""
    asked = core.request_of.pop(seq, None)
    if asked is not None:
        leases = core.requests[asked][1]
        del leases[seq]
        if not leases:
            del core.requests[asked]
    return 0


cdef int remember_closing(Core core, Run* run, uint8_t outcome, uint64_t digest) except -1:
    """Prepend a Closing to the job's chain, and cut the chain at CLOSINGS_KEPT."""
    cdef uint32_t i = pool_take(&core.t.closings), next
    cdef int kept = 1
    cdef Closing* closing = closing_at(&core.t, i)
    closing.digest = digest
    closing.lease_no = run.lease_no
    closing.outcome = outcome
    closing.next = run.closing
    run.closing = i
    while closing.next != NONE:
        next = closing.next
        if kept == CLOSINGS_KEPT:
            closing.next = NONE
            pool_give(&core.t.closings, next)
            break
        closing = closing_at(&core.t, next)
        kept += 1
    return 0
