"""The engine owns the core, builds its parts, and calls them in a fixed order before each commit and on each tick.

Commands and reads are plain functions. An answer may show any frame up to `commits.shown_seq`, also one that is not
durable yet: the connection holds the answer back until that frame is durable. A call that waits for something else is
a coroutine: it reads a payload from the disk, or waits for a job to lease, a job's end, or the cleaner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from fastq import _core
from fastq.clock import Clock
from fastq.engine.acks import Acks
from fastq.engine.admission import Admission
from fastq.engine.changes import Changes
from fastq.engine.cleaner import Cleaner
from fastq.engine.commits import Commits
from fastq.engine.documents import Documents
from fastq.engine.expiry import Expiry
from fastq.engine.feed import Feed
from fastq.engine.history import History
from fastq.engine.leases import Leases
from fastq.engine.options import EngineOptions
from fastq.engine.reads import Reads
from fastq.engine.records import Records
from fastq.engine.results import LogUse
from fastq.engine.retention import Retention
from fastq.engine.search import Search
from fastq.engine.submits import Submits
from fastq.engine.timer import Timer
from fastq.engine.transactions import Transactions
from fastq.engine.turns import Turns
from fastq.log.protocol import Backup, Log, Opened


class Engine:
    """Use it from the event loop's thread only."""

    def __init__(self, core: _core.Core, log: Log, options: EngineOptions, jitter: Callable[[], float]) -> None:
        """
        Args:
            core: over the log's tail. Only the engine and the hot lane change it.
            jitter: draws from [0, 1); a retry waits this share of its upper bound.
        """
        self.options = options
        self.tail = log.tail
        self._core, self._log = core, log
        self._clock: Clock
        self._opened: Opened
        self._on_failed: Callable[[BaseException], None]
        self._cleaning: asyncio.Task[None] | None = None
        self.turns = Turns()
        self._is_idle = False
        self._other_waits: list[Callable[[Collection[str] | None], None]] = []
        self._build_parts(jitter)
        self._bind_operations()

    def _build_parts(self, jitter: Callable[[], float]) -> None:
        """Build each part from the others that it needs."""
        core, log, options, now_us = self._core, self._log, self.options, self.now_us
        self.commits = commits = Commits(log, self._before_commit, self._failed)
        self.cleaner = Cleaner(core, log, commits, now_us, options.log_slack_bytes)
        self.admission = admission = Admission(log, commits, self.cleaner)
        self._timer = Timer(self._tick, options.lease_check_ms)
        self._expiry = Expiry(core, commits, jitter)
        self._retention = Retention(core, commits, options)
        records = Records(core, commits, now_us)
        self._submits = Submits(core, commits, records, admission, now_us, options.max_retries)
        self._search = Search(records)
        self._leases = Leases(core, commits, records, admission, now_us, self._watch_timer)
        self._acks = Acks(core, commits, now_us, jitter)
        self._changes = Changes(core, commits, admission, now_us)
        self._transactions = Transactions(core, commits, admission, self._submits, self._acks, now_us)
        self._documents = Documents(core, commits, self._submits, now_us)
        self._reads = Reads(core, commits, self._search, admission, self._leases, now_us)
        self._history = History(core, commits, now_us)
        self.feed = Feed(core, commits)

    def _bind_operations(self) -> None:
        """Expose each part's operations as the engine's own."""
        self.submit, self.submit_many = self._submits.submit, self._submits.submit_many
        self.copy_of = self._submits.copy_of
        self.lease, self.deliver, self.take_back = self._leases.lease, self._leases.deliver, self._leases.take_back
        self.note_asked, self.last_seen = self._leases.note_asked, self._leases.last_seen
        self.serve_waiters = self._leases.serve_waiters
        self.ack, self.ack_many, self.extend = self._acks.ack, self._acks.ack_many, self._acks.extend
        self.report = self._acks.report
        self.cancel, self.redrive = self._changes.cancel, self._changes.redrive
        self.edit, self.delete = self._changes.edit, self._changes.delete
        self.transact = self._transactions.transact
        self.documents, self.put_document = self._documents.all_of, self._documents.put
        self.group = self._documents.group
        self.job, self.job_at_end, self.view = self._reads.job, self._reads.job_at_end, self._reads.view
        self.pages, self.views = self._reads.pages, self._reads.views
        self.looked_until_us = self._reads.looked_until_us
        self.rising, self.running = self._reads.rising, self._reads.running
        self.matching = self._search.matching
        self.why, self.history = self._reads.why, self._history.history
        self.held_back = self._reads.held_back
        commits = self.commits
        self.durable = commits.durable
        self.caught_up, self.log_caught_up = self.admission.caught_up, commits.caught_up
        self.counts, self.queues_in = self._core.counts, self._core.queues_in
        self.traffic, self.latencies = self._core.traffic, self._core.latencies
        self.active_queues, self.worst_queues = self._core.active_queues, self._core.worst_queues
        self.holdings = self._core.holdings
        self.failures, self.add_failures = self._core.failures, self._core.add_failures

    # --- start and stop -----------------------------------------------------------------------------------------------

    def open(self) -> Opened:
        """Recover the log. Blocking; the event loop need not run yet. Raises what `Log.open` raises."""
        self._opened = self._log.open(self._core)
        self._core.fence(self._opened.fence)
        return self._opened

    async def start(self, clock: Clock, on_failed: Callable[[BaseException], None], *, is_idle: bool = False) -> None:
        """Log that the server serves again; return when that record is durable.

        Args:
            on_failed: called once if a write or sync fails. No answer leaves after that; the process must end.
            is_idle: append nothing but what commands append, for tools on the log of a stopped server. Nothing is
                removed, expires, becomes due or is cleaned, and leases stay as they are.
        """
        self._clock, self._on_failed, self._is_idle = clock, on_failed, is_idle
        self.commits.start()
        if is_idle:
            return
        self._core.resume(clock.now_us(), self._opened.epoch)
        await self.commits.durable()
        if self._core.oldest_frame > self._log.oldest_frame:  # a crash came after TRIM and before the files went
            self._log.drop_before(self._core.oldest_frame)
        self._cleaning = asyncio.get_running_loop().create_task(self.cleaner.run())
        self._cleaning.add_done_callback(self._cleaner_ended)
        self._tick()

    async def stop(self) -> None:
        """Refuse new work, commit what was appended, close the log."""
        self.drain()
        self._timer.stop()
        if self._cleaning is not None:
            self._cleaning.cancel()
        if self.failed is None:
            await self.commits.durable()
            await self._log.close()

    def drain(self) -> None:
        """Refuse new work, and answer requests that wait for a job or a job's end at once."""
        self.admission.draining = True
        self.end_waits(None)
        self.feed.end()

    def end_waits(self, key_ids: Collection[str] | None) -> None:
        """Answer the requests of these keys that wait for a job or a job's end now; None: those of all keys."""
        self._leases.waiters.end_of(key_ids)
        self._reads.end_waiters.end_of(key_ids)
        for end_of in self._other_waits:
            end_of(key_ids)

    def watch_waits(self, end_of: Callable[[Collection[str] | None], None]) -> None:
        """Call `end_of` whenever waits end, for requests that wait elsewhere."""
        self._other_waits.append(end_of)

    def _failed(self, error: BaseException) -> None:
        self._on_failed(error)

    def _cleaner_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.commits.fail(error)

    # --- before a commit, and on a tick -------------------------------------------------------------------------------

    def _before_commit(self) -> None:
        """Let each part append its records to the frame that closes now. No property is read here: they are slow."""
        if self._is_idle:
            return
        self._leases.waiters.serve()
        self._retention.forget(self._clock.now_us())
        self.cleaner.wake_if_due()
        self._watch_timer()
        self._reads.end_waiters.wake_ended()

    def _tick(self) -> None:
        """Do what is due, a slice of it. If more is due, the timer fires again in the next turn of the loop."""
        now_us = self._clock.now_us()
        self._leases.waiters.offer_by_rate(now_us)
        more_due = self._expiry.admit_due(now_us)
        has_room = self._expiry.expire(now_us)
        self.commits.kick_soon()
        if more_due:
            self._timer.set(now_us, now_us)
        else:  # without room, expiry is tried again after the check interval
            self._timer.set(self._due_us() if has_room else self._timer.latest_us(now_us), now_us)

    @property
    def due_us(self) -> int:
        """When the next lease, job or rate limit is due, Unix microseconds."""
        return self._due_us()

    def _due_us(self) -> int:
        return min(self._core.next_due_us(), self._leases.waiters.next_due_us)

    def _watch_timer(self) -> None:
        self._timer.set_earlier(self._due_us(), self.now_us)

    def run_due(self) -> None:
        """Do what is due now. Call it after moving a simulated clock: the loop's timers do not notice that."""
        self._tick()

    # --- state --------------------------------------------------------------------------------------------------------

    def now_us(self) -> int:
        return self._clock.now_us()

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def failures_dropped(self) -> int:
        """Groups of failures that are no longer kept."""
        return self._core.failures_dropped

    @property
    def sync_durations(self) -> tuple[tuple[int, ...], int] | None:
        """How long the log's syncs took: see `Log.sync_durations`."""
        return self._log.sync_durations

    @property
    def queue_places(self) -> int:
        """All queues are in places below it: see `Core.queues_in`."""
        return self._core.queue_places

    @property
    def queue_count(self) -> int:
        """How many queues there are: those with jobs or settings."""
        return self._core.queue_count

    @property
    def holding_places(self) -> int:
        """The jobs of owners are counted in places below it: see `Core.holdings`."""
        return self._core.holding_places

    @property
    def log_bytes(self) -> int:
        """The space that the log's frames take."""
        return self._log.used_bytes

    @property
    def draining(self) -> bool:
        return self.admission.draining

    @property
    def failed(self) -> BaseException | None:
        return self.commits.failed

    @property
    def disk_full(self) -> bool:
        return self._log.disk_full

    @property
    def log_use(self) -> LogUse:
        log, cleaner = self._log, self.cleaner
        live_bytes = self._core.live_bytes
        return LogUse(log.used_bytes, live_bytes, cleaner.bound_bytes, log.parts + 1, cleaner.freed_parts)

    @property
    def record_bytes_max(self) -> int:
        """The size of the largest record that fits a segment."""
        return self.tail.record_bytes_max

    @property
    def database_id(self) -> bytes:
        return self._core.database_id

    @property
    def next_number(self) -> int:
        """The number of the next new job."""
        return self._core.next_number

    @property
    def last_us(self) -> int:
        """The latest time in a record of the log, Unix microseconds; 0 for an empty log."""
        return self._core.last_us

    @property
    def skipped_records(self) -> int:
        """How many records the replay skipped because their job does not exist."""
        return self._core.skipped()

    def queue(self, access: _core.Access, name: str) -> _core.QueueView:
        """A queue as it is now: see `Core.queue`."""
        return self._core.queue(self.now_us(), access, name)

    def configure_queue(self, name: str, settings: _core.QueueSettings | None, now_us: int) -> None:
        """Apply settings to a queue from now on; None restores the defaults. Logs nothing."""
        self._core.configure_queue(now_us, name, settings)

    def backup(self) -> Backup:
        """Begin a copy of everything that was answered so far. Raises Draining, BackupRefused."""
        self.admission.need_serving()
        return self._log.backup()
