# What the cleaner needs: which records of a stretch of the log are still needed, and whole jobs as one record.


@cython.final
cdef class LiveJob:
    """A job whose SUBMIT record was found where the job says it is."""
    cdef readonly uint64_t seq
    cdef readonly tuple place           # of its SUBMIT record
    cdef readonly object close_place    # of its last CLOSE record, or None
    cdef readonly object lease_place    # of its last LEASE record while it runs, or None


@cython.final
cdef class LiveDocument:
    cdef readonly int kind
    cdef readonly str name
    cdef readonly uint32_t segment
    cdef readonly uint32_t offset
    cdef readonly int body_bytes


cdef int find_live(Core core, const char* p, const char* end, uint32_t segment, uint32_t offset, list found) except -1:
    """Append to found what replay still needs of the records from p to end, the first of which lies at offset."""
    cdef uint32_t n
    cdef uint8_t type
    cdef uint16_t flags
    cdef Reader r
    while p < end:
        n = record_bytes(p, end)
        if n == 0:
            raise LogDamaged(f"no record at {segment}:{offset}, though the frame is whole")
        type = <uint8_t>p[0]
        memcpy(&flags, p + 2, 2)
        r.p = p + RECORD_HEAD_BYTES
        r.end = p + n
        r.short = False
        if type == SUBMIT:
            find_live_job(core, get_int(&r, 8), segment, offset, found)
        elif type == GROUP:
            find_live(core, r.p, r.end, segment, offset + RECORD_HEAD_BYTES, found)
        elif type == JOB:
            skip_job_facts(&r, flags)
            find_live(core, r.p, r.end, segment, offset + <uint32_t>(r.p - p), found)
        elif type == DOCUMENT and not flags & DOCUMENT_DROPPED:
            find_live_document(core, &r, segment, offset, found)
        p += n
        offset += n
    return 0


cdef int find_live_job(Core core, uint64_t seq, uint32_t segment, uint32_t offset, list found) except -1:
    cdef uint32_t slot = index_find(&core.t, seq)
    cdef LiveJob live
    if slot == NONE:
        return 0
    live = live_job(core, job_at(&core.t, slot))
    if live.place[0] == segment and live.place[1] == offset:
        found.append(live)
    return 0


cdef LiveJob live_job(Core core, Job* job):
    cdef LiveJob live = LiveJob.__new__(LiveJob)
    cdef Run* run
    live.seq = job.seq
    live.place = place_tuple(&job.place)
    if job.run != NONE:
        run = run_at(&core.t, job.run)
        if run.outcome:
            live.close_place = place_tuple(&run.place)
        if job.state == RUNNING:
            live.lease_place = place_tuple(&run.lease_place)
    return live


cdef int find_live_document(Core core, Reader* r, uint32_t segment, uint32_t offset, list found) except -1:
    cdef LiveDocument live = LiveDocument.__new__(LiveDocument)
    get_int(r, 8)
    live.kind = <int>get_int(r, 1)
    live.name = get_name(r).decode()
    present = core.documents_by_kind.get(live.kind, {}).get(live.name)
    if present is not None and present[1] == segment and present[2] == offset:
        live.segment = segment
        live.offset = offset
        live.body_bytes = len(present[0])
        found.append(live)
    return 0


cdef bint append_job(Core core, LiveJob live, bytes submit, bytes close, bytes lease) except -1:
    """Write a job as it is now, with the records that it needs as they were. False if they are no longer the ones."""
    cdef uint32_t slot = index_find(&core.t, live.seq), n, i
    cdef uint16_t flags = 0
    cdef Job* job
    cdef Run* run = NULL
    cdef Place place
    cdef char* p
    cdef char* record
    cdef uint8_t closings = 0
    cdef LiveJob present
    if slot == NONE:
        return False
    job = job_at(&core.t, slot)
    present = live_job(core, job)
    if (present.place, present.close_place, present.lease_place) != (live.place, live.close_place, live.lease_place):
        return False
    n = RECORD_HEAD_BYTES + 19 + len(submit)
    if job.run != NONE:
        run = run_at(&core.t, job.run)
        flags |= JOB_RUN
        i = run.closing
        while i != NONE:
            closings += 1
            i = closing_at(&core.t, i).next
        n += 27 + 13 * closings
    if close is not None:
        flags |= JOB_CLOSE
        n += len(close)
    if lease is not None:
        flags |= JOB_LEASE
        n += len(lease)
    record = p = core.tail.reserve(n, &place)
    p = put_u8(put_u64(put_head(p, JOB, flags, n), job.seq), job.state)
    p = put_i64(put_u16(p, job.attempts), job.run_at_us)
    if run != NULL:
        p = put_i64(put_i64(put_u32(put_u32(p, run.lease_no), run.lease_ms), run.lease_until_us), run.ended_us)
        p = put_u8(put_u8(put_u8(p, run.legacy), run.outcome), closings)
        i = run.closing
        while i != NONE:
            p = put_u8(put_u32(p, closing_at(&core.t, i).lease_no), closing_at(&core.t, i).outcome)
            p = put_u64(p, closing_at(&core.t, i).digest)
            i = closing_at(&core.t, i).next
    p = put_bytes(p, <const char*>submit, len(submit))
    if close is not None:
        p = put_bytes(p, <const char*>close, len(close))
    if lease is not None:
        put_bytes(p, <const char*>lease, len(lease))
    core.commit(record, n, &place)
    return True


cdef void skip_job_facts(Reader* r, uint16_t flags) noexcept nogil:
    """Go to the first of the records in a JOB record."""
    get_bytes(r, 19)
    if flags & JOB_RUN:
        get_bytes(r, 26)
        get_bytes(r, 13 * get_int(r, 1))


cdef int apply_job(Core core, Reader* r, uint16_t flags, Place* place) except -1:
    """A job that is known only changes its places; another one is made whole."""
    cdef const char* begin = r.p - RECORD_HEAD_BYTES
    cdef Reader facts = r[0]
    cdef uint64_t seq = get_int(&facts, 8)
    cdef uint32_t slot = index_find(&core.t, seq)
    cdef Job* job
    cdef Run* run
    cdef Place inner
    inner.segment = place.segment
    skip_job_facts(r, flags)
    if r.short or record_bytes(r.p, r.end) == 0 or r.p[0] != SUBMIT:
        raise LogDamaged(f"the record of the whole job {seq} is none")
    next_inner(begin, r, place, &inner)
    if slot == NONE:
        core.apply(begin + (inner.offset - place.offset), inner.bytes, &inner)
        slot = index_find(&core.t, seq)
        if slot == NONE:
            raise LogDamaged(f"the record of job {seq} holds another job")
        restore_facts(core, slot, &facts, flags)
    job = job_at(&core.t, slot)
    core.live_bytes -= kept_bytes(&core.t, job)
    job.place = inner
    if flags & JOB_RUN:
        run = run_at(&core.t, job.run)
        if flags & JOB_CLOSE:
            next_inner(begin, r, place, &inner)
            run.place = inner
        if flags & JOB_LEASE:
            next_inner(begin, r, place, &inner)
            run.lease_place = inner
            remember_lease(core, job, begin + (inner.offset - place.offset), inner.bytes)
    core.live_bytes += kept_bytes(&core.t, job)
    if job.state >= ACKED and job.heap == IN_NONE and run_at(&core.t, job.run).older == DETACHED:
        finished_add(&core.t, &core.finished[job.state], slot)
    return 0


cdef int next_inner(const char* begin, Reader* r, Place* place, Place* inner) except -1:
    """The place of the next record inside a JOB record, which the reader passes over."""
    inner.bytes = record_bytes(r.p, r.end)
    inner.offset = place.offset + <uint32_t>(r.p - begin)
    if inner.bytes == 0:
        raise LogDamaged(f"the record of a whole job at {place.segment}:{place.offset} is cut short")
    get_bytes(r, inner.bytes)
    return 0


cdef int restore_facts(Core core, uint32_t slot, Reader* facts, uint16_t flags) except -1:
    """Give a job that was just submitted again the state that the JOB record states."""
    cdef Job* job = job_at(&core.t, slot)
    cdef Run* run
    cdef uint8_t state = <uint8_t>get_int(facts, 1)
    cdef int i, closings
    cdef uint32_t closing
    cdef uint32_t* link
    if state < READY or state > DEAD or (state != READY and not flags & JOB_RUN):
        raise LogDamaged(f"job {job.seq} is in no state")
    core.leave_heap(slot)
    core.live_bytes -= kept_bytes(&core.t, job)
    job.attempts = <uint16_t>get_int(facts, 2)
    job.run_at_us = <int64_t>get_int(facts, 8)
    if flags & JOB_RUN:
        run = core.run_of(job)
        run.lease_no = <uint32_t>get_int(facts, 4)
        run.lease_ms = <uint32_t>get_int(facts, 4)
        run.lease_until_us = <int64_t>get_int(facts, 8)
        run.ended_us = <int64_t>get_int(facts, 8)
        run.legacy = <uint8_t>get_int(facts, 1)
        run.outcome = <uint8_t>get_int(facts, 1)
        run.older = DETACHED
        closings = <int>get_int(facts, 1)
        link = &run.closing
        for i in range(closings):
            closing = pool_take(&core.t.closings)
            link[0] = closing
            closing_at(&core.t, closing).lease_no = <uint32_t>get_int(facts, 4)
            closing_at(&core.t, closing).outcome = <uint8_t>get_int(facts, 1)
            closing_at(&core.t, closing).digest = get_int(facts, 8)
            closing_at(&core.t, closing).next = NONE
            link = &closing_at(&core.t, closing).next
    core.set_state(job, state)
    core.live_bytes += kept_bytes(&core.t, job)
    if state == RUNNING:
        return heap_push(&core.t, &core.leased, slot)
    return core.wait(slot, core.last_us) if state <= RETRY else 0


cdef int remember_lease(Core core, Job* job, const char* record, uint32_t n) except -1:
    """A running job's request_id, if its LEASE record has one."""
    cdef Reader r
    cdef LeaseFields f
    cdef uint16_t flags
    memcpy(&flags, record + 2, 2)
    if not flags & LEASE_REQUEST_ID:
        return 0
    r.p = record + RECORD_HEAD_BYTES + 8
    r.end = record + n
    r.short = False
    read_lease(&r, flags, &f)
    if not r.short:
        core.remember_request(
            f.at_us, f.key_id.p[:f.key_id.n], f.request_id.p[:f.request_id.n], job.seq, f.lease_no
        )
    return 0
