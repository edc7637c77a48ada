"""Trends: points over time in a file that may be lost, and failures that are remembered."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastq._core import ALL, FailureGroup
from fastq.engine.commands import Ack, Lease, Submit
from fastq.services import trends
from fastq.services.statistics import Statistics
from fastq.services.trends import RESOLUTIONS, Point, Trends
from fastq.services.trends_file import TrendsFile
from tests.engines import CLIENT, WORKER, Running, running
from tests.served import Served


@pytest.fixture
async def one() -> AsyncIterator[Running]:
    async with running() as engine:
        yield engine


async def opened(one: Running, path: Path) -> Trends:
    figures = Statistics(one.engine)
    figures.start()
    figures.stop()
    found = Trends(one.engine, figures, path)
    await found.start()
    return found


async def fail(one: Running, error: str = "boom", queue: str = "mail") -> str:
    job_id = await one.submit(CLIENT, Submit(b"1", max_retries=0, queue=queue))
    leased = await one.lease_one(lease_of(queue))
    await one.ask.ack(WORKER, Ack(leased.job_id, leased.token, error=error))
    return job_id


def lease_of(queue: str) -> Lease:
    return Lease(queues=(queue,))


async def step(one: Running, found: Trends, seconds: int = 30) -> None:
    one.hand.us += seconds * 1_000_000
    await found.step()


async def test_points_have_rates_depths_and_waits(one: Running, tmp_path: Path) -> None:
    found = await opened(one, tmp_path / "t.db")
    for _ in range(60):
        await one.submit(CLIENT, Submit(b"1", queue="mail"))
    one.hand.us += 4_000_000
    leased = await one.lease_one(lease_of("mail"))
    await one.ask.ack(WORKER, Ack(leased.job_id, leased.token))
    await step(one, found, 26)
    await step(one, found)
    for queue in ("mail", None):
        first, second = await found.points(queue, 1)
        assert (first.in_per_s, first.failed_per_s, first.depth) == (2.0, 0.0, 59)
        assert first.out_per_s == pytest.approx(1 / 30)
        assert first.oldest_s == pytest.approx(30, rel=0.05)
        assert first.wait_p50_ms == pytest.approx(4_000, rel=0.25)
        assert (second.in_per_s, second.wait_p50_ms) == (0.0, None)
        assert second.at_s == first.at_s + 30
    assert await found.points("absent", 1) == []
    await found.stop()


async def test_an_idle_server_writes_its_first_point_only(one: Running, tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    found = await opened(one, path)
    await one.submit(CLIENT, Submit(b"1", queue="mail"))
    leased = await one.lease_one(lease_of("mail"))
    await one.ask.ack(WORKER, Ack(leased.job_id, leased.token))
    for _ in range(2):  # of the work, and the first one without
        await step(one, found)
    before = path.stat().st_mtime_ns, path.read_bytes(), len(await found.points(None, 1))
    for _ in range(5):
        await step(one, found)
    assert (path.stat().st_mtime_ns, path.read_bytes(), len(await found.points(None, 1))) == before
    await one.submit(CLIENT, Submit(b"1", queue="mail"))
    for _ in range(3):  # a job waits: its age goes on
        await step(one, found)
    points = await found.points(None, 1)
    assert [point.depth for point in points] == [0, 0, 1, 1, 1]
    assert points[2].at_s - points[1].at_s == 6 * 30
    await found.stop()


async def test_coarser_points_are_means_and_highest(one: Running, tmp_path: Path) -> None:
    found = await opened(one, tmp_path / "t.db")
    for _ in range(24):  # twelve minutes
        for _ in range(30):
            await one.submit(CLIENT, Submit(b"1", queue="mail"))
        await step(one, found)
    day = await found.points("mail", 24)
    assert 2 <= len(day) <= 4
    assert all(point.in_per_s == pytest.approx(1.0) for point in day)
    assert all(point.at_s % 300 == 0 for point in day)
    week = await found.points("mail", 24 * 7)
    assert week and all(point.at_s % 3600 == 0 for point in week)
    assert max(point.oldest_s for point in week) == pytest.approx(12 * 60, rel=0.1)
    await found.stop()


async def test_points_and_failures_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with running() as one:
        found = await opened(one, path)
        began_us = found._statistics.failures_since_us
        job_id = await fail(one)
        await fail(one)
        await step(one, found)
        await fail(one, "other")
        await found.stop()
    async with running() as one:
        one.hand.us += 60_000_000
        found = await opened(one, path)
        assert found._statistics.failures_since_us == began_us
        assert len(await found.points("mail", 1)) == 1
        groups = {group.error: group for group in one.engine.failures(ALL, None, 0, 10)}
        assert {error: group.count for error, group in groups.items()} == {"boom": 2, "other": 1}
        assert groups["boom"].job_id != job_id
        await fail(one)
        await step(one, found)
        await found.stop()
    async with running() as one:
        found = await opened(one, path)
        assert {group.error: group.count for group in one.engine.failures(ALL, None, 0, 10)} == {"boom": 3, "other": 1}
        await found.stop()


@pytest.mark.parametrize(
    "content",
    [b"", b"no database at all, " * 400, b"SQLite format 3\x00" + b"\xff" * 8_000],
    ids=["empty", "text", "torn"],
)
async def test_a_damaged_file_is_made_anew(
    one: Running, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.db"
    path.write_bytes(content)
    found = await opened(one, path)
    await step(one, found)
    assert len(await found.points(None, 1)) == 1
    await found.stop()
    assert ("is damaged and is made anew" in caplog.text) == bool(content)


async def test_a_file_with_other_tables_or_values_is_made_anew(one: Running, tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    found = await opened(one, path)
    await found.stop()
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO failures VALUES ('q', 'o', '', 'e', -5, 'x', NULL, 'j')")
    db.close()
    found = await opened(one, path)
    assert one.engine.failures(ALL, None, 0, 10) == []
    await found.stop()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    found = await opened(one, path)
    await step(one, found)
    assert len(await found.points(None, 1)) == 1
    await found.stop()


@pytest.mark.parametrize("wrong", ["'x'", -(2**62), 2**62, "NULL"])
async def test_times_in_the_file_that_no_answer_can_show_make_it_anew(
    one: Running, tmp_path: Path, wrong: int | str
) -> None:
    path = tmp_path / "t.db"
    for change in (
        f"UPDATE facts SET value = {wrong}",
        f"INSERT INTO failures VALUES ('q', 'o', '', 'e', 5, {wrong}, {wrong}, 'j')",
    ):
        await (await opened(one, path)).stop()
        with sqlite3.connect(path) as db:
            db.execute(change)
        db.close()
        before_us = one.engine.now_us()
        found = await opened(one, path)
        assert found._statistics.failures_since_us >= before_us
        assert one.engine.failures(ALL, None, 0, 10) == []
        await found.stop()


async def test_a_file_that_another_process_holds_is_left_as_it_is(one: Running, tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    found = await opened(one, path)
    await step(one, found)
    await found.stop()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    found = await opened(one, path)
    assert await found.points(None, 1) == []
    await found.stop()
    holder.close()
    found = await opened(one, path)
    assert len(await found.points(None, 1)) == 1
    await found.stop()


async def test_damage_while_it_runs_is_mended_with_the_next_step(one: Running, tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    found = await opened(one, path)
    await one.submit(CLIENT, Submit(b"1"))  # an idle server writes nothing
    await step(one, found)
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    await step(one, found)
    await step(one, found)
    assert await found.points(None, 1)
    await found.stop()


async def test_a_directory_that_cannot_be_written_costs_only_the_charts(
    one: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = await opened(one, tmp_path / "absent" / "t.db")
    await fail(one)
    await step(one, found)
    assert await found.points(None, 1) == []
    await found.stop()
    assert "there are no charts over a restart" in caplog.text


def test_the_file_is_bounded(tmp_path: Path) -> None:
    """Forty days of points, and more failures than are kept."""
    file = TrendsFile(tmp_path / "t.db")
    file.open(1)
    (step_s, _), now_s = RESOLUTIONS[0], 1_800_000_000
    group = {"queue": "q", "owner_id": "o", "error_code": "", "count": 1, "first_us": 1, "job_id": "j"}
    for day in range(40):
        at_s = now_s + day * 86_400
        points = [("", Point(at_s + n * step_s, 1.0, 1.0, 0.0, 1, 0.0, None, None)) for n in range(3)]
        first = day * 500
        failures = [
            FailureGroup(**group, error=f"e{n}", last_us=n + 1)  # type: ignore[arg-type]
            for n in range(first, first + 500)
        ]
        file.write(points, failures, at_s)
    file.close()
    db = sqlite3.connect(tmp_path / "t.db")
    by_step = dict(db.execute("SELECT step_s, count(*) FROM points GROUP BY step_s").fetchall())
    assert by_step[30] == 3
    assert by_step[300] <= 2
    assert by_step[3_600] <= 33
    assert 10_000 <= db.execute("SELECT count(*) FROM failures").fetchone()[0] <= 10_001
    db.close()


async def test_only_so_many_queues_have_points_and_a_late_one_has_no_leap(
    one: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trends, "QUEUES_MAX", 3)
    found = await opened(one, tmp_path / "t.db")
    for _ in range(30):
        await one.submit(CLIENT, Submit(b"1", queue="q0"))
    await step(one, found)
    for n in range(1, 5):
        await one.submit(CLIENT, Submit(b"1", queue=f"q{n}"))
        await step(one, found)
    assert list(found._queues) == ["q2", "q3", "q4"]
    await one.submit(CLIENT, Submit(b"1", queue="q0"))
    await step(one, found)
    assert [point.in_per_s for point in await found.points("q0", 1)][-1] == 0.0
    await found.stop()


def test_a_killed_server_keeps_what_it_wrote_and_starts_over_any_wreck(tmp_path: Path) -> None:
    """The tools on the data directory are not disturbed by the file either."""
    directory = tmp_path / "data"
    with Served(directory) as server:
        admin, worker = server.keys["admin"], server.keys["worker"]
        server.submit(admin, max_retries=0)
        _, leased = server.call(worker, "POST", "/jobs/lease", {})
        ack = {"lease_token": leased["lease_token"], "result_error": "boom"}
        assert server.call(worker, "POST", f"/jobs/{leased['job_id']}/ack", ack)[0] == 200
        assert server.stop() == 0
        server.start()
        (group,) = server.call(admin, "GET", "/failures")[1]["groups"]
        assert (group["error"], group["count"], group["queue"]) == ("boom", 1, "default")
        server.kill()
        (directory / "trends.db").write_bytes(b"\xff" * 5_000)
        server.start()
        assert server.call(admin, "GET", "/failures")[1]["groups"] == []
        assert server.stop() == 0
        assert "trends.db is damaged and is made anew" in server.stderr
        assert (directory / "trends.db").stat().st_mode & 0o777 == 0o600
