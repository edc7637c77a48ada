# The types of records, and their fields.
# All values are little-endian, without padding. A record is a head, a fixed part, optional fields in the order of their
# flags (a name is one length byte and its bytes), and a body up to `bytes`. docs/log-format.md has every detail.
# Each record has a check of its own, also in a GROUP or JOB: whatever is read back later is checked by itself.

cdef enum RecordType:
    TRIM = 1                # at i64, oldest_frame u64, next_seq u64, epoch u64: earlier frames are not needed
    RESUME = 2              # at i64, epoch u64, next_seq u64, grace_ms u32: leases last that long, up to their length
    SUBMIT = 3              # seq u64, created i64, max_retries u16, optional fields, body: the payload's JSON text
    LEASE = 4               # seq u64, lease_no u32, attempts u16, at i64, until i64, optional fields
    CLOSE = 5               # seq u64, lease_no u32, attempts u16, outcome u8, state u8, at i64, optional; body: result
    DOCUMENT = 6            # at i64, kind u8, name; body: the document. With DROPPED: none
    EXTEND = 7              # seq u64, lease_no u32, at i64, until i64
    GROUP = 8               # body: records that all happen or none, one after the other
    JOB = 9                 # a whole job, written by the cleaner: see JobRecordFlag
    FORGET = 10             # at i64; body: the seqs (u64) of removed jobs
    CHANGE = 11             # seq u64, what u8, state u8, attempts u16, at i64, optional fields
    PROGRESS = 12           # seq u64, lease_no u32, at i64, percent u8; body: a note, UTF-8
    REMEMBER = 13           # at i64, key 2 x u64, body_digest u64; body: (seq u64, value i64, how u8) of each answer.
                            #   how 0 to 3: a job, value is its created_us; 4: an extend, value is the deadline
    FORGET_KEYS = 14        # at i64, through i64: idempotency keys used then or before are forgotten
    RECORD_TYPE_LAST = 14

cdef enum:
    RECORD_VERSION = 1
    SUBMIT_RECORD_BYTES = 640  # an upper bound of a SUBMIT record without payload and options
    CLOSE_RECORD_BYTES = 480   # an upper bound of a CLOSE record without result and error text
    OPTIONS_RECORD_BYTES = 128 # what options of fixed length add to a SUBMIT record, and a REMEMBER of one job
    CHANGE_RECORD_BYTES = 320  # an upper bound of a CHANGE record
    EXPIRED_RECORD_BYTES = 64  # an upper bound of one that makes a job EXPIRED
    TAGS_BYTES_MAX = 1024      # of a job's tags with a byte between them
    SMALL_RECORD_BYTES = 1200  # an upper bound of any other record about one job
    ERROR_BYTES_MAX = 2048     # of an error's text; the rest is cut
    RECORD_HEAD_BYTES = 12  # type u8, version u8, flags u16, bytes u32 (head included), check u32: see `check_of`
    RECORD_CHECK_AT = 8     # the check's offset
    FRAME_HEAD_BYTES = 64   # in front of each batch; the log fills it in

cdef enum How:             # how a submit was answered; also in REMEMBER records
    CREATED = 0
    DUPLICATE = 1
    REPLACED = 2
    REPEATED = 3
    EXTENDED = 4            # only in REMEMBER: an extend

cdef enum SubmitFlag:
    SUBMIT_RUN_AT = 1       # i64
    SUBMIT_PRIORITY = 2     # i32
    SUBMIT_QUEUE = 4        # name; left out: `default`
    SUBMIT_OWNER = 8        # name
    SUBMIT_KEY_ID = 16      # name: the key of the request
    SUBMIT_GROUP = 32       # name
    SUBMIT_UNIQUE_KEY = 64  # name
    SUBMIT_IDEMPOTENCY_KEY = 128  # name, u64: digest of the request
    SUBMIT_LEASE_MS = 256   # u32
    SUBMIT_TRACE = 512      # name: traceparent
    SUBMIT_EXPIRES = 1024   # i64
    SUBMIT_BACKOFF = 2048   # base u32, factor f64, cap u32, milliseconds
    SUBMIT_TAGS = 4096      # u16 length, the tags with zero bytes between them
    SUBMIT_EDITED = 8192    # no field: the job exists; these are its values from now on
    SUBMIT_LOST = 16384     # 2 x u64, the hash of its unique key (0: none); the cleaner could not read the payload
    SUBMIT_KNOWN = 32767

cdef enum LeaseFlag:
    LEASE_LEGACY = 1        # no field
    LEASE_WORKER = 2        # name
    LEASE_KEY_ID = 4        # name
    LEASE_REQUEST_ID = 8    # name
    LEASE_KNOWN = 15

cdef enum CloseFlag:
    CLOSE_RUN_AT = 1        # i64: the job runs again, not before this time
    CLOSE_ERROR = 2         # u16 length, text
    CLOSE_BY_CLIENT = 4     # no field: a client closed it and may repeat the ack
    CLOSE_KEY_ID = 8        # name
    CLOSE_RESULT = 16       # no field: the body is a result
    CLOSE_LEASED = 32       # i64, name: the attempt's begin and worker; not with UNDELIVERED
    CLOSE_PREVIOUS = 64     # 12 bytes: the Place of the record before it in the job's history
    CLOSE_ERROR_CODE = 128  # name
    CLOSE_LOST = 256        # no field: the cleaner could not read the result and the error
    CLOSE_KNOWN = 511

cdef enum ChangeFlag:
    CHANGE_RUN_AT = 1       # i64
    CHANGE_KEY_ID = 2       # name
    CHANGE_PREVIOUS = 4     # as in CLOSE
    CHANGE_KNOWN = 7

# JOB: seq u64, state u8, attempts u16, run_at i64, flags u8 (JobFlags), [run], [progress], its SUBMIT record unchanged,
# [its LEASE record], the records of its history, newest first, and last the newest CLOSE record unless it is among them
cdef enum JobRecordFlag:
    JOB_RUN = 1             # lease_no u32, lease_ms u32, leased i64, until i64, ended i64, legacy u8, outcome u8,
                            #   expiries u8, closings u8, and for each, newest first: lease_no u32, outcome u8,
                            #   digest u64
    JOB_LEASE = 2           # the last LEASE record is included
    JOB_PROGRESS = 4        # at i64, percent u8, note as a name
    JOB_KEY = 8                 # no field: the idempotency key of its SUBMIT record is remembered
    JOB_KNOWN = 15

cdef enum RememberFlag:
    REMEMBER_TRANSACTION = 1    # no field: a transaction's answer; else one job's
    REMEMBER_KNOWN = 1

cdef enum DocumentFlag:
    DOCUMENT_DROPPED = 1    # no field
    DOCUMENT_KEY_ID = 2     # name
    DOCUMENT_KNOWN = 3

cdef struct SipKey:
    uint64_t k0
    uint64_t k1


cdef struct Reader:         # over the bytes of one record; `short` is set by a read past its end
    const char* p
    const char* end
    bint short


cdef struct Name:           # of optional fields: text in the record itself, or in a bytes object that outlives it
    const char* p
    uint8_t n


cdef struct SubmitFields:
    uint64_t seq
    int64_t created_us
    int64_t run_at_us
    int64_t expires_us
    uint64_t body_digest
    uint64_t lost_unique[2] # with SUBMIT_LOST
    double backoff_factor
    uint32_t backoff_base_ms
    uint32_t backoff_cap_ms
    uint32_t lease_ms
    int32_t priority
    uint16_t max_retries
    uint16_t tags_bytes
    const char* tags        # with zero bytes between them
    Name queue
    Name owner
    Name key_id
    Name group
    Name unique_key
    Name idempotency_key
    Name trace


cdef struct LeaseFields:
    uint32_t lease_no
    uint16_t attempts
    int64_t at_us
    int64_t until_us
    Name worker
    Name key_id
    Name request_id


cdef struct CloseFields:
    uint32_t lease_no
    uint16_t attempts
    uint8_t outcome
    uint8_t state
    int64_t at_us
    int64_t run_at_us
    int64_t leased_us
    const char* error
    uint16_t error_bytes
    Name key_id
    Name worker
    Name error_code
    Place previous


cdef struct ChangeFields:
    uint8_t what
    uint8_t state
    uint16_t attempts
    int64_t at_us
    int64_t run_at_us
    Name key_id
    Place previous
