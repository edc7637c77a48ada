"""Tasks of Django."""

from __future__ import annotations

from typing import Any

try:
    from django.tasks import task
except ImportError:  # before Django 6.0: pip install django-tasks
    from django_tasks import task


@task(queue_name="mail")
def send(to: str) -> str:
    return f"sent to {to}"


@task(queue_name="reports", takes_context=True)
async def report(context: Any, month: int) -> str:
    if context.attempt < 2:
        raise RuntimeError("the numbers are not there yet")  # the server tries again
    return f"month {month}, attempt {context.attempt}"
