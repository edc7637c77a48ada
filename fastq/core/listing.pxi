# Lists of jobs: pages in order of submission, a job's position, and the limit that holds it back.
#
# A page goes through job numbers from the newest down. It skips blocks of 4,096 numbers without jobs: each block's jobs
# are counted.

cdef enum:
    BLOCK_BITS = 12
    BLOCKS_TRIED_MAX = 10_000      # a page ends after these, even if it is empty


cdef inline int count_in_block(Core core, uint64_t seq) except -1:
    if seq >> BLOCK_BITS != core.block:
        load_block(core, seq >> BLOCK_BITS)
    core.block_jobs += 1
    return 0


cdef inline int uncount_in_block(Core core, uint64_t seq) except -1:
    cdef uint64_t block = seq >> BLOCK_BITS
    if block == core.block:
        core.block_jobs -= 1
        return 0
    left = core.blocks[block] - 1
    if left:
        core.blocks[block] = left
    else:
        del core.blocks[block]
    return 0


cdef int load_block(Core core, uint64_t block) except -1:
    """Make this the current block, and store the count of the one before in the dict."""
    if core.block_jobs:
        core.blocks[core.block] = core.block_jobs
    core.block = block
    core.block_jobs = core.blocks.pop(block, 0)
    return 0


cdef inline uint64_t jobs_in_block(Core core, uint64_t block) except? 0:
    return core.block_jobs if block == core.block else core.blocks.get(block, 0)


cdef tuple find_page(Core core, int64_t now_us, Access access, uint64_t before, int limit, int examine_max,
                     Filter filter):
    """Jobs that match the filter, newest first, and where the next page begins; 0: the end."""
    cdef list found = []
    cdef uint64_t seq, block, left = 0
    cdef uint32_t slot
    cdef int tried = 0
    seq = min(before or core.next_seq, core.next_seq) - 1
    while seq > 0:
        block = seq >> BLOCK_BITS
        if jobs_in_block(core, block) == 0:
            tried += 1
            if tried > BLOCKS_TRIED_MAX:
                return found, seq + 1
            if block == 0:
                break
            seq = (block << BLOCK_BITS) - 1
            continue
        slot = index_find(&core.t, seq)
        if slot != NONE:
            if len(found) >= limit or examine_max == 0:
                return found, seq + 1
            examine_max -= 1
            if job_at(&core.t, slot).created_us < filter.since_us:
                break  # those with lower numbers are older
            if has_job(core, access, job_at(&core.t, slot)) and fits(core, now_us, slot, filter):
                found.append(job_view(core, now_us, slot))
        seq -= 1
    return found, 0


cdef tuple find_rising(Core core, int64_t now_us, Access access, uint64_t after, uint64_t until, int limit,
                       int examine_max, Filter filter):
    """Jobs that match, oldest first, with numbers between the two, and `after` for the next page; 0: the end."""
    cdef list found = []
    cdef uint64_t seq = after + 1, block
    cdef uint32_t slot
    cdef int tried = 0
    while seq < until:
        block = seq >> BLOCK_BITS
        if jobs_in_block(core, block) == 0:
            tried += 1
            if tried > BLOCKS_TRIED_MAX:
                return found, seq - 1
            seq = (block + 1) << BLOCK_BITS
            continue
        slot = index_find(&core.t, seq)
        if slot != NONE:
            if len(found) >= limit or examine_max == 0:
                return found, seq - 1
            examine_max -= 1
            if job_at(&core.t, slot).created_us >= filter.since_us:
                if has_job(core, access, job_at(&core.t, slot)) and fits(core, now_us, slot, filter):
                    found.append(job_view(core, now_us, slot))
        seq += 1
    return found, 0


cdef inline bint is_failure(uint8_t outcome) noexcept:
    """Whether an attempt with this outcome failed: its end has an error, or says itself what went wrong."""
    if outcome == OUTCOME_ERROR or outcome == OUTCOME_EXPIRED or outcome == OUTCOME_DISCARD:
        return True
    return outcome == OUTCOME_POISONED or outcome == OUTCOME_UNREADABLE


cdef bint fits(Core core, int64_t now_us, uint32_t slot, Filter filter) except *:
    cdef Job* job = job_at(&core.t, slot)
    cdef Extra* extra
    if filter.begun and (job.run == NONE or run_at(&core.t, job.run).lease_no == 0):
        return False
    if filter.failed and (job.run == NONE or not is_failure(run_at(&core.t, job.run).outcome)):
        return False
    if filter.state and state_name(core, job, now_us) != filter.state:
        return False
    if filter.queue and queue_name(core, group_by(core, job.group).queue) != filter.queue:
        return False
    if filter.group is not None and name_text(core, group_by(core, job.group).name) != filter.group:
        return False
    if filter.tag:
        if job.extra == NONE or extra_at(&core.t, job.extra).tags == NONE:
            return False
        return filter.tag in tags_of(name_at(core, extra_at(&core.t, job.extra).tags))
    return True


cdef list running_jobs(Core core, Access access, uint32_t first, uint32_t end):
    """Running jobs that exist for a caller, of those in places first to end - 1 of the heap of leases."""
    cdef uint32_t i
    return [
        job_view(core, core.last_us, core.leased.slots[i])
        for i in range(first, min(end, core.leased.count))
        if has_job(core, access, job_at(&core.t, core.leased.slots[i]))
    ]


cdef tuple position_of(Core core, Access access, uint32_t slot, uint32_t count_max):
    """Whether ready jobs of its group come before a ready job, and how many of those exist for a caller.

    Examines heap nodes that come before it, from the root down, at most count_max.
    """
    cdef Heap* heap = &group_by(core, job_at(&core.t, slot).group).ready
    cdef list open = [0]
    cdef uint32_t pos, child, n = 0, seen = 0
    if job_at(&core.t, slot).heap != IN_READY:
        return False, 0
    while open and n < count_max:
        pos = open.pop()
        if pos >= heap.count or not before(&core.t, IN_READY, heap.slots[pos], slot):
            continue  # nor does any node below it
        n += 1
        seen += has_job(core, access, job_at(&core.t, heap.slots[pos]))
        for child in range(pos * 4 + 1, pos * 4 + 5):
            open.append(child)
    return n > 0, seen


cdef str blocked_by(Core core, int64_t now_us, bytes name, bytes group):
    cdef Queue* queue
    cdef uint32_t index = find_queue(core, name), at
    if index == NONE:
        return ""
    queue = queue_by(core, index)
    if queue.paused:
        return "paused"
    if queue.concurrency and queue.counts[RUNNING] >= queue.concurrency:
        return "concurrency"
    if queue.rate_n:
        refill(queue, now_us)
        if queue.credit < queue.rate_per_us:
            return "rate_limit"
    if group is None:
        return "group_concurrency" if queue.ready and queue.group_count == 0 else ""
    at = find_group(core, index, group)
    if at != NONE and queue.group_concurrency:
        if group_by(core, at).running >= queue.group_concurrency:
            return "group_concurrency"
    return ""
