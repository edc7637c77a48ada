# Finished jobs: a list for each queue and terminal state, and the order in which retention removes their jobs.
#
# No step goes through all queues. A line, which is a heap of lists, has the list first whose oldest job is due first.

cdef int64_t LATE_US = 5_000_000    # after its end a job that retention removed may still be waited for


cdef inline Finished* finished_in(Core core, uint32_t list) noexcept:
    return &queue_by(core, list // FINAL_COUNT).finished[list % FINAL_COUNT]


cdef void finished_add(Tables* t, Finished* list, uint32_t slot) noexcept nogil:
    """Insert a job into its list by the time of its end: last, except for moved jobs in a replay.

    Moved jobs come in runs of neighbours, so the search begins where the last one was inserted.
    """
    cdef Run* run = run_at(t, job_at(t, slot).run)
    cdef uint32_t older = list.newest, newer = NONE
    if older != NONE and finished_us(t, older) > run.ended_us:
        older = list.last_added
        while older != NONE and finished_us(t, older) > run.ended_us:
            older = run_at(t, job_at(t, older).run).older
        newer = list.oldest if older == NONE else run_at(t, job_at(t, older).run).newer
        while newer != NONE and finished_us(t, newer) <= run.ended_us:
            older = newer
            newer = run_at(t, job_at(t, newer).run).newer
    run.older = older
    run.newer = newer
    if older == NONE:
        list.oldest = slot
    else:
        run_at(t, job_at(t, older).run).newer = slot
    if newer == NONE:
        list.newest = slot
    else:
        run_at(t, job_at(t, newer).run).older = slot
    list.last_added = slot
    list.count += 1
    list.bytes += kept_bytes(t, job_at(t, slot))


cdef inline int64_t finished_us(Tables* t, uint32_t slot) noexcept nogil:
    return run_at(t, job_at(t, slot).run).ended_us


cdef void finished_drop(Tables* t, Finished* list, uint32_t slot) noexcept nogil:
    cdef Run* run = run_at(t, job_at(t, slot).run)
    if run.older == NONE:
        list.oldest = run.newer
    else:
        run_at(t, job_at(t, run.older).run).newer = run.newer
    if run.newer == NONE:
        list.newest = run.older
    else:
        run_at(t, job_at(t, run.newer).run).older = run.older
    if list.last_added == slot:
        list.last_added = run.older
    list.count -= 1
    list.bytes -= kept_bytes(t, job_at(t, slot))


cdef int add_finished(Core core, uint32_t slot) except -1:
    cdef Job* job = job_at(&core.t, slot)
    cdef uint32_t queue = group_by(core, job.group).queue
    finished_add(&core.t, &queue_by(core, queue).finished[job.state - TERMINAL], slot)
    count_surplus(core, queue, job.state, 1, kept_bytes(&core.t, job))
    return settle_finished(core, queue, job.state)


cdef int drop_finished(Core core, uint32_t slot) except -1:
    cdef Job* job = job_at(&core.t, slot)
    cdef uint32_t queue = group_by(core, job.group).queue
    finished_drop(&core.t, &queue_by(core, queue).finished[job.state - TERMINAL], slot)
    count_surplus(core, queue, job.state, -1, -<int64_t>kept_bytes(&core.t, job))
    return settle_finished(core, queue, job.state)


cdef void grow_finished(Core core, Job* job, int64_t more_bytes) noexcept:
    """Count more bytes of a finished job."""
    cdef uint32_t queue = group_by(core, job.group).queue
    queue_by(core, queue).finished[job.state - TERMINAL].bytes += more_bytes
    count_surplus(core, queue, job.state, 0, more_bytes)


cdef inline void count_surplus(Core core, uint32_t queue, int state, int64_t jobs, int64_t kept_bytes) noexcept:
    """Count jobs that the server's maxima bound: those of queues without a maximum of their own."""
    if queue_by(core, queue).finished_max < 0:
        core.surplus_count[state - TERMINAL] += jobs
        core.surplus_bytes[state - TERMINAL] += kept_bytes


# --- the lines of lists -----------------------------------------------------------------------------------------------

cdef int settle_finished(Core core, uint32_t queue, int state) except -1:
    """Move a list in its lines, after its oldest job, its length or its bounds have changed."""
    cdef Queue* q = queue_by(core, queue)
    cdef Finished* list = &q.finished[state - TERMINAL]
    cdef int64_t end_us = NEVER_US, due_us = NEVER_US
    if list.count:
        end_us = finished_us(&core.t, list.oldest)
        due_us = kept_until_us(core, q, state, end_us)
        if q.finished_max >= 0:
            end_us = NEVER_US
            if list.count > <uint64_t>q.finished_max:
                due_us = 0
    line_put(core, &core.due, queue * FINAL_COUNT + state - TERMINAL, due_us)
    return line_put(core, &core.ended_first[state - TERMINAL], queue * FINAL_COUNT + state - TERMINAL, end_us)


cdef inline int64_t kept_until_us(Core core, Queue* queue, int state, int64_t ended_us) noexcept:
    """When a job that ended at ended_us is too old, by the queue's retention or the server's."""
    cdef int64_t kept_ms = queue.retention_dead_ms if state == DEAD else queue.retention_acked_ms
    if kept_ms < 0:
        kept_ms = core.kept_ms[state - TERMINAL]
    return NEVER_US if kept_ms < 0 else ended_us + kept_ms * 1000 + 1


cdef inline void line_set(Core core, Line* line, uint32_t pos, Dated item) noexcept:
    line.items[pos] = item
    finished_in(core, item.list).pos[line.kind] = pos


cdef void line_up(Core core, Line* line, uint32_t pos, Dated item) noexcept:
    cdef uint32_t parent
    while pos:
        parent = (pos - 1) // 4
        if line.items[parent].us <= item.us:
            break
        line_set(core, line, pos, line.items[parent])
        pos = parent
    line_set(core, line, pos, item)


cdef void line_down(Core core, Line* line, uint32_t pos, Dated item) noexcept:
    cdef uint32_t child, last, best
    while True:
        child = pos * 4 + 1
        if child >= line.count:
            break
        last = min(child + 4, line.count)
        best = child
        child += 1
        while child < last:
            if line.items[child].us < line.items[best].us:
                best = child
            child += 1
        if item.us <= line.items[best].us:
            break
        line_set(core, line, pos, line.items[best])
        pos = best
    line_set(core, line, pos, item)


cdef int line_put(Core core, Line* line, uint32_t list, int64_t us) except -1:
    """Give a list its place in a line by time. NEVER_US: take it out."""
    cdef uint32_t pos = finished_in(core, list).pos[line.kind]
    cdef Dated item
    if pos == NONE:
        if us == NEVER_US:
            return 0
        resize_line(line)
        pos = line.count
        line.count += 1
    elif us == line.items[pos].us:
        return 0
    elif us == NEVER_US:
        finished_in(core, list).pos[line.kind] = NONE
        line.count -= 1
        item = line.items[line.count]
        if item.list == list:
            return 0
        list, us = item.list, item.us
    item.us = us
    item.list = list
    if pos and us < line.items[(pos - 1) // 4].us:
        line_up(core, line, pos, item)
    else:
        line_down(core, line, pos, item)
    return 0


cdef int resize_line(Line* line) except -1:
    """Make room for one more list, and give back what is mostly unused."""
    cdef uint32_t capacity = line.capacity
    cdef Dated* items
    if line.count == capacity:
        capacity = max(4, capacity * 2)
    elif capacity > HEAP_KEPT and line.count * 8 < capacity:
        capacity //= 4
    else:
        return 0
    items = <Dated*>realloc(line.items, <size_t>capacity * sizeof(Dated))
    if items == NULL:
        raise MemoryError
    line.items = items
    line.capacity = capacity
    return 0


# --- retention --------------------------------------------------------------------------------------------------------

cdef int retain(Core core, int64_t acked_ms, int64_t dead_ms, uint64_t count_max, uint64_t bytes_max) except -1:
    cdef uint32_t i
    cdef int state
    for state in range(TERMINAL, STATE_COUNT):
        core.kept_ms[state - TERMINAL] = dead_ms if state == DEAD else acked_ms
    core.finished_max, core.finished_bytes_max = count_max, bytes_max
    for i in range(pool_end(&core.t.queues)):
        if queue_exists(core, i):
            for state in range(TERMINAL, STATE_COUNT):
                settle_finished(core, i, state)
    return 0


cdef int bound_finished(Core core, uint32_t index, int64_t finished_max) except -1:
    """Set a queue's own maximum of finished jobs; -1: none. Call it after its retention was set."""
    cdef Queue* queue = queue_by(core, index)
    cdef Finished* list
    cdef int state
    for state in range(TERMINAL, STATE_COUNT):
        list = &queue.finished[state - TERMINAL]
        count_surplus(core, index, state, -<int64_t>list.count, -<int64_t>list.bytes)
    queue.finished_max = finished_max
    for state in range(TERMINAL, STATE_COUNT):
        list = &queue.finished[state - TERMINAL]
        count_surplus(core, index, state, list.count, list.bytes)
        settle_finished(core, index, state)
    return 0


cdef inline bint has_surplus(Core core, int i) noexcept:
    return core.surplus_count[i] > core.finished_max or core.surplus_bytes[i] > core.finished_bytes_max


cdef bint has_old_jobs(Core core, int64_t now_us) noexcept:
    """Whether `forget_finished` has work."""
    cdef int i
    if core.due.count and core.due.items[0].us <= now_us:
        return True
    for i in range(FINAL_COUNT):
        if has_surplus(core, i):
            return True
    return False


cdef int forget_finished(Core core, int64_t now_us, int limit) except -1:
    """Remove finished jobs that are too old or too many: by their queues' own rules first, then by the server's."""
    cdef list seqs = []
    cdef int i
    collect_due(core, now_us, limit, seqs)
    for i in range(FINAL_COUNT):
        if len(seqs) < limit and has_surplus(core, i) and (core.due.count == 0 or core.due.items[0].us > now_us):
            collect_surplus(core, i, limit, seqs)
    if seqs:
        note_forgotten(core, now_us, seqs)
        append_forget(core, now_us, seqs)
    return len(seqs)


cdef int note_forgotten(Core core, int64_t now_us, list seqs) except -1:
    """Keep the ends of jobs that retention removes soon after: their submitters may be about to ask for them."""
    cdef uint32_t slot
    for seq in seqs:
        slot = index_find(&core.t, seq)
        if finished_us(&core.t, slot) > now_us - LATE_US:
            core.forgotten.append(job_view(core, now_us, slot))
    return 0


cdef int collect_due(Core core, int64_t now_us, int limit, list seqs) except -1:
    """Collect jobs of lists that are due. In a heap all of these are connected: from the root down."""
    cdef list open = [0]
    cdef uint32_t pos, child
    while open and len(seqs) < limit:
        pos = open.pop()
        if pos >= core.due.count or core.due.items[pos].us > now_us:
            continue  # nor is any list below it
        collect_old(core, core.due.items[pos].list, now_us, limit, seqs)
        for child in range(pos * 4 + 1, pos * 4 + 5):
            open.append(child)
    return 0


cdef int collect_old(Core core, uint32_t index, int64_t now_us, int limit, list seqs) except -1:
    """Collect the jobs of one list that are older or more than its queue keeps."""
    cdef Queue* queue = queue_by(core, index // FINAL_COUNT)
    cdef Finished* list = finished_in(core, index)
    cdef int state = index % FINAL_COUNT + TERMINAL
    cdef uint64_t over = 0, n = 0
    cdef uint32_t slot = list.oldest
    if queue.finished_max >= 0 and list.count > <uint64_t>queue.finished_max:
        over = list.count - queue.finished_max
    while slot != NONE and len(seqs) < limit:
        if n >= over and kept_until_us(core, queue, state, finished_us(&core.t, slot)) > now_us:
            break
        seqs.append(job_at(&core.t, slot).seq)
        slot = run_at(&core.t, job_at(&core.t, slot).run).newer
        n += 1
    return 0


cdef int collect_surplus(Core core, int i, int limit, list seqs) except -1:
    """Collect the oldest jobs of all lists in a line, while they are too many or take too many bytes."""
    cdef uint64_t count = core.surplus_count[i], size = core.surplus_bytes[i]
    cdef Line* line = &core.ended_first[i]
    cdef uint32_t slot, pos, child
    cdef list heads = []    # (end, slot, position of its list if it is the list's oldest, else NONE)
    push_head(core, line, 0, heads)
    while heads and len(seqs) < limit and (count > core.finished_max or size > core.finished_bytes_max):
        _, slot, pos = heappop(heads)
        seqs.append(job_at(&core.t, slot).seq)
        count -= 1
        size -= kept_bytes(&core.t, job_at(&core.t, slot))
        if pos != NONE:
            for child in range(pos * 4 + 1, pos * 4 + 5):
                push_head(core, line, child, heads)
        slot = run_at(&core.t, job_at(&core.t, slot).run).newer
        if slot != NONE:
            heappush(heads, (finished_us(&core.t, slot), slot, <uint32_t>NONE))
    return 0


cdef int push_head(Core core, Line* line, uint32_t pos, list heads) except -1:
    if pos < line.count:
        heappush(heads, (line.items[pos].us, finished_in(core, line.items[pos].list).oldest, pos))
    return 0


cdef int append_forget(Core core, int64_t now_us, list seqs) except -1:
    cdef Place place
    cdef uint32_t n = RECORD_HEAD_BYTES + 8 + 8 * len(seqs)
    cdef char* record = core.tail.reserve(n, &place)
    cdef char* p = put_i64(put_head(record, FORGET, 0, n), now_us)
    for seq in seqs:
        p = put_u64(p, seq)
    return commit(core, record, n, &place)
