# The order in which jobs are leased: heaps, groups and queues.

cdef enum HeapKind:
    IN_NONE = 0
    IN_READY = 1            # priority (higher first), run_at, created_at, id
    IN_DELAYED = 2          # run_at, id
    IN_LEASED = 3           # lease deadline, id
    IN_EXPIRING = 4         # expires_at, id; beside one of the first two

cdef struct Heap:           # of job slots; four children a node
    uint32_t* slots
    uint32_t count
    uint32_t capacity
    uint8_t kind

cdef struct Group:          # of a queue; exists while it has jobs, or a turn that is not over
    Heap ready
    uint64_t turn           # [memory] of a fair queue: lower goes first
    uint32_t queue
    uint32_t name           # index in the names; NONE for the queue's default group
    uint32_t jobs           # in any state
    uint32_t running
    uint32_t pos            # in its queue's heap of eligible groups; NONE if it is empty or held back
    uint32_t next           # of the list of its queue's groups; NONE at the ends
    uint32_t previous
    uint8_t exists
    uint8_t idle            # it is among the idle groups

cdef struct Finished:       # jobs of one queue and terminal state, in the order of their ends
    uint32_t oldest         # slots; NONE: empty
    uint32_t newest
    uint32_t last_added     # where the search for the next one's place begins
    uint32_t pos[2]         # in the line of lists by OldestKind; NONE: not in it
    uint64_t count
    uint64_t bytes          # of their records that replay needs

cdef enum:
    STATE_COUNT = 8
    TERMINAL = 4            # states from here on
    FINAL_COUNT = 4         # of them

cdef enum:                  # OldestKind
    BY_DUE = 0              # when retention removes its oldest job
    BY_END = 1              # when its oldest job ended; lists of queues without a maximum of their own

cdef struct Dated:
    int64_t us
    uint32_t list           # queue * FINAL_COUNT + state - TERMINAL

cdef struct Line:           # heap of lists of finished jobs: the earliest first; four children a node
    Dated* items
    uint32_t count
    uint32_t capacity
    uint8_t kind            # an OldestKind

cdef struct Span:           # of the ages of ready jobs: see ages.pxi
    int64_t first_us        # of the jobs in it
    int64_t last_us
    uint32_t count          # 0: it is empty, but not the oldest span

cdef struct Ages:           # spans, oldest first
    Span* spans
    uint16_t first          # of the spans that are in use
    uint16_t end
    uint16_t capacity

cdef struct Queue:          # there while it has jobs or settings
    uint32_t* groups        # heap of eligible groups: the next to serve is first
    uint32_t group_count    # in that heap
    uint32_t group_capacity
    uint32_t default_group  # index of the group of jobs without one; NONE if there is none
    uint32_t first_group    # of the list of all its groups; NONE if it has none
    uint32_t name           # index in the names
    uint32_t all_groups     # how many there are
    uint32_t ready          # jobs in its groups' heaps
    uint32_t traffic        # [memory] index of its QueueTraffic; NONE: it had none
    Ages ages               # [memory] of those ready jobs
    uint64_t counts[STATE_COUNT] # of jobs by state
    Finished finished[FINAL_COUNT]   # of the terminal states
    # from its settings; 0 (-1 for retention) where they do not say
    uint8_t configured
    uint8_t paused
    uint8_t fair
    uint32_t concurrency
    uint32_t group_concurrency
    uint32_t max_depth
    uint32_t lease_ms
    uint32_t backoff_base_ms
    uint32_t backoff_cap_ms
    double backoff_factor
    int64_t retention_acked_ms
    int64_t retention_dead_ms
    int64_t finished_max
    # rate: a bucket of rate_per_us * rate_n credits: one microsecond brings rate_n, one lease costs rate_per_us
    int64_t rate_n
    int64_t rate_per_us
    int64_t credit
    int64_t credit_us       # when credit was right
    # turns of a fair queue
    uint64_t turn           # of the group that was served last
    uint64_t last_turn      # the highest given out

cdef struct Holding:        # of an owner in a queue: its jobs there; exists while it has some
    uint32_t owner          # index in the names
    uint32_t queue
    uint32_t next           # of the list of its owner's holdings; NONE at the ends
    uint32_t previous
    uint32_t jobs
    uint32_t ready          # in the queue's ready heaps
    uint32_t counts[STATE_COUNT]

cdef struct Named:          # a text that many share; exists while it has uses
    uint64_t hash
    PyObject* text          # bytes
    PyObject* shown         # str, if it is a queue's
    uint32_t uses           # by jobs, queues and groups
    uint32_t unfinished     # of an owner: its jobs that are not finished
    uint32_t queue          # index of the queue of this name; NONE
    uint32_t first_holding  # of an owner; NONE
