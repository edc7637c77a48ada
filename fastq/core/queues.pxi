# The scheduler: queues and their groups, and which job is leased next.

cdef enum:
    QUEUES_ASKED_MAX = 64
    WEIGHTS_KEPT = 1000             # sets of weighted queues whose shares are remembered
    IDLE_TRIED = 64                 # empty groups that are looked at together

cdef bytes DEFAULT_QUEUE = b"default"
cdef uint64_t STRIDE = <uint64_t>1 << 32    # so large that the rounding of a division by a weight does not matter


# --- queues and groups come and go with their jobs --------------------------------------------------------------------

cdef inline Queue* queue_by(Core core, uint32_t index) noexcept:
    return <Queue*>pool_at(&core.t.queues, index)


cdef inline Group* group_by(Core core, uint32_t index) noexcept:
    return <Group*>pool_at(&core.t.groups, index)


cdef inline Queue* queue_at(Core core, uint32_t group) noexcept:
    """The queue of a group."""
    return queue_by(core, group_by(core, group).queue)


cdef inline bint queue_exists(Core core, uint32_t index) noexcept:
    return pool_has(&core.t.queues, index) and (queue_by(core, index).all_groups or queue_by(core, index).configured)


cdef inline bint group_exists(Core core, uint32_t index) noexcept:
    return pool_has(&core.t.groups, index) and group_by(core, index).exists


cdef inline str queue_name(Core core, uint32_t queue):
    return <str>named(core, queue_by(core, queue).name).shown


cdef uint32_t job_queue_of(Core core, Name name) except <uint32_t>NONE:
    """The index of a new job's queue, which is made if it does not exist. The last one is tried before the index."""
    if name.n == 0:
        name = name_in(DEFAULT_QUEUE)
    if core.last_queue == NONE or not is_text(named(core, queue_by(core, core.last_queue).name), name):
        core.last_queue = queue_of(core, name_bytes(name))
    return core.last_queue


cdef uint32_t queue_of(Core core, bytes name) except <uint32_t>NONE:
    """The index of a queue, which is made if it does not exist."""
    cdef uint32_t at = find_queue(core, name)
    cdef Queue* queue
    cdef Named* one
    cdef str shown
    cdef int i
    if at != NONE:
        return at
    at = pool_take(&core.t.queues)
    queue = queue_by(core, at)
    queue.default_group = queue.first_group = queue.traffic = NONE
    queue.retention_acked_ms = queue.retention_dead_ms = -1
    queue.finished_max = -1
    for i in range(FINAL_COUNT):
        queue.finished[i].oldest = queue.finished[i].newest = queue.finished[i].last_added = NONE
        queue.finished[i].pos[BY_DUE] = queue.finished[i].pos[BY_END] = NONE
    queue.name = name_of(core, name)
    one = named(core, queue.name)
    one.queue = at
    if one.shown == NULL:
        shown = name.decode()
        Py_INCREF(shown)
        one.shown = <PyObject*>shown
    return at


cdef int drop_queue(Core core, uint32_t index) except -1:
    """Drop a queue without groups, unless it has settings."""
    cdef Queue* queue = queue_by(core, index)
    if queue.all_groups or queue.configured:
        return 0
    if index == core.last_queue:
        core.last_queue = NONE
    named(core, queue.name).queue = NONE
    drop_name(core, queue.name)
    free(queue.groups)
    ages_free(&queue.ages)
    end_traffic(core, queue)
    pool_give(&core.t.queues, index)
    return 0


cdef bint queues_are_full(Core core, uint64_t more) noexcept:
    """Whether so many more queues exceed the maximum."""
    return core.t.queues.live + more > core.settings.queues_max


cdef uint32_t find_group(Core core, uint32_t queue, bytes name) except? <uint32_t>NONE:
    """The index of a queue's group, or NONE. No name: the default group."""
    cdef Shard* shard
    cdef uint32_t mask, i, text
    cdef uint64_t hashed
    if not name:
        return queue_by(core, queue).default_group
    text = find_name(core, name)
    if text == NONE:
        return NONE
    hashed = group_hash(queue, text)
    shard = shard_of(&core.t, BY_GROUP, hashed)
    if shard.capacity == 0:
        return NONE
    mask = shard.capacity - 1
    i = <uint32_t>(hashed >> 22) & mask
    while shard.slots[i] != NONE:
        if group_by(core, shard.slots[i]).queue == queue and group_by(core, shard.slots[i]).name == text:
            return shard.slots[i]
        i = (i + 1) & mask
    return NONE


cdef uint32_t group_of(Core core, uint32_t queue, bytes name) except <uint32_t>NONE:
    """The index of a queue's group, which is made if it does not exist. No name: the default group."""
    cdef uint32_t at = find_group(core, queue, name)
    cdef Group* group
    if at != NONE:
        return at
    at = pool_take(&core.t.groups)
    group = group_by(core, at)
    group.exists = True
    group.ready.kind = IN_READY
    group.queue = queue
    group.pos = NONE
    group.name = NONE
    link_group(core, queue_by(core, queue), at)
    if name:
        group.name = name_of(core, name)
        index_add(&core.t, BY_GROUP, at)
    else:
        queue_by(core, queue).default_group = at
    return at


cdef void link_group(Core core, Queue* queue, uint32_t index) noexcept:
    group_by(core, index).previous = NONE
    group_by(core, index).next = queue.first_group
    if queue.first_group != NONE:
        group_by(core, queue.first_group).previous = index
    queue.first_group = index
    queue.all_groups += 1


cdef void unlink_group(Core core, Queue* queue, uint32_t index) noexcept:
    cdef Group* group = group_by(core, index)
    if group.previous == NONE:
        queue.first_group = group.next
    else:
        group_by(core, group.previous).next = group.next
    if group.next != NONE:
        group_by(core, group.next).previous = group.previous
    queue.all_groups -= 1


cdef int leave_group(Core core, uint32_t index) except -1:
    """Count one job of a group less. An empty group is dropped when its turn is over: see `drop_idle`."""
    cdef Group* group = group_by(core, index)
    group.jobs -= 1
    if group.jobs:
        return 0
    if group.turn > queue_by(core, group.queue).turn:
        if not group.idle:
            group.idle = True
            core.idle_groups.append(index)
        return 0
    return drop_group(core, index)


cdef int drop_group(Core core, uint32_t index) except -1:
    cdef Group* group = group_by(core, index)
    cdef uint32_t queue = group.queue
    if group.name == NONE:
        queue_by(core, queue).default_group = NONE
    else:
        index_drop(&core.t, BY_GROUP, index)
        drop_name(core, group.name)
    unlink_group(core, queue_by(core, queue), index)
    free(group.ready.slots)
    pool_give(&core.t.groups, index)
    return drop_queue(core, queue)


cdef int drop_idle(Core core) except -1:
    """Drop empty groups whose turn is over, a few at a time. Dropped earlier, a group could gain a turn."""
    cdef uint32_t index, tries = min(len(core.idle_groups), IDLE_TRIED)
    cdef Group* group
    for _ in range(tries):
        index = core.idle_groups.popleft()
        if not group_exists(core, index):
            continue
        group = group_by(core, index)
        group.idle = False
        if group.jobs:
            continue
        if group.turn > queue_by(core, group.queue).turn:
            group.idle = True
            core.idle_groups.append(index)
        else:
            drop_group(core, index)
    return 0


# --- the heap of a queue's eligible groups ----------------------------------------------------------------------------

cdef inline bint group_before(Core core, Queue* queue, uint32_t a, uint32_t b) noexcept:
    cdef Group* x = group_by(core, a)
    cdef Group* y = group_by(core, b)
    if queue.fair and x.turn != y.turn:
        return x.turn < y.turn
    return before(&core.t, IN_READY, x.ready.slots[0], y.ready.slots[0])


cdef inline void group_set(Core core, Queue* queue, uint32_t pos, uint32_t index) noexcept:
    queue.groups[pos] = index
    group_by(core, index).pos = pos


cdef void group_up(Core core, Queue* queue, uint32_t pos, uint32_t index) noexcept:
    cdef uint32_t parent
    while pos:
        parent = (pos - 1) // 4
        if not group_before(core, queue, index, queue.groups[parent]):
            break
        group_set(core, queue, pos, queue.groups[parent])
        pos = parent
    group_set(core, queue, pos, index)


cdef void group_down(Core core, Queue* queue, uint32_t pos, uint32_t index) noexcept:
    cdef uint32_t child, last, best
    while True:
        child = pos * 4 + 1
        if child >= queue.group_count:
            break
        last = min(child + 4, queue.group_count)
        best = child
        child += 1
        while child < last:
            if group_before(core, queue, queue.groups[child], queue.groups[best]):
                best = child
            child += 1
        if not group_before(core, queue, queue.groups[best], index):
            break
        group_set(core, queue, pos, queue.groups[best])
        pos = best
    group_set(core, queue, pos, index)


cdef inline bint is_eligible(Queue* queue, Group* group) noexcept:
    return group.ready.count != 0 and (queue.group_concurrency == 0 or group.running < queue.group_concurrency)


cdef int settle_group(Core core, uint32_t index) except -1:
    """Add, move or remove a group in the heap of eligible groups, after its head, turn or load has changed."""
    cdef Group* group = group_by(core, index)
    cdef Queue* queue = queue_by(core, group.queue)
    cdef uint32_t pos = group.pos
    if pos == NONE:
        if is_eligible(queue, group):
            return add_eligible(core, queue, index)
    elif not is_eligible(queue, group):
        drop_eligible(core, queue, index)
    elif queue.group_count > 1:
        if pos and group_before(core, queue, index, queue.groups[(pos - 1) // 4]):
            group_up(core, queue, pos, index)
        else:
            group_down(core, queue, pos, index)
    return 0


cdef int add_eligible(Core core, Queue* queue, uint32_t index) except -1:
    cdef uint32_t* groups
    if queue.group_count == queue.group_capacity:
        groups = <uint32_t*>realloc(queue.groups, max(<size_t>1, <size_t>queue.group_capacity * 2) * sizeof(uint32_t))
        if groups == NULL:
            raise MemoryError
        queue.groups = groups
        queue.group_capacity = max(1, queue.group_capacity * 2)
    queue.group_count += 1
    group_up(core, queue, queue.group_count - 1, index)
    return 0


cdef void drop_eligible(Core core, Queue* queue, uint32_t index) noexcept:
    cdef uint32_t pos = group_by(core, index).pos, last
    group_by(core, index).pos = NONE
    queue.group_count -= 1
    last = queue.groups[queue.group_count]
    if queue.group_count == 0:
        queue.turn = queue.last_turn  # no group waits: the next one starts level with the others
    if last == index:
        return
    if pos and group_before(core, queue, last, queue.groups[(pos - 1) // 4]):
        group_up(core, queue, pos, last)
    else:
        group_down(core, queue, pos, last)


cdef int settle_groups(Core core, uint32_t index, bint reordered) except -1:
    """Make a queue's heap of groups right after its limits, or its order too, have changed."""
    cdef Queue* queue = queue_by(core, index)
    cdef uint64_t turn = queue.turn
    cdef uint32_t i = queue.first_group
    cdef Py_ssize_t pos
    while i != NONE:
        if (group_by(core, i).pos != NONE) != is_eligible(queue, group_by(core, i)):
            settle_group(core, i)
        i = group_by(core, i).next
    queue.turn = turn if queue.group_count else queue.last_turn  # also if the heap was empty for a moment
    if reordered and queue.group_count > 1:
        for pos in range(queue.group_count // 4, -1, -1):
            group_down(core, queue, <uint32_t>pos, queue.groups[pos])
    return 0


# --- waiting jobs -----------------------------------------------------------------------------------------------------

cdef int wait(Core core, uint32_t slot, int64_t now_us) except -1:
    """Put a job that is not leased where it waits: for its time, or for a worker."""
    cdef Job* job = job_at(&core.t, slot)
    if job.extra != NONE and extra_at(&core.t, job.extra).expires_us:
        heap_push(&core.t, &core.expiring, slot)
    if job.run_at_us > now_us:
        return heap_push(&core.t, &core.delayed, slot)
    return make_ready(core, slot)


cdef int make_ready(Core core, uint32_t slot) except -1:
    cdef Job* job = job_at(&core.t, slot)
    cdef uint32_t index = job.group
    cdef Group* group = group_by(core, index)
    cdef Queue* queue = queue_by(core, group.queue)
    heap_push(&core.t, &group.ready, slot)
    queue.ready += 1
    age_add(&queue.ages, job.run_at_us, core.last_us)
    holding_by(core, find_holding(core, group.queue, job.owner)).ready += 1
    if group.ready.count == 1 and group.turn < queue.turn:
        group.turn = queue.turn  # an idle group gains no turns
    if core.watching:
        core.touched.add(queue_name(core, group.queue))
    if queue.group_count == 1 and group.pos == 0:
        return 0
    return settle_group(core, index)


cdef int stop_waiting(Core core, uint32_t slot) except -1:
    """Remove a job from the heap in which `wait` put it."""
    cdef Job* job = job_at(&core.t, slot)
    cdef Group* group
    if job.extra != NONE and extra_at(&core.t, job.extra).expiry_pos != NONE:
        heap_remove(&core.t, &core.expiring, slot)
    if job.heap == IN_DELAYED:
        heap_remove(&core.t, &core.delayed, slot)
    elif job.heap == IN_READY:
        group = group_by(core, job.group)
        heap_remove(&core.t, &group.ready, slot)
        queue_by(core, group.queue).ready -= 1
        age_drop(&queue_by(core, group.queue).ages, job.run_at_us)
        holding_at(core, job).ready -= 1
        settle_group(core, job.group)
    return 0


# --- the next job -----------------------------------------------------------------------------------------------------

cdef void refill(Queue* queue, int64_t now_us) noexcept:
    """Bring a rate limit's credit up to now."""
    cdef int64_t passed_us = min(max(now_us - queue.credit_us, <int64_t>0), queue.rate_per_us)
    queue.credit = min(queue.credit + passed_us * queue.rate_n, queue.rate_per_us * queue.rate_n)
    queue.credit_us = max(queue.credit_us, now_us)


cdef inline bint can_lease(Queue* queue, int64_t now_us) noexcept:
    """Whether a job of this queue may be leased now."""
    if queue.group_count == 0:
        return False
    if not queue.configured:
        return True
    return is_free(queue, now_us)


cdef bint is_free(Queue* queue, int64_t now_us) noexcept:
    """Whether the queue's own limits allow a lease."""
    if queue.paused or (queue.concurrency and queue.counts[RUNNING] >= queue.concurrency):
        return False
    if queue.rate_n:
        refill(queue, now_us)
        return queue.credit >= queue.rate_per_us
    return True


cdef int charge(Queue* queue, Group* group) noexcept:
    """Account for a lease of this group's next job: end its turn, and spend rate credit."""
    if queue.rate_n:
        queue.credit -= queue.rate_per_us
    if queue.fair:
        queue.turn = max(queue.turn, group.turn)  # the turn of a group that was held back may be long over
        queue.last_turn += 1
        group.turn = queue.last_turn
    return 0


@cython.final
@cython.internal
cdef class Shares:
    """How far each queue of a weighted set has come: the queue with the lowest value is next."""
    cdef tuple names
    cdef uint64_t passes[QUEUES_ASKED_MAX]
    cdef uint64_t strides[QUEUES_ASKED_MAX]
    cdef uint64_t now


cdef Shares shares_of(Core core, dict weights):
    """The state of a weighted set. Drops the least recently used set if there are too many."""
    cdef Shares shares
    cdef tuple key = tuple(sorted(weights.items()))
    cdef int i
    known = core.shares.pop(key, None)
    if known is None:
        shares = Shares.__new__(Shares)
        shares.names = tuple([name for name, _ in key])
        shares.now = 0
        for i in range(len(key)):
            shares.passes[i] = 0
            shares.strides[i] = STRIDE // <uint64_t>max(1, key[i][1])
        if len(core.shares) >= WEIGHTS_KEPT:
            del core.shares[next(iter(core.shares))]
    else:
        shares = known
    core.shares[key] = shares
    return shares


cdef struct Asked:          # the queues of one lease request that exist
    uint32_t count
    uint32_t queues[QUEUES_ASKED_MAX]
    uint32_t share[QUEUES_ASKED_MAX]    # by weight: the queue's place in its Shares
    uint32_t first          # in strict order: queues before it have no more jobs for this request


cdef uint32_t choose(Core core, Asked* asked, Shares shares, int64_t now_us) noexcept:
    """Choose the queue of the next job. Returns its index in the request; NONE if no job may be leased."""
    cdef uint32_t i, best = NONE
    cdef uint64_t at, best_at = 0
    if shares is None:
        while asked.first < asked.count:
            if can_lease(queue_by(core, asked.queues[asked.first]), now_us):
                return asked.first
            asked.first += 1
        return NONE
    for i in range(asked.count):
        if can_lease(queue_by(core, asked.queues[i]), now_us):
            at = max(shares.passes[asked.share[i]], shares.now)
            if best == NONE or at < best_at:
                best = i
                best_at = at
    return best


cdef inline void share_served(Shares shares, uint32_t i) noexcept:
    shares.now = max(shares.passes[i], shares.now)
    shares.passes[i] = shares.now + shares.strides[i]


cdef uint32_t find_asked(Core core, queues, Shares shares, int64_t now_us, Asked* asked) except <uint32_t>NONE:
    """Look up the queues of a request. Returns how many jobs are due in queues that allow a lease."""
    cdef uint32_t ready = 0, at, i = 0
    cdef Queue* queue
    asked.count = asked.first = 0
    for name in (queues if shares is None else shares.names):
        at = find_queue(core, (<str>name).encode())
        if at != NONE:
            queue = queue_by(core, at)
            asked.queues[asked.count] = at
            asked.share[asked.count] = i
            asked.count += 1
            if can_lease(queue, now_us):
                ready += queue.ready
        i += 1
    return ready
