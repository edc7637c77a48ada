"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from fastq import errors
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


def test_the_protocol_lists_every_error_code() -> None:
    text = (ROOT / "docs/protocol.md").read_text()
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.ApiError) and error is not errors.ApiError:
            assert f"`{error.code}`" in text, f"{error.__name__} ({error.status} {error.code}) is not documented"


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}, which is not there"
