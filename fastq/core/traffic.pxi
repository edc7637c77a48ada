# Traffic: what happens to jobs is counted when it happens, in O(1). Replay counts nothing: counts begin at `resume`.

cdef extern from *:
    int clz "__builtin_clzll"(unsigned long long value) nogil

cdef int64_t SECOND_US = 1_000_000

WHAT_HAPPENED = (
    "submitted", "leased", "acked", "failed", "lease_expired", "undelivered", "discarded", "snoozed", "released",
    "cancelled", "poisoned", "unreadable", "cancel_requested", "cancelled", "expired", "redriven", "edited",
    "replaced", "deleted",
)


@cython.final
cdef class Traffic:
    cdef readonly uint64_t submitted, redriven, leased, acked, failed, lease_expired, retried, dead, expired
    cdef readonly uint64_t cancelled, snoozed, released, deleted


@cython.final
cdef class Latencies:
    cdef readonly tuple wait, run
    cdef readonly uint64_t wait_sum_us, run_sum_us


# --- counting ---------------------------------------------------------------------------------------------------------

cdef inline QueueTraffic* traffic_by(Core core, uint32_t index) noexcept:
    return <QueueTraffic*>pool_at(&core.t.traffic, index)


cdef inline int count(Core core, uint32_t queue, int what, int64_t at_us, int window=-1) except -1:
    """Count what happened to a job of the queue. Call it only while `core.serves`."""
    cdef QueueTraffic* traffic = core.last_traffic
    if at_us >= core.second_end_us:
        core.second = at_us // SECOND_US
        core.second_end_us = (core.second + 1) * SECOND_US
        core.cell = core.second % WINDOW_CELLS
        core.feed.room = CHANGES_A_SECOND
    if traffic == NULL or traffic.queue != queue:
        traffic = traffic_of(core, queue)
    if not traffic.active:
        set_active(core, queue_by(core, queue).traffic)
    core.counted[what] += 1
    traffic.counted[what] += 1
    if window >= 0:
        if traffic.second != core.second:
            turn_cells(traffic, core.second)
        traffic.cells[window][core.cell] += 1
    return 0


cdef QueueTraffic* traffic_of(Core core, uint32_t queue) except NULL:
    """The traffic of a queue, which is made if it does not exist."""
    cdef uint32_t index = queue_by(core, queue).traffic
    if index == NONE:
        index = pool_take(&core.t.traffic)
        traffic_by(core, index).queue = queue
        traffic_by(core, index).next = traffic_by(core, index).previous = NONE
        queue_by(core, queue).traffic = index
    core.last_traffic = traffic_by(core, index)
    return core.last_traffic


cdef int end_traffic(Core core, Queue* queue) except -1:
    """Forget the traffic of a queue that is dropped."""
    cdef uint32_t index = queue.traffic
    if index == NONE:
        return 0
    if traffic_by(core, index).active:
        set_inactive(core, index)
    if traffic_by(core, index).durations != NULL:
        free(traffic_by(core, index).durations)
        core.durations_count -= 1
    core.last_traffic = NULL
    pool_give(&core.t.traffic, index)
    queue.traffic = NONE
    return 0


cdef void turn_cells(QueueTraffic* traffic, int64_t second) noexcept nogil:
    """Empty the cells of the seconds from the newest one to this one."""
    cdef int64_t at = max(traffic.second + 1, second - WINDOW_CELLS + 1)
    cdef int window
    while at <= second:
        for window in range(WINDOWS):
            traffic.cells[window][at % WINDOW_CELLS] = 0
        at += 1
    traffic.second = second


cdef double rate_of(QueueTraffic* traffic, int window, int64_t now_us) noexcept nogil:
    """How many a second over the last WINDOW_SECONDS; of the second in which these begin, a share as if they were even.

    now_us: not before the second that was counted last.
    """
    cdef int64_t second = now_us // SECOND_US, at
    cdef double found = 0
    for at in range(second - WINDOW_SECONDS, traffic.second + 1):
        if at == second - WINDOW_SECONDS:
            found += traffic.cells[window][at % WINDOW_CELLS] * (1 - (now_us % SECOND_US) / <double>SECOND_US)
        else:
            found += traffic.cells[window][at % WINDOW_CELLS]
    return found / WINDOW_SECONDS


# --- queues with traffic since the last call --------------------------------------------------------------------------

cdef void set_active(Core core, uint32_t index) noexcept:
    cdef QueueTraffic* traffic = traffic_by(core, index)
    traffic.active = True
    traffic.previous = core.last_active
    traffic.next = NONE
    if core.last_active == NONE:
        core.first_active = index
    else:
        traffic_by(core, core.last_active).next = index
    core.last_active = index


cdef void set_inactive(Core core, uint32_t index) noexcept:
    cdef QueueTraffic* traffic = traffic_by(core, index)
    traffic.active = False
    if traffic.previous == NONE:
        core.first_active = traffic.next
    else:
        traffic_by(core, traffic.previous).next = traffic.next
    if traffic.next == NONE:
        core.last_active = traffic.previous
    else:
        traffic_by(core, traffic.next).previous = traffic.previous


cdef list take_active(Core core, int limit):
    cdef list names = []
    while core.first_active != NONE and len(names) < limit:
        names.append(queue_name(core, traffic_by(core, core.first_active).queue))
        set_inactive(core, core.first_active)
    return names


# --- durations --------------------------------------------------------------------------------------------------------

cdef inline int bucket_of(int64_t us) noexcept nogil:
    """The bucket of a duration: the first whose bound is not below it. Bounds are powers of two, 4 steps an octave."""
    cdef uint64_t below = <uint64_t>(us - 1)
    cdef int octave
    if us <= 64:
        return 0
    octave = 63 - clz(below)
    return min(LATENCY_BUCKETS - 1, (octave - 6) * 4 + <int>(below >> (octave - 2) & 3) + 1)


cdef tuple latency_bounds():
    return tuple([(4 + i % 4) << (4 + i // 4) for i in range(LATENCY_BUCKETS - 1)])


LATENCY_BOUNDS_US = latency_bounds()


def latency_bucket(int64_t us):
    return bucket_of(us)


cdef inline void add_duration(Histogram* histogram, int64_t us) noexcept nogil:
    us = max(us, 0)
    histogram.counts[bucket_of(us)] += 1
    histogram.sum_us += us


cdef inline Durations* durations_of(Core core, uint32_t queue) noexcept:
    """A queue's own durations, after `count`; NULL if enough other queues have some."""
    cdef QueueTraffic* traffic = traffic_by(core, queue_by(core, queue).traffic)
    if traffic.durations == NULL and core.durations_count < LATENCY_QUEUES_MAX:
        traffic.durations = <Durations*>calloc(1, sizeof(Durations))
        core.durations_count += traffic.durations != NULL
    return traffic.durations


cdef inline void add_wait(Core core, uint32_t queue, int64_t us) noexcept:
    cdef Durations* own = durations_of(core, queue)
    add_duration(&core.durations.wait, us)
    if own != NULL:
        add_duration(&own.wait, us)


cdef inline void add_run(Core core, uint32_t queue, int64_t us) noexcept:
    cdef Durations* own = durations_of(core, queue)
    add_duration(&core.durations.run, us)
    if own != NULL:
        add_duration(&own.run, us)


# --- what happened ----------------------------------------------------------------------------------------------------

cdef int count_lease(Core core, Job* job, int64_t at_us) except -1:
    """Count a lease. Call it before the lease is in the job's Run: that still has the end of the attempt before."""
    cdef uint32_t queue = group_by(core, job.group).queue
    cdef int64_t ready_us = job.run_at_us
    if job.run != NONE:
        ready_us = max(ready_us, run_at(&core.t, job.run).ended_us)
    count(core, queue, WAS_LEASED, at_us)
    add_wait(core, queue, at_us - ready_us)
    return 0


cdef int count_close(Core core, Job* job, uint8_t outcome, int64_t at_us) except -1:
    """Count the end of an attempt. The job has its new state."""
    cdef uint32_t queue = group_by(core, job.group).queue
    if outcome == OUTCOME_OK:
        count(core, queue, WAS_CLOSED + OUTCOME_OK, at_us, WINDOW_OUT)
        add_run(core, queue, at_us - run_at(&core.t, job.run).leased_us)
        return 0
    count(core, queue, WAS_CLOSED + outcome, at_us, WINDOW_FAILED if is_failure(outcome) else -1)
    if job.state == RETRY and is_failure(outcome):
        count(core, queue, NOW_RETRIED, at_us)
    elif job.state == DEAD:
        count(core, queue, NOW_DEAD, at_us)
    elif job.state == CANCELLED:
        count(core, queue, NOW_CANCELLED, at_us)
    return 0


cdef int count_change(Core core, Job* job, uint8_t what, int64_t at_us) except -1:
    cdef uint32_t queue = group_by(core, job.group).queue
    count(core, queue, WAS_CHANGED + what, at_us, WINDOW_IN if what == CHANGE_REDRIVEN else -1)
    return count(core, queue, NOW_CANCELLED, at_us) if what == CHANGE_CANCELLED else 0


# --- reads ------------------------------------------------------------------------------------------------------------

cdef Traffic traffic_view(Core core, str queue):
    cdef Traffic view = Traffic.__new__(Traffic)
    cdef uint64_t* counted = core.counted
    cdef QueueTraffic* of_queue
    if queue is not None:
        of_queue = find_traffic(core, queue)
        if of_queue == NULL:
            return view
        counted = of_queue.counted
    view.submitted = counted[WAS_SUBMITTED]
    view.redriven = counted[WAS_CHANGED + CHANGE_REDRIVEN]
    view.leased = counted[WAS_LEASED]
    view.acked = counted[WAS_CLOSED + OUTCOME_OK]
    view.lease_expired = counted[WAS_CLOSED + OUTCOME_EXPIRED] + counted[WAS_CLOSED + OUTCOME_POISONED]
    view.failed = (view.lease_expired + counted[WAS_CLOSED + OUTCOME_ERROR] + counted[WAS_CLOSED + OUTCOME_DISCARD]
                   + counted[WAS_CLOSED + OUTCOME_UNREADABLE])
    view.retried = counted[NOW_RETRIED]
    view.dead = counted[NOW_DEAD]
    view.expired = counted[WAS_CHANGED + CHANGE_EXPIRED]
    view.cancelled = counted[NOW_CANCELLED]
    view.snoozed = counted[WAS_CLOSED + OUTCOME_SNOOZE]
    view.released = counted[WAS_CLOSED + OUTCOME_RELEASE]
    view.deleted = counted[WAS_DELETED]
    return view


cdef QueueTraffic* find_traffic(Core core, str queue) except? NULL:
    """The traffic of a queue; NULL: it had none."""
    cdef uint32_t at = find_queue(core, queue.encode())
    if at == NONE or queue_by(core, at).traffic == NONE:
        return NULL
    return traffic_by(core, queue_by(core, at).traffic)


cdef Latencies latencies_view(Core core, str queue):
    """Durations of all jobs or of one queue's; None: no durations are kept of that queue."""
    cdef Latencies view
    cdef Durations* durations = &core.durations
    cdef QueueTraffic* of_queue
    if queue is not None:
        of_queue = find_traffic(core, queue)
        if of_queue == NULL or of_queue.durations == NULL:
            return None
        durations = of_queue.durations
    view = Latencies.__new__(Latencies)
    view.wait = tuple([durations.wait.counts[i] for i in range(LATENCY_BUCKETS)])
    view.run = tuple([durations.run.counts[i] for i in range(LATENCY_BUCKETS)])
    view.wait_sum_us = durations.wait.sum_us
    view.run_sum_us = durations.run.sum_us
    return view


cdef void free_traffic(Core core) noexcept:
    cdef uint32_t i
    for i in range(pool_end(&core.t.queues)):
        if queue_exists(core, i) and queue_by(core, i).traffic != NONE:
            free(traffic_by(core, queue_by(core, i).traffic).durations)
