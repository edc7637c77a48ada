# What happened to jobs since the server began to serve, counted: by queue and in all. All of it is [memory].

cdef enum:                  # what happened to a job
    WAS_SUBMITTED = 0
    WAS_LEASED = 1
    WAS_CLOSED = 1          # plus an Outcome: 2 to 11
    WAS_CHANGED = 11        # plus a Change: 12 to 17
    WAS_DELETED = 18
    WHAT_COUNT = 19
    # counted beside those
    NOW_RETRIED = 19        # an attempt failed, and the job waits for the next one
    NOW_DEAD = 20           # the state that it has reached
    NOW_CANCELLED = 21
    COUNTED = 22

cdef enum:                  # the windows of a queue
    WINDOW_IN = 0           # submitted or redriven
    WINDOW_OUT = 1          # acked
    WINDOW_FAILED = 2       # attempts that failed
    WINDOWS = 3
    WINDOW_SECONDS = 10
    WINDOW_CELLS = 11       # seconds: the present one, and those that the window can reach into

cdef enum:
    LATENCY_BUCKETS = 135   # the last one has no bound
    LATENCY_QUEUES_MAX = 1000

cdef struct Histogram:      # of durations
    uint64_t counts[LATENCY_BUCKETS]
    uint64_t sum_us

cdef struct Durations:
    Histogram wait          # ready -> lease
    Histogram run           # lease -> ack

cdef struct QueueTraffic:   # of a queue that had traffic; exists as long as the queue
    uint64_t counted[COUNTED]
    int64_t second          # of the newest cell
    uint32_t cells[WINDOWS][WINDOW_CELLS]   # by second modulo WINDOW_CELLS
    uint32_t queue
    uint32_t next           # of the list of active queues; NONE at the ends
    uint32_t previous
    uint8_t active          # in that list: it had traffic since the list was read
    Durations* durations    # NULL: no job was leased, or enough other queues have one
