# Descriptions of records, for `fastq log dump` and `repair`. Nothing here changes state.
#
# A new record type needs its name in RECORD_NAMES and its fields in `describe_fields`; so does a new outcome, and a new
# flag with a field. A test compares this file with the enums of the .pxd files.

RECORD_NAMES = {
    TRIM: "TRIM", RESUME: "RESUME", SUBMIT: "SUBMIT", LEASE: "LEASE", CLOSE: "CLOSE", DOCUMENT: "DOCUMENT",
    EXTEND: "EXTEND", GROUP: "GROUP", JOB: "JOB", FORGET: "FORGET", CHANGE: "CHANGE", PROGRESS: "PROGRESS",
    REMEMBER: "REMEMBER", FORGET_KEYS: "FORGET_KEYS",
}


def describe_records(records, bytes database_id, *, bint bodies=False):
    cdef Py_buffer buffer
    PyObject_GetBuffer(records, &buffer, PyBUF_SIMPLE)
    try:
        return describe_each(
            <const char*>buffer.buf, <const char*>buffer.buf + buffer.len, database_tag(database_id), bodies
        )
    finally:
        PyBuffer_Release(&buffer)


def job_number(str job_id, bytes database_id):
    cdef int64_t created_us = 0
    return id_seq(job_id, database_tag(database_id), &created_us)


def job_id_by_number(Core core, uint64_t number):
    cdef uint32_t slot = index_find(&core.t, number)
    return None if slot == NONE else id_text(job_at(&core.t, slot).created_us, number, core.tag)


cdef uint64_t database_tag(bytes database_id) except? 0:
    """The database's tag in job ids, as `Core.identify` derives it."""
    cdef uint64_t tag
    assert len(database_id) == 16
    memcpy(&tag, <const char*>database_id, 8)
    return tag & ((1 << TAG_BITS) - 1)


cdef list describe_each(const char* p, const char* end, uint64_t tag, bint bodies):
    cdef list described = []
    cdef uint32_t n
    while p < end:
        n = record_bytes(p, end)
        if n == 0:
            described.append({"type": "damaged", "bytes": end - p})
            break
        described.append(describe_one(p, n, tag, bodies))
        p += n
    return described


cdef dict describe_one(const char* record, uint32_t n, uint64_t tag, bint bodies):
    cdef Reader r
    cdef uint8_t type = <uint8_t>record[0], version = <uint8_t>record[1]
    cdef uint16_t flags
    cdef dict d = {"type": RECORD_NAMES.get(type, f"type {type}"), "bytes": n}
    memcpy(&flags, record + 2, 2)
    if type not in RECORD_NAMES or version != RECORD_VERSION or flags & ~known_flags(type):
        d["unknown"] = f"type {type}, version {version}, flags {flags:#x}"
        return d
    r.p = record + RECORD_HEAD_BYTES
    r.end = record + n
    r.short = False
    describe_fields(&r, type, flags, tag, bodies, d)
    if r.short:
        d["damaged"] = "the record is cut short"
    elif not is_sound(record, n):
        d["damaged"] = "the record's check does not fit"
    return d


cdef int describe_fields(Reader* r, uint8_t type, uint16_t flags, uint64_t tag, bint bodies, dict d) except -1:
    if type == SUBMIT:
        describe_submit(r, flags, tag, d)
        describe_body(r, "payload", bodies, d)
    elif type == LEASE:
        describe_lease(r, flags, d)
    elif type == CLOSE:
        describe_close(r, flags, bodies, d)
    elif type == EXTEND:
        d["job"] = get_int(r, 8)
        d["lease_no"] = get_int(r, 4)
        d["at_us"] = <int64_t>get_int(r, 8)
        d["until_us"] = <int64_t>get_int(r, 8)
    elif type == GROUP:
        d["records"] = describe_each(r.p, r.end, tag, bodies)
    elif type == JOB:
        describe_job(r, flags, d)
        d["records"] = describe_each(r.p, r.end, tag, bodies)
    elif type == FORGET:
        d["at_us"] = <int64_t>get_int(r, 8)
        d["jobs"] = []
        while r.p < r.end and not r.short:
            d["jobs"].append(get_int(r, 8))
    elif type == DOCUMENT:
        d["at_us"] = <int64_t>get_int(r, 8)
        d["kind"] = get_int(r, 1)
        d["name"] = shown_text(get_name(r))
        if flags & DOCUMENT_KEY_ID:
            d["key_id"] = shown_text(get_name(r))
        if flags & DOCUMENT_DROPPED:
            d["dropped"] = True
        else:
            describe_body(r, "body", bodies, d)
    elif type == CHANGE:
        describe_change(r, flags, d)
    elif type == PROGRESS:
        d["job"] = get_int(r, 8)
        d["lease_no"] = get_int(r, 4)
        d["at_us"] = <int64_t>get_int(r, 8)
        d["percent"] = get_int(r, 1)
        describe_body(r, "note", bodies, d)
    elif type == REMEMBER:
        d["at_us"] = <int64_t>get_int(r, 8)
        d["transaction"] = flags & REMEMBER_TRANSACTION != 0
        get_bytes(r, 24)
        d["jobs"] = []
        while r.p < r.end and not r.short:
            d["jobs"].append(get_int(r, 8))
            get_bytes(r, 9)
    elif type == FORGET_KEYS:
        d["at_us"] = <int64_t>get_int(r, 8)
        d["through_us"] = <int64_t>get_int(r, 8)
    else:
        describe_start(r, type, d)
    return 0


cdef int describe_start(Reader* r, uint8_t type, dict d) except -1:
    """RESUME and TRIM."""
    if type == RESUME:
        d["at_us"] = <int64_t>get_int(r, 8)
        d["epoch"] = get_int(r, 8)
        d["next_job"] = get_int(r, 8)
        d["grace_ms"] = get_int(r, 4)
    else:
        d["at_us"] = <int64_t>get_int(r, 8)
        d["oldest_frame"] = get_int(r, 8)
        d["next_job"] = get_int(r, 8)
        d["epoch"] = get_int(r, 8)
    return 0


cdef int describe_submit(Reader* r, uint16_t flags, uint64_t tag, dict d) except -1:
    cdef SubmitFields f
    cdef uint64_t seq = get_int(r, 8)
    read_submit(r, flags, &f)
    if r.short:
        return 0
    d["job"] = seq
    d["job_id"] = id_text(f.created_us, seq, tag)
    d["created_us"] = f.created_us
    d["max_retries"] = f.max_retries
    if flags & SUBMIT_RUN_AT:
        d["run_at_us"] = f.run_at_us
    if flags & SUBMIT_PRIORITY:
        d["priority"] = f.priority
    d["queue"] = name_shown(&f.queue) if flags & SUBMIT_QUEUE else "default"
    if flags & SUBMIT_OWNER:
        d["owner_id"] = name_shown(&f.owner)
    if flags & SUBMIT_KEY_ID:
        d["key_id"] = name_shown(&f.key_id)
    if flags & SUBMIT_GROUP:
        d["group"] = name_shown(&f.group)
    if flags & SUBMIT_UNIQUE_KEY:
        d["unique_key"] = name_shown(&f.unique_key)
    if flags & SUBMIT_IDEMPOTENCY_KEY:
        d["idempotency_key"] = name_shown(&f.idempotency_key)
    if flags & SUBMIT_LEASE_MS:
        d["lease_ms"] = f.lease_ms
    if flags & SUBMIT_TRACE:
        d["traceparent"] = name_shown(&f.trace)
    if flags & SUBMIT_EXPIRES:
        d["expires_us"] = f.expires_us
    if flags & SUBMIT_BACKOFF:
        d["backoff"] = [f.backoff_base_ms, f.backoff_factor, f.backoff_cap_ms]
    if flags & SUBMIT_TAGS:
        d["tags"] = shown_text(f.tags[:f.tags_bytes]).split("\0")
    if flags & SUBMIT_EDITED:
        d["edited"] = True
    if flags & SUBMIT_LOST:
        d["lost"] = True
    return 0


cdef int describe_lease(Reader* r, uint16_t flags, dict d) except -1:
    cdef LeaseFields f
    d["job"] = get_int(r, 8)
    read_lease(r, flags, &f)
    if r.short:
        return 0
    d["lease_no"] = f.lease_no
    d["attempts"] = f.attempts
    d["at_us"] = f.at_us
    d["until_us"] = f.until_us
    if flags & LEASE_LEGACY:
        d["without_body"] = True
    if flags & LEASE_WORKER:
        d["worker_id"] = name_shown(&f.worker)
    if flags & LEASE_KEY_ID:
        d["key_id"] = name_shown(&f.key_id)
    if flags & LEASE_REQUEST_ID:
        d["request_id"] = name_shown(&f.request_id)
    return 0


cdef int describe_close(Reader* r, uint16_t flags, bint bodies, dict d) except -1:
    cdef CloseFields f
    d["job"] = get_int(r, 8)
    read_close(r, flags, &f)
    if r.short:
        return 0
    d["lease_no"] = f.lease_no
    d["attempts"] = f.attempts
    d["outcome"] = OUTCOME_NAMES[f.outcome] if f.outcome < len(OUTCOME_NAMES) else f"outcome {f.outcome}"
    d["state"] = STATE_NAMES[f.state] if f.state < len(STATE_NAMES) else f"state {f.state}"
    d["at_us"] = f.at_us
    if flags & CLOSE_RUN_AT:
        d["run_at_us"] = f.run_at_us
    if flags & CLOSE_ERROR:
        d["error_bytes"] = f.error_bytes
        if bodies:
            d["error"] = shown_text(f.error[:f.error_bytes])
    if flags & CLOSE_KEY_ID:
        d["key_id"] = name_shown(&f.key_id)
    if flags & CLOSE_LEASED:
        d["leased_us"] = f.leased_us
        d["worker_id"] = name_shown(&f.worker)
    if flags & CLOSE_PREVIOUS:
        d["previous"] = place_shown(&f.previous)
    if flags & CLOSE_ERROR_CODE:
        d["error_code"] = name_shown(&f.error_code)
    if flags & CLOSE_LOST:
        d["lost"] = True
    if flags & CLOSE_RESULT:
        describe_body(r, "result", bodies, d)
    return 0


cdef int describe_change(Reader* r, uint16_t flags, dict d) except -1:
    cdef ChangeFields f
    d["job"] = get_int(r, 8)
    read_change(r, flags, &f)
    if r.short:
        return 0
    d["what"] = CHANGE_NAMES[f.what] if f.what < len(CHANGE_NAMES) else f"change {f.what}"
    d["state"] = STATE_NAMES[f.state] if f.state < len(STATE_NAMES) else f"state {f.state}"
    d["attempts"] = f.attempts
    d["at_us"] = f.at_us
    if flags & CHANGE_RUN_AT:
        d["run_at_us"] = f.run_at_us
    if flags & CHANGE_KEY_ID:
        d["key_id"] = name_shown(&f.key_id)
    if flags & CHANGE_PREVIOUS:
        d["previous"] = place_shown(&f.previous)
    return 0


cdef int describe_job(Reader* r, uint16_t flags, dict d) except -1:
    """Describe a JOB record's own fields, and move the reader to the first record in it."""
    cdef Reader facts = r[0]
    cdef uint8_t state
    skip_job_facts(r, flags)
    d["job"] = get_int(&facts, 8)
    state = <uint8_t>get_int(&facts, 1)
    d["state"] = STATE_NAMES[state] if state < len(STATE_NAMES) else f"state {state}"
    d["attempts"] = get_int(&facts, 2)
    d["run_at_us"] = <int64_t>get_int(&facts, 8)
    if flags & JOB_RUN:
        d["lease_no"] = get_int(&facts, 4)
    if flags & JOB_KEY:
        d["states_key"] = True
    return 0


cdef int describe_body(Reader* r, str name, bint bodies, dict d) except -1:
    """Describe the body: its length, and its text if `bodies` is set."""
    d[name + "_bytes"] = r.end - r.p
    if bodies:
        d[name] = shown_text(r.p[:r.end - r.p])
    r.p = r.end
    return 0


cdef dict place_shown(Place* place):
    return {"frame": place_frame(place), "offset": place_offset(place), "bytes": place_bytes(place)}


cdef str name_shown(Name* name):
    return shown_text(name.p[:name.n])


cdef str shown_text(bytes text):
    return text.decode("utf-8", "backslashreplace")
