# Consistency checks for tests and `log check`: a hash over the [log] state, and assertions over every structure.


cdef uint64_t hash_state(Core core) except? 0:
    cdef uint64_t total = 0
    cdef uint32_t slot
    cdef Job* job
    cdef Remembered* entry
    for slot in range(pool_end(&core.t.jobs)):
        job = job_at(&core.t, slot) if pool_has(&core.t.jobs, slot) else NULL
        if job != NULL and job.state:
            total += hash_text(core, repr(job_facts(core, job)))
    for kind, named in core.documents_by_kind.items():
        for name, found in named.items():
            total += hash_text(core, repr((kind, name, found[0])))
    slot = core.oldest_key
    while slot != NONE:
        entry = remembered_at(&core.t, slot)
        answer = answers_of(entry) if entry.seq == 0 else entry.answer.created_us
        total += hash_text(core, repr((
            entry.key[0], entry.key[1], entry.body_digest, entry.seq, entry.used_us, answer
        )))
        slot = entry.newer
    return total + hash_text(core, repr((core.next_seq, core.epoch, core.last_us, core.oldest_frame)))


cdef uint64_t hash_text(Core core, str text):
    cdef bytes data = text.encode()
    return siphash(core.key, <const char*>data, len(data))


cdef tuple job_facts(Core core, Job* job):
    """Hash a job's [log] fields."""
    cdef Run* run
    cdef Extra* extra
    cdef Closing* closing
    cdef uint32_t i
    facts = (
        job.seq, job.created_us, job.run_at_us, job.priority, job.attempts, job.max_retries, job.state,
        job.flags & JOB_IN_LOG, queue_name(core, group_by(core, job.group).queue),
        name_text(core, group_by(core, job.group).name), name_at(core, job.owner), place_bytes(&job.place),
        core.progress.get(job.seq), core.request_of.get(job.seq),
    )
    if job.extra != NONE:
        extra = extra_at(&core.t, job.extra)
        facts += (extra.expires_us, extra.unique[0], extra.unique[1], name_text(core, extra.tags), extra.lease_ms)
        facts += (extra.backoff_base_ms, extra.backoff_factor, extra.backoff_cap_ms)
    if job.run != NONE:
        run = run_at(&core.t, job.run)
        facts += (run.leased_us, run.lease_until_us, run.ended_us, run.lease_no, run.lease_ms, run.legacy, run.outcome)
        facts += (run.expiries, name_text(core, run.worker), place_bytes(&run.place) if run.outcome else 0)
        facts += (place_bytes(&run.lease_place) if job.state == RUNNING else 0,)
        i = run.closing
        while i != NONE:
            closing = closing_at(&core.t, i)
            facts += (closing.lease_no, closing.outcome, closing.digest)
            i = closing.next
    return facts


cdef int check_core(Core core) except -1:
    cdef uint64_t found = 0, live = 0, keyed = 0, sizes = 0, uniques = 0, expiring = 0, waiting = 0
    cdef uint64_t in_heaps = core.delayed.count
    cdef uint64_t counts[STATE_COUNT]
    cdef uint32_t slot
    cdef int state
    cdef Job* job
    cdef dict uses = {}, blocks = {}, unfinished = {}, running = {}, members = {}
    memset(counts, 0, sizeof(counts))
    check_heap(core, &core.delayed)
    check_heap(core, &core.leased)
    check_heap(core, &core.expiring)
    for slot in range(pool_end(&core.t.jobs)):
        job = job_at(&core.t, slot) if pool_has(&core.t.jobs, slot) else NULL
        if job == NULL or not job.state:
            continue
        found += 1
        counts[job.state] += 1
        live += kept_bytes(&core.t, job)
        keyed += job.flags & JOB_KEYED != 0
        waiting += job.state == READY or job.state == RETRY
        bump(uses, job.owner)
        bump(members, job.group)
        bump(blocks, job.seq >> BLOCK_BITS)
        if job.state == RUNNING:
            bump(running, job.group)
        if job.state < TERMINAL:
            bump(unfinished, job.owner)
        check_job(core, slot, uses, &uniques, &expiring)
        check_history(core, job, &sizes)
    for slot in range(pool_end(&core.t.groups)):
        if group_exists(core, slot):
            in_heaps += group_by(core, slot).ready.count
    assert found == core.t.jobs.live and in_heaps == waiting, "jobs, heaps and states do not add up"
    live += beside_jobs_bytes(core)
    assert live == core.live_bytes, f"{core.live_bytes} bytes are counted as live instead of {live}"
    assert keyed == core.keyed_jobs, "jobs whose records state a key do not add up"
    assert core.leased.count == counts[RUNNING] and core.expiring.count == expiring, "heaps do not add up"
    assert uniques == used_in(&core.t.by[BY_UNIQUE]), "unique keys do not add up"
    check_queues(core, members, running, uses)
    check_holdings(core)
    check_feed(core, uses)
    check_names(core, uses, unfinished)
    check_keys(core)
    assert sizes == core.t.sizes.live, "sizes of histories do not add up"
    kept = dict(core.blocks)
    if core.block_jobs:
        kept[core.block] = core.block_jobs
    assert kept == blocks, "jobs are counted wrongly by block"
    for state in range(STATE_COUNT):
        assert counts[state] == core.counts_by_state[state], f"{STATE_NAMES[state]} is counted wrongly"
    return 0


cdef int check_history(Core core, Job* job, uint64_t* blocks) except -1:
    """Check the sizes of a job's history; count their blocks."""
    cdef uint32_t i = job.sizes, k, events = 0, attempts = 0, oldest = 0
    cdef uint64_t total = 0
    cdef Run* run = NULL if job.run == NONE else run_at(&core.t, job.run)
    assert (i == NONE) == (job.events < 2), f"job {job.seq} has sizes of no history"
    while i != NONE:
        blocks[0] += 1
        assert sizes_at(&core.t, i).first < sizes_at(&core.t, i).end <= SIZES_EACH, "an empty block of sizes stays"
        oldest = sizes_at(&core.t, i).bytes[sizes_at(&core.t, i).first]
        for k in range(sizes_at(&core.t, i).first, sizes_at(&core.t, i).end):
            total += sizes_at(&core.t, i).bytes[k] & ~OF_ATTEMPT
            attempts += sizes_at(&core.t, i).bytes[k] >> 31
            events += 1
        i = sizes_at(&core.t, i).next
    if events:
        assert (events, attempts, total) == (job.events, run.attempts_kept, run.history_bytes), "history's sizes"
        assert not is_history_full(attempts - (oldest >> 31), events - 1, total - (oldest & ~OF_ATTEMPT)), "not cut"
    elif run != NULL:
        assert run.attempts_kept <= job.events and (run.history_bytes != 0) == job.events, "history of one record"
    return 0


cdef uint64_t beside_jobs_bytes(Core core) except? 0:
    """The live bytes of documents, progress and keys, counted anew."""
    cdef uint64_t n = 0, count = 0
    cdef uint32_t i = core.oldest_key, slot
    for named in core.documents_by_kind.values():
        for name, found in named.items():
            n += document_bytes(len((<str>name).encode()), len(<bytes>found[0]))
    for progress in core.progress.values():
        n += progress_bytes(progress)
    while i != NONE:
        slot = index_find(&core.t, remembered_at(&core.t, i).seq)
        count += answer_count(remembered_at(&core.t, i))
        if slot == NONE or not job_at(&core.t, slot).flags & JOB_KEYED or remembered_at(&core.t, i).answers:
            n += key_bytes(remembered_at(&core.t, i))
        i = remembered_at(&core.t, i).newer
    assert count == core.remembered_count, "remembered answers do not add up"
    return n


cdef int bump(dict counts, uint64_t key) except -1:
    counts[key] = counts.get(key, 0) + 1
    return 0


cdef uint64_t used_in(Index* index) noexcept:
    cdef uint64_t n = 0
    cdef int i
    for i in range(SHARDS):
        n += index.shards[i].used
    return n


cdef int check_job(Core core, uint32_t slot, dict uses, uint64_t* uniques, uint64_t* expiring) except -1:
    cdef Job* job = job_at(&core.t, slot)
    cdef Extra* extra
    cdef bint waits = job.state == READY or job.state == RETRY
    assert index_find(&core.t, job.seq) == slot, f"job {job.seq} is not in the index"
    assert (job.heap == IN_LEASED) == (job.state == RUNNING), f"job {job.seq} is in the wrong heap"
    assert (job.heap == IN_READY or job.heap == IN_DELAYED) == waits, f"job {job.seq} does not wait as it should"
    if job.run != NONE and run_at(&core.t, job.run).worker != NONE:
        assert job.state == RUNNING, f"job {job.seq} has a worker though it does not run"
        bump(uses, run_at(&core.t, job.run).worker)
    if job.extra == NONE:
        return 0
    extra = extra_at(&core.t, job.extra)
    if extra.tags != NONE:
        bump(uses, extra.tags)
    if extra.unique[1] and job.state < TERMINAL:
        assert index_find_key(&core.t, BY_UNIQUE, extra.unique) == slot, f"job {job.seq} does not have its unique key"
        uniques[0] += 1
    assert (extra.expiry_pos != NONE) == (waits and extra.expires_us != 0), f"job {job.seq} expires wrongly"
    expiring[0] += extra.expiry_pos != NONE
    return 0


cdef int check_queues(Core core, dict members, dict running, dict uses) except -1:
    cdef uint32_t i, there = 0, group, listed, depth_limits = 1 if core.settings.owner_depth_max else 0
    cdef Queue* queue
    cdef Group* one
    cdef uint32_t end = pool_end(&core.t.queues)
    count_by, bytes_by = [0] * FINAL_COUNT, [0] * FINAL_COUNT
    ready, groups, eligible = [0] * end, [0] * end, [0] * end
    since = [[] for _ in range(end)]
    for i in range(pool_end(&core.t.groups)):
        if not group_exists(core, i):
            continue
        one = group_by(core, i)
        check_heap(core, &one.ready)
        assert one.jobs == members.get(i, 0) and one.running == running.get(i, 0), "a group's jobs are counted wrongly"
        queue = queue_by(core, one.queue)
        assert (one.pos != NONE) == is_eligible(queue, one), "a group is held back wrongly"
        assert one.pos == NONE or queue.groups[one.pos] == i, "a group is at another place"
        assert one.jobs or one.turn > queue.turn or i in core.idle_groups, "an empty group stays"
        if one.name != NONE:
            bump(uses, one.name)
        ready[one.queue] += one.ready.count
        since[one.queue] += [job_at(&core.t, one.ready.slots[group]).run_at_us for group in range(one.ready.count)]
        groups[one.queue] += 1
        eligible[one.queue] += one.pos != NONE
        assert find_group(core, one.queue, b"" if one.name == NONE else name_at(core, one.name)) == i
    for i in range(end):
        if not queue_exists(core, i):
            continue
        there += 1
        queue = queue_by(core, i)
        bump(uses, queue.name)
        assert named(core, queue.name).queue == i and queue_name(core, i) == name_text(core, queue.name)
        assert queue.ready == ready[i] and queue.all_groups == groups[i] and queue.group_count == eligible[i]
        assert queue.all_groups or queue.configured, "an empty queue stays"
        check_ages(&queue.ages, sorted(since[i]))
        depth_limits += queue.max_depth != 0
        listed, group = 0, queue.first_group
        while group != NONE and listed <= queue.all_groups:
            assert group_by(core, group).queue == i, "a queue lists another one's group"
            listed += 1
            group = group_by(core, group).next
        assert listed == queue.all_groups, "a queue lists its groups wrongly"
        for group in range(1, queue.group_count):
            assert not group_before(core, queue, queue.groups[group], queue.groups[(group - 1) // 4]), "group order"
        check_finished(core, i, count_by, bytes_by)
    assert there == core.t.queues.live, "queues do not add up"
    check_lines(core, count_by, bytes_by)
    assert core.depth_limits == depth_limits, "limits on depths are counted wrongly"
    return 0


cdef int check_ages(Ages* ages, list since) except -1:
    """Check the spans against the times since when the queue's jobs are ready."""
    cdef uint32_t i, n, at = 0
    cdef Span* span
    assert ages.first == ages.end or ages.spans[ages.first].count, "the oldest span is empty"
    for i in range(ages.first, ages.end):
        span = &ages.spans[i]
        assert span.first_us <= span.last_us and (i == ages.first or span.first_us > ages.spans[i - 1].last_us)
        for n in range(at, at + span.count):
            assert span.first_us <= since[n] <= span.last_us, "a ready job is in another span"
        at += span.count
    assert at == len(since), "ready jobs are counted wrongly by age"
    return 0


cdef int check_holdings(Core core) except -1:
    """Each owner's jobs by queue and state, and the ready ones, against a count of all jobs."""
    cdef uint32_t slot, at, total = 0
    cdef int state
    cdef Job* job
    cdef dict counts = {}, ready = {}, listed = {}
    for slot in range(pool_end(&core.t.jobs)):
        if not pool_has(&core.t.jobs, slot) or job_at(&core.t, slot).state == 0:
            continue
        job = job_at(&core.t, slot)
        at = find_holding(core, group_by(core, job.group).queue, job.owner)
        assert at != NONE, f"job {job.seq} is in no holding"
        counts.setdefault(at, [0] * STATE_COUNT)[job.state] += 1
        ready[at] = ready.get(at, 0) + (job.heap == IN_READY)
        listed[job.owner] = at
    for at in counts:
        assert holding_by(core, at).ready == ready[at], "an owner's ready jobs are counted wrongly"
        assert holding_by(core, at).jobs == sum(counts[at])
        assert [holding_by(core, at).counts[state] for state in range(STATE_COUNT)] == counts[at]
    for slot in listed:
        at = named(core, slot).first_holding
        while at != NONE:
            assert holding_by(core, at).owner == slot and at in counts, "an owner's holdings are listed wrongly"
            total += 1
            at = holding_by(core, at).next
    assert total == len(counts) == core.t.holdings.live == used_in(&core.t.by[BY_HOLDING]), "holdings do not add up"
    return 0


cdef int check_feed(Core core, dict uses) except -1:
    cdef uint64_t number
    cdef JobChanged* change
    assert core.feed.next - core.feed.first <= CHANGES_KEPT and core.feed.room <= CHANGES_A_SECOND
    for number in range(core.feed.first, core.feed.next):
        change = change_at(&core.feed, number)
        bump(uses, change.queue)
        bump(uses, change.owner)
        if change.group != NONE:
            bump(uses, change.group)
    return 0


cdef int check_names(Core core, dict uses, dict unfinished) except -1:
    cdef uint32_t i, there = 0
    cdef Named* one
    for i in range(pool_end(&core.t.names)):
        if not pool_has(&core.t.names, i) or named(core, i).text == NULL:
            continue
        there += 1
        one = named(core, i)
        assert one.uses == uses.get(i, 0) > 0, f"the uses of name {name_at(core, i)} are counted wrongly"
        assert find_name(core, name_at(core, i)) == i
        assert one.unfinished == unfinished.get(i, 0), "an owner's jobs are counted wrongly"
    assert there == core.t.names.live == used_in(&core.t.by[BY_NAME]), "names do not add up"
    return 0


cdef int check_keys(Core core) except -1:
    cdef uint32_t i = core.oldest_key, older = NONE, n = 0
    cdef Remembered* entry
    while i != NONE:
        entry = remembered_at(&core.t, i)
        assert entry.older == older and index_find_key(&core.t, BY_KEY, entry.key) == i, "the list of keys is broken"
        assert older == NONE or remembered_at(&core.t, older).used_us <= entry.used_us, "keys are out of order"
        n += 1
        older = i
        i = entry.newer
    assert older == core.newest_key and n == core.t.remembered.live and n == used_in(&core.t.by[BY_KEY])
    asked = {seq: asked for asked, found in core.requests.items() for seq in found[1]}
    assert asked == core.request_of and all(found[1] for found in core.requests.values()), "requests do not add up"
    for seq in asked:
        assert job_at(&core.t, index_find(&core.t, seq)).state == RUNNING, "a request has a lease that has ended"
    return 0


cdef int check_heap(Core core, Heap* heap) except -1:
    cdef uint32_t i
    cdef Job* job
    for i in range(heap.count):
        job = job_at(&core.t, heap.slots[i])
        if heap.kind == IN_EXPIRING:
            assert extra_at(&core.t, job.extra).expiry_pos == i
        else:
            assert job.heap_pos == i and job.heap == heap.kind
        assert i == 0 or not before(&core.t, heap.kind, heap.slots[i], heap.slots[(i - 1) // 4]), "heap order"
    return 0


cdef int check_finished(Core core, uint32_t index, list count_by, list bytes_by) except -1:
    """Check a queue's lists of finished jobs, and add those without an own maximum to the sums by state."""
    cdef Queue* queue = queue_by(core, index)
    cdef Finished* list
    cdef uint64_t count, n
    cdef uint32_t slot, older
    cdef int state
    cdef Run* run
    for state in range(TERMINAL, STATE_COUNT):
        list = &queue.finished[state - TERMINAL]
        count = n = 0
        slot = list.oldest
        older = NONE
        while slot != NONE:
            run = run_at(&core.t, job_at(&core.t, slot).run)
            assert job_at(&core.t, slot).state == state and run.older == older, "a list of finished jobs is broken"
            assert older == NONE or finished_us(&core.t, older) <= run.ended_us, "finished jobs are out of order"
            count += 1
            n += kept_bytes(&core.t, job_at(&core.t, slot))
            older = slot
            slot = run.newer
        assert older == list.newest and count == list.count and n == list.bytes, "finished jobs do not add up"
        assert count == queue.counts[state], "a finished job is in no list"
        if queue.finished_max < 0:
            count_by[state - TERMINAL] += count
            bytes_by[state - TERMINAL] += n
            assert (list.pos[BY_END] == NONE) == (count == 0), "a list of finished jobs is in the wrong line"
    return 0


cdef int check_lines(Core core, list count_by, list bytes_by) except -1:
    cdef int i
    check_line(core, &core.due)
    for i in range(FINAL_COUNT):
        check_line(core, &core.ended_first[i])
        assert core.surplus_count[i] == count_by[i] and core.surplus_bytes[i] == bytes_by[i], "surplus does not add up"
    return 0


cdef int check_line(Core core, Line* line) except -1:
    cdef uint32_t i, list, queue
    cdef int64_t us
    for i in range(line.count):
        list = line.items[i].list
        queue = list // FINAL_COUNT
        us = line.items[i].us
        assert finished_in(core, list).pos[line.kind] == i, "a list of finished jobs has another place"
        assert i == 0 or line.items[(i - 1) // 4].us <= us, "lists of finished jobs are out of order"
        settle_finished(core, queue, list % FINAL_COUNT + TERMINAL)
        assert line.items[i].list == list and line.items[i].us == us, "a list of finished jobs has a wrong time"
    return 0


# --- memory -----------------------------------------------------------------------------------------------------------

cdef uint64_t table_bytes(Core core) noexcept:
    """The bytes of the tables: of pools, indexes, and the heaps that are not in a group or queue."""
    cdef Pool* pools[11]
    cdef uint64_t n = 0
    cdef uint32_t chunk
    cdef int i, j
    pools[0], pools[1], pools[2] = &core.t.jobs, &core.t.runs, &core.t.extras
    pools[3], pools[4] = &core.t.closings, &core.t.remembered
    pools[5], pools[6], pools[7] = &core.t.names, &core.t.queues, &core.t.groups
    pools[8], pools[9], pools[10] = &core.t.sizes, &core.t.holdings, &core.t.traffic
    for i in range(11):
        for chunk in range(pools[i].chunk_count):
            if pools[i].chunks[chunk].items != NULL:
                n += chunk_bytes(pools[i])
    for i in range(INDEX_KINDS):
        for j in range(SHARDS):
            n += core.t.by[i].shards[j].capacity * sizeof(uint32_t)
    for i in range(FINAL_COUNT):
        n += core.ended_first[i].capacity * sizeof(Dated)
    n += core.due.capacity * sizeof(Dated)
    return n + (core.delayed.capacity + core.leased.capacity + core.expiring.capacity) * sizeof(uint32_t)
