# What tests and `check` hold the core to: a hash over all that records state, and a walk over every structure.


cdef uint64_t hash_state(Core core) except? 0:
    cdef uint64_t total = 0
    cdef uint32_t slot
    cdef Job* job
    for slot in range(core.t.jobs.used):
        job = job_at(&core.t, slot)
        if job.state:
            total += hash_text(core, repr(job_facts(core, job)))
    for kind, named in core.documents_by_kind.items():
        for name, found in named.items():
            total += hash_text(core, repr((kind, name, found[0])))
    return total + hash_text(core, repr((core.next_seq, core.epoch, core.last_us, core.oldest_segment)))


cdef uint64_t hash_text(Core core, str text):
    cdef bytes data = text.encode()
    return siphash(core.key, <const char*>data, len(data))


cdef tuple job_facts(Core core, Job* job):
    """All that records state about a job."""
    cdef Run* run
    cdef Closing* closing
    cdef uint32_t i
    facts = (
        job.seq, job.created_us, job.run_at_us, job.priority, job.attempts, job.max_retries, job.state,
        core.names[core.queues[job.queue].name], core.names[job.owner], job.place.bytes,
    )
    if job.run != NONE:
        run = run_at(&core.t, job.run)
        facts += (run.lease_until_us, run.ended_us, run.lease_no, run.lease_ms, run.legacy, run.outcome)
        facts += (run.place.bytes if run.outcome else 0, run.lease_place.bytes if job.state == RUNNING else 0)
        i = run.closing
        while i != NONE:
            closing = closing_at(&core.t, i)
            facts += (closing.lease_no, closing.outcome, closing.digest)
            i = closing.next
    return facts


cdef int check_core(Core core) except -1:
    cdef uint64_t in_heaps = core.delayed.count + core.leased.count, waiting = 0, found = 0, live = 0
    cdef uint64_t counts[STATES]
    cdef uint32_t slot, i
    cdef Job* job
    memset(counts, 0, sizeof(counts))
    jobs_of_queue = [0] * core.queue_count
    uses = [0] * len(core.names)
    check_heap(core, &core.delayed)
    check_heap(core, &core.leased)
    for i in range(core.queue_count):
        check_heap(core, &core.queues[i].ready)
        in_heaps += core.queues[i].ready.count
    for slot in range(core.t.jobs.used):
        job = job_at(&core.t, slot)
        if not job.state:
            continue
        found += 1
        counts[job.state] += 1
        live += kept_bytes(&core.t, job)
        jobs_of_queue[job.queue] += 1
        uses[job.owner] += 1
        assert index_find(&core.t, job.seq) == slot, f"job {job.seq} is not in the index"
        assert (job.heap == IN_LEASED) == (job.state == RUNNING), f"job {job.seq} is in the wrong heap"
        waiting += job.state <= RETRY
        assert (job.heap == IN_NONE) == (job.state > RETRY), f"job {job.seq} is in a heap though it is finished"
    assert found == core.t.jobs.live and in_heaps == waiting, "jobs, heaps and states do not add up"
    assert live == core.live_bytes, f"{core.live_bytes} bytes are counted as live instead of {live}"
    for i in range(core.queue_count):
        assert core.queues[i].jobs == jobs_of_queue[i], "a queue's jobs are counted wrongly"
        if jobs_of_queue[i]:
            uses[core.queues[i].name] += 1
            assert core.queue_index[core.queue_name(i)] == i
    assert len(core.queue_index) == sum(n > 0 for n in jobs_of_queue)
    assert uses == core.name_uses, "names are counted wrongly"
    for i in range(STATES):
        assert counts[i] == core.counts_by_state[i], f"{STATE_NAMES[i]} is counted wrongly"
        check_finished(core, i)
    return 0


cdef int check_heap(Core core, Heap* heap) except -1:
    cdef uint32_t i
    for i in range(heap.count):
        assert job_at(&core.t, heap.slots[i]).heap_pos == i and job_at(&core.t, heap.slots[i]).heap == heap.kind
        assert i == 0 or not before(&core.t, heap.kind, heap.slots[i], heap.slots[(i - 1) // 4]), "heap order"
    return 0


cdef int check_finished(Core core, uint32_t state) except -1:
    cdef Finished* list = &core.finished[state]
    cdef uint64_t count = 0, n = 0
    cdef uint32_t slot = list.oldest, older = NONE
    cdef Run* run
    while slot != NONE:
        run = run_at(&core.t, job_at(&core.t, slot).run)
        assert job_at(&core.t, slot).state == state and run.older == older, "a list of finished jobs is broken"
        assert older == NONE or finished_us(&core.t, older) <= run.ended_us, "finished jobs are out of order"
        count += 1
        n += kept_bytes(&core.t, job_at(&core.t, slot))
        older = slot
        slot = run.newer
    assert older == list.newest and count == list.count and n == list.bytes, "finished jobs do not add up"
    assert count == (core.counts_by_state[state] if state >= ACKED else 0), "a finished job is in no list"
    return 0
