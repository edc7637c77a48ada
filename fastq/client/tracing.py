"""OpenTelemetry, if the program has it: a job is a part of the trace in which it was submitted.

Nothing of it is imported here before the program has done so; without it all of this costs a look into a dict.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import UNSET

from fastq.client.job import Job
from fastq.client.models import NewJob, Success

HEADER = "traceparent"


def is_there() -> bool:
    return "opentelemetry" in sys.modules


def in_trace(job: NewJob) -> NewJob:
    """With the trace of whoever submits, unless it names one or there is none."""
    if job.traceparent is not UNSET or not is_there():
        return job
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 -- only for those who have it
        TraceContextTextMapPropagator,
    )

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return msgspec.structs.replace(job, traceparent=carrier[HEADER]) if HEADER in carrier else job


async def traced(job: Job[Any], rest: Callable[[], Awaitable[Any]]) -> Any:
    """Middleware: a span around each attempt. Jobs that follow from it stay in the trace, without OpenTelemetry too."""
    if not is_there():
        return followed(await rest(), job.leased.traceparent)
    from opentelemetry import trace  # noqa: PLC0415 -- only for those who have it
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    context = TraceContextTextMapPropagator().extract({HEADER: job.leased.traceparent})
    tracer = trace.get_tracer("fastq")
    with tracer.start_as_current_span(f"process {job.queue}", context, kind=trace.SpanKind.CONSUMER) as span:
        span.set_attribute("messaging.system", "fastq")
        span.set_attribute("messaging.destination.name", job.queue)
        span.set_attribute("messaging.message.id", job.job_id)
        span.set_attribute("fastq.attempt", job.attempt)
        return followed(await rest(), job.leased.traceparent)


def followed(value: Any, traceparent: str) -> Any:
    """What a handler returned, its follow-up jobs in the trace of the job that they follow from."""
    if not isinstance(value, Success) or not value.then:
        return value
    then = [in_trace(job) for job in value.then]
    if traceparent:
        then = [
            msgspec.structs.replace(job, traceparent=traceparent) if job.traceparent is UNSET else job for job in then
        ]
    return msgspec.structs.replace(value, then=then)
