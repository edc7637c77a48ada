"""Words that stand in one list: nobody writes the list a second time. The client's own agree with the core's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import get_args, get_type_hints

from fastq._core import ACK_OUTCOMES, ATTEMPT_OUTCOMES, EVENTS, FINISHED, STATES
from fastq.client import models
from fastq.engine.documents import DocumentKind
from tests.house.tree import ROOT, text_files

LISTS = [STATES, FINISHED, ACK_OUTCOMES, ATTEMPT_OUTCOMES, EVENTS]
CLIENT = "fastq/client/models.py"  # it imports nothing of the server


def repeated(path: str, text: str) -> Iterator[str]:
    """Tuples, lists, sets and Literals that hold all words of one of the lists."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            words = {one.value for one in node.elts if isinstance(one, ast.Constant)}
            if any(words.issuperset(known) for known in LISTS):
                yield f"{path}:{node.lineno}: the core has this list"


def test_no_list_stands_twice() -> None:
    files = [(path, text) for path, text in text_files("fastq") if path.endswith(".py") and path != CLIENT]
    assert len(files) > 100
    assert [found for path, text in files for found in repeated(path, text)] == []


def test_a_second_list_is_found() -> None:
    planted = (
        f"a = {tuple(STATES)!r}\nb = frozenset({set(FINISHED)!r})\nc: Literal[{', '.join(map(repr, ACK_OUTCOMES))}]\n"
        "d = ('READY', 'RUNNING')\n"
    )
    assert [found.split(":")[1] for found in repeated("x.py", planted)] == ["1", "2", "3"]


def test_the_clients_lists_are_the_cores() -> None:
    assert get_args(models.State) == STATES
    assert models.TERMINAL == FINISHED
    assert get_args(get_type_hints(models.Ack)["outcome"]) == ACK_OUTCOMES


def test_the_kinds_of_documents_are_written_down() -> None:
    (row,) = re.findall(r"^\| kinds of documents \| (.*) \|$", (ROOT / "docs/log-format.md").read_text(), re.M)
    assert [int(number) for number in re.findall(r"(?:^|, )(\d+) ", row)] == sorted(DocumentKind)
