# A job: its states, and the structs that each job has.

cdef enum:                  # State
    READY = 1       # waiting; shown as SCHEDULED while run_at is in the future
    RUNNING = 2     # leased
    RETRY = 3       # an attempt failed; stays RETRY until it is leased again, also after its wait
    ACKED = 4       # terminal
    DEAD = 5        # terminal: the dead letter
    EXPIRED = 6     # terminal: no worker leased it in time
    CANCELLED = 7   # terminal

cdef enum Outcome:          # of an attempt
    OUTCOME_OK = 1
    OUTCOME_ERROR = 2
    OUTCOME_EXPIRED = 3     # the lease expired; logged by the server
    OUTCOME_UNDELIVERED = 4 # the lease was not delivered; no attempt counts
    OUTCOME_DISCARD = 5     # the worker says that no retry will help
    OUTCOME_SNOOZE = 6      # the worker wants it later; the attempt does not count
    OUTCOME_RELEASE = 7     # another worker should do it; the attempt does not count
    OUTCOME_CANCELLED = 8   # cancelled by force while it ran
    OUTCOME_POISONED = 9    # the lease expired too many times in a row
    OUTCOME_UNREADABLE = 10 # the payload could not be read, so it was not delivered; the attempt does not count

cdef enum Change:           # of a job, by a client or operator
    CANCEL_REQUESTED = 1    # it runs: its worker learns of it
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
    int64_t run_at_us       # [log] not leased before this time
    Place place             # [memory] of its SUBMIT record, which contains the payload
    int32_t priority        # [log] higher first
    uint32_t group          # [log] index of its Group, which knows the queue
    uint32_t owner          # [log] index in the names: the owner_id of the key that submitted it
    uint32_t run            # [log] index of its Run; NONE until the first lease or change
    uint32_t extra          # [log] index of its Extra; NONE for a plain job
    uint32_t heap_pos       # [memory] its position in its heap
    uint16_t attempts       # [log] attempts that count against max_retries
    uint16_t max_retries    # [log]
    uint8_t state           # [log] a State
    uint8_t flags           # [log] JobFlags
    uint8_t heap            # [memory] the heap that it is in: a HeapKind
    uint8_t events          # [memory] records of its history that are kept
    uint32_t sizes          # [memory] index of the newest Sizes; NONE with fewer than two of those records

cdef enum JobFlags:
    JOB_FAILED = 1          # an attempt has failed since its submit or redrive: it waits as RETRY
    JOB_CANCEL = 2          # cancel_requested
    JOB_NO_EXPIRY = 4       # redriven: expires_at of its SUBMIT record no longer counts
    JOB_KEYED = 64          # [memory] its SUBMIT record states an idempotency key that is remembered
    JOB_WATCHED = 128       # [memory] a reader waits for its end
    JOB_IN_LOG = 63         # the flags that are [log]

cdef struct Run:            # 96 bytes; one for each job that was ever leased or changed
    int64_t leased_us       # [log] when the last lease began
    int64_t lease_until_us  # [log] its deadline
    int64_t ended_us        # [log] when the last attempt, or the job, ended; 0 while neither has
    uint32_t lease_no       # [log] the number of the last lease; it only rises
    uint32_t lease_ms       # [log] the length of the last lease
    Place place             # [memory] of the last CLOSE record, which contains result and error
    Place lease_place       # [memory] of the last LEASE record, which names the worker; needed while RUNNING
    Place history           # [memory] of the newest record of its history
    uint32_t history_bytes  # [memory] of the records of its history that are kept
    uint32_t worker         # [log] index in the names, while it runs; NONE otherwise
    uint32_t closing        # [log] index of the newest Closing; NONE if there is none
    uint32_t older          # [memory] slots of the jobs that finished before and after it in its queue and state;
    uint32_t newer          # [memory] NONE at the ends
    uint8_t legacy          # [log] leased by a request without a body: may be acked without a token
    uint8_t outcome         # [log] of the last attempt; 0: none has ended
    uint8_t expiries        # [log] expired leases in a row
    uint8_t attempts_kept   # [memory] how many of those records are of attempts
    uint32_t anchor         # [memory] anchor_at the frame by which replay learns of the job, if the job was edited
                            #   after that; 0: it is the frame of its place

cdef struct Extra:          # 56 bytes; one for each job that has any of these
    int64_t expires_us      # [log] when it becomes EXPIRED if it waits; 0: never
    uint64_t unique[2]      # [log] keyed hash of (owner, queue, unique key); both 0 for none
    double backoff_factor   # [log]
    uint32_t tags           # [log] index in the names, of all tags with zero bytes between them; NONE for none
    uint32_t lease_ms       # [log] of its leases; 0: not set
    uint32_t backoff_base_ms    # [log] 0: not set
    uint32_t backoff_cap_ms     # [log]
    uint32_t expiry_pos     # [memory] its position in the heap by expiry; NONE: not in it

cdef struct Closing:        # 24 bytes; a chain of at most CLOSINGS_KEPT a job, newest first
    uint64_t digest         # [log] of outcome, result and error: a repeated ack gets the same answer
    uint32_t lease_no       # [log]
    uint32_t next           # [memory]
    uint8_t outcome         # [log]

cdef enum:
    SIZES_EACH = 6

cdef struct Sizes:          # 32 bytes; sizes of the kept records of a history of two and more: a chain, newest first
    uint32_t next           # the older ones; NONE at the end
    uint8_t first           # of `bytes`, those from first up to end are in use, the newest last
    uint8_t end
    uint32_t bytes[SIZES_EACH]  # of each record; the highest bit says that it is of an attempt

cdef enum:
    CLOSINGS_KEPT = 4
    ATTEMPTS_KEPT = 20      # of a job's history, at most,
    EVENTS_KEPT = 50        # attempts and changes together,
    HISTORY_BYTES_MAX = 65536   # and their records
