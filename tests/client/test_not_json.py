"""Values that JSON cannot carry are refused before anything is sent, and the error names the place."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import math
from typing import Any

import msgspec
import numpy
import pydantic
import pytest

from fastq import Ack, Cron, NewJob, NotJSON, Success
from fastq.client.codec import CODEC
from tests.client.served import Place, Starts, outcome


class Ratio(float, enum.Enum):
    NONE = math.nan


@dataclasses.dataclass
class Point:
    x: float = 0.0
    any: Any = None
    price: decimal.Decimal = decimal.Decimal(0)
    seen: set[int] = dataclasses.field(default_factory=set)


class Struct(msgspec.Struct):
    x: float = 0.0


class Model(pydantic.BaseModel):
    x: float = 0.0
    data: bytes = b""
    any: Any = None
    inner: Model | None = None


def loop() -> Any:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    return value


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


MISFITS = {
    "nan": (math.nan, "", "nan has no JSON form"),
    "nan in a list": ({"a": [0, 1, 2, math.nan]}, '["a"][3]', "nan has no JSON form"),
    "infinity": ([1, {"b": -math.inf}], '[1]["b"]', "-inf has no JSON form"),
    "nan of a float enum": ([Ratio.NONE], "[0]", "nan"),
    "nan of an enum": ([enum.Enum("Ratio", {"NONE": math.nan}).NONE], "[0]", "nan"),
    "nan of numpy": ({"a": numpy.float64("nan")}, '["a"]', "nan has no JSON form"),
    "a number of numpy": ({"a": numpy.float32(1)}, '["a"]', "float32 has no JSON form"),
    "an array of numpy": (numpy.zeros(2), "", "ndarray has no JSON form"),
    "Decimal NaN": ({"a": decimal.Decimal("NaN")}, '["a"]', "nan has no JSON form"),
    "nan in a dataclass": ({"p": Point(x=math.nan)}, '["p"].x', "nan has no JSON form"),
    "Decimal in a dataclass": (Point(price=decimal.Decimal("Infinity")), ".price", "infinity has no JSON form"),
    "nan in a dict of a dataclass": (Point(any={"k": math.nan}), '.any["k"]', "nan has no JSON form"),
    "nan in a Struct": ([Struct(math.inf)], "[0].x", "inf has no JSON form"),
    "nan in a model": (Model(inner=Model(x=math.nan)), ".inner.x", "nan has no JSON form"),
    "bytes of a model": (Model(data=b"\xff"), ".data", "has no JSON form"),
    "bytes of a nested model": ({"m": [Model(inner=Model(data=b"\xff"))]}, '["m"][0].inner.data', "has no JSON form"),
    "a loop": (loop(), '["a"][0]', "contains itself"),
    "too deep": (nested(64), "[0]" * 63, "nested too deep"),
    "far too deep": (nested(100_000), "[0]" * 63, "nested too deep"),
    "a lone surrogate": (["caf\udce9"], "[0]", "character 3 is a lone surrogate"),
    "a lone surrogate in a key": ({"\udce9": 1}, r"['\udce9']", "lone surrogate"),
    "a key that is a number": ({"a": {1: 2}}, '["a"]', "the key 1 is not text"),
    "a key that is None": ({None: 2}, "", "the key None is not text"),
    "a key that is a tuple": ({(1, 2): 2}, "", "is not text"),
    "a key in a dataclass": (Point(any={1: 2}), ".any", "does not come back"),
    "a large integer": ({"n": 2**64}, '["n"]', "more than 64 bits"),
    "a small integer": ({"n": -(2**63) - 1}, '["n"]', "more than 64 bits"),
    "a set": ({"s": {1}}, '["s"]', "a set has no JSON form"),
    "an empty frozenset": ([frozenset()], "[0]", "a set has no JSON form"),
    "a set in a dataclass": (Point(any={1}), ".any", "does not come back"),
    "an object": ({"o": object()}, '["o"]', "object has no JSON form"),
    "a class": ([Point], "[0]", "type has no JSON form"),
    "a generator": ((x for x in [1]), "", "generator has no JSON form"),
    "a complex number": (1j, "", "complex has no JSON form"),
    "text with NaN": (msgspec.Raw(b'{"a":[NaN]}'), "", "not JSON: JSON is malformed"),
    "text that is not JSON": ({"r": msgspec.Raw(b"{")}, '["r"]', "not JSON"),
    "too large": ("x" * (1 << 20), "", "1,048,578 bytes of JSON text, and 1,048,576 are allowed"),
}


def shown(place: str) -> str:
    return place if len(place) <= 200 else place[:200] + "…"


@pytest.mark.parametrize("kind", MISFITS)
def test_a_value_that_json_cannot_carry(kind: str) -> None:
    value, place, why = MISFITS[kind]
    with pytest.raises(NotJSON) as refused:
        CODEC.encode(value)
    assert refused.value.place == place
    assert why in str(refused.value)
    assert isinstance(refused.value, ValueError)
    assert isinstance(refused.value, TypeError)


FINE = {
    "deep": nested(63), "tuples": {"a": (1, 2)}, "None": [None, {"a": None}], "large": 2**64 - 1, "small": -(2**63),
    "bytes": b"\xff", "a set of a dataclass": Point(seen={1, 2}), "many": [{"n": [n]} for n in range(200)],
    "digits": "1" * 30, "an int enum": {"e": enum.IntEnum("Level", "LOW").LOW}, "the largest": "x" * ((1 << 20) - 2),
    "a time in a dict": {"at": __import__("datetime").datetime(2026, 1, 1)},
}  # fmt: skip


@pytest.mark.parametrize("kind", FINE)
def test_a_value_that_json_can_carry(kind: str) -> None:
    assert CODEC.encode(FINE[kind]) == msgspec.json.encode(FINE[kind])


def test_the_server_takes_what_the_codec_takes(both: Any, queue: str) -> None:
    for value in (nested(63), 2**64 - 1, -(2**63), "x" * ((1 << 20) - 2), "é\u2028\0"):
        assert both.get(both.submit(value, queue=queue).job_id, with_payload=True).payload == value
        (job,) = both.lease([queue])
        both.ack(job, value)
        assert both.get(job.job_id).result == value


NAN = {"a": [0, 1, 2, math.nan]}


def test_every_way_in_names_the_place(both: Any, queue: str) -> None:
    (job,) = [both.submit("x", queue=queue), *both.lease([queue])][1:]
    bad = NewJob(payload=NAN, queue=queue)
    good = NewJob(payload=1, queue=queue)
    ways = {
        'payload["a"][3]': [
            lambda: both.submit(NAN, queue=queue),
            lambda: both.submit_and_wait(NAN, queue=queue),
            lambda: both.put_schedule("never", Cron("0 0 1 1 *"), NAN),
            lambda: both.edit(job.job_id, payload=NAN),
        ],
        'jobs[1].payload["a"][3]': [lambda: both.submit_many([good, bad])],
        'ops[1].payload["a"][3]': [lambda: both.transaction([Ack.ok(job), bad])],
        'ops[0].result["a"][3]': [lambda: both.transaction([Ack.ok(job, NAN)])],
        'result["a"][3]': [lambda: both.ack(job, NAN)],
        'acks[1].result["a"][3]': [lambda: both.ack_many([Ack.ok(job), Ack.error(job, "e", result=NAN)])],
        "note": [lambda: both.progress(job, 50, "\udce9")],
        "jobs[1].tags[1]": [lambda: both.submit_many([good, NewJob(payload=1, tags=["a", "\udce9"])])],
        "group": [lambda: both.submit(1, group="\udce9")],
        "result_error": [lambda: both.fail(job, "caf\udce9")],
    }
    for place, calls in ways.items():
        for call in calls:
            with pytest.raises(NotJSON) as refused:
                call()
            assert refused.value.place == place
    assert both.get(job.job_id).state == "RUNNING"
    assert [one.job_id for one in both.list_jobs(queue=queue).items] == [job.job_id]


async def test_a_result_that_json_cannot_carry_fails_the_attempt(
    place: Place, aclient: Any, at_work: Starts, queue: str
) -> None:
    results = {"nan": NAN, "loop": loop(), "then": Success("r", then=[NewJob(payload=NAN, queue=queue)])}
    async with at_work(lambda job: results[job.payload]):
        for name, where in (("nan", 'result["a"][3]'), ("loop", 'result["a"][0]'), ("then", 'payload["a"][3]')):
            done = await outcome(aclient, queue, name, max_retries=1)
            assert (done.state, done.result) == ("DEAD", None)
            assert where in done.error
