"""What others submit is shown as they wrote it, and does nothing."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visitor
from tests.served import Served

pytestmark = pytest.mark.slow

RUN = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'>"
RTL = "invoice\u202egnp.exe\u202c"
HOSTILE = [
    RUN,
    RTL,
    "{{7*7}}{% raw %}",
    "javascript:window.ran=1",
    "\"'><svg onload=window.ran=1>",
    "a\u0000\u001b[31mb",
    "\ufeff\u2066x\u2069",
]
ACTING = ("\u202e", "\u2066", "\0", "\x1b")  # signs that a page would not show as they are
BIG = {"n": 2**63, "low": -(2**63), "float": 0.1, "deep": [[[2**53 + 1]]]}


def fail(server: Served, queue: str, error: str) -> None:
    worker = server.keys["worker"]
    _, lease = server.call(worker, "POST", "/jobs/lease", {"queues": [queue], "worker_id": f"w{RTL}"})
    body = {"lease_token": lease["lease_token"], "result_error": error, "error_code": RUN[:60]}
    assert server.call(worker, "POST", f"/jobs/{lease['job_id']}/ack", body)[0] == 200


def test_text_of_others_is_only_text(server: Served, visitor: Visitor) -> None:
    ids = []
    for text in HOSTILE:
        ids.append(server.submit(server.keys["client"], {text: text, **BIG}, queue="hostile", max_retries=0))
        fail(server, "hostile", f"{text}\n{text}")
    page = visitor.log_in("admin")
    for path in (
        *(f"/console/jobs/{job_id}" for job_id in ids),
        "/console/jobs?queue=hostile",
        "/console/failures",
        "/console/workers",
        "/",
        f"/console/submit?again={ids[0]}",
    ):
        visitor.go(path)
        assert page.evaluate("window.ran") is None, path
        assert not any(sign in page.locator("main").inner_text() for sign in ACTING), path
    for number in ("9223372036854775808", "-9223372036854775808", "9007199254740993"):
        visitor.go(f"/console/jobs/{ids[0]}")
        expect(page.locator("#payload")).to_contain_text(number)
    visitor.check()


def test_a_payload_of_a_megabyte_is_shown_in_part_and_kept_whole(server: Served, visitor: Visitor) -> None:
    payload = {"text": "<b>x</b>" * 120_000, "end": 2**63}
    job_id = server.submit(server.keys["client"], payload, queue="large")
    page = visitor.log_in("client")
    visitor.go(f"/console/jobs/{job_id}")
    assert len(page.locator("#payload").inner_text()) < 200_000
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all of it").click()
    assert json.loads(download.value.path().read_bytes()) == payload
    visitor.go(f"/console/submit?again={job_id}")
    visitor.go("/console/jobs?q=9223372036854775808")
    expect(page.get_by_role("link", name=job_id)).to_be_visible()
