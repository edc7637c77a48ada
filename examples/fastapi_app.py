"""A web API that submits jobs to the queue `mail`. `FASTQ_KEY=client_… uvicorn fastapi_app:app --app-dir examples`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import fastapi
from pydantic import BaseModel

import fastq


class Mail(BaseModel):
    to: str
    text: str


@asynccontextmanager
async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
    """One client for all requests, so that its connections are reused."""
    async with fastq.AsyncClient() as client:  # FASTQ_URL and FASTQ_KEY
        app.state.jobs = client
        yield


def jobs_of(request: fastapi.Request) -> fastq.AsyncClient:
    client: fastq.AsyncClient = request.app.state.jobs
    return client


Jobs = Annotated[fastq.AsyncClient, fastapi.Depends(jobs_of)]
app = fastapi.FastAPI(lifespan=lifespan)


@app.post("/mails", status_code=202)
async def send_mail(mail: Mail, jobs: Jobs, idempotency_key: Annotated[str | None, fastapi.Header()] = None) -> Any:
    """The job is on stable storage when this answers. With an Idempotency-Key a second click submits no second job."""
    submitted = await jobs.submit(mail, queue="mail", idempotency_key=idempotency_key)
    return {"job_id": submitted.job_id}


@app.get("/mails/{job_id}")
async def mail_status(job_id: str, jobs: Jobs) -> Any:
    try:
        job = await jobs.get(job_id)
    except fastq.NotFound:
        raise fastapi.HTTPException(404, "no such mail") from None
    return {"state": job.state, "result": job.result, "error": job.error}
