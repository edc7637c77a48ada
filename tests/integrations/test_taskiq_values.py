"""What JSON cannot carry of taskiq's arguments, results and errors."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

import pydantic
import pytest
from taskiq.exceptions import SendTaskError

from fastq import AsyncClient, NotJSON
from fastq.client.outcomes import text_of
from tests.client.served import Place
from tests.integrations.brokers import Make, end_of, working


async def agenerator() -> AsyncIterator[int]:
    yield 1


def circle() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


class Level(enum.IntEnum):
    LOW = 1


class Masked(pydantic.BaseModel):
    password: pydantic.SecretStr


@dataclass
class Point:
    x: int
    about: Any = None


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "nan": (lambda: float("nan"), "nan has no JSON form"),
    "deep infinity": (lambda: {"a": [float("-inf")]}, '["a"][0]: -inf has no JSON form'),
    "object": (object, "object has no JSON form"),
    "infinity as a key": (lambda: {float("inf"): 1}, "{inf: 1}"),
    "nan as a key": (lambda: [{float("nan"): 1}], "{nan: 1}"),
    "a decimal nan as a key": (lambda: {"a": {Decimal("nan"): 1}}, "{Decimal('NaN'): 1}"),
    "none as a key": (lambda: {None: 1}, "{None: 1}"),
    "a number as a key": (lambda: {1: 1}, "{1: 1}"),
    "a tuple as a key": (lambda: {(1, 2): 1}, "{(1, 2): 1}"),
    "keys that are written alike": (lambda: {1: 1, "1": 2}, "{1: 1, '1': 2}"),
    "generator": (lambda: (number for number in [1]), "generator has no JSON form"),
    "iterator": (lambda: {"a": iter([1])}, '["a"]: list_iterator has no JSON form'),
    "map": (lambda: [map(str, [1])], "[0]: map has no JSON form"),
    "a generator in a class": (lambda: Point(1, (one for one in "a")), ".about: generator has no JSON form"),
    "async generator": (agenerator, "async_generator has no JSON form"),
    "range": (lambda: range(3), "range has no JSON form"),
    "set": (lambda: {1}, "{1} does not come back as it was sent, but as [1]"),
    "secret": (lambda: Masked(password=pydantic.SecretStr("x")), "does not come back as it was sent"),
    "surrogate": (lambda: ["\udce9"], "[0]: character 0 is a lone surrogate"),
    "a surrogate in a key": (lambda: {"\udce9": 1}, "is a lone surrogate"),
    "circle": (circle, "it contains itself"),
    "long": (lambda: "x" * 2_000_000, "2,000,"),
    "long number": (lambda: 10**5000, "has more than 64 bits"),
}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_result_that_does_not_come_back_is_refused_by_name(
    broker_of: Make, aclient: AsyncClient, kind: str
) -> None:
    broker = broker_of()

    @broker.task
    def give(name: str):  # type: ignore[no-untyped-def]  # that is the case
        return REFUSED[name][0]()

    @broker.task
    async def give_async(name: str) -> Any:
        return REFUSED[name][0]()

    async with working(broker):
        sent = {name: await (give if kind == "sync" else give_async).kiq(name) for name in REFUSED}
        results = {name: await end_of(one) for name, one in sent.items()}
        jobs = {name: await aclient.get(broker.job_id_of(one.task_id)) for name, one in sent.items()}
    wrong = {
        name: (jobs[name].error, results[name])
        for name, (_, why) in REFUSED.items()
        if not (results[name].is_err and jobs[name].error.startswith("result") and why in jobs[name].error)
    }
    assert wrong == {}


async def test_a_result_comes_back_as_it_was_by_its_annotation(broker_of: Make) -> None:
    broker = broker_of()
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    values: list[tuple[Any, Any]] = [
        (dict[int, str], {1: "a"}),
        (dict[float, int], {1.5: 1, -0.0: 2}),
        (dict[Level, int], {Level.LOW: 1}),
        (dict[date, dict[UUID, int]], {at.date(): {UUID(int=1): 1}}),
        (set[int], {1, 2}),
        (tuple[int, str], (1, "a")),
        (deque[int], deque([1, 2])),
        (list[Point], [Point(1), Point(2, {"a": [1]})]),
        (bytes, b"abc"),
        (timedelta, timedelta(seconds=1.5)),
        (IPv4Address, IPv4Address("10.0.0.1")),
        (Any, {"a": [1, 1.5, True, None, "é"], "": {}}),
    ]
    tasks = []
    for number, (annotation, value) in enumerate(values):

        def give(value: Any = value) -> Any:
            return value

        give.__annotations__ = {"return": annotation}
        tasks.append(broker.register_task(give, task_name=f"give {number}"))
    async with working(broker):
        results = [await end_of(await task.kiq()) for task in tasks]
    assert [(result.error, result.return_value) for result in results] == [(None, value) for _, value in values]


async def test_an_argument_comes_back_by_its_annotation_or_is_not_sent(
    broker_of: Make, place: Place, queue: str
) -> None:
    broker = broker_of()
    seen: list[Any] = []

    @broker.task
    async def take(  # type: ignore[no-untyped-def] # one of them has no annotation
        a: dict[int, str], *rest: set[int], b: tuple[date, ...], c=None, **more: int
    ) -> None:
        seen.append((a, rest, b, c, more))

    given: tuple[Any, ...] = ({1: "a"}, ({1}, {2, 3}), (date(2026, 1, 2),), {"x": [1]}, {"d": 4})
    async with working(broker):
        a, rest, b, c, more = given
        (await end_of(await take.kiq(a, *rest, b=b, c=c, **more))).raise_for_error()
        jobs = len(place.jobs(queue=queue))
        for args, named, where in (
            (({float("inf"): "a"},), {}, "args[0]"),
            (({1: "a"}, {1}, {2: 3}), {}, "args[2]"),
            (({1: "a"}, (one for one in "a")), {}, "args[1]"),
            (({1: "a"},), {"b": (), "c": {1: 2}}, 'kwargs["c"]'),
            (({1: "a"},), {"b": (), "more": {1: 2}}, 'kwargs["more"]'),
        ):
            with pytest.raises(SendTaskError) as failed:
                await take.kiq(*args, **named)  # type: ignore[call-overload]
            assert isinstance(failed.value.__cause__, NotJSON)
            assert failed.value.__cause__.place == where
    assert seen == [given]
    assert len(place.jobs(queue=queue)) == jobs


class Odd(Exception):
    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(one, two)


def _caused() -> BaseException:
    first: BaseException = ValueError("caf\udce9")
    for number in range(100):
        following = RuntimeError(f"{number} " + "x" * 100_000)
        following.__cause__, first = first, following
    return first


def _circle_of_causes() -> BaseException:
    one, two = ValueError("one\udce9"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


ERRORS: dict[str, tuple[Callable[[], BaseException], str]] = {
    "surrogate": (lambda: ValueError("caf\udce9"), "caf\\udce9"),
    "long": (lambda: ValueError("é" * 2_000_000), "éé"),
    "long and odd": (lambda: Odd(1, two=10**5000), "Odd"),
    "object": (lambda: ValueError(object(), {1: object()}), "object object"),
    "circle": (lambda: ValueError(circle()), "[[...]]"),
    "nan": (lambda: ValueError(float("nan"), {float("inf"): 1}), "nan"),
    "many": (lambda: ValueError(*range(1_000_000)), "(0, 1, 2"),
    "mute": (Mute, "Mute"),
    "a mute argument": (lambda: ValueError(Mute("x")), "ValueError"),
    "causes": (_caused, "99 xx"),
    "circle of causes": (_circle_of_causes, "one\\udce9"),
    "group": (lambda: ExceptionGroup("g\udce9", [ValueError("x" * 2_000_000)]), "g\\udce9"),
    "exit": (lambda: SystemExit("\udce9"), "\\udce9"),
}


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_error_of_a_task_always_arrives(broker_of: Make, aclient: AsyncClient, kind: str) -> None:
    """Cut and cleaned, under the name of its class."""
    broker = broker_of()

    @broker.task
    def fail(name: str) -> None:
        raise ERRORS[name][0]()

    @broker.task
    async def fail_async(name: str) -> None:
        raise ERRORS[name][0]()

    async with working(broker):
        sent = {name: await (fail if kind == "sync" else fail_async).kiq(name) for name in ERRORS}
        results = {name: await end_of(one) for name, one in sent.items()}
        jobs = {name: await aclient.get(broker.job_id_of(one.task_id)) for name, one in sent.items()}
    wrong = {}
    for name, (made, text) in ERRORS.items():
        error, kind_of_error = results[name].error, type(made()).__name__
        is_told = jobs[name].error.startswith(kind_of_error) and (text in jobs[name].error)
        if not (results[name].is_err and is_told and kind_of_error in f"{type(error).__name__} {text_of(error)}"):
            wrong[name] = (jobs[name].error[:200], repr(error)[:200])
    assert wrong == {}


async def test_an_argument_that_json_cannot_carry_is_not_sent(broker_of: Make, place: Place, queue: str) -> None:
    broker = broker_of()

    @broker.task
    async def take(value: Any) -> None: ...

    loop: list[Any] = []
    loop.append(loop)
    for value, where in (
        ({"a": [0, float("nan")]}, 'args[0]["a"][1]'),
        (loop, "args[0][0]"),
        (["\udce9"], "args[0][0]"),
    ):
        with pytest.raises(SendTaskError) as failed:
            await take.kiq(value)
        assert isinstance(failed.value.__cause__, NotJSON)
        assert failed.value.__cause__.place == where
    assert place.jobs(queue=queue) == []
