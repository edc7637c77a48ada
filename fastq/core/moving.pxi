# For the cleaner: find the live records of a frame, and write whole jobs as one record.

@cython.final
cdef class LiveJob:
    """A job that replay would lose without the frame in which it was found."""
    cdef readonly uint64_t seq
    cdef readonly RecordPlace place             # of its SUBMIT record
    cdef readonly RecordPlace close_place       # of its last CLOSE record, or None
    cdef readonly RecordPlace lease_place       # of its last LEASE record while it runs, or None
    cdef readonly RecordPlace history_place     # of the newest record of its history, or None
    cdef readonly uint64_t record_bytes         # of a JOB record


@cython.final
cdef class LiveDocument:
    cdef readonly int kind
    cdef readonly str name
    cdef readonly RecordPlace place
    cdef readonly uint64_t record_bytes


@cython.final
cdef class LiveKey:
    """A remembered idempotency key, found in the record that contains it."""
    cdef uint64_t key[2]
    cdef uint32_t anchor
    cdef readonly uint64_t record_bytes # of a REMEMBER record


# --- finding ----------------------------------------------------------------------------------------------------------

cdef int find_live(Core core, const char* p, const char* end, uint64_t frame, uint32_t offset, list found) except -1:
    """Append to found the live records from p, at offset in the frame, up to end."""
    cdef uint32_t n
    cdef uint8_t type
    cdef uint16_t flags
    cdef uint64_t key[2]
    cdef Reader r
    while p < end:
        n = record_bytes(p, end)
        if n == 0:
            raise LogDamaged(f"there is no record at offset {offset} of frame {frame}, though the frame is whole")
        type = <uint8_t>p[0]
        r = reader_of(p, n, &flags)
        if type == SUBMIT:
            find_live_job(core, &r, flags, frame, offset, found)
        elif type == GROUP:
            find_live(core, r.p, r.end, frame, offset + RECORD_HEAD_BYTES, found)
        elif type == JOB:
            skip_job_facts(&r, flags)
            find_live(core, r.p, r.end, frame, offset + <uint32_t>(r.p - p), found)
        elif type == DOCUMENT and not flags & DOCUMENT_DROPPED:
            find_live_document(core, &r, new_place(frame, offset, n), found)
        elif type == REMEMBER:
            get_bytes(&r, 8)
            key[0] = get_int(&r, 8)
            key[1] = get_int(&r, 8)
            find_live_key(core, key, frame, found)
        p += n
        offset += n
    return 0


cdef int find_live_job(Core core, Reader* r, uint16_t flags, uint64_t frame, uint32_t offset, list found) except -1:
    """The job, if this is its SUBMIT record, or was before an edit; else the idempotency key in this record."""
    cdef uint64_t seq = get_int(r, 8)
    cdef uint64_t key[2]
    cdef uint32_t slot = index_find(&core.t, seq)
    cdef SubmitFields f
    cdef Job* job
    if slot != NONE:
        job = job_at(&core.t, slot)
        if place_frame(&job.place) != frame:
            if job.run != NONE and run_at(&core.t, job.run).anchor == anchor_at(frame):
                found.append(live_job(core, job))
        elif place_offset(&job.place) == offset:
            found.append(live_job(core, job))
            return 0
    if flags & SUBMIT_IDEMPOTENCY_KEY:
        read_submit(r, flags, &f)
        scoped_hash(core, f.owner, no_name(), f.idempotency_key, key)
        find_live_key(core, key, frame, found)
    return 0


cdef inline uint32_t anchor_at(uint64_t frame) noexcept nogil:
    """A frame's value for `Run.anchor` and `Remembered.anchor`: never 0.

    32 bits are enough. Two frames with the same value matter only if both have a record of one job or key, 2^32 frames
    apart; then it is moved once more than necessary.
    """
    return <uint32_t>frame or 1


cdef int find_live_key(Core core, uint64_t* key, uint64_t frame, list found) except -1:
    cdef LiveKey live
    cdef uint32_t i
    i = index_find_key(&core.t, BY_KEY, key)
    if i != NONE and remembered_at(&core.t, i).anchor == anchor_at(frame):
        live = LiveKey.__new__(LiveKey)
        live.key[0] = key[0]
        live.key[1] = key[1]
        live.anchor = anchor_at(frame)
        live.record_bytes = key_bytes(remembered_at(&core.t, i))
        found.append(live)
    return 0


cdef LiveJob live_job(Core core, Job* job):
    cdef LiveJob live = LiveJob.__new__(LiveJob)
    cdef Run* run
    live.seq = job.seq
    live.place = place_of(&job.place)
    live.record_bytes = kept_bytes(&core.t, job)
    progress = core.progress.get(job.seq)
    if progress is not None:
        live.record_bytes += progress_bytes(progress)
    if job.run != NONE:
        run = run_at(&core.t, job.run)
        if run.outcome:
            live.close_place = place_of(&run.place)
        if place_bytes(&run.history):
            live.history_place = place_of(&run.history)
        if job.state == RUNNING:
            live.lease_place = place_of(&run.lease_place)
    return live


cdef int find_live_document(Core core, Reader* r, Place place, list found) except -1:
    cdef LiveDocument live = LiveDocument.__new__(LiveDocument)
    cdef bytes name
    get_int(r, 8)
    live.kind = <int>get_int(r, 1)
    name = get_name(r)
    live.name = name.decode()
    live.place = place_of(&place)
    body, present = core.documents_by_kind.get(live.kind, {}).get(live.name, (None, None))
    if present == live.place:
        live.record_bytes = document_bytes(len(name), len(<bytes>body))
        found.append(live)
    return 0


def history_of(bytes record, uint64_t number):
    cdef const char* p = record
    cdef uint32_t n = <uint32_t>len(record)
    cdef uint16_t flags
    cdef Reader r
    cdef CloseFields close
    cdef ChangeFields change
    cdef Place previous
    if not is_sound(p, n):
        raise RecordUnreadable(NOT_SOUND)
    r = reader_of(p, n, &flags)
    if not (p[0] == CLOSE or p[0] == CHANGE or p[0] == JOB) or get_int(&r, 8) != number:
        raise RecordUnreadable(OTHER_RECORD)
    if p[0] == JOB:
        return moved_history(p, n, number), None
    if p[0] == CLOSE:
        read_close(&r, flags, &close)
        previous = close.previous
    else:
        read_change(&r, flags, &change)
        previous = change.previous
    if r.short:
        raise RecordUnreadable(CUT_SHORT)
    return [record], place_of(&previous) if place_bytes(&previous) else None


cdef list moved_history(const char* record, uint32_t n, uint64_t number):
    """The CLOSE and CHANGE records in a JOB record of n bytes. The SUBMIT record, its first, need not be sound."""
    cdef uint16_t flags
    cdef Reader r = reader_of(record, n, &flags), inner
    cdef list found = []
    skip_job_facts(&r, flags)
    get_bytes(&r, record_bytes(r.p, r.end))
    while r.p < r.end:
        n = record_bytes(r.p, r.end)
        if not is_sound(r.p, n):
            raise RecordUnreadable(NOT_SOUND)
        inner = reader_of(r.p, n, &flags)
        if get_int(&inner, 8) != number:
            raise RecordUnreadable(OTHER_RECORD)
        if r.p[0] != LEASE:
            found.append(r.p[:n])
        r.p += n
    return found


# --- moving -----------------------------------------------------------------------------------------------------------

cdef bint move_key(Core core, int64_t now_us, LiveKey live) except *:
    """Append a remembered answer again, with the time of its first use."""
    cdef uint32_t i = index_find_key(&core.t, BY_KEY, live.key)
    cdef Remembered* entry
    cdef bytes answers
    if i == NONE:
        return False
    entry = remembered_at(&core.t, i)
    if entry.anchor != live.anchor:
        return False
    if entry.seq == 0:
        answers = answers_of(entry)
        append_remember(core, entry.used_us, live.key, entry.body_digest, answers, True)
    else:
        append_remember_job(core, entry.used_us, live.key, entry.body_digest, entry.seq, entry.answer.created_us)
    return True


cdef bint append_job(Core core, LiveJob live, bytes submit, bytes lease, list history) except *:
    """Append a JOB record: the job's present state, and its records unchanged. False if its places have changed.

    A record that could not be read is None, or is missing from the history: see losing.pxi.
    """
    cdef uint32_t slot = index_find(&core.t, live.seq), n
    cdef uint16_t flags = 0
    cdef Job* job
    cdef Place place
    cdef char* p
    cdef char* record
    cdef bytes note, past
    cdef LiveJob present
    if slot == NONE:
        return False
    job = job_at(&core.t, slot)
    present = live_job(core, job)
    if (present.place, present.close_place, present.lease_place, present.history_place) != (
        live.place, live.close_place, live.lease_place, live.history_place
    ):
        return False
    if submit is None:
        submit = lost_submit(core, job)
    if lease is None and live.lease_place is not None:
        lease = lost_lease(core, job)
    if live.close_place is not None and not any([past[0] == CLOSE for past in history]):
        history = [*history, lost_close(core, job)]
    n = JOB_HEAD_BYTES + len(submit)
    if job.run != NONE:
        flags |= JOB_RUN
        n += run_facts_bytes(&core.t, run_at(&core.t, job.run))
    if states_key(core, submit):
        flags |= JOB_KEY
    if lease is not None:
        flags |= JOB_LEASE
        n += len(lease)
    progress = core.progress.get(job.seq)
    if progress is not None:
        flags |= JOB_PROGRESS
        note = (<str>progress[1]).encode()
        n += 10 + len(note)
    for past in history:
        n += len(past)
    record = p = core.tail.reserve(n, &place)
    p = put_u8(put_u64(put_head(p, JOB, flags, n), job.seq), job.state)
    p = put_u8(put_i64(put_u16(p, job.attempts), job.run_at_us), job.flags & JOB_IN_LOG)
    if flags & JOB_RUN:
        p = put_run_facts(core, p, run_at(&core.t, job.run))
    if progress is not None:
        p = put_name(put_u8(put_i64(p, progress[2]), progress[0]), note)
    p = put_bytes(p, <const char*>submit, len(submit))
    if lease is not None:
        p = put_bytes(p, <const char*>lease, len(lease))
    for past in history:
        p = put_bytes(p, <const char*>past, len(past))
    commit(core, record, n, &place)
    return True


cdef bint states_key(Core core, bytes submit) except *:
    """Whether the idempotency key in a job's SUBMIT record is remembered with this job."""
    cdef uint16_t flags
    cdef Reader r = reader_of(<const char*>submit, <uint32_t>len(submit), &flags)
    return key_of_submit(core, &r, flags) != NONE


cdef uint32_t key_of_submit(Core core, Reader* r, uint16_t flags) except? <uint32_t>NONE:
    """The slot of a SUBMIT record's idempotency key, if that key is remembered with this job; else NONE."""
    cdef SubmitFields f
    cdef uint64_t seq = get_int(r, 8)
    cdef uint64_t key[2]
    cdef uint32_t i
    if not flags & SUBMIT_IDEMPOTENCY_KEY:
        return NONE
    read_submit(r, flags, &f)
    scoped_hash(core, f.owner, no_name(), f.idempotency_key, key)
    i = index_find_key(&core.t, BY_KEY, key)
    if i == NONE or remembered_at(&core.t, i).seq != seq or remembered_at(&core.t, i).used_us != f.created_us:
        return NONE
    return i


cdef char* put_run_facts(Core core, char* p, Run* run) noexcept:
    cdef uint32_t i = run.closing
    cdef uint8_t closings = <uint8_t>((run_facts_bytes(&core.t, run) - RUN_FACTS_BYTES) // CLOSING_BYTES)
    p = put_i64(put_u32(put_u32(p, run.lease_no), run.lease_ms), run.leased_us)
    p = put_i64(put_i64(p, run.lease_until_us), run.ended_us)
    p = put_u8(put_u8(put_u8(put_u8(p, run.legacy), run.outcome), run.expiries), closings)
    while i != NONE:
        p = put_u8(put_u32(p, closing_at(&core.t, i).lease_no), closing_at(&core.t, i).outcome)
        p = put_u64(p, closing_at(&core.t, i).digest)
        i = closing_at(&core.t, i).next
    return p


# --- applying moved records -------------------------------------------------------------------------------------------

cdef void skip_job_facts(Reader* r, uint16_t flags) noexcept nogil:
    """Move the reader to the first record in a JOB record."""
    get_bytes(r, 20)
    if flags & JOB_RUN:
        get_bytes(r, 35)
        get_bytes(r, CLOSING_BYTES * get_int(r, 1))
    if flags & JOB_PROGRESS:
        get_bytes(r, 9)
        get_bytes(r, get_int(r, 1))


cdef int apply_job(Core core, Reader* r, uint16_t flags, Place* place) except -1:
    """Apply a JOB record. An existing job only gets its new places; any other job is created whole."""
    cdef const char* begin = r.p - RECORD_HEAD_BYTES
    cdef Reader facts = r[0], inner_reader
    cdef uint64_t seq = get_int(&facts, 8)
    cdef uint32_t slot = index_find(&core.t, seq)
    cdef uint16_t submit_flags
    cdef bint is_new = slot == NONE
    cdef uint64_t before
    cdef Job* job
    cdef Place inner
    skip_job_facts(r, flags)
    if r.short or record_bytes(r.p, r.end) == 0 or r.p[0] != SUBMIT:
        raise LogDamaged(f"the record of the whole job {seq} is invalid")
    next_inner(begin, r, place, &inner)
    inner_reader = inner_record(begin, place, &inner, &submit_flags)
    if is_new:
        apply_submit(core, &inner_reader, submit_flags, &inner, True, flags & JOB_KEY != 0)
        slot = index_find(&core.t, seq)
        if slot == NONE:
            raise LogDamaged(f"the record of job {seq} holds another job")
        before = kept_bytes(&core.t, job_at(&core.t, slot))
        restore_facts(core, slot, &facts, flags)
    else:
        before = kept_bytes(&core.t, job_at(&core.t, slot))
        if flags & JOB_KEY:
            relearn_key(core, &inner_reader, submit_flags, place_frame(place))
    job = job_at(&core.t, slot)
    job.place = inner
    if job.run != NONE:
        run_at(&core.t, job.run).anchor = 0
    if flags & JOB_RUN:
        relearn_places(core, job, begin, r, place, &inner, flags)
    recount_job(core, job, before)
    if job.state >= TERMINAL:
        if is_new:
            add_finished(core, slot)
        else:
            grow_finished(core, job, kept_bytes(&core.t, job) - before)
    return 0


cdef int relearn_places(Core core, Job* job, const char* begin, Reader* r, Place* place, Place* inner,
                        uint16_t flags) except -1:
    """Set the places of the records after the SUBMIT record in a JOB record."""
    cdef Run* run = run_at(&core.t, job.run)
    cdef uint32_t sizes[EVENTS_KEPT]
    cdef uint32_t attempts = 0, events = 0
    cdef uint64_t total = 0
    cdef bint closed = False, is_attempt
    if flags & JOB_LEASE:
        next_inner(begin, r, place, inner)
        run.lease_place = inner[0]
        relearn_lease(core, job, begin + (place_offset(inner) - place_offset(place)), place_bytes(inner))
    clear_history(&core.t, job)
    while r.p < r.end:  # newest first; the last may be the record of the result, older than what else is kept
        next_inner(begin, r, place, inner)
        run.history = place[0]
        is_attempt = begin[place_offset(inner) - place_offset(place)] == CLOSE
        if is_attempt and not closed:
            run.place = inner[0]
            closed = True
        if not is_history_full(attempts, events, total):
            sizes[events] = place_bytes(inner) | (OF_ATTEMPT if is_attempt else 0)
            events += 1
            attempts += is_attempt
            total += place_bytes(inner)
    while events:
        events -= 1
        grow_history(&core.t, job, sizes[events] & ~OF_ATTEMPT, sizes[events] >> 31)
    return 0


cdef int relearn_key(Core core, Reader* r, uint16_t flags, uint64_t frame) except -1:
    """Note that a moved SUBMIT record contains its idempotency key."""
    cdef uint32_t i = key_of_submit(core, r, flags)
    if i != NONE:
        remembered_at(&core.t, i).anchor = anchor_at(frame)
    return 0


cdef int next_inner(const char* begin, Reader* r, Place* place, Place* inner) except -1:
    """The place of the next record in a JOB record. The reader moves past it."""
    cdef uint32_t n = record_bytes(r.p, r.end)
    if n == 0:
        raise LogDamaged(f"the record of a whole job at {place_text(place)} is cut short")
    inner[0] = new_place(place_frame(place), place_offset(place) + <uint32_t>(r.p - begin), n)
    get_bytes(r, n)
    return 0


cdef inline Reader inner_record(const char* begin, Place* place, Place* inner, uint16_t* flags) noexcept nogil:
    """A reader after the head of the record at inner, within the JOB record at place, which starts at begin."""
    return reader_of(begin + (place_offset(inner) - place_offset(place)), place_bytes(inner), flags)


cdef int restore_facts(Core core, uint32_t slot, Reader* facts, uint16_t flags) except -1:
    """Give a job that was just created from a JOB record the rest of its state."""
    cdef Job* job = job_at(&core.t, slot)
    cdef uint8_t state = <uint8_t>get_int(facts, 1)
    if state < READY or state >= STATE_COUNT or (state != READY and not flags & JOB_RUN):
        raise LogDamaged(f"job {job.seq} has no valid state")
    stop_waiting(core, slot)
    job.attempts = <uint16_t>get_int(facts, 2)
    job.run_at_us = <int64_t>get_int(facts, 8)
    job.flags = job.flags & JOB_KEYED | <uint8_t>get_int(facts, 1) & JOB_IN_LOG
    if job.flags & JOB_NO_EXPIRY and job.extra != NONE:
        extra_at(&core.t, job.extra).expires_us = 0
    if flags & JOB_RUN:
        restore_run(core, run_of(core, job), facts)
    if flags & JOB_PROGRESS:
        at_us = <int64_t>get_int(facts, 8)
        percent = get_int(facts, 1)
        set_progress(core, job.seq, (percent, get_name(facts).decode(), at_us))
    set_state(core, job, state)
    if state >= TERMINAL:
        return 0
    hold_unique(core, slot)
    if state == RUNNING:
        count_running(core, job.group)
        return heap_push(&core.t, &core.leased, slot)
    return wait(core, slot, job.created_us)


cdef int restore_run(Core core, Run* run, Reader* facts) except -1:
    cdef int i, closings
    cdef uint32_t closing
    cdef uint32_t* link = &run.closing
    run.lease_no = <uint32_t>get_int(facts, 4)
    run.lease_ms = <uint32_t>get_int(facts, 4)
    run.leased_us = <int64_t>get_int(facts, 8)
    run.lease_until_us = <int64_t>get_int(facts, 8)
    run.ended_us = <int64_t>get_int(facts, 8)
    run.legacy = <uint8_t>get_int(facts, 1)
    run.outcome = <uint8_t>get_int(facts, 1)
    run.expiries = <uint8_t>get_int(facts, 1)
    closings = <int>get_int(facts, 1)
    for i in range(closings):
        closing = pool_take(&core.t.closings)
        link[0] = closing
        closing_at(&core.t, closing).lease_no = <uint32_t>get_int(facts, 4)
        closing_at(&core.t, closing).outcome = <uint8_t>get_int(facts, 1)
        closing_at(&core.t, closing).digest = get_int(facts, 8)
        closing_at(&core.t, closing).next = NONE
        link = &closing_at(&core.t, closing).next
    return 0


cdef int relearn_lease(Core core, Job* job, const char* record, uint32_t n) except -1:
    """A running job's worker and request_id, from its LEASE record."""
    cdef Reader r
    cdef LeaseFields f
    cdef uint16_t flags
    cdef Run* run = run_at(&core.t, job.run)
    r = reader_of(record, n, &flags)
    get_int(&r, 8)
    read_lease(&r, flags, &f)
    if r.short:
        raise LogDamaged(f"the lease record of job {job.seq} is cut short")
    if f.worker.n and run.worker == NONE:
        run.worker = name_of(core, name_bytes(f.worker))
    if f.request_id.n:
        remember_request(core, f.at_us, name_bytes(f.key_id), name_bytes(f.request_id), job.seq, f.lease_no)
    return 0
