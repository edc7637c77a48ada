"""Instances of classes come back as they were sent, in every kind of handler and as a result, or are refused."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
)  # fmt: skip
from pydantic.alias_generators import to_camel

import fastq
from fastq import Job, NotJSON, Worker
from fastq.client.codec import CODEC
from tests.client.served import Place

T = TypeVar("T")
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


class Color(enum.Enum):
    RED = "red"


class Plain(BaseModel):
    x: int
    tags: list[str] = []


class Aliased(BaseModel):
    user_id: int = Field(alias="userId")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    first_name: str
    inner: Aliased


class TwoAliases(BaseModel):
    x: int = Field(validation_alias="x_in", serialization_alias="x_out")


class Choices(BaseModel):
    x: int = Field(validation_alias=AliasChoices("a", "b"), serialization_alias="b")


class OtherChoices(BaseModel):
    x: int = Field(validation_alias=AliasChoices("a", "b"), serialization_alias="c")


class Around(BaseModel):
    camel: Camel
    two: TwoAliases


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    x: int

    @computed_field
    @property
    def doubled(self) -> int:
        return 2 * self.x


class WithJson(BaseModel):
    rows: Json[list[int]]
    inner: Json[Plain]


class Scalars(BaseModel):
    at: datetime = AT
    naive: datetime = datetime(2026, 1, 1)
    day: date = date(2026, 1, 2)
    clock: time = time(1, 2, 3)
    span: timedelta = timedelta(days=1, seconds=2, microseconds=3)
    price: decimal.Decimal = decimal.Decimal("1.50")
    id: uuid.UUID = ID
    color: Color = Color.RED
    data: bytes = b"abc"
    path: Path = Path("/a/b")
    some: set[int] = {1, 2}
    by_number: dict[int, str] = {1: "a"}
    pair: tuple[int, str] = (1, "a")
    address: pydantic.AnyUrl = pydantic.AnyUrl("https://example.org/a")


class Base64(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Infinite(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    x: float


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    x: int


class Private(BaseModel):
    x: int
    _seen: int = PrivateAttr(default=0)


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int


class Box(BaseModel, Generic[T]):
    item: T


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = Field(alias="dogName")


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Owner(BaseModel):
    pets: list[Pet]
    other: Cat | None = None


class Numbers(RootModel[list[int]]):
    pass


class Tree(BaseModel):
    label: str
    below: list[Tree] = []


@dataclasses.dataclass
class Mail:
    to: str
    copies: int = 1


@dataclasses.dataclass
class Shop:
    owner: Aliased
    stock: dict[str, Plain]
    more: list[Camel] = dataclasses.field(default_factory=list)
    best: Plain | None = None
    mail: Mail | None = None


@dataclasses.dataclass(slots=True, kw_only=True, frozen=True)
class Slots:
    x: int
    path: Path
    some: frozenset[int] = frozenset()
    by_number: dict[int, str] = dataclasses.field(default_factory=dict)
    data: bytes = b"\xff\x00"
    price: decimal.Decimal = decimal.Decimal("1.50")
    color: Color = Color.RED


@dataclasses.dataclass
class Late:
    x: int
    later: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Parcel(Generic[T]):
    item: T


@pydantic.dataclasses.dataclass
class Checked:
    x: int
    mail: Plain


class Struct(msgspec.Struct, rename="camel", tag="struct", forbid_unknown_fields=True):
    first_name: str
    at: datetime = AT
    model: Aliased | None = None


class OtherStruct(msgspec.Struct, tag="other", array_like=True):
    x: int


@attrs.define
class Attrs:
    x: int
    mails: list[Mail] = attrs.field(factory=list)
    model: Plain | None = None


class Typed(TypedDict, total=False):
    x: int
    model: Aliased


class Named(NamedTuple):
    x: int
    model: Plain
    label: str = "b"


UserId = NewType("UserId", int)
late = Late(1)
late.later = 7

CASES: dict[str, tuple[Any, Any]] = {
    "plain": (Plain, Plain(x=1, tags=["a"])),
    "alias": (Aliased, Aliased(userId=1)),
    "alias_generator": (Camel, Camel(firstName="ann", inner=Aliased(userId=2))),
    "two-aliases": (TwoAliases, TwoAliases(x_in=1)),
    "choices": (Choices, Choices(a=1)),
    "other-choices": (OtherChoices, OtherChoices(a=1)),
    "nested-aliases": (Around, Around(camel=Camel(firstName="b", inner=Aliased(userId=1)), two=TwoAliases(x_in=2))),
    "computed": (Computed, Computed(x=2)),
    "json": (WithJson, WithJson(rows="[1,2]", inner='{"x":1}')),
    "scalars": (Scalars, Scalars()),
    "base64": (Base64, Base64(data=b"_w==")),
    "infinite": (Infinite, Infinite(x=float("inf"))),
    "frozen": (Frozen, Frozen(x=1)),
    "private": (Private, Private(x=1)),
    "extra": (Extra, Extra(x=1, more=[1, {"a": None}])),
    "generic": (Box[Aliased], Box[Aliased](item=Aliased(userId=1))),
    "discriminated": (Owner, Owner(pets=[Cat(), Dog(dogName="rex")], other=Cat(lives=1))),
    "union": (Pet, Dog(dogName="rex")),
    "list-of-a-union": (list[Pet], [Cat(), Dog(dogName="rex")]),
    "plain-union": (Cat | Dog | None, Dog(dogName="rex")),
    "model-or-text": (Plain | str, Plain(x=1)),
    "root": (Numbers, Numbers([1, 2])),
    "recursive": (Tree, Tree(label="a", below=[Tree(label="b")])),
    "list": (list[Aliased], [Aliased(userId=1), Aliased(userId=2)]),
    "dict": (dict[str, Camel], {"a": Camel(firstName="ann", inner=Aliased(userId=2))}),
    "optional": (Aliased | None, Aliased(userId=1)),
    "none-of-optional": (list[Aliased | None], [None, Aliased(userId=1)]),
    "tuple": (tuple[Plain, int], (Plain(x=1), 2)),
    "dataclass": (Mail, Mail("ann", 2)),
    "dataclass-of-models": (
        Shop, Shop(Aliased(userId=1), {"a": Plain(x=2)}, [Camel(firstName="b", inner=Aliased(userId=3))], Plain(x=4),
                   Mail("c")),
    ),
    "slots": (Slots, Slots(x=1, path=Path("/a"), some=frozenset({1}), by_number={1: "a"})),
    "not-in-init": (Late, late),
    "generic-dataclass": (Parcel[Mail], Parcel(Mail("ann"))),
    "generic-dataclass-of-a-model": (Parcel[Aliased], Parcel(Aliased(userId=1))),
    "pydantic-dataclass": (Checked, Checked(x=1, mail=Plain(x=2))),
    "struct": (Struct, Struct("ann", model=Aliased(userId=1))),
    "struct-of-an-array": (list[OtherStruct], [OtherStruct(1)]),
    "attrs": (Attrs, Attrs(1, [Mail("ann")], Plain(x=1))),
    "typed-dict": (Typed, {"x": 1, "model": Aliased(userId=1)}),
    "named-tuple": (Named, Named(1, Plain(x=2))),
    "literal": (Literal["a", 1], "a"),
    "new-type": (UserId, UserId(7)),
    "new-types": (dict[str, UserId], {"a": UserId(7)}),
    "enum": (Color, Color.RED),
    "bytes": (bytes, b"\xff"),
    "time": (datetime, AT),
    "path": (Path, Path("/a/b")),
}  # fmt: skip


def echo(job: Job[Any]) -> Any:
    """Returns the payload, if it is the value that was sent."""
    _, sent = CASES[job.queue.partition(".")[2]]
    assert job.payload == sent, f"{job.payload!r} is not {sent!r}"
    assert type(job.payload) is type(sent)
    return job.payload


async def echo_async(job: Job[Any]) -> Any:
    return echo(job)


@pytest.fixture(scope="module")
def module_client(place: Place) -> Iterator[fastq.Client]:
    with fastq.Client(place.url, place.keys["admin"]) as client:
        yield client


@pytest.mark.parametrize("kind", ["thread", "async", "process"])
def test_a_value_comes_back_as_it_was_sent(kind: str, place: Place, module_client: fastq.Client) -> None:
    handler, ids = echo_async if kind == "async" else echo, {}
    for names in (list(CASES)[:30], list(CASES)[30:]):  # a lease request names at most 32 queues
        worker = Worker(url=place.url, key=place.keys["worker"], concurrency=1 if kind == "process" else 10)
        for name in names:
            as_type, sent = CASES[name]
            worker.handles(f"{kind}.{name}", as_type, in_process=kind == "process")(handler)
            ids[name] = module_client.submit(sent, queue=f"{kind}.{name}", max_retries=1).job_id
        worker.run(burst=True)
    for name, job_id in ids.items():
        as_type, sent = CASES[name]
        job = module_client.get(job_id, with_payload=True)
        assert (name, job.state, job.error) == (name, "ACKED", "")
        assert job.result_as(as_type) == sent
        assert type(job.result_as(as_type)) is type(sent)


def test_models_are_written_by_alias() -> None:
    assert msgspec.json.decode(CODEC.encode(CASES["alias_generator"][1])) == {
        "firstName": "ann",
        "inner": {"userId": 2},
    }
    assert msgspec.json.decode(CODEC.encode(Computed(x=1))) == {"x": 1}
    assert CODEC.decode(b'{"x_in":1}', TwoAliases) == TwoAliases(x_in=1)


# --- refused ----------------------------------------------------------------------------------------------------------


class Secret(BaseModel):
    token: SecretStr


class Excluded(BaseModel):
    x: int = Field(default=0, exclude=True)


class OneWay(BaseModel):
    at: datetime

    @pydantic.field_serializer("at")
    def shown(self, at: datetime) -> str:
        return at.strftime("%d %B")


class Loose(BaseModel):
    any: Any
    either: Cat | Dog | None = None


@dataclasses.dataclass
class Growing:
    x: int

    def __post_init__(self) -> None:
        self.x += 1


@attrs.define
class Hidden:
    _x: int = 0


class Base(BaseModel):
    x: int


class Derived(Base):
    y: int


class Holder(BaseModel):
    base: Base


REFUSED: dict[str, tuple[Any, str]] = {
    "a secret": ({"a": Secret(token="t")}, '["a"].token'),
    "an excluded field": (Excluded(x=1), ".x"),
    "a serializer for people": (OneWay(at=AT), ""),
    "a set in a field of any type": (Loose(any=[{1}]), ".any[0]"),
    "a field that grows": ([Growing(1)], "[0].x"),
    "a private field of attrs": (Hidden(x=1), "._x"),
    "a derived model in the place of its base": (Holder(base=Derived(x=1, y=2)), ".base"),
    "a model that was not validated": (Plain.model_construct(x="a"), ""),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_value_that_would_come_back_as_another_is_refused(kind: str) -> None:
    value, place = REFUSED[kind]
    with pytest.raises(NotJSON, match="come back as it was sent") as refused:
        CODEC.encode(value)
    assert refused.value.place == place


def test_a_place_without_a_type_gets_json_types() -> None:
    sent = Loose(any={"at": AT, "pair": (1, 2), "plain": [Plain(x=1)], "id": ID})
    got = CODEC.decode(CODEC.encode(sent), Loose)
    assert got.any == {
        "at": "2026-01-02T03:04:05.678901Z",
        "pair": [1, 2],
        "plain": [{"x": 1, "tags": []}],
        "id": str(ID),
    }


@dataclasses.dataclass
class Seeded:
    x: int
    seed: dataclasses.InitVar[int] = 0


@dataclasses.dataclass
class Pets:
    pet: Cat | Dog


@dataclasses.dataclass
class Texts:
    at: datetime | str


class Unknown:
    pass


@pytest.mark.parametrize(
    "as_type", [Seeded, list[Seeded], Pets, Texts, Unknown, dict[str, Unknown], Cat | Mail | Unknown]
)
def test_a_type_that_cannot_be_read_is_refused_at_registration(as_type: Any) -> None:
    worker = Worker()
    with pytest.raises(ValueError, match="cannot be read"):
        worker.handles("q", as_type)(echo)
