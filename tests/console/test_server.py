from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path
from urllib.request import Request, urlopen

from fastq.console.parts import Start
from fastq.log.files.log import LocalLog
from fastq.server.settings import load_settings, settings_shown
from tests.console.conftest import Browser
from tests.console.test_guard import site_of
from tests.http.world import World, running


async def test_the_server_page(world: World, admin: Browser) -> None:
    await world.submit()
    page = await admin.page("/console/server")
    assert world.engine.database_id.hex() in page
    assert "1 segment" in page and "disk full" not in page
    world.log.disk_full = True
    assert "submits are refused" in await admin.page("/console/server"), "it answers while the disk is full"
    world.log.disk_full = False


async def test_what_the_start_found_and_the_settings(world: World, admin: Browser) -> None:
    environ = {"WAL_DIR": "/data", "RETENTION_ACKED": "90m", "REDIS_URL": "redis://u:secret@r:6379/0?password=secret"}
    shown = settings_shown(load_settings(environ))
    values = {name: (value, is_default) for name, value, is_default, _ in shown}
    assert values["RETENTION_ACKED"] == ("1h30m", False)
    assert values["LEASE_DURATION"] == ("30s", True)
    assert values["WAL_SEGMENT_BYTES"] == ("64MiB", True)
    assert values["SEED_DEV_KEYS"] == ("true", True)
    assert values["TLS_CERT"] == ("", True)
    assert values["REDIS_URL"] == ("redis://r:6379/0", False)
    again = {name: value for name, (value, _) in values.items() if value}
    assert load_settings(again | {"REDIS_URL": environ["REDIS_URL"]}) == load_settings(environ)
    (found,) = [page for page in site_of(world).pages if page.path == "/console/server"]
    pages = found.responder.__self__  # type: ignore[attr-defined]
    pages._start = Start(shown, ["recovered 3 frames", "a torn tail <script>"])
    text = await admin.page("/console/server")
    assert "recovered 3 frames" in text and "1h30m" in text
    assert "secret" not in text and "<script>" not in text.partition("</head>")[2]


async def test_a_backup_to_download(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "log")
    async with running(log=log) as world:
        admin = await Browser(world).log_in("admin")
        await world.submit("in the backup")
        await admin.page("/console/server")
        reply = await admin.post("/console/server/backup", csrf="wrong")
        assert reply.status == 403
        url = f"http://127.0.0.1:{world.port}/console/server/backup"
        form = Request(url, f"csrf={admin.csrf}".encode(), {"Cookie": admin.cookie})
        answer = await asyncio.to_thread(urlopen, form)  # the archive comes in chunks
        assert answer.headers["content-type"] == "application/x-tar"
        assert answer.headers["content-disposition"].startswith('attachment; filename="fastq-')
        archived = await asyncio.to_thread(answer.read)
        with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
            files = [archive.extractfile(one) for one in archive if one.isfile()]
            assert any(b"in the backup" in file.read() for file in files if file is not None)


async def test_a_log_in_memory_has_no_backup(admin: Browser) -> None:
    reply = await admin.post("/console/server/backup")
    assert reply.status == 409 and b"That does not go now" in reply.body
