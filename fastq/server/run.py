"""The server process: it reads settings, starts a node, serves requests and stops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import faulthandler
import gc
import ipaddress
import logging
import os
import random
import secrets
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator

import uvicorn
import uvloop

from fastq import __version__
from fastq.clock import Clock, start_us, wall_us
from fastq.console.parts import Start
from fastq.engine import Engine, EngineOptions
from fastq.errors import ApiError, BadSetting, DirectoryFailed, LogFailed, StartError
from fastq.http.connection.accept import Acceptor, connections_max, raise_file_limit
from fastq.http.lane._lane import Lane
from fastq.log.files.log import LocalLog
from fastq.log.protocol import Opened
from fastq.server.assembly import Node
from fastq.server.first_start import FirstKeys, make_first_keys, note_seen
from fastq.server.logs import configure_logs, counted, jobs_counted, notice
from fastq.server.settings import Settings, near_misses, settings_shown
from fastq.server.tls import tls_of
from fastq.services.keys import KeyStore

logger = logging.getLogger("fastq.server")

DRAIN_S = 0.5  # after a signal /ready answers 503 for that long before connections close, for load balancers
FINISH_S = 5  # then requests in flight have that long
STOP_S = 9.5  # the whole stop takes at most that long
SAVE_USED_S = 600.0
BACKLOG = 2048
TRENDS = "trends.db"
ORIGINAL_LOG = "jobs.wal"
SLACK_SEGMENTS_MIN = 2  # with less, the active segment alone exceeds the slack and the cleaner cannot make room


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    configure_logs(settings.log_format)
    for warning in near_misses(os.environ):
        logger.warning("%s", warning)
    faulthandler.enable()
    _ignore_signals()
    try:
        raise_file_limit()
        listener = _bind(settings)
        node, opened = open_node(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, listener, node, opened))
    except StartError as error:
        print(f"fastq: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"fastq: {error}", file=sys.stderr)
        return DirectoryFailed.exit_code
    except KeyboardInterrupt:  # before the loop handles signals
        return 130
    return 0


# --- before the loop --------------------------------------------------------------------------------------------------


def _bind(settings: Settings) -> socket.socket:
    """Bind the address before a long recovery. The socket listens only after it. Raises BadSetting."""
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise BadSetting(f"HOST: '{host}' is not an address of this machine: {error.strerror}") from None
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        name = "HOST" if error.errno == errno.EADDRNOTAVAIL else "PORT"
        raise BadSetting(f"{name}: cannot listen on {host} port {port}: {error.strerror}") from None
    return listener


def open_node(settings: Settings) -> tuple[Node, Opened]:
    """Recover the log. Raises StartError, OSError."""
    log = LocalLog(
        settings.directory,
        segment_bytes=settings.segment_bytes,
        align=settings.align_bytes,
        cache_bytes=settings.cache_bytes,
        zero_cleaned=settings.zero_cleaned,
    )
    options = EngineOptions(
        lease_ms=settings.lease_ms,
        lease_check_ms=settings.lease_check_ms,
        max_retries=settings.max_retries,
        backoff_base_ms=settings.backoff_base_ms,
        backoff_factor=settings.backoff_factor,
        backoff_cap_ms=settings.backoff_cap_ms,
        owner_isolation=settings.owner_isolation,
        retention_acked_ms=settings.retention_acked_ms,
        retention_dead_ms=settings.retention_dead_ms,
        finished_jobs_max=settings.finished_jobs_max,
        idempotency_ms=settings.idempotency_ms,
        idempotency_keys_max=settings.idempotency_keys_max,
        poison_expiries=settings.poison_expiries,
        queues_max=settings.queues_max,
        owner_depth_max=settings.owner_depth_max,
        log_slack_bytes=max(settings.log_slack_bytes, SLACK_SEGMENTS_MIN * settings.segment_bytes),
    )
    node = Node(log, options, random.SystemRandom().random)
    try:
        return node, node.open()
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise BadSetting(f"WAL_DIR: '{settings.directory}' cannot be used: {error.strerror}") from None
    except OSError as error:
        raise DirectoryFailed(f"the data directory '{settings.directory}': {error}") from error


# --- on the loop ------------------------------------------------------------------------------------------------------


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers, with our accept loop, and with a callback when it listens."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._tls, self._on_listening = tls, on_listening

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        state, config = self.server_state, self.config
        for listener in sockets or []:
            acceptor = Acceptor(listener, connections_max(), state.connections, self._protocol, self._tls)
            acceptor.open(config.backlog)
            self.servers.append(acceptor)  # type: ignore[arg-type]  # uvicorn calls close and wait_closed
        self._on_listening()

    def _protocol(self) -> asyncio.Protocol:
        return Lane(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def use(self, tls: ssl.SSLContext) -> None:
        """Use another certificate for the connections accepted from now on."""
        self._tls = tls
        for acceptor in self.servers:
            acceptor.tls = tls  # type: ignore[attr-defined]

    def hang_up(self) -> None:
        """Abort all open connections: unfinished requests and unread answers."""
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


async def _serve(settings: Settings, listener: socket.socket, node: Node, opened: Opened) -> None:
    """Serve on a recovered log until a stop. Raises StartError, OSError."""
    stop = _stop_signal()
    engine = node.engine
    clock = clock_of(settings, engine)
    recovered = _recovered(engine, opened) + _left_behind(settings, opened)
    async with node.running(clock, die, settings.redis_url, settings.redis_grace_ms) as keys:
        first = await make_first_keys(settings, keys, engine)
        await keys.claim()
        await engine.durable()  # durable before a secret is printed
        await _answer_requests(settings, listener, node, first, recovered, stop)
    logger.info("stopped")


async def _answer_requests(
    settings: Settings, listener: socket.socket, node: Node, first: FirstKeys, recovered: list[str], stop: asyncio.Event
) -> None:
    """Serve HTTP while the engine runs, until `stop` is set; then drain."""
    url = _url(settings, listener)
    started = asyncio.Event()

    def listening() -> None:
        gc.collect()
        gc.freeze()  # objects of the start live on: exclude them from collections
        started.set()

    start = Start(settings_shown(settings), recovered)
    trends_path = settings.directory / TRENDS
    async with node.serving(secrets.token_hex(4), settings.root_path, start, trends_path) as app:
        server = HttpServer(_http_config(settings, app), tls_of(settings.tls_cert, settings.tls_key), listening)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, settings, server)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        saying = asyncio.create_task(_say_started(settings, node.engine, started, url, recovered, first))
        saving = asyncio.create_task(_save_used(node.keys))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            await _drain(node.engine, server)
        saying.cancel()
        saving.cancel()
        stopping.cancel()
        await serving
    with contextlib.suppress(ApiError):  # a full disk must not fail the stop: last_used_at is then stale
        await node.keys.save_used(every_us=1)


def clock_of(settings: Settings, engine: Engine) -> Clock:
    """Raises ClockBehindLog."""
    return Clock(start_us(engine.last_us, wall_us(), settings.accept_clock_back))


def _stop_signal() -> asyncio.Event:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _ignore_signals() -> None:
    """Ignore the signals that would end the process by default and mean no stop. SIGHUP has a handler later."""
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_IGN)


def _reload(settings: Settings, server: HttpServer) -> None:
    """Load the certificate again. One that cannot be used changes nothing."""
    try:
        tls = tls_of(settings.tls_cert, settings.tls_key)
    except BadSetting as error:
        logger.error("SIGHUP: the certificate in use stays: %s", error)
        return
    if tls is None:
        logger.info("SIGHUP: there is nothing to reload without TLS_CERT")
        return
    server.use(tls)
    logger.info("SIGHUP: new connections use the certificate in %s", settings.tls_cert)


def _http_config(settings: Settings, app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=Lane,
        ws="none",
        lifespan="off",
        interface="asgi3",
        workers=1,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=FINISH_S + 2,  # never reached: hang_up runs before it
    )


async def _drain(engine: Engine, server: HttpServer) -> None:
    """Accept no more work, answer requests in flight, close connections."""
    logger.info("stopping: no new work is accepted; requests in flight are answered")
    engine.drain()
    loop = asyncio.get_running_loop()
    loop.call_later(STOP_S, _give_up)
    await asyncio.sleep(DRAIN_S)
    server.should_exit = True
    loop.call_later(FINISH_S, server.hang_up)


async def _save_used(keys: KeyStore) -> None:
    while True:
        await asyncio.sleep(SAVE_USED_S)
        with contextlib.suppress(ApiError):  # retried next time
            await keys.save_used()


def die(error: BaseException) -> None:
    """Exit at once. After a failed log no answer can be trusted."""
    logger.critical("the log failed, exiting: %s", error)
    sys.stderr.flush()
    os._exit(LogFailed.exit_code)


def _give_up() -> None:
    logger.critical("the stop took longer than %s s, exiting", STOP_S)
    sys.stderr.flush()
    os._exit(LogFailed.exit_code)


# --- start messages ---------------------------------------------------------------------------------------------------


def _recovered(engine: Engine, opened: Opened) -> list[str]:
    """The findings of the recovery, one a line."""
    if not opened.records:
        return ["a new log", *opened.notes]
    frames, records = counted(opened.frames, "frame"), counted(opened.records, "record")
    lines = [f"recovered {frames}, {records}, {jobs_counted(engine.counts())}"]
    if skipped := engine.skipped_records:
        lines.append(f"skipped {counted(skipped, 'record')} of deleted jobs")
    return lines + opened.notes


def _left_behind(settings: Settings, opened: Opened) -> list[str]:
    """Say that a new log does not have the jobs of the original server's log beside it."""
    original = settings.directory.absolute() / ORIGINAL_LOG
    if opened.records or not original.is_file():
        return []
    found = f"{ORIGINAL_LOG} is the log of another server, and its jobs are not in this one"
    return [f"{found}; this submits the unfinished: fastq import-wal {original}"]


def _url(settings: Settings, listener: socket.socket) -> str:
    """The URL of the server on this machine."""
    scheme = "https" if settings.tls_cert else "http"
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"{scheme}://{host}:{port}" if ":" not in host else f"{scheme}://[{host}]:{port}"


async def _say_started(
    settings: Settings, engine: Engine, started: asyncio.Event, url: str, recovered: list[str], first: FirstKeys
) -> None:
    """Print the start message once the server listens. First keys count as seen before the last line is printed."""
    await started.wait()
    directory = settings.directory.absolute()
    lines = [f"fastq {__version__} serves at {url}", *(f"Data in {directory}: {line}" for line in recovered)]
    _say([*lines, *first.lines], settings.log_format)
    if first.are_unseen:
        note_seen(engine)
        await engine.durable()
    key = first.client_secret or "$CLIENT"
    curl = f"""  curl {url}/jobs -H "Authorization: Bearer {key}" -d '{{"payload":"hello"}}'"""
    _say(["Submit a job:", curl], settings.log_format)
    if not _is_loopback(settings.host) and settings.tls_cert is None:
        logger.warning("HOST is %s and there is no TLS_CERT: keys travel in the clear", settings.host)


def _say(lines: list[str], log_format: str) -> None:
    """Print lines on standard output, which may be closed. As JSON each is an object, as the log's lines are."""
    try:
        print("\n".join(map(notice, lines) if log_format == "json" else lines), flush=True)
    except OSError as error:
        logger.warning("cannot write the start message to standard output: %s", error.strerror)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the flush at exit fails again


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
