# cython: language_level=3
"""The data of the core. No code here: a reader starts with this file.

A field marked [log] is stated by records and comes back by replay. [memory] fields are derived from the others or from
the process's own life, and are left out of the state hash. All times are Unix microseconds of the engine's clock.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# --- states, outcomes -------------------------------------------------------------------------------------------------

cdef enum:                  # State
    READY = 1       # waiting; shown as SCHEDULED while run_at lies ahead
    RUNNING = 2     # leased
    RETRY = 3       # an attempt failed; stays RETRY until leased again, also after its wait is over
    ACKED = 4       # terminal
    DEAD = 5        # terminal: the dead letter
    EXPIRED = 6     # terminal: nobody leased it in time
    CANCELLED = 7   # terminal

cdef enum Outcome:          # of an attempt
    OUTCOME_OK = 1
    OUTCOME_ERROR = 2
    OUTCOME_EXPIRED = 3     # the lease ran out; logged by the server
    OUTCOME_UNDELIVERED = 4 # nobody was there to take the lease: it was no attempt
    OUTCOME_DISCARD = 5     # the worker says that no retry will help
    OUTCOME_SNOOZE = 6      # not now; the attempt is given back
    OUTCOME_RELEASE = 7     # somebody else; the attempt is given back
    OUTCOME_CANCELLED = 8   # cancelled by force while it ran
    OUTCOME_POISONED = 9    # the lease ran out, once too often

cdef enum Change:           # of a job from outside
    CANCEL_REQUESTED = 1    # it runs: its worker is to be told
    CHANGE_CANCELLED = 2
    CHANGE_EXPIRED = 3
    CHANGE_REDRIVEN = 4
    CHANGE_EDITED = 5
    CHANGE_REPLACED = 6     # by a later submit with the same unique key

# --- a job ------------------------------------------------------------------------------------------------------------

cdef enum:
    NONE = 0xffffffff       # no index

cdef struct Place:          # of one record in the log
    uint32_t segment
    uint32_t offset         # from the start of the segment file
    uint32_t bytes

cdef struct Job:            # 72 bytes; one for each job that is not deleted
    uint64_t seq            # [log] identity: the sequence part of the job's id, 40 bits
    int64_t created_us      # [log] the time part of the id
    int64_t run_at_us       # [log] not leased before
    Place place             # [memory] of its SUBMIT record, which holds the payload
    int32_t priority        # [log] higher first
    uint32_t group          # [log] index of its Group, which knows the queue
    uint32_t owner          # [log] index in the names: the owner_id of the key that submitted it
    uint32_t run            # [log] index of its Run; NONE until the first lease or change
    uint32_t extra          # [log] index of its Extra; NONE for a plain job
    uint32_t heap_pos       # [memory] where it is in the one heap that holds it
    uint16_t attempts       # [log] what counts against max_retries
    uint16_t max_retries    # [log]
    uint8_t state           # [log] a State
    uint8_t flags           # [log] JobFlags
    uint8_t heap            # [memory] which heap holds it: a HeapKind

cdef enum JobFlags:
    JOB_FAILED = 1          # an attempt has failed since it was submitted or redriven: it waits as RETRY
    JOB_CANCEL = 2          # cancel_requested
    JOB_NO_EXPIRY = 4       # redriven: expires_at of its SUBMIT record counts no more
    JOB_WATCHED = 128       # [memory] somebody waits for its end

cdef struct Run:            # 96 bytes; one for each job that was ever leased or changed
    int64_t leased_us       # [log] when the last lease began
    int64_t lease_until_us  # [log] its deadline
    int64_t ended_us        # [log] when the last attempt, or the job, ended; 0 while neither has
    uint32_t lease_no       # [log] counts every lease, never goes back: the fence
    uint32_t lease_ms       # [log] how long the last lease was asked for
    Place place             # [memory] of the last CLOSE record of an attempt, which holds result and error
    Place lease_place       # [memory] of the last LEASE record, which holds who leased it; needed while RUNNING
    Place history           # [memory] of the newest record of its history
    uint32_t history_bytes  # [memory] of all records of its history
    uint32_t worker         # [log] index in the names, while it runs; NONE otherwise
    uint32_t closing        # [log] index of the newest Closing; NONE if there is none
    uint32_t older          # [memory] slots of the job that finished before and after it in its queue and state;
    uint32_t newer          # [memory] NONE at the ends
    uint8_t legacy          # [log] leased by a request without a body: may be acked without a token
    uint8_t outcome         # [log] of the last attempt, 0 while there is none
    uint8_t expiries        # [log] leases that ran out, in a row
    uint32_t anchor         # [memory] segment of the record by which replay learns of the job, if it was edited after
                            #   that; 0: it is the one at its place

cdef struct Extra:          # 56 bytes; one for each job that has any of these
    int64_t expires_us      # [log] when it becomes EXPIRED if it waits; 0 for never
    uint64_t unique[2]      # [log] keyed hash of (owner, queue, unique key); both 0 for none
    double backoff_factor   # [log]
    uint32_t tags           # [log] index in the names, of all tags with zero bytes between them; NONE for none
    uint32_t lease_ms       # [log] of its leases; 0 if it does not say
    uint32_t backoff_base_ms    # [log] 0 if it does not say
    uint32_t backoff_cap_ms     # [log]
    uint32_t expiry_pos     # [memory] where it is in the heap of those that expire; NONE if it is in none

cdef struct Closing:        # 24 bytes; a chain of at most CLOSINGS_KEPT a job, newest first
    uint64_t digest         # [log] of outcome, result and error: the same ack again is answered as it was
    uint32_t lease_no       # [log]
    uint32_t next           # [memory]
    uint8_t outcome         # [log]

cdef enum:
    CLOSINGS_KEPT = 4
    ATTEMPTS_KEPT = 20      # of a job's history, at most,
    EVENTS_KEPT = 50        # attempts and changes together,
    HISTORY_BYTES_MAX = 65536   # and their records

# --- order ------------------------------------------------------------------------------------------------------------

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

cdef struct Group:          # of a queue; there while it has jobs, or a turn that is not over
    Heap ready
    uint64_t turn           # [memory] of a fair queue: lower goes first
    uint32_t queue
    uint32_t name           # index in the names; NONE for the queue's default group
    uint32_t jobs           # in any state
    uint32_t running
    uint32_t pos            # in its queue's heap of eligible groups; NONE if it is empty or held back

cdef struct Finished:       # jobs of one queue and terminal state, in the order in which they came to it
    uint32_t oldest         # slots; NONE if there are none
    uint32_t newest
    uint32_t last_added     # where the search for the next one's place begins
    uint64_t count
    uint64_t bytes          # of their records that replay needs

cdef enum:
    STATES = 8
    TERMINAL = 4            # states from here on

cdef struct Queue:          # there while it has jobs or settings
    uint32_t* groups        # heap of eligible groups: the one to be served next is first
    uint32_t group_count    # in that heap
    uint32_t group_capacity
    uint32_t default_group  # index of the group of jobs without one; NONE if there is none
    uint32_t name           # index in the names
    uint32_t all_groups     # how many there are
    uint32_t ready          # jobs in its groups' heaps
    uint64_t counts[STATES] # of jobs by state
    Finished finished[STATES]   # of the terminal states
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

# --- keys -------------------------------------------------------------------------------------------------------------

cdef struct Remembered:     # 64 bytes; an idempotency key and its answer, in a list by time
    uint64_t key[2]         # [log] keyed hash of (owner, idempotency key)
    uint64_t body_digest    # [log] of the request
    uint64_t seq            # [log] the job; 0: a transaction, whose answer is kept beside
    int64_t created_us      # [log] the job's
    int64_t used_us         # [log] when the key was used first
    uint32_t segment        # [memory] of the record that states it
    uint32_t older
    uint32_t newer

# --- records ----------------------------------------------------------------------------------------------------------
# All little-endian and without padding. A record is a head, a fixed part, optional fields in the order of their flags
# (a name is one length byte and its bytes), and what is left up to `bytes` is its body. docs/log-format.md has it all.

cdef enum RecordType:
    TRIM = 1                # at i64, oldest_segment u32, next_seq u64, epoch u64: what lies before is not needed
    RESUME = 2              # at i64, epoch u64, next_seq u64
    SUBMIT = 3              # seq u64, created i64, max_retries u16, optional fields, body: the payload's JSON text
    LEASE = 4               # seq u64, lease_no u32, attempts u16, at i64, until i64, optional fields
    CLOSE = 5               # seq u64, lease_no u32, attempts u16, outcome u8, state u8, at i64, optional; body: result
    DOCUMENT = 6            # at i64, kind u8, name; body: what is kept under (kind, name). With DROPPED: nothing
    EXTEND = 7              # seq u64, lease_no u32, at i64, until i64
    GROUP = 8               # body: records that hold together, one after the other
    JOB = 9                 # a whole job, written by the cleaner: see JobRecordFlag
    FORGET = 10             # at i64; body: the seqs (u64) of jobs that are there no more
    CHANGE = 11             # seq u64, what u8, state u8, attempts u16, at i64, optional fields
    PROGRESS = 12           # seq u64, lease_no u32, at i64, percent u8; body: a note, UTF-8
    REMEMBER = 13           # at i64, key 2 x u64, body_digest u64; body: (seq u64, value i64, how u8) of each answer.
                            #   how 0 to 3: a job, value is its created_us; 4: an extend, value is the deadline
    RECORD_TYPE_LAST = 13

cdef enum:
    RECORD_VERSION = 1
    SUBMIT_RECORD_BYTES = 640  # more than a SUBMIT record has beside the payload and what options take
    CLOSE_RECORD_BYTES = 480   # more than any CLOSE record has beside result and error text
    SMALL_RECORD_BYTES = 1200  # enough for any other record about one job
    ERROR_BYTES_MAX = 2048     # of an error's text, what is kept
    RECORD_HEAD_BYTES = 8   # type u8, version u8, flags u16, bytes u32 (head included)
    FRAME_HEAD_BYTES = 64   # in front of each batch; the log fills it in

cdef enum SubmitFlag:
    SUBMIT_RUN_AT = 1       # i64
    SUBMIT_PRIORITY = 2     # i32
    SUBMIT_QUEUE = 4        # name; left out: `default`
    SUBMIT_OWNER = 8        # name
    SUBMIT_KEY_ID = 16      # name: the key that asked
    SUBMIT_GROUP = 32       # name
    SUBMIT_UNIQUE_KEY = 64  # name
    SUBMIT_IDEMPOTENCY_KEY = 128  # name, u64: digest of the request
    SUBMIT_LEASE_MS = 256   # u32
    SUBMIT_TRACE = 512      # name: traceparent
    SUBMIT_EXPIRES = 1024   # i64
    SUBMIT_BACKOFF = 2048   # base u32, factor f64, cap u32, milliseconds
    SUBMIT_TAGS = 4096      # u16 length, the tags with zero bytes between them
    SUBMIT_EDITED = 8192    # no field: the job is there; this is what it is like from now on
    SUBMIT_KNOWN = 16383

cdef enum LeaseFlag:
    LEASE_LEGACY = 1        # no field
    LEASE_WORKER = 2        # name
    LEASE_KEY_ID = 4        # name
    LEASE_REQUEST_ID = 8    # name
    LEASE_KNOWN = 15

cdef enum CloseFlag:
    CLOSE_RUN_AT = 1        # i64: the job runs again, not before
    CLOSE_ERROR = 2         # u16 length, text
    CLOSE_BY_CLIENT = 4     # no field: a client closed it and may repeat itself
    CLOSE_KEY_ID = 8        # name
    CLOSE_RESULT = 16       # no field: the body is a result
    CLOSE_LEASED = 32       # i64, name: when the attempt began and which worker had it; not of UNDELIVERED
    CLOSE_PREVIOUS = 64     # segment u32, offset u32, bytes u32: the record before it in the job's history
    CLOSE_ERROR_CODE = 128  # name
    CLOSE_KNOWN = 255

cdef enum ChangeFlag:
    CHANGE_RUN_AT = 1       # i64
    CHANGE_KEY_ID = 2       # name
    CHANGE_PREVIOUS = 4     # as in CLOSE
    CHANGE_KNOWN = 7

# JOB: seq u64, state u8, attempts u16, run_at i64, flags u8 (JobFlags), [run], [progress], the SUBMIT record as it was,
# [the LEASE record], the records of its history, newest first, and last the newest CLOSE record if it is not among them
cdef enum JobRecordFlag:
    JOB_RUN = 1             # lease_no u32, lease_ms u32, leased i64, until i64, ended i64, legacy u8, outcome u8,
                            #   expiries u8, closings u8, and for each, newest first: lease_no u32, outcome u8,
                            #   digest u64
    JOB_LEASE = 2           # the last LEASE record is there
    JOB_PROGRESS = 4        # at i64, percent u8, note as a name
    JOB_KNOWN = 7

cdef enum RememberFlag:
    REMEMBER_TRANSACTION = 1    # no field: the answer is a transaction's, else one job
    REMEMBER_KNOWN = 1

cdef enum DocumentFlag:
    DOCUMENT_DROPPED = 1    # no field
    DOCUMENT_KEY_ID = 2     # name
    DOCUMENT_KNOWN = 3

# --- the C surface: core/hot.pxi --------------------------------------------------------------------------------------

cdef enum:
    HOT_ID_CHARS = 36

cdef struct PlainJob:       # a job without options, as a request says it; its texts are the request's
    const char* payload     # JSON
    uint32_t payload_bytes
    const char* queue
    uint8_t queue_bytes
    uint16_t max_retries
    int32_t priority
    int64_t delay_us

cdef bint has_room(object tail, uint64_t record_bytes, uint64_t unsynced_bytes_max) except *
cdef uint64_t appended_seq(object tail) noexcept
cdef uint64_t durable_seq(object tail) noexcept
cdef bint is_watched(object core) noexcept
cdef bint submit_plain(object into, int64_t now_us, PlainJob* new, bytes owner, bytes key_id, char* job_id) except *
cdef bint submit_plain_many(object into, int64_t now_us, PlainJob* new, int count, bytes owner, bytes key_id,
                            char* job_ids) except *
cdef list lease_plain(object of, int64_t now_us, object queues, int limit, int64_t lease_ms, bytes key_id,
                      bytes worker, bint legacy, uint64_t bytes_max)
cdef bint ack_plain(object of, int64_t now_us, str job_id, str token, bytes result, bytes key_id) except *
cdef Py_ssize_t leased_bytes(object leased) except -1
cdef Py_ssize_t put_leased(object of, object leased, bint payload_as_string, char* p) except -1
