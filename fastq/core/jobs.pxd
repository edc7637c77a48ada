# A job: its states, and the structs of which there is one a job.

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

cdef enum:
    NONE = 0xffffffff       # no index

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
    uint32_t anchor         # [memory] anchor_at the frame by which replay learns of the job, if it was edited after
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
