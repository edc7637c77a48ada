"""OpenTelemetry: a job belongs to the trace in which it was submitted.

OpenTelemetry is used only if the program has imported it. Otherwise this module costs a look-up in `sys.modules`.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import UNSET

from fastq.client.job import Job
from fastq.client.models import NewJob
from fastq.client.outcome_models import Success

HEADER = "traceparent"


def is_enabled() -> bool:
    return "opentelemetry" in sys.modules


def in_trace(job: NewJob) -> NewJob:
    """The job with the current trace context, unless it has a traceparent already."""
    if job.traceparent is not UNSET or not is_enabled():
        return job
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 -- optional
        TraceContextTextMapPropagator,
    )

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return msgspec.structs.replace(job, traceparent=carrier[HEADER]) if HEADER in carrier else job


async def traced(job: Job[Any], rest: Callable[[], Awaitable[Any]]) -> Any:
    """Middleware: a span around each attempt. Follow-up jobs keep the trace, even without OpenTelemetry."""
    if not is_enabled():
        return followed(await rest(), job.leased.traceparent)
    from opentelemetry import trace  # noqa: PLC0415 -- optional
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
    """The value that a handler returned, with `traceparent` in its follow-up jobs."""
    if not isinstance(value, Success) or not value.then:
        return value
    then = [in_trace(job) for job in value.then]
    if traceparent:
        then = [
            msgspec.structs.replace(job, traceparent=traceparent) if job.traceparent is UNSET else job for job in then
        ]
    followed_by = copy.copy(value)
    followed_by.then = then
    return followed_by
