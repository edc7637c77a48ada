"""A handler changes its process. The jobs beside it and after it, in the worker and in processes, notice nothing."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from fastq import Client
from tests.client import tampering
from tests.client.programs import Program
from tests.client.served import WAIT_S, Place

pytestmark = pytest.mark.slow

SCRIPT = """
from tests.client import tampering

worker = fastq.Worker(concurrency=4, lease_ms=2000, processes=1)
worker.handles("t.KIND", in_process="KIND" == "process")(tampering.DEED)
worker.handles("n.KIND")(tampering.near)
worker.handles("p.KIND", in_process=True)(tampering.near)
worker.run()
"""
MORE = {"thread": tampering.IN_THREAD, "async": {}, "process": tampering.IN_PROCESS}


@pytest.mark.parametrize("kind", MORE)
def test_what_a_handler_changes_of_its_process_harms_no_other(
    place: Place, tmp_path: Path, client: Client, kind: str
) -> None:
    script = SCRIPT.replace("DEED", "loop" if kind == "async" else kind).replace("KIND", kind)
    with Program(place, tmp_path, script) as program:
        expected = f"22 {time.tzname[0]}"
        for name in [*MORE[kind], *tampering.DEEDS]:
            delay_ms = 2000 if name == "later" else 0  # it is thrown into an idle thread
            beside = client.submit(0.5, queue=f"n.{kind}", delay_ms=delay_ms)
            done = client.submit_and_wait(name, queue=f"t.{kind}", max_retries=1, timeout_s=WAIT_S)
            assert done.state == ("DEAD" if name in tampering.FAILS else "ACKED"), (name, done)
            after = [client.submit(0.0, queue=f"{queue}.{kind}", delay_ms=delay_ms) for queue in "np"]
            ended = [client.wait_for_completion(one.job_id, WAIT_S) for one in (beside, *after)]
            assert {job.attempts for job in ended} == {1}, (name, ended)
            told = [job.result for job in ended]
            if kind == "process":
                assert told == ["unharmed", "unharmed", expected], name
            else:
                assert told[:2] == ["unharmed", "unharmed"], name
        assert program.ends(signal.SIGTERM) == 0
    assert "bug in the worker" not in program.said
