"""The core against the model: after random commands, crashes and restarts both must be in the same state.

Each walk is 400 steps long: FASTQ_MODEL_WALKS=2500 makes a million.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.core.actions import ACTIONS, SERVERS, RandomDraw
from tests.core.agreement import agree, agree_on_the_timer
from tests.core.model import Server
from tests.core.world import World

STEPS = int(os.environ.get("FASTQ_MODEL_STEPS", "60"))
EXAMPLES = int(os.environ.get("FASTQ_MODEL_EXAMPLES", "150"))
WALKS = int(os.environ.get("FASTQ_MODEL_WALKS", "100"))
FIRST_WALK = int(os.environ.get("FASTQ_MODEL_FIRST_WALK", "0"))
WALK_STEPS = 400

T = TypeVar("T")
WEIGHED = [action for weight, action in ACTIONS for _ in range(weight)]


class DrawnByHypothesis:
    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def pick(self, choices: Sequence[T]) -> T:
        return self.data.draw(st.sampled_from(choices))


class CoreAgainstModel(RuleBasedStateMachine):
    """Hypothesis chooses, and shrinks what fails."""

    world: World
    steps = 0

    @initialize(server=st.sampled_from(SERVERS))
    def begin(self, server: Server) -> None:
        self.world = World(server)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self.steps += 1
        draw = DrawnByHypothesis(data)
        draw.pick(WEIGHED)(self.world, draw)

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "world"):
            agree(self.world, self.steps)
            agree_on_the_timer(self.world)


CoreAgainstModel.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_core_against_model = CoreAgainstModel.TestCase


def walk(seed: int) -> None:
    """One long walk with weights that take jobs from submit to removal, which Hypothesis rarely finds."""
    rng = random.Random(seed)
    draw = RandomDraw(rng)
    world = World(draw.pick(SERVERS))
    for step in range(WALK_STEPS):
        draw.pick(WEIGHED)(world, draw)
        if step % 8 == 0:
            agree(world, step // 8)
            agree_on_the_timer(world)


def test_core_against_model_on_long_walks() -> None:
    for seed in range(FIRST_WALK, FIRST_WALK + WALKS):
        try:
            walk(seed)
        except BaseException as failure:
            failure.add_note(f"walk({seed})")
            raise
