"""Lives of a core on a log in files: every command runs on the model too, with crashes between lives.

The model of each frame goes into the trace and into a file beside the log, from which the next life continues.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastq._core import Core, CoreSettings, RecordPlace
from fastq.log.files.log import LocalLog
from tests.core.actions import (
    COMMANDS,
    PAYLOADS,
    QUEUES,
    SERVERS,
    Action,
    Draw,
    RandomDraw,
    extend,
    report,
    some_job,
    transact,
)
from tests.core.agreement import agree
from tests.core.disk import Frame
from tests.core.model import Model, Server
from tests.core.model_jobs import New
from tests.core.model_order import Settings
from tests.core.world import START_US, World
from tests.log.files.life import TracedLog, note

# align, small_segment_bytes and segment_bytes, which lives may change: segments of the last two grow during a life
SHAPES = [
    (512, 48 << 10, 48 << 10), (4096, 64 << 10, 64 << 10),
    (512, 24 << 10, 96 << 10), (4096, 40 << 10, 80 << 10),
]  # fmt: skip
CACHES_BYTES = [0, 8 << 10]
STEPS = 60  # of a life, at most
ROOM_BYTES = 16 << 10  # an upper bound of what one step appends
UNSYNCED_BYTES_MAX = 6 << 10  # before a step, so that its records stay in one frame


def again_and_again(world: World, draw: Draw) -> None:
    """Several changes of one job that are written together."""
    if job := some_job(world, draw, lambda job: job.waits):
        for priority in range(draw.pick([2, 3, 5])):
            world.edit(job.job_id, priority=priority)


def replace(world: World, draw: Draw) -> None:
    """Several submits with one unique key as one record."""
    new = New(payload=draw.pick(PAYLOADS), unique_key="u3", replace=True)
    world.submit([new] * draw.pick([2, 4]))


def fire(world: World, draw: Draw) -> None:
    """Write a job and a document as one record, as a schedule does with its job and state."""
    new, body = New(payload=draw.pick(PAYLOADS), queue="mail"), draw.pick(PAYLOADS)
    world.in_group([lambda: world.submit([new]), lambda: world.put_document("a", body)])


def work(world: World, draw: Draw) -> None:
    """Report and extend a running job, as its worker does."""
    world.lease([*QUEUES], 1, 60_000)
    for action in (extend, report, transact):
        action(world, draw)


MORE: list[tuple[int, Action]] = [
    (8, work),
    (1, fire),
    (3, again_and_again),
    (2, replace),
    (4, lambda world, draw: world.clean_oldest(draw.pick(["move", "trim", "drop", "drop", "drop"]))),
]
WEIGHED = [action for weight, action in [*COMMANDS, *MORE] for _ in range(weight)]


@dataclass(frozen=True)
class Saved:
    """The expected state after a frame."""

    model: Model
    settings: dict[str, Settings]  # of queues
    now_us: int
    state_hash: int

    @classmethod
    def new(cls) -> Saved:
        """The expected state before the first frame."""
        return cls(Model(Server()), {}, START_US, 0)


def saved_path(directory: Path, seq: int) -> Path:
    """The file with the expected state after frame `seq`, for lives on the log in `directory`."""
    return directory.with_name(f"{directory.name}-models") / str(seq)


def save(directory: Path, seq: int, data: bytes) -> None:
    path = saved_path(directory, seq)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def load(directory: Path, seq: int) -> Saved:
    if seq == 0:
        return Saved.new()
    saved: Saved = pickle.loads(saved_path(directory, seq).read_bytes())
    return saved


class FiledWorld(World):
    """A world whose log is in files. `load`: the expected state after a frame; `keep`: called with each new one."""

    def __init__(
        self, log: LocalLog, server: Server, load: Callable[[int], Saved], keep: Callable[[int, Saved], None]
    ) -> None:
        self.log, self._load, self._keep = log, load, keep
        self._loop = asyncio.new_event_loop()
        self._turn = asyncio.Event()
        self._failure: BaseException | None = None
        self.kept_seq = 0  # the last frame with a kept state
        self._kept_model = Model(server)  # as of that frame
        super().__init__(server)

    # --- opening and closing ----------------------------------------------------------------------------------------

    def open(self, now_us: int, epoch: int, settings: CoreSettings) -> None:
        self.tail = self.log.tail
        self.core = Core(self.tail, settings)
        opened = self.log.open(self)
        self.seq = self.tail.durable_seq
        saved = self._load(self.seq)
        self.now_us, self.settings = saved.now_us, dict(saved.settings)
        self.model = saved.model.copy()
        self.durable_model, self.durable_model_seq = saved.model, self.seq
        if self.seq:
            assert self.core.state_hash() == saved.state_hash, "an opening does not find what the last life left"
        self._loop.run_until_complete(self._begin())
        self.core.resume(self.now_us, opened.epoch)

    def identify(self, database_id: bytes) -> None:
        self.core.identify(database_id)

    def replay(self, records: memoryview, frame: int) -> int:
        return self.core.replay(records, frame)

    @property
    def oldest_frame(self) -> int:
        return self.core.oldest_frame

    async def _begin(self) -> None:
        self.log.start(self._durable, self._failed)

    def close(self) -> None:
        """End in order."""
        self.sync()
        self._loop.run_until_complete(self.log.close())
        self._loop.close()

    def abandon(self) -> None:
        """Release the log without a closing frame, as after a kill."""
        self.sync()
        self.log._opened_seq = self.log._durable_seq
        self._loop.run_until_complete(self.log.close())
        self._loop.close()

    # --- commits ----------------------------------------------------------------------------------------------------

    def _durable(self, seq: int) -> None:
        self.tail.durable(seq)
        self.seq = seq
        if seq == self.kept_seq:
            self.durable_model, self.durable_model_seq = self._kept_model, seq
        self.kick()
        self._turn.set()

    def _failed(self, error: BaseException) -> None:
        self._failure = error
        self._turn.set()

    def kick(self) -> None:
        """Commit the open batch, if nothing is in flight. Keeps the expected state first."""
        if self.log.idle and (batch := self.tail.take()) is not None:
            if batch.seq == self.tail.appended_seq:
                held = Saved(self.model, self.settings, self.now_us, self.core.state_hash())
                self._keep(batch.seq, held)
                self.kept_seq, self._kept_model = batch.seq, self.model.copy()
            self.log.commit(batch)

    def sync(self) -> None:
        self.kick()
        while self.tail.durable_seq < self.tail.appended_seq:
            self._run(self._turn.wait)
            self._turn.clear()
            if self._failure is not None:
                raise self._failure

    def offer(self) -> None:
        """Wait until a step has room, in the batch and in the log."""
        if self.tail.unsynced_bytes > UNSYNCED_BYTES_MAX:
            self.sync()
        while not self.tail.has_room(ROOM_BYTES, 0):
            self._run(lambda: asyncio.sleep(0))

    def turn(self) -> None:
        """Run the loop once, so that the log reports its progress."""
        self.kick()
        self._run(lambda: asyncio.sleep(0))

    def _run(self, what: Callable[[], object]) -> None:
        self._loop.run_until_complete(what())  # type: ignore[arg-type]

    def record(self, place: RecordPlace) -> bytes:
        if (cached := self.tail.cached(place)) is not None:
            return cached
        return self.log._spans.read(
            self.log._index.span(place)
        )  # at once: a commit that ended meanwhile would look like a trace

    # --- parts ------------------------------------------------------------------------------------------------------

    def oldest_part(self) -> tuple[list[Frame], int] | None:
        self.log.drop_before(self.core.oldest_frame)  # what was only said not to be needed
        if not self.log.parts:
            return None
        part = self.log.oldest_part()

        async def read() -> list[Frame]:
            return [Frame(seq, 0, bytes(records)) async for seq, records in self.log.frames(part)]

        return self._loop.run_until_complete(read()), part.next

    def drop_before(self, frame: int) -> None:
        self.log.drop_before(frame)

    def clean_all(self) -> None:
        """Clean until every present part is dropped."""
        self.sync()
        last = self.seq
        while self.core.oldest_frame <= last and self.clean(self.now_us, "drop"):
            pass


# --- a life -----------------------------------------------------------------------------------------------------------


def drawn_log(directory: Path, rng: random.Random, kind: type[LocalLog] = LocalLog) -> LocalLog:
    align, small_segment_bytes, segment_bytes = rng.choice(SHAPES)
    return kind(
        directory, segment_bytes=segment_bytes, small_segment_bytes=small_segment_bytes, align=align,
        cache_bytes=rng.choice(CACHES_BYTES), zero_cleaned=rng.random() < 0.5,
    )  # fmt: skip


def live_a_walk(directory: Path, rng: random.Random, close: bool) -> None:
    """Open, do some steps, and close; or stop dead, most often with a batch in flight."""

    def keep(seq: int, held: Saved) -> None:
        data = pickle.dumps(held)
        note(struct.pack("<cQ", b"M", seq) + data)
        save(directory, seq, data)

    world = FiledWorld(
        drawn_log(directory, rng, TracedLog), rng.choice(SERVERS), lambda seq: load(directory, seq), keep
    )
    draw = RandomDraw(rng)
    for step in range(rng.randrange(STEPS)):
        world.offer()
        rng.choice(WEIGHED)(world, draw)
        if step % 16 == 0:
            agree(world, step // 16)
        if (chance := rng.random()) < 0.1:
            world.sync()
        elif chance < 0.3:
            world.turn()
    if close:
        world.close()
        return
    world.sync()
    for _ in range(rng.randrange(12)):
        world.offer()
        rng.choice(WEIGHED)(world, draw)
    world.kick()
    if world.kept_seq < world.tail.appended_seq:
        world.sync()  # what one step appended is in two frames: no life can go on from between them
    os._exit(0)
