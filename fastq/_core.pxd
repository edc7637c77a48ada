# cython: language_level=3
"""The data of the core. No code here: a reader starts with this file.

A field marked [log] is stated by records and comes back by replay. [memory] fields are derived from the others or from
the process's own life, and are left out of the state hash. All times are Unix microseconds of the engine's clock.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# --- states, outcomes -------------------------------------------------------------------------------------------------

cdef enum State:
    READY = 1       # waiting; shown as SCHEDULED while run_at lies ahead
    RUNNING = 2     # leased
    RETRY = 3       # an attempt failed; stays RETRY until leased again, also after its wait is over
    ACKED = 4       # terminal
    DEAD = 5        # terminal: the dead letter

cdef enum Outcome:
    OUTCOME_OK = 1
    OUTCOME_ERROR = 2
    OUTCOME_EXPIRED = 3     # the lease ran out; logged by the server
    OUTCOME_UNDELIVERED = 4 # nobody was there to take the lease: the attempt is given back

# --- a job ------------------------------------------------------------------------------------------------------------

cdef enum:
    NONE = 0xffffffff       # no index
    DETACHED = 0xfffffffe   # of a run's older: the job is finished but in no list yet

cdef struct Place:          # of one record in the log
    uint32_t segment
    uint32_t offset         # from the start of the segment file
    uint32_t bytes

cdef struct Job:            # 64 bytes; one for each job that is not deleted
    uint64_t seq            # [log] identity: the sequence part of the job's id, 40 bits
    int64_t created_us      # [log] the time part of the id
    int64_t run_at_us       # [log] not leased before
    Place place             # [memory] of its SUBMIT record, which holds the payload
    int32_t priority        # [log] higher first
    uint32_t queue          # [log] index of its Queue
    uint32_t owner          # [log] index in the names: the owner_id of the key that submitted it
    uint32_t run            # [log] index of its Run; NONE until the first lease
    uint32_t heap_pos       # [memory] where it is in the one heap that holds it
    uint16_t attempts       # [log] what counts against max_retries
    uint16_t max_retries    # [log]
    uint8_t state           # [log] a State
    uint8_t heap            # [memory] which heap holds it: a HeapKind

cdef struct Run:            # 64 bytes; one for each job that was ever leased
    int64_t lease_until_us  # [log] the deadline of the last lease
    int64_t ended_us        # [log] when the last attempt ended; 0 while the first one runs
    uint32_t lease_no       # [log] counts every lease, never goes back: the fence
    uint32_t lease_ms       # [log] how long the last lease was asked for
    Place place             # [memory] of the last CLOSE record, which holds result and error
    Place lease_place       # [memory] of the last LEASE record, which holds who leased it; needed while RUNNING
    uint32_t closing        # [log] index of the newest Closing; NONE if there is none
    uint32_t older          # [memory] slots of the job that finished before and after it in the same state;
    uint32_t newer          # [memory] NONE at the ends
    uint8_t legacy          # [log] leased by a request without a body: may be acked without a token
    uint8_t outcome         # [log] of the last attempt, 0 while there is none

cdef struct Closing:        # 24 bytes; a chain of at most CLOSINGS_KEPT a job, newest first
    uint64_t digest         # [log] of outcome, result and error: the same ack again is answered as it was
    uint32_t lease_no       # [log]
    uint32_t next           # [memory]
    uint8_t outcome         # [log]

cdef enum:
    CLOSINGS_KEPT = 4

# --- order ------------------------------------------------------------------------------------------------------------

cdef enum HeapKind:
    IN_NONE = 0
    IN_READY = 1            # priority (higher first), run_at, created_at, id
    IN_DELAYED = 2          # run_at, id
    IN_LEASED = 3           # lease deadline, id

cdef struct Heap:           # of job slots; four children a node
    uint32_t* slots
    uint32_t count
    uint32_t capacity
    uint8_t kind

cdef struct Queue:          # there while it has jobs
    Heap ready
    uint32_t name           # index in the names
    uint32_t jobs           # in any state

cdef struct Finished:       # jobs of one terminal state, in the order in which they came to it
    uint32_t oldest         # slots; NONE if there are none
    uint32_t newest
    uint32_t last_added     # where the search for the next one's place begins
    uint64_t count
    uint64_t bytes          # of their records that replay needs

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
    JOB = 9                 # a whole job, written by the cleaner: see JobFlag
    FORGET = 10             # at i64; body: the seqs (u64) of jobs that are there no more

cdef enum:
    RECORD_VERSION = 1
    SUBMIT_RECORD_BYTES = 640  # more than any SUBMIT record has beside the payload
    CLOSE_RECORD_BYTES = 320   # more than any CLOSE record has beside result and error text
    SMALL_RECORD_BYTES = 1200  # enough for any record about one job, beside payload, result and error text
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
    SUBMIT_IDEMPOTENCY_KEY = 128  # name
    SUBMIT_LEASE_MS = 256   # u32
    SUBMIT_TRACE = 512      # name: traceparent
    SUBMIT_KNOWN = 1023

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
    CLOSE_KNOWN = 31

# JOB: seq u64, state u8, attempts u16, run_at i64, [run], the SUBMIT record as it was, [CLOSE record], [LEASE record]
cdef enum JobFlag:
    JOB_RUN = 1             # lease_no u32, lease_ms u32, until i64, ended i64, legacy u8, outcome u8,
                            #   closings u8, and for each, newest first: lease_no u32, outcome u8, digest u64
    JOB_CLOSE = 2           # the last CLOSE record as it was
    JOB_LEASE = 4           # the last LEASE record as it was
    JOB_KNOWN = 7

cdef enum DocumentFlag:
    DOCUMENT_DROPPED = 1    # no field
    DOCUMENT_KEY_ID = 2     # name
    DOCUMENT_KNOWN = 3
