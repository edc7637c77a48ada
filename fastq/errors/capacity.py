"""Errors of a server with too much work or too little room. The request changed nothing."""

from __future__ import annotations

from fastq.errors.kinds import ApiError


class Overloaded(ApiError):
    """Too many bytes wait to be synced, or the next segment is not ready yet. Nothing was changed."""

    status = 503
    code = "overloaded"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "1"}


class CleanerBehind(ApiError):
    """The log takes more disk than it may, and cleaning does not keep up. Nothing was changed."""

    status = 429
    code = "cleaner_behind"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"}


class IdempotencyFull(ApiError):
    """The limit of remembered idempotency keys is reached, and the oldest is too young to drop. Nothing was changed."""

    status = 429
    code = "idempotency_full"

    def __init__(self) -> None:
        super().__init__("idempotency_key: too many are remembered; submit more slowly, or without")

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "10"}


class QueueFull(ApiError):
    """A queue has as many unfinished jobs as its max_depth allows. Nothing was changed."""

    status = 429
    code = "queue_full"

    def __init__(self, queue: str, depth_max: int) -> None:
        super().__init__(f"queue: '{queue}' may have at most {depth_max} unfinished jobs")

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class OwnerFull(ApiError):
    """An owner has as many unfinished jobs as it may. Nothing was changed."""

    status = 429
    code = "owner_full"

    def __init__(self, depth_max: int) -> None:
        super().__init__(f"an owner may have at most {depth_max} unfinished jobs")

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class Draining(ApiError):
    """The server is stopping and takes no more work. Nothing was changed."""

    status = 503
    code = "draining"

    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class DiskFull(ApiError):
    """The disk has no room for another segment; the remaining room is for acks. Nothing was changed."""

    status = 507
    code = "disk_full"
