# Records in place of those that cannot be read: the cleaner writes them from what memory holds, so that the rest of a
# job stays. What memory does not hold, the payload, the result and an error's text, is lost, and reading it is refused.

cdef bytes LOST_ATTEMPT = b"the record of this attempt could not be read"


cdef bytes lost_submit(Core core, Job* job):
    """A SUBMIT record without a payload, traceparent and keys. It has the hash of a unique key."""
    cdef SubmitFields f
    cdef Extra* extra
    cdef Queue* queue = queue_at(core, job.group)
    cdef bytes owner = name_at(core, job.owner), queue_bytes = name_at(core, queue.name), group = b"", tags, record
    cdef uint32_t n
    cdef uint16_t flags
    memset(&f, 0, sizeof(SubmitFields))
    f.seq, f.created_us, f.run_at_us = job.seq, job.created_us, job.run_at_us
    f.priority, f.max_retries = job.priority, job.max_retries
    f.owner = name_in(owner)
    if queue_bytes != DEFAULT_QUEUE:
        f.queue = name_in(queue_bytes)
    if group_by(core, job.group).name != NONE:
        group = name_at(core, group_by(core, job.group).name)
        f.group = name_in(group)
    if job.extra != NONE:
        extra = extra_at(&core.t, job.extra)
        f.expires_us, f.lease_ms = extra.expires_us, extra.lease_ms
        f.backoff_base_ms, f.backoff_factor = extra.backoff_base_ms, extra.backoff_factor
        f.backoff_cap_ms = extra.backoff_cap_ms
        f.lost_unique[0], f.lost_unique[1] = extra.unique[0], extra.unique[1]
        if extra.tags != NONE:
            tags = name_at(core, extra.tags)
            f.tags = <const char*>tags
            f.tags_bytes = <uint16_t>len(tags)
    flags = submit_flags(&f) | SUBMIT_LOST
    n = submit_bytes(&f, flags)
    record = PyBytes_FromStringAndSize(NULL, n)
    put_submit(<char*>record, &f, flags, n)
    seal(<char*>record, n)
    return record


cdef bytes lost_lease(Core core, Job* job):
    """The LEASE record of a running job. Memory holds all of it except the key, if the request had no id."""
    cdef Run* run = run_at(&core.t, job.run)
    cdef uint16_t flags = LEASE_KEY_ID | (LEASE_LEGACY if run.legacy else 0)
    cdef uint32_t n = RECORD_HEAD_BYTES + 30
    cdef bytes key, request, worker = b"" if run.worker == NONE else name_at(core, run.worker), record
    cdef char* p
    key, request = core.request_of.get(job.seq, (b"", b""))
    n += 1 + len(key)
    if worker:
        flags |= LEASE_WORKER
        n += 1 + len(worker)
    if request:
        flags |= LEASE_REQUEST_ID
        n += 1 + len(request)
    record = PyBytes_FromStringAndSize(NULL, n)
    p = put_u32(put_u64(put_head(<char*>record, LEASE, flags, n), job.seq), run.lease_no)
    p = put_i64(put_i64(put_u16(p, job.attempts), run.leased_us), run.leased_us + <int64_t>run.lease_ms * 1000)
    if worker:
        p = put_name(p, worker)
    p = put_name(p, key)
    if request:
        put_name(p, request)
    seal(<char*>record, n)
    return record


cdef bytes lost_close(Core core, Job* job):
    """A CLOSE record of the last attempt that ended, without its result, worker and error."""
    cdef Run* run = run_at(&core.t, job.run)
    cdef bint runs = job.state == RUNNING
    cdef uint32_t n = RECORD_HEAD_BYTES + 26 + <uint32_t>len(LOST_ATTEMPT)
    cdef bytes record = PyBytes_FromStringAndSize(NULL, n)
    cdef char* p = put_head(<char*>record, CLOSE, CLOSE_LOST | CLOSE_ERROR, n)
    p = put_u16(put_u32(put_u64(p, job.seq), run.lease_no - runs), job.attempts - runs)
    p = put_i64(put_u8(put_u8(p, run.outcome), RETRY if runs else job.state), run.ended_us)
    put_bytes(put_u16(p, <uint16_t>len(LOST_ATTEMPT)), <const char*>LOST_ATTEMPT, len(LOST_ATTEMPT))
    seal(<char*>record, n)
    return record


# --- what to save when a frame cannot be read -------------------------------------------------------------------------

cdef list find_live_in(Core core, set frames):
    """All live jobs, documents and keys of these frames, found in memory: a walk over all of them."""
    cdef list found = []
    cdef set anchors = {anchor_at(frame) for frame in frames}
    cdef uint32_t i
    cdef Job* job
    cdef LiveDocument live
    for i in range(pool_end(&core.t.jobs)):
        if not pool_has(&core.t.jobs, i):
            continue
        job = job_at(&core.t, i)
        if job.state and (place_frame(&job.place) in frames or (
            job.run != NONE and run_at(&core.t, job.run).anchor and run_at(&core.t, job.run).anchor in anchors
        )):
            found.append(live_job(core, job))
    for kind, named in core.documents_by_kind.items():
        for name, (body, place) in named.items():
            if (<RecordPlace>place).frame in frames:
                live = LiveDocument.__new__(LiveDocument)
                live.kind, live.name, live.place = kind, name, place
                live.record_bytes = document_bytes(len((<str>name).encode()), len(<bytes>body))
                found.append(live)
    i = core.oldest_key
    while i != NONE:
        if remembered_at(&core.t, i).anchor in anchors:
            find_live_key(core, remembered_at(&core.t, i).key, remembered_at(&core.t, i).anchor, found)
        i = remembered_at(&core.t, i).newer
    return found
