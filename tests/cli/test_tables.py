"""What lists print: on terminals of several widths, in a pipe, and as JSON; with every kind of text in the data."""

from __future__ import annotations

import json
import unicodedata

import pytest

from fastq import Client, Cron, NewJob, QueueSettings, RateLimit
from fastq.cli.streams import json_line, printable
from fastq.cli.tables import columns_of, cut
from tests.cli.conftest import AtTerminal, Run
from tests.client.served import Place

LISTS = ("job list", "queues list", "workers", "schedules list", "keys list", "audit")
WIDTHS = (40, 80, 120, 200)
TEXT = "\x1b[31mred\x07\r\n日本語\u3000🎉 é\u202e\x9b2J\u2028\x00" + "long " * 50
NAMES = ["short", "n" * 64, *(f"queue-{number:03}" for number in range(100))]


@pytest.fixture(scope="module", autouse=True)
def _data(place: Place) -> None:
    with Client(place.url, place.keys["admin"]) as client:
        for number, name in enumerate(NAMES):
            priority = (-1) ** number * (2**31 - 1)
            job = NewJob(payload=TEXT, queue=name, group="g" * 64, priority=priority, tags=["t" * 64])
            client.submit_many([job] * 3)
        client.put_queue(NAMES[1], QueueSettings(rate_limit=RateLimit(10**6, 86_400_000), concurrency=10**9, fair=True))
        client.pause_queue(NAMES[0])
        (first, *_) = client.lease(NAMES[2:60], limit=5, worker_id="wörker-日本\u202e")
        client.fail(first, TEXT, discard=True, code="E" * 64)
        client.lease(NAMES[50:99], limit=2, worker_id="w" * 64)
        for name in ("s", "n" * 64):
            client.put_schedule(name, Cron("0,1,2,3,4,5,6,7,8,9,10,11,12 1,2,3 * * MON-FRI"), TEXT, queue=name)
            client.run_schedule(name)
        client.create_key(TEXT[:20] + "日本" * 20, "owner-🎉" * 5, "client")


def wide(line: str) -> int:
    sizes = {"W": 2, "F": 2}
    return sum(
        sizes.get(unicodedata.east_asian_width(one), 1)
        for one in line
        if unicodedata.category(one) not in ("Mn", "Me", "Cf")
    )


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("command", LISTS)
def test_a_list_fits_the_terminal(command: str, columns: int, at_terminal: AtTerminal, run: Run) -> None:
    """No line wraps but one of a name that people copy; ids and names are whole."""
    done = at_terminal(*command.split(), columns=columns)
    assert done.code == 0
    names = {line.split("\t")[0] for line in run(*command.split()).lines}
    for line in done.lines:
        assert wide(line) <= columns or line in names, line
    for name in names:
        assert name in done.out, "an id or name is whole"
    assert not [one for one in done.out if one in "\x1b\x07\x9b\u202e\u2028\x00\r\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("command", [*LISTS, "job list --all"])
def test_a_pipe_gets_every_column_between_tabs(command: str, run: Run) -> None:
    plain, narrow = run(*command.split()), run(*command.split(), COLUMNS="20")
    assert [line[:20] for line in plain.lines] == [line[:20] for line in narrow.lines] and plain.code == 0
    head, *rows = (line.split("\t") for line in plain.lines)
    assert rows and all(len(row) == len(head) for row in rows) and "…" not in plain.out
    assert not [one for one in plain.out if one in "\x1b\x07\x9b\u202e\u2028\x00\r\N{REPLACEMENT CHARACTER}"]


@pytest.mark.parametrize("command", LISTS)
def test_every_list_has_json(command: str, run: Run, at_terminal: AtTerminal) -> None:
    piped = run(*command.split(), "--json").answers
    assert len(piped) == len(run(*command.split()).lines) - 1 or command == "workers"
    shown = at_terminal(*command.split(), "--json", columns=40)
    assert len([json.loads(line) for line in shown.lines if line.startswith("{")]) == len(piped)
    assert not [one for one in shown.out if one in "\x1b\x9b\u202e\u2028"]


def test_empty_columns_are_left_out_on_a_terminal_only(run: Run, at_terminal: AtTerminal) -> None:
    where = ("job", "list", "--queue", "short", "--limit", "2")
    assert "lease_until" in run(*where).lines[0]
    head, *_ = at_terminal(*where, columns=200).lines
    assert "lease_until" not in head and "error" not in head and "group" in head


def test_columns_that_do_not_fit_are_named(at_terminal: AtTerminal) -> None:
    done = at_terminal("job", "list", "--queue", "short")
    assert done.lines[-1].startswith("not shown: ") and "group" in done.lines[-1]
    assert "not shown" not in at_terminal("job", "list", "--queue", "short", columns=300).out


def test_a_first_cell_that_is_too_long_has_a_line_of_its_own(at_terminal: AtTerminal) -> None:
    lines = at_terminal("queues", "list", columns=80).lines
    at = lines.index("n" * 64)
    assert lines[at + 1].split()[:3] == ["4", "0", "0"] and lines[at + 1].index("4") == lines[0].index("ready")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é 日本 🎉", "plain é 日本 🎉"),
        ("\x1b[0m\x7f\x9b", "\\x1b[0m\\x7f\\x9b"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        ("\u202e\u2066\u2028\ufeff", "\\u202e\\u2066\\u2028\\ufeff"),
        ("\ud800", "\\ud800"),
        ("\u3000\xa0\u200d", "\u3000\xa0\u200d"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_a_json_line_means_the_same() -> None:
    text = '{"a":\n\t["\x7f\x9b\u2028\U000e0001é"]\r}'
    assert json.loads(json_line(text)) == json.loads(text) and json_line(text).isprintable()


@pytest.mark.parametrize("width", range(1, 12))
def test_a_cut_text_fits(width: int) -> None:
    for text in ("abcdefghijkl", "日本語日本語", "e\u0301" * 20, "🎉a🎉b🎉c", "", "a"):
        assert columns_of(cut(text, width)) <= width
        assert cut(text, width) == text or cut(text, width).endswith("…")
