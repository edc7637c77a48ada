"""`fastq submit`, `lease`, `extend`, `ack` and `job …` on a real server."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fastq import Client, NewJob
from tests.cli.conftest import Done, Run
from tests.client.served import Place

UNKNOWN_ID = "01a20cc7-8ec2-7154-8000-000000469c9a"


def submitted(run: Run, *arguments: str, stdin: str = "") -> str:
    done = run("submit", *arguments, stdin=stdin)
    assert done.code == 0, done.err
    return done.out.strip()


def dead(client: Client, queue: str, payload: str = "x") -> str:
    job_id = client.submit(payload, queue=queue).job_id
    (job,) = client.lease([queue])
    client.fail(job, "no luck", discard=True)
    return job_id


# --- submit -----------------------------------------------------------------------------------------------------------


def test_submit_sends_all_options(run: Run, client: Client, queue: str) -> None:
    job_id = submitted(
        run, '{"to":  "ann"}', "--queue", queue, "--group", "g", "--priority", "7", "--max-retries", "5", "--tag", "a",
        "--tag", "b", "--delay", "1m30s", "--lease", "5s", "--expires", "2h", "--backoff", "1s,2,1m",
    )  # fmt: skip
    job = client.get(job_id, with_payload=True)
    assert (job.queue, job.group, job.priority, job.max_retries, job.tags) == (queue, "g", 7, 5, ("a", "b"))
    assert bytes(job.payload_json) == b'{"to":  "ann"}', "as it was given"
    assert job.run_at is not None and job.run_at - job.created_at == timedelta(seconds=90)
    assert job.expires_at is not None and job.expires_at - job.created_at == timedelta(hours=2)


def test_payloads_are_json_or_text(run: Run, client: Client, queue: str) -> None:
    assert client.get(submitted(run, "hello", "--text", "--queue", queue), with_payload=True).payload == "hello"
    assert client.get(submitted(run, "-", "--queue", queue, stdin="[1]\n"), with_payload=True).payload == [1]
    done = run("submit", "hello")
    assert done.code == 2 and "PAYLOAD is not JSON" in done.err and "--text" in done.err


def test_submit_lines(run: Run, client: Client, queue: str, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("".join(f'{{"n":{n}}}\n' for n in range(2_345)) + "\n")
    ids = run("submit", "--lines", str(path), "--queue", queue, "--priority", "3").lines
    assert [job.job_id for job in client.jobs(queue=queue)] == ids[::-1] and len(ids) == 2_345
    assert client.get(ids[1_234], with_payload=True).payload == {"n": 1_234}
    path.write_text("1\n\nnothing\n")
    done = run("submit", "--lines", str(path), "--queue", queue)
    assert (done.code, done.out) == (2, "") and "line 3 is not JSON" in done.err


def test_an_idempotency_key_gets_the_same_job(run: Run, queue: str) -> None:
    keyed = ("1", "--queue", queue, "--idempotency-key", queue)
    assert submitted(run, *keyed) == submitted(run, *keyed)
    unique = ("submit", "1", "--queue", queue, "--unique-key", "u", "--json")
    first, second = run(*unique).answer, run(*unique).answer
    assert second == {"job_id": first["job_id"], "duplicate": True}


def test_submit_and_wait(run: Run, client: Client, queue: str) -> None:
    def work(result: str | None) -> None:
        (job,) = client.lease([queue], wait_ms=20_000)
        if result is None:
            client.fail(job, "no luck", discard=True)
        else:
            client.ack(job, result)

    def waited(result: str | None, *arguments: str) -> Done:
        worker = threading.Thread(target=work, args=(result,))
        worker.start()
        done = run("submit", "1", "--queue", queue, "--wait", *arguments)
        worker.join()
        return done

    good = waited("sent", "--json").answer
    assert (good["state"], good["result"]) == ("ACKED", "sent")
    bad = waited(None)
    assert bad.code == 1 and "state" in bad.out and bad.err.endswith("is DEAD: no luck\n")
    late = run("submit", "1", "--queue", queue, "--wait", "--timeout", "50ms")
    assert late.code == 4 and "is READY after 0.05 s" in late.err


# --- lease, extend, ack -----------------------------------------------------------------------------------------------


def test_lease_extend_and_ack(run: Run, client: Client, queue: str) -> None:
    job_id = submitted(run, '{"to":"ann"}', "--queue", queue)
    shown = dict(line.split(maxsplit=1) for line in run("lease", "--queue", queue, "--worker-id", "w").lines)
    assert (shown["job_id"], shown["payload"], shown["queue"]) == (job_id, '{"to":"ann"}', queue)
    assert client.get(job_id).worker_id == "w"
    extended = run("extend", job_id, shown["lease_token"], "--lease", "1h", "--json").answer
    assert datetime.fromisoformat(extended["lease_until"]) > datetime.now(UTC) + timedelta(minutes=50)
    assert run("ack", job_id, shown["lease_token"], "--result", '{"sent":1}').out == f"{job_id}\n"
    assert client.get(job_id).result == {"sent": 1}
    lost = run("ack", job_id, "000000017f0df83aeeeb1450")
    assert lost.code == 1 and "(lease_lost)" in lost.err


def test_no_ready_job_exits_with_4(run: Run, queue: str) -> None:
    done = run("lease", "--queue", queue, "--queue", "other", "--wait", "20ms")
    assert (done.code, done.out, done.err) == (4, "", f"fastq: no job is ready in {queue}, other\n")


@pytest.mark.parametrize(
    ("how", "state", "outcome"),
    [
        (("--error", "no", "--error-code", "c", "--retry-after", "1h"), "RETRY", "error"),
        (("--error", "no", "--discard"), "DEAD", "discarded"),
        (("--snooze", "1h"), "SCHEDULED", "snoozed"),
        (("--release",), "READY", "released"),
        (("--result", "done", "--text"), "ACKED", "ok"),
        ((), "ACKED", "ok"),
    ],
)
def test_ack_reads_leases_from_a_pipe(
    run: Run, client: Client, queue: str, how: tuple[str, ...], state: str, outcome: str
) -> None:
    for n in range(2):
        client.submit(n, queue=queue)
    leased = run("lease", "--queue", queue, "--max", "5", "--json")
    assert [lease["payload"] for lease in leased.answers] == [0, 1]
    acked = run("ack", "-", *how, "--json", stdin=leased.out).answers
    assert [one["ok"] for one in acked] == [True, True]
    assert {(job.state, job.outcome) for job in client.jobs(queue=queue)} == {(state, outcome)}


def test_contradicting_options_are_refused(run: Run) -> None:
    for arguments, message in (
        (("ack", "x"), "TOKEN is missing"),
        (("ack", "x", "y", "--error", "e", "--release"), "at most one of"),
        (("ack", "x", "y", "--discard"), "need --error"),
        (("job", "cancel"), "either JOB_ID or a filter"),
        (("job", "delete", "x", "--queue", "q"), "either JOB_ID or a filter"),
        (("job", "cancel", "--queue", "q", "--force"), "need JOB_ID"),
        (("job", "redrive", "--queue", "q"), "give --yes"),
        (("job", "edit", "x"), "one of --payload"),
        (("job", "list", "--since", "yesterday"), "is not a time"),
        (("submit", "1", "--run-at", "2030-01-01T00:00:00"), "is not a time with its zone"),
        (("submit", "1", "--delay", "soon"), "'soon' is not a duration"),
        (("submit", "1", "--backoff", "1s"), "is not a base"),
        (("submit",), "PAYLOAD is missing"),
    ):
        done = run(*arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
        assert message in done.err


# --- job --------------------------------------------------------------------------------------------------------------


def test_show_a_job_with_attempts_and_history(run: Run, client: Client, queue: str) -> None:
    job_id = dead(client, queue)
    text = run("job", "show", job_id, "--payload", "--attempts", "--history", "--why").out
    for part in ("DEAD", "1 of 3", "no luck", "payload", "why:", "attempts:", "history:", "discarded"):
        assert part in text
    answer = run("job", "show", job_id, "--payload", "--attempts", "--history", "--why", "--json").answer
    assert (answer["payload"], answer["result_error"], answer["why"]["reason"]) == ("x", "no luck", "finished")
    assert [one["outcome"] for one in answer["ended_attempts"]] == ["discarded"]
    assert [one["what"] for one in answer["history"]] == ["attempt", "submitted"]
    assert run("job", "show", job_id, "--wait").code == 1
    gone = run("job", "show", UNKNOWN_ID)
    assert gone.code == 1 and "(404 job_not_found)" in gone.err


def test_json_equals_the_api(run: Run, place: Place, client: Client, queue: str) -> None:
    job_id = client.submit({"to": "ann"}, queue=queue, tags=["a"]).job_id
    _, answer = place.server.call(place.keys["admin"], "GET", f"/jobs/{job_id}?include=payload")
    assert run("job", "show", job_id, "--payload", "--json").answer == answer


def test_jobs_are_listed(run: Run, client: Client, queue: str) -> None:
    ids = [one.job_id for one in client.submit_many([NewJob(payload=n, queue=queue) for n in range(1_200)])][::-1]
    page = run("job", "list", "--queue", queue, "--limit", "3")
    assert [line.split()[0] for line in page.lines] == ["job_id", *ids[:3]]
    cursor = page.err.split("--cursor ")[1].strip()
    following = run("job", "list", "--queue", queue, "--limit", "3", "--cursor", cursor, "--json")
    assert [job["job_id"] for job in following.answers] == ids[3:6]
    everything = run("job", "list", "--queue", queue, "--all")
    assert [line.split()[0] for line in everything.lines] == ["job_id", *ids] and everything.err == ""
    assert run("job", "list", "--queue", queue, "--since", "1h", "--match", "1199", "--json").answer["job_id"] == ids[0]
    assert run("job", "list", "--queue", queue, "--state", "dead").out == ""


def test_jobs_are_found_by_how_they_failed(run: Run, client: Client, queue: str) -> None:
    ids = [one.job_id for one in client.submit_many([NewJob(payload=n, queue=queue, max_retries=1) for n in range(3)])]
    failing, other, fine = client.lease([queue], limit=3, worker_id="w-7")
    client.fail(failing, "SMTP 550: no such user\nsecond line", code="e1")
    client.fail(other, "disk full", code="e1")
    client.ack(fine)
    found = run("job", "list", "--queue", queue, "--error", "550", "--json").answer
    assert (found["job_id"], found["result_error"], found["error_code"]) == (ids[0], "SMTP 550: no such user", "e1")
    assert found["finished_at"] > found["created_at"]
    table = run("job", "list", "--queue", queue, "--error-code", "e1").lines
    assert [line.split("\t")[0] for line in table[1:]] == ids[1::-1]
    assert "SMTP 550: no such user" in table[2]
    assert len(run("job", "list", "--queue", queue, "--worker", "w-7", "--json").answers) == 3
    assert run("job", "redrive", "--queue", queue, "--error", "disk", "--yes").out == "1 matched, 1 changed\n"


def test_a_list_that_goes_on_says_how_far_it_looked(run: Run, client: Client, queue: str) -> None:
    client.submit_many([NewJob(payload=n, queue=queue) for n in range(3)])
    assert re.search(r"there may be more before \d{4}-.*Z: --all, or --cursor ", run("job", "list", "--limit", "1").err)


def test_a_job_is_edited(run: Run, client: Client, queue: str) -> None:
    job_id = client.submit(1, queue=queue).job_id
    done = run("job", "edit", job_id, "--payload", "new", "--text", "--priority", "4", "--delay", "1h")
    assert done.out == f"{job_id}  SCHEDULED\n"
    assert client.get(job_id, with_payload=True).payload == "new"


def test_jobs_are_submitted_again(run: Run, client: Client, queue: str) -> None:
    job_id = dead(client, queue, "x")
    done = run("job", "resubmit", job_id, "--priority", "4", "--delay", "1h")
    new = client.get(done.out.strip(), with_payload=True)
    assert (new.payload, new.priority, new.queue, new.state) == ("x", 4, queue, "SCHEDULED")
    assert run("job", "resubmit", job_id, "--queue", f"{queue}.2", "--json").answer["job_id"] not in (
        job_id,
        new.job_id,
    )
    missing = run("job", "resubmit", UNKNOWN_ID, job_id)
    assert missing.code == 1 and UNKNOWN_ID in missing.err and len(missing.lines) == 1
    assert client.get(job_id).state == "DEAD"


def test_jobs_are_changed_by_id(run: Run, client: Client, queue: str) -> None:
    job_id, other = dead(client, queue), client.submit(1, queue=queue).job_id
    assert run("job", "redrive", job_id).out == f"{job_id}  READY\n"
    partly = run("job", "cancel", job_id, UNKNOWN_ID, other, "--wait")
    assert partly.lines == [f"{job_id}  CANCELLED", f"{other}  CANCELLED"]
    assert partly.code == 1 and UNKNOWN_ID in partly.err and partly.err.count("\n") == 1
    assert run("job", "delete", job_id, other, "--json").answers[1] == {"job_id": other, "state": "deleted"}
    assert list(client.jobs(queue=queue)) == []


def test_force_ends_a_running_job(run: Run, client: Client, queue: str) -> None:
    job_id = client.submit(1, queue=queue).job_id
    client.lease([queue])
    assert run("job", "cancel", job_id).out == f"{job_id}  RUNNING\n"
    assert run("job", "cancel", job_id, "--force").out == f"{job_id}  CANCELLED\n"


def test_redrive_and_wait(run: Run, client: Client, queue: str) -> None:
    job_id = dead(client, queue)

    def work() -> None:
        (job,) = client.lease([queue], wait_ms=20_000)
        client.ack(job)

    worker = threading.Thread(target=work)
    worker.start()
    assert run("job", "redrive", job_id, "--wait").lines == [f"{job_id}  READY", f"{job_id}  ACKED"]
    worker.join()


def test_jobs_are_changed_by_filter(run: Run, client: Client, queue: str) -> None:
    dead(client, queue)
    client.submit(1, queue=queue)
    tried = run("job", "delete", "--queue", queue, "--state", "DEAD", "--dry-run", "--json").answer
    assert tried == {"matched": 1, "changed": 0, "complete": True}
    assert run("job", "redrive", "--queue", queue, "--yes").out == "1 matched, 1 changed\n"
    assert run("job", "cancel", "--queue", queue, "--yes").out == "2 matched, 2 changed\n"
    assert run("job", "delete", "--queue", queue, "--yes").out == "2 matched, 2 changed\n"
    assert json.loads(run("queues", "list", "--json").out.splitlines()[-1])["name"] != queue
