"""The documents say what the code does."""

from __future__ import annotations

import math
import re
from pathlib import Path

from fastq import errors
from fastq.http.errors import STATUSES
from fastq.log.files.ready import RESERVE_SEGMENTS
from fastq.log.files.sizes import SMALL_SEGMENT_BYTES
from fastq.server.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? ?\| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert rows == [(setting.name, setting.default, setting.meaning) for setting in SETTINGS]


def test_the_readme_lists_every_exit_code() -> None:
    text = (ROOT / "README.md").read_text()
    codes = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.FastqError) and hasattr(error, "exit_code")
    } - {errors.StartError.exit_code}
    told = text[text.index("Exit codes:") :].split("\n\n")[0]
    assert codes | {0} == {int(number) for number in re.findall(r"\b\d+\b", told)}


def test_the_protocol_lists_every_error_and_no_other() -> None:
    text = (ROOT / "docs/protocol.md").read_text().partition("### Error answers")[2].partition("\n## ")[0]
    told = {
        (int(status), code)
        for statuses, codes in re.findall(r"^\| (\d[\d, ]*) \| ([^|]+) \|", text, re.MULTILINE)
        for status in statuses.split(", ")
        for code in re.findall(r"`(\w+)`", codes)
    }
    by_another_name = {(400, "job_not_found"), (500, "internal")}  # an ack's, as the original has it; a defect's
    assert told == {(status, error.code) for error, status in STATUSES.items()} | by_another_name


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("changes/*.md")]


def anchors(text: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_between_documents_lead_somewhere() -> None:
    for document in documents():
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", document.read_text()):
            if "://" in target:
                continue
            path = document.parent / target if target else document
            assert path.exists(), f"{document.name} links to {target}, which is not there"
            assert not anchor or anchor in anchors(path.read_text()), (
                f"{document.name}: no heading #{anchor} in {path.name}"
            )


def linked(index: Path) -> set[Path]:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", index.read_text())
    return {(index.parent / target).resolve() for target in targets}


def test_the_index_lists_every_document() -> None:
    docs, decisions = ROOT / "docs", ROOT / "docs/decisions"
    assert linked(decisions / "README.md") >= set(decisions.glob("0*.md"))
    others = {*ROOT.glob("*.md"), *docs.rglob("*.md")} - {docs / "README.md"} - set(decisions.glob("0*.md"))
    assert linked(docs / "README.md") >= others


def test_the_original_is_explained_where_it_first_stands() -> None:
    for document in documents():
        paragraphs = document.read_text().split("\n\n")
        first = [paragraph for paragraph in paragraphs if re.search(r"\boriginal\b", paragraph, re.IGNORECASE)]
        if first and first[0].startswith("#"):
            del first[0]
        assert not first or "that fastq began as" in " ".join(first[0].split()), f"{document}: {first[0]}"


def test_what_an_empty_directory_takes_is_told() -> None:
    takes = f"{math.ceil((1 + RESERVE_SEGMENTS) * SMALL_SEGMENT_BYTES / (1 << 20))} MiB"
    for document in ("README.md", "docs/deployment.md"):
        assert f"takes {takes}" in " ".join((ROOT / document).read_text().split())


def test_files_that_are_named_exist() -> None:
    for document in documents():
        for named in re.findall(
            r"`((?:fastq|tests|bench|deploy|docs|changes|requirements)/[^\s`]*)`", document.read_text()
        ):
            assert list(ROOT.glob(named)), f"{document.relative_to(ROOT)} names {named}, which is not there"
