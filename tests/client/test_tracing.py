"""Trace context of jobs. Each test runs in a process, because a process sets its tracer once."""

from __future__ import annotations

import subprocess
import sys

from fastq import NewJob, Success, Worker
from fastq.testing import Server

CODE = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import fastq
from fastq.testing import Server

seen = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(seen))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("test")
worker = fastq.Worker()

@worker.handles("a")
def first(job):
    with tracer.start_as_current_span("inner"):
        if job.payload == "bad":
            raise ValueError("bad")
        return fastq.Success("r", then=[fastq.NewJob(payload="x", queue="b")])

@worker.handles("b")
async def second(job):
    pass

with Server() as server, server.client() as client:
    with tracer.start_as_current_span("outer"):
        client.submit("x", queue="a")
        client.submit_many([fastq.NewJob(payload="bad", queue="a", max_retries=0)])
    client.submit("untraced", queue="b")
    client.submit("own", queue="b", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    server.work(worker)
names = {span.context.span_id: span.name for span in seen.get_finished_spans()}
for span in seen.get_finished_spans():
    parent = names.get(span.parent.span_id, f"{span.parent.span_id:x}") if span.parent else "nothing"
    print(f"{span.name} in {parent} {span.status.status_code.name}")
"""


def test_a_job_continues_the_trace_of_its_submit() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "inner in process a ERROR",
        "inner in process a UNSET",
        "outer in nothing UNSET",
        "process a in outer ERROR",
        "process a in outer UNSET",
        "process b in bbbbbbbbbbbbbbbb UNSET",
        "process b in nothing UNSET",
        "process b in process a UNSET",
    ]


def test_follow_up_jobs_keep_the_traceparent() -> None:
    """Also without OpenTelemetry in the program."""
    mine, other = (f"00-{digit * 32}-{digit * 16}-01" for digit in "ab")
    worker = Worker(
        lambda job: Success(then=[NewJob(payload=1, queue="b"), NewJob(payload=2, queue="b", traceparent=other)])
    )
    with Server() as server, server.client() as client:
        client.submit("x", traceparent=mine)
        server.work(worker)
        assert [job.traceparent for job in client.lease(["b"], limit=9)] == [mine, other]
