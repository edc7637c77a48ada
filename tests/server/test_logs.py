from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import orjson
import pytest

from fastq.server.logs import configure_logs

SECRET = "worker_" + "Ab-_" * 8


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    logging.captureWarnings(False)


def lines(log_format: str, *args: object, **kwargs: object) -> list[str]:
    stream = io.StringIO()
    configure_logs(log_format, stream)
    logging.getLogger("fastq.test").warning(*args, **kwargs)  # type: ignore[arg-type]
    return stream.getvalue().splitlines()


@pytest.mark.usefixtures("restored")
def test_text() -> None:
    (line,) = lines("text", "%s of %s", 1, 2, extra={"request_id": "r1"})
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert rest == "WARNING fastq.test: 1 of 2 request_id=r1"


@pytest.mark.usefixtures("restored")
def test_json() -> None:
    (line,) = lines(
        "json",
        "%s of %s",
        1,
        2,
        extra={
            "request_id": "r1",
            "odd": {
                1,
            },
        },
    )
    seen = orjson.loads(line)
    assert seen.pop("time").endswith("Z")
    assert seen == {
        "level": "warning", "logger": "fastq.test", "message": "1 of 2", "request_id": "r1", "odd": "{1}",
    }  # fmt: skip


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_tracebacks_are_kept_and_json_stays_on_one_line(log_format: str) -> None:
    try:
        raise ValueError("odd\nmessage")
    except ValueError:
        seen = lines(log_format, "it failed", exc_info=True)
    assert "ValueError: odd" in "\n".join(seen)
    assert (len(seen) == 1) == (log_format == "json")


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_masked_wherever_they_come_from(log_format: str) -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        seen = lines(log_format, "DELETE /keys/%s", SECRET, extra={"path": SECRET}, exc_info=True)
    text = "\n".join(seen)
    assert SECRET not in text
    assert text.count("worker_****") == 3


@pytest.mark.usefixtures("restored")
def test_key_ids_stay_readable() -> None:
    (line,) = lines("text", "client_0123456789ab did it")
    assert line.endswith("client_0123456789ab did it")


@pytest.mark.usefixtures("restored")
def test_connections_are_not_logged_one_by_one() -> None:
    stream = io.StringIO()
    configure_logs("text", stream)
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("uvicorn.error").info("Started server process")
    assert stream.getvalue() == ""
    logging.getLogger("uvicorn.error").error("odd")
    assert "odd" in stream.getvalue()
