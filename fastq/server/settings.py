"""Reads the settings from environment variables. `SETTINGS` lists all of them.

An empty variable counts as not set, because compose files pass empty ones on. Any other invalid value stops the start
with a message that begins with the name of the variable.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastq.errors import BadSetting
from fastq.server.tls import tls_of

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
DURATION_CHARACTERS_MAX = 100

Parse = Callable[[str], Any]
"""Converts the text of a variable. Raises ValueError; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked settings. Units are in the names. A path or URL that is not set is None."""

    host: str
    port: int
    directory: Path
    tls_cert: Path | None
    tls_key: Path | None
    trusted_proxies: tuple[str, ...]
    root_path: str
    log_format: str
    seed_dev_keys: bool
    admin_key_file: Path | None
    redis_url: str | None
    redis_grace_ms: int
    owner_isolation: bool
    lease_ms: int
    lease_check_ms: int
    max_retries: int
    backoff_base_ms: int
    backoff_factor: float
    backoff_cap_ms: int
    segment_bytes: int
    align_bytes: int
    cache_bytes: int
    retention_acked_ms: int
    retention_dead_ms: int
    finished_jobs_max: int
    idempotency_ms: int
    idempotency_keys_max: int
    poison_expiries: int
    queues_max: int
    owner_depth_max: int
    log_slack_bytes: int
    zero_cleaned: bool
    accept_clock_back: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable. field: its attribute of `Settings`. default: as text, empty for none."""

    name: str
    field: str
    default: str
    parse: Parse
    meaning: str


# --- values -----------------------------------------------------------------------------------------------------------

_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d)")
_UNIT_NS = {
    "ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
    "d": 24 * 3600 * 10**9,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]{1,18})(?: ?(KiB|MiB|GiB))?")
_SIZE_UNIT = {None: 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def duration_ns(text: str) -> Fraction:
    """A duration in Go's notation, and with days (d), in nanoseconds. Raises ValueError."""
    if text == "0":
        return Fraction(0)
    total_ns, end = Fraction(0), 0
    for part in _DURATION_PART.finditer(text[:DURATION_CHARACTERS_MAX]):  # a search costs the square of its length
        if part.start() != end:
            break
        total_ns += Fraction(part[1].rstrip(".")) * _UNIT_NS[part[2]]
        end = part.end()
    if end == 0 or end != len(text):
        raise ValueError("a duration, such as 500ms, 30s, 1m30s, 1h or 7d")
    return total_ns


def duration_text(ms: int) -> str:
    """A duration as text: 90000 -> 1m30s."""
    rest_s, rest_ms = divmod(ms, 1000)
    parts = [(rest_s // 3600, "h"), (rest_s // 60 % 60, "m"), (rest_s % 60, "s"), (rest_ms, "ms")]
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def _duration_ms(least_ms: int, most_ms: int) -> Parse:
    def parse(text: str) -> int:
        ms = duration_ns(text) / 10**6
        if not least_ms <= ms <= most_ms:
            raise ValueError(f"a duration from {duration_text(least_ms)} to {duration_text(most_ms)}")
        if ms.denominator != 1:
            raise ValueError("a duration in whole milliseconds")
        return int(ms)

    return parse


def size_text(count: int) -> str:
    """A size in bytes as text: 67108864 -> 64 MiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count} bytes"


def _size_bytes(least: int, most: int) -> Parse:
    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text)
        count = int(match[1]) * _SIZE_UNIT[match[2]] if match else -1
        if not least <= count <= most:
            raise ValueError(
                f"a size from {size_text(least)} to {size_text(most)}: a number of bytes, or with KiB, MiB or GiB"
            )
        return count

    return parse


def _align_bytes(text: str) -> int:
    count = int(text) if _INTEGER.fullmatch(text) else 0
    if not 512 <= count <= 65_536 or count & (count - 1):
        raise ValueError("a power of two from 512 to 65536, in bytes")
    return count


def _integer(least: int, most: int) -> Parse:
    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return parse


def _factor(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not 1 <= float(text) <= 100:
        raise ValueError("a number from 1 to 100")
    return float(text)


def _boolean(text: str) -> bool:
    if text not in ("true", "false", "1", "0"):
        raise ValueError("true, false, 1 or 0")
    return text in ("true", "1")


def _one_of(*words: str) -> Parse:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return parse


def _host(text: str) -> str:
    if _HOST.fullmatch(text):
        return text
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("an address or a host name, without a port") from None


def _proxies(text: str) -> tuple[str, ...]:
    networks = [part.strip() for part in text.split(",")]
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ValueError(f"addresses or networks (10.0.0.0/8) with commas between them: {error}") from None
    return tuple(networks)


def _root_path(text: str) -> str:
    if not _ROOT_PATH.fullmatch(text.rstrip("/")):
        raise ValueError("a path such as /queue: letters, digits and . _ ~ - between slashes")
    return text.rstrip("/")


def _readable_file(text: str) -> Path:
    path = Path(text)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"a file that can be read: {error.strerror}") from None


def _redis_url(text: str) -> str:
    text = text if "://" in text else f"redis://{text}"
    allowed = "host:port, redis://… or rediss://…"
    try:
        url = urlsplit(text)
        is_good = url.scheme in ("redis", "rediss") and bool(url.hostname) and url.port != 0
    except ValueError:  # its message may contain the password
        raise ValueError(allowed) from None
    if not is_good:
        raise ValueError(allowed)
    return text


# --- the list ---------------------------------------------------------------------------------------------------------

_YEAR_MS = 8760 * 3_600_000

SETTINGS: tuple[Setting, ...] = (
    Setting("HOST", "host", "127.0.0.1", _host, "address to listen on; 0.0.0.0 for all addresses"),
    Setting("PORT", "port", "8080", _integer(0, 65_535), "port to listen on; 0 lets the system choose one"),
    Setting("WAL_DIR", "directory", "./data", Path, "data directory of jobs and keys; created if missing"),
    Setting("TLS_CERT", "tls_cert", "", _readable_file, "certificate chain, PEM; together with TLS_KEY"),
    Setting("TLS_KEY", "tls_key", "", _readable_file, "its private key, PEM, without a passphrase"),
    Setting("TRUSTED_PROXIES", "trusted_proxies", "", _proxies,
            "addresses or networks whose X-Forwarded-For is trusted"),
    Setting("ROOT_PATH", "root_path", "", _root_path,
            "path under which a proxy shows this server, for the console's links: /queue"),
    Setting("LOG_FORMAT", "log_format", "text", _one_of("text", "json"), "format of log lines: text, json"),
    Setting("SEED_DEV_KEYS", "seed_dev_keys", "true", _boolean,
            "whether the first start creates and prints three development keys"),
    Setting("ADMIN_KEY_FILE", "admin_key_file", "", _readable_file,
            "file with the first admin key; read at the first start if SEED_DEV_KEYS is false"),
    Setting("REDIS_URL", "redis_url", "", _redis_url,
            "keep keys there, not in the log: host:port, redis://… or rediss://…"),
    Setting("REDIS_OUTAGE_GRACE", "redis_grace_ms", "5m", _duration_ms(1_000, 24 * 3_600_000),
            "how long keys already in use work while Redis is down"),
    Setting("OWNER_ISOLATION", "owner_isolation", "true", _boolean, "whether a client key sees its owner's jobs only"),
    Setting("LEASE_DURATION", "lease_ms", "30s", _duration_ms(1_000, 12 * 3_600_000),
            "length of a lease, unless the request, job or queue sets one"),
    Setting("LEASE_CHECK_INTERVAL", "lease_check_ms", "5s", _duration_ms(10, 60_000),
            "longest time between two checks for expired leases and due jobs"),
    Setting("DEFAULT_MAX_RETRIES", "max_retries", "3", _integer(0, 1000), "max_retries of a job that sets none"),
    Setting("BACKOFF_BASE", "backoff_base_ms", "1s", _duration_ms(1, 24 * 3_600_000),
            "upper bound of the wait after the first failed attempt"),
    Setting("BACKOFF_FACTOR", "backoff_factor", "2", _factor, "factor of that bound for each further attempt"),
    Setting("BACKOFF_CAP", "backoff_cap_ms", "1h", _duration_ms(1, 30 * 24 * 3_600_000),
            "maximum of that bound; not below BACKOFF_BASE"),
    Setting("WAL_SEGMENT_BYTES", "segment_bytes", "64MiB", _size_bytes(4 * MIB, GIB),
            "size of a log file in a log in use; a multiple of WAL_ALIGN"),
    Setting("WAL_ALIGN", "align_bytes", "4096", _align_bytes,
            "bytes that the device writes atomically; batches are aligned to it"),
    Setting("PAYLOAD_CACHE_BYTES", "cache_bytes", "16MiB", _size_bytes(0, 64 * GIB),
            "size of the cache of recently written payloads"),
    Setting("RETENTION_ACKED", "retention_acked_ms", "24h", _duration_ms(0, 10 * _YEAR_MS),
            "how long an ACKED job is kept"),
    Setting("RETENTION_DEAD", "retention_dead_ms", "720h", _duration_ms(0, 10 * _YEAR_MS),
            "how long a DEAD job is kept"),
    Setting("MAX_FINISHED_JOBS", "finished_jobs_max", "1000000", _integer(0, 10**9),
            "maximum of jobs kept in each final state; the oldest are deleted first"),
    Setting("IDEMPOTENCY_WINDOW", "idempotency_ms", "1h", _duration_ms(60_000, _YEAR_MS),
            "how long an idempotency key is remembered"),
    Setting("IDEMPOTENCY_KEYS_MAX", "idempotency_keys_max", "8000000", _integer(1, 10**9),
            "maximum of remembered answers (a batch has one a job), oldest keys dropped first; "
            "429 if all are under a minute old"),
    Setting("POISON_EXPIRIES", "poison_expiries", "0", _integer(0, 255),
            "consecutive expired leases that make a job DEAD; 0: never"),
    Setting("QUEUES_MAX", "queues_max", "1000000", _integer(1, 10**8),
            "maximum of queues; above it a job for a new queue is refused"),
    Setting("OWNER_MAX_DEPTH", "owner_depth_max", "0", _integer(0, 10**9),
            "maximum of unfinished jobs of an owner; 0: no limit"),
    Setting("WAL_SLACK_BYTES", "log_slack_bytes", "256MiB", _size_bytes(MIB, 1024 * GIB),
            "disk space beyond twice the live data before the log is cleaned; at least two segments"),
    Setting("WAL_ZERO_CLEANED", "zero_cleaned", "false", _boolean,
            "whether a log file is overwritten with zeros before it is deleted"),
    Setting("ACCEPT_CLOCK_BACK", "accept_clock_back", "false", _boolean,
            "start although this machine's clock is more than an hour behind the log"),
)  # fmt: skip

PREFIX = "FASTQ_"
NEAR = 0.82  # how alike two names are, 0 to 1
OTHERS = frozenset({"FASTQ_URL", "FASTQ_KEY", "FASTQ_KEY_FILE", "FASTQ_RETRY_FOR"})  # of clients
_NOT_SHOWN = frozenset({"REDIS_URL", "FASTQ_REDIS_URL"})  # it may contain a password


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`, a mapping like os.environ. FASTQ_PORT is PORT, and wins. Raises BadSetting."""
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        name = PREFIX + setting.name if _is_prefixed(environ, setting.name) else setting.name
        text = environ.get(name) or setting.default
        values[setting.field] = _value(name, text, setting.parse) if text else None
    values["trusted_proxies"] = values["trusted_proxies"] or ()
    values["root_path"] = values["root_path"] or ""
    settings = Settings(**values)
    _check_together(settings)
    return settings


def settings_shown(settings: Settings) -> list[tuple[str, str, bool, str]]:
    """Return each setting's name, its value as it may be written, whether it is the default, and its meaning.

    A password in a URL is left out.
    """
    shown = []
    for setting in SETTINGS:
        value = getattr(settings, setting.field)
        is_default = (value or None) == (setting.parse(setting.default) or None if setting.default else None)
        shown.append((setting.name, _text(setting, value), is_default, setting.meaning))
    return shown


def _text(setting: Setting, value: Any) -> str:
    """The value as text that `load_settings` takes."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if setting.name in _NOT_SHOWN:
        url = urlsplit(str(value))
        return url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl()
    if setting.field.endswith("_ms"):
        return duration_text(value)
    if setting.field.endswith("_bytes"):
        return str(value) if value % MIB else size_text(value).replace(" ", "")
    return str(value)


def _is_prefixed(environ: Mapping[str, str], name: str) -> bool:
    """Whether the variable with the prefix is given. Kubernetes sets FASTQ_PORT=tcp://… for a service named fastq."""
    text = environ.get(PREFIX + name, "")
    return bool(text) and not text.startswith("tcp://")


def near_misses(environ: Mapping[str, str]) -> list[str]:
    """A warning for each variable that is no setting but nearly the name of one."""
    known = [setting.name for setting in SETTINGS]
    warnings = []
    for name in sorted(environ):
        bare = name.removeprefix(PREFIX)
        if bare in known or name in OTHERS:
            continue
        if near := get_close_matches(bare.upper(), known, 1, NEAR):
            warnings.append(f"{name} is not a setting: did you mean {name[: len(name) - len(bare)]}{near[0]}?")
    return warnings


def _value(name: str, text: str, parse: Parse) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        given = "the value given" if name in _NOT_SHOWN else repr(text)
        raise BadSetting(f"{name}: {given} cannot be used; allowed: {error}") from None


def _check_together(settings: Settings) -> None:
    """Check settings that depend on each other. Raises BadSetting."""
    if settings.backoff_cap_ms < settings.backoff_base_ms:
        raise BadSetting(
            f"BACKOFF_CAP: {duration_text(settings.backoff_cap_ms)} cannot be used; allowed: BACKOFF_BASE "
            f"({duration_text(settings.backoff_base_ms)}) or longer"
        )
    if settings.segment_bytes % settings.align_bytes:
        raise BadSetting(
            f"WAL_SEGMENT_BYTES: {settings.segment_bytes} cannot be used; allowed: a multiple of WAL_ALIGN "
            f"({settings.align_bytes})"
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        missing, given = ("TLS_CERT", "TLS_KEY") if settings.tls_cert is None else ("TLS_KEY", "TLS_CERT")
        raise BadSetting(f"{missing}: missing; {given} is set, and one needs the other")
    tls_of(settings.tls_cert, settings.tls_key)
