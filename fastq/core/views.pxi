# The core's answers: plain values, made on request.

cdef tuple STATE_NAMES = ("", "READY", "RUNNING", "RETRY", "ACKED", "DEAD", "EXPIRED", "CANCELLED")
cdef tuple OUTCOME_NAMES = (
    "", "ok", "error", "lease_expired", "undelivered", "discarded", "snoozed", "released", "cancelled", "poisoned",
    "unreadable",
)
cdef tuple CHANGE_NAMES = ("", "cancel_requested", "cancelled", "expired", "redriven", "edited", "replaced")

# The lists that everything outside of the core takes its words from.
STATES = ("SCHEDULED", *STATE_NAMES[1:])
FINISHED = frozenset(STATE_NAMES[TERMINAL:])
ATTEMPT_OUTCOMES = tuple([name for name in OUTCOME_NAMES[1:] if name != "undelivered"])  # that was no attempt
EVENTS = ("attempt", *CHANGE_NAMES[1:])


cdef inline str text_of(Name name):
    return name.p[:name.n].decode() if name.n else ""


cdef inline tuple tags_of(bytes joined):
    return tuple(joined.decode().split("\0")) if joined else ()


@cython.final
cdef class Leased:
    pass


@cython.final
cdef class JobView:
    cdef readonly uint64_t number
    cdef readonly str job_id
    cdef readonly str state
    cdef readonly str queue
    cdef readonly str group
    cdef readonly str owner_id
    cdef readonly str worker_id
    cdef readonly str outcome
    cdef readonly tuple tags
    cdef readonly RecordPlace place
    cdef readonly RecordPlace close_place
    cdef readonly RecordPlace history_place
    cdef readonly object lease_until_us
    cdef readonly object progress
    cdef readonly int64_t created_us
    cdef readonly int64_t run_at_us
    cdef readonly int64_t expires_us
    cdef readonly int64_t leased_us
    cdef readonly int64_t ended_us
    cdef readonly int32_t priority
    cdef readonly int attempts
    cdef readonly int max_retries
    cdef readonly int lease_no
    cdef readonly bint cancel_requested


@cython.final
cdef class QueueView:
    cdef readonly str name
    cdef readonly uint64_t ready
    cdef readonly uint64_t waiting
    cdef readonly uint64_t running
    cdef readonly uint64_t groups
    cdef readonly int64_t oldest_ready_us
    cdef readonly double in_per_s, out_per_s, failed_per_s
    cdef readonly dict finished


cdef bint has_job(Core core, Access access, Job* job) except *:
    """Whether a job exists for a caller."""
    if access.owner is not None and name_at(core, job.owner) != access.owner:
        return False
    return access.queues is None or queue_name(core, group_by(core, job.group).queue) in access.queues


cdef uint32_t slot_of(Core core, Access access, str job_id) except <uint32_t>NONE:
    """The slot of a job. Raises JobNotFound, also for a job that does not exist for the caller."""
    cdef int64_t created_us = 0
    cdef uint64_t seq = id_seq(job_id, core.tag, &created_us)
    cdef uint32_t slot = NONE if seq == 0 else index_find(&core.t, seq)
    if slot == NONE or job_at(&core.t, slot).created_us != created_us:
        raise JobNotFound(job_id)
    if not has_job(core, access, job_at(&core.t, slot)):
        raise JobNotFound(job_id)
    return slot


cdef inline str job_id_of(Core core, Job* job):
    return id_text(job.created_us, job.seq, core.tag)


cdef str state_name(Core core, Job* job, int64_t now_us):
    if job.state == READY and job.run_at_us > now_us:
        return "SCHEDULED"
    return STATE_NAMES[job.state]


cdef Leased leased_view(Core core, uint32_t slot):
    cdef Job* job = job_at(&core.t, slot)
    cdef Run* run = run_at(&core.t, job.run)
    cdef Leased leased = Leased.__new__(Leased)
    leased.seq = job.seq
    leased.job_id = job_id_of(core, job)
    leased.token = token_text(core.key, job.seq, run.lease_no)
    leased.queue = queue_name(core, group_by(core, job.group).queue)
    leased.group = name_text(core, group_by(core, job.group).name)
    leased.place = place_of(&job.place)
    leased.lease_until_us = run.lease_until_us
    leased.created_us = job.created_us
    leased.priority = job.priority
    leased.attempt = job.attempts
    leased.max_retries = job.max_retries
    return leased


cdef JobView job_view(Core core, int64_t now_us, uint32_t slot):
    cdef Job* job = job_at(&core.t, slot)
    cdef JobView view = JobView.__new__(JobView)
    cdef Run* run
    view.number = job.seq
    view.job_id = job_id_of(core, job)
    view.state = state_name(core, job, now_us)
    view.queue = queue_name(core, group_by(core, job.group).queue)
    view.group = name_text(core, group_by(core, job.group).name)
    view.owner_id = name_text(core, job.owner)
    view.place = place_of(&job.place)
    view.created_us = job.created_us
    view.run_at_us = job.run_at_us
    view.priority = job.priority
    view.attempts = job.attempts
    view.max_retries = job.max_retries
    view.cancel_requested = job.flags & JOB_CANCEL != 0
    view.worker_id = view.outcome = ""
    view.tags = ()
    view.progress = core.progress.get(job.seq)
    if job.extra != NONE:
        view.expires_us = extra_at(&core.t, job.extra).expires_us
        if extra_at(&core.t, job.extra).tags != NONE:
            view.tags = tags_of(name_at(core, extra_at(&core.t, job.extra).tags))
    if job.run != NONE:
        run = run_at(&core.t, job.run)
        view.lease_no = <int>run.lease_no
        view.leased_us = run.leased_us
        view.ended_us = run.ended_us
        view.worker_id = name_text(core, run.worker)
        if run.lease_no:
            view.lease_until_us = run.lease_until_us
        if run.outcome:
            view.outcome = OUTCOME_NAMES[run.outcome]
            view.close_place = place_of(&run.place)
        if place_bytes(&run.history):
            view.history_place = place_of(&run.history)
    return view


cdef QueueView count_holding(Core core, bytes owner, uint32_t queue, QueueView view):
    cdef uint32_t at = find_name(core, owner)
    cdef Holding* holding
    if at != NONE:
        at = find_holding(core, queue, at)
    if at != NONE:
        holding = holding_by(core, at)
        view.ready = holding.ready
        view.waiting = holding.counts[READY] + holding.counts[RETRY] - holding.ready
        view.running = holding.counts[RUNNING]
        view.finished = {STATE_NAMES[i]: holding.counts[i] for i in range(TERMINAL, STATE_COUNT)}
    return view


cdef QueueView queue_view(Core core, int64_t now_us, Access access, str name):
    """A queue with the jobs that exist for a caller. To one owner it shows neither groups, ages nor rates."""
    cdef QueueView view = QueueView.__new__(QueueView)
    cdef Queue* queue
    cdef uint32_t at
    view.name = name
    view.finished = {STATE_NAMES[i]: 0 for i in range(TERMINAL, STATE_COUNT)}
    at = find_queue(core, name.encode())
    if at == NONE or not (access.queues is None or name in access.queues):
        return view
    if access.owner is not None:
        return count_holding(core, access.owner, at, view)
    queue = queue_by(core, at)
    view.ready = queue.ready
    view.waiting = queue.counts[READY] + queue.counts[RETRY] - queue.ready
    view.running = queue.counts[RUNNING]
    view.groups = queue.all_groups
    view.finished = {STATE_NAMES[i]: queue.counts[i] for i in range(TERMINAL, STATE_COUNT)}
    view.oldest_ready_us = oldest_us(&queue.ages)
    if queue.traffic != NONE:
        now_us = max(now_us, core.second * SECOND_US)
        view.in_per_s = rate_of(traffic_by(core, queue.traffic), WINDOW_IN, now_us)
        view.out_per_s = rate_of(traffic_by(core, queue.traffic), WINDOW_OUT, now_us)
        view.failed_per_s = rate_of(traffic_by(core, queue.traffic), WINDOW_FAILED, now_us)
    return view


# --- the bodies of records that were read from the log ----------------------------------------------------------------

cdef str NOT_SOUND = "its check does not fit: it is not as it was written"
cdef str CUT_SHORT = "it is cut short"
cdef str OTHER_RECORD = "another record is in its place"
cdef str LOST = "it could not be read when the cleaner moved the job"


@cython.final
cdef class SubmitFacts:
    cdef readonly bytes payload
    cdef readonly tuple tags
    cdef readonly str traceparent
    cdef readonly str unique_key
    cdef readonly str key_id
    cdef readonly int lease_ms
    cdef readonly object backoff


@cython.final
cdef class Event:
    cdef readonly str what
    cdef readonly int64_t at_us
    cdef readonly str key_id
    cdef readonly int number
    cdef readonly int64_t leased_us
    cdef readonly str worker_id
    cdef readonly str outcome
    cdef readonly str error
    cdef readonly str error_code


cdef Reader open_record(bytes record, uint8_t type, str job_id, uint16_t* flags) except *:
    """A reader after the head and seq of a record, which must be sound, and of this type and job."""
    cdef Reader r
    if not is_sound(<const char*>record, <uint32_t>len(record)):
        raise RecordUnreadable(NOT_SOUND, job_id)
    r = reader_of(<const char*>record, <uint32_t>len(record), flags)
    if record[0] != type or get_int(&r, 8) != seq_of(job_id):
        raise RecordUnreadable(OTHER_RECORD, job_id)
    return r


cdef uint64_t seq_of(str job_id):
    """The sequence number in an id of this core."""
    return (int(job_id[19:23] + job_id[24:], 16) >> TAG_BITS) & ((<uint64_t>1 << SEQ_BITS) - 1)


cdef Reader read_submit_of(bytes record, str job_id, SubmitFields* f) except *:
    cdef uint16_t flags = 0
    cdef Reader r = open_record(record, SUBMIT, job_id, &flags)
    read_submit(&r, flags, f)
    if r.short:
        raise RecordUnreadable(CUT_SHORT, job_id)
    if flags & SUBMIT_LOST:
        raise RecordUnreadable(LOST, job_id)
    return r


def submit_payload(bytes record, str job_id):
    cdef SubmitFields f
    cdef Reader r = read_submit_of(record, job_id, &f)
    return PyBytes_FromStringAndSize(r.p, r.end - r.p)


def submit_facts(bytes record, str job_id):
    cdef SubmitFields f
    cdef Reader r = read_submit_of(record, job_id, &f)
    cdef SubmitFacts facts = SubmitFacts.__new__(SubmitFacts)
    facts.payload = PyBytes_FromStringAndSize(r.p, r.end - r.p)
    facts.tags = tags_of(f.tags[:f.tags_bytes]) if f.tags_bytes else ()
    facts.traceparent = text_of(f.trace)
    facts.unique_key = text_of(f.unique_key)
    facts.key_id = text_of(f.key_id)
    facts.lease_ms = <int>f.lease_ms
    if f.backoff_base_ms:
        facts.backoff = (f.backoff_base_ms, f.backoff_factor, f.backoff_cap_ms)
    return facts


def close_result(bytes record, str job_id):
    cdef uint16_t flags = 0
    cdef Reader r = open_record(record, CLOSE, job_id, &flags)
    cdef CloseFields f
    read_close(&r, flags, &f)
    if r.short:
        raise RecordUnreadable(CUT_SHORT, job_id)
    if flags & CLOSE_LOST:
        raise RecordUnreadable(LOST, job_id)
    result = PyBytes_FromStringAndSize(r.p, r.end - r.p) if flags & CLOSE_RESULT else None
    return result, (f.error[:f.error_bytes]).decode()


def close_error(bytes record, str job_id):
    cdef uint16_t flags = 0
    cdef Reader r = open_record(record, CLOSE, job_id, &flags)
    cdef CloseFields f
    read_close(&r, flags, &f)
    if r.short:
        raise RecordUnreadable(CUT_SHORT, job_id)
    if flags & CLOSE_LOST:
        raise RecordUnreadable(LOST, job_id)
    return (f.error[:f.error_bytes]).decode(), text_of(f.error_code), text_of(f.worker)


def read_event(bytes record):
    cdef uint16_t flags = 0
    cdef uint32_t n = <uint32_t>len(record)
    cdef Event event = Event.__new__(Event)
    cdef Reader r
    cdef CloseFields close
    cdef ChangeFields change
    if not is_sound(<const char*>record, n):
        raise RecordUnreadable(NOT_SOUND)
    if record[0] not in (CLOSE, CHANGE):
        raise RecordUnreadable(OTHER_RECORD)
    r = reader_of(<const char*>record, n, &flags)
    get_int(&r, 8)
    event.worker_id = event.outcome = event.error = event.error_code = ""
    if record[0] == CLOSE:
        read_close(&r, flags, &close)
        event.what = "attempt"
        event.at_us = close.at_us
        event.key_id = text_of(close.key_id)
        event.number = <int>close.lease_no
        event.leased_us = close.leased_us
        event.worker_id = text_of(close.worker)
        event.outcome = OUTCOME_NAMES[close.outcome]
        event.error = (close.error[:close.error_bytes]).decode() if close.error_bytes else ""
        event.error_code = text_of(close.error_code)
    else:
        read_change(&r, flags, &change)
        event.what = CHANGE_NAMES[change.what]
        event.at_us = change.at_us
        event.key_id = text_of(change.key_id)
    if r.short:
        raise RecordUnreadable(CUT_SHORT)
    return event
