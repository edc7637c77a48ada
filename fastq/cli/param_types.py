"""click types of options and arguments: durations, times, backoffs; and JSON values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import click
import msgspec

from fastq.cli.streams import stdin_text
from fastq.client.models import Backoff
from fastq.clock import wall_us
from fastq.server.settings import duration_ns


class _Duration(click.ParamType[int]):
    """A duration such as `500ms`, `30s` or `1m30s`, in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            ms = duration_ns(value) / 10**6
        except ValueError as error:
            self.fail(f"'{value}' is not {error}", param, ctx)
        if ms.denominator != 1:
            self.fail(f"'{value}' is not in whole milliseconds", param, ctx)
        return int(ms)


class _Time(click.ParamType[datetime]):
    """A time such as `2030-01-01T00:00:00Z`. The zone is required."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            at = msgspec.convert(value, datetime)
        except msgspec.ValidationError:
            self._refuse(value, param, ctx)
        if at.tzinfo is None:
            self._refuse(value, param, ctx)
        return at

    def _refuse(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> NoReturn:
        self.fail(f"'{value}' is not a time with its zone, such as 2030-01-01T00:00:00Z", param, ctx)


class _Past(_Time):
    """A time, or a duration before now."""

    name = "time or duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, str):
            try:
                ago_ns = duration_ns(value)
                return datetime.fromtimestamp(wall_us() // 10**6, UTC) - timedelta(microseconds=int(ago_ns / 1000))
            except (ValueError, OverflowError):
                pass
        return super().convert(value, param, ctx)


class _Backoff(click.ParamType[Backoff]):
    """A backoff such as `1s,2,1h`: base, factor and cap."""

    name = "base,factor,cap"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Backoff:
        if isinstance(value, Backoff):
            return value
        try:
            base, factor, cap = value.split(",")
            return Backoff(int(duration_ns(base) / 10**6), float(factor), int(duration_ns(cap) / 10**6))
        except ValueError:
            self.fail(f"'{value}' is not a base, a factor and a cap, such as 1s,2,1h", param, ctx)


DURATION, TIME, PAST, BACKOFF = _Duration(), _Time(), _Past(), _Backoff()


def read_value(text: str, as_text: bool, name: str) -> msgspec.Raw:
    """The JSON text of a payload or result; `-` reads standard input. Raises UsageError, InputFailed.

    Args:
        as_text: encode the text as a JSON string.
        name: of the argument, for the error message.
    """
    return json_value(stdin_text().removeprefix("\ufeff") if text == "-" else text, as_text, name)


def json_value(text: str, as_text: bool, name: str) -> msgspec.Raw:
    """The JSON text of a payload or result. Arguments as for `read_value`. Raises UsageError: it is not JSON."""
    if as_text:
        return msgspec.Raw(msgspec.json.encode(text))
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        raise click.UsageError(f"{name} is not JSON: {reason}. Use --text to send it as a string") from None
    except RecursionError:
        raise click.UsageError(f"{name} is nested too deeply") from None
    return msgspec.Raw(text.encode())
