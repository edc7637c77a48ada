from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from fastq.engine import EngineOptions
from fastq.errors import BadSetting
from fastq.server.settings import SETTINGS, Settings, duration_ns, duration_text, load_settings, near_misses, size_text

DEFAULTS = {
    "host": "127.0.0.1",
    "port": 8080,
    "directory": Path("data"),
    "tls_cert": None,
    "tls_key": None,
    "trusted_proxies": (),
    "root_path": "",
    "log_format": "text",
    "seed_dev_keys": True,
    "admin_key_file": None,
    "redis_url": None,
    "redis_grace_ms": 300_000,
    "owner_isolation": True,
    "lease_ms": 30_000,
    "lease_check_ms": 5_000,
    "max_retries": 3,
    "backoff_base_ms": 1_000,
    "backoff_factor": 2.0,
    "backoff_cap_ms": 3_600_000,
    "segment_bytes": 64 << 20,
    "align_bytes": 4096,
    "cache_bytes": 16 << 20,
    "accept_clock_back": False,
    "retention_acked_ms": 86_400_000,
    "retention_dead_ms": 30 * 86_400_000,
    "finished_jobs_max": 1_000_000,
    "idempotency_ms": 3_600_000,
    "idempotency_keys_max": 8_000_000,
    "poison_expiries": 0,
    "queues_max": 1_000_000,
    "owner_depth_max": 0,
    "log_slack_bytes": 256 << 20,
    "zero_cleaned": False,
}


def refusal(**environ: str) -> str:
    with pytest.raises(BadSetting) as caught:
        load_settings(environ)
    assert caught.value.exit_code == 78
    return str(caught.value)


def test_defaults() -> None:
    assert dataclasses.asdict(load_settings({})) == DEFAULTS


def test_an_empty_variable_is_not_set() -> None:
    names = [setting.name for setting in SETTINGS]
    assert load_settings(dict.fromkeys(names, "")) == load_settings({})


def test_the_list_and_the_fields_are_the_same() -> None:
    assert [setting.field for setting in SETTINGS] == [field.name for field in dataclasses.fields(Settings)]
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    assert all(setting.meaning for setting in SETTINGS)


def test_the_engines_defaults_are_the_settings() -> None:
    settings, options = load_settings({}), EngineOptions()
    both = {field.name for field in dataclasses.fields(EngineOptions)} & {setting.field for setting in SETTINGS}
    assert len(both) == len(dataclasses.fields(EngineOptions)) - 1, "finished_bytes_max alone is no setting"
    assert {name: getattr(options, name) for name in both} == {name: getattr(settings, name) for name in both}


def test_every_meaning_differs_and_settings_are_frozen() -> None:
    assert len({setting.meaning for setting in SETTINGS}) == len(SETTINGS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings({}).port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("HOST", "0.0.0.0", "host", "0.0.0.0"),
        ("HOST", "::1", "host", "::1"),
        ("HOST", "queue.example.org", "host", "queue.example.org"),
        ("PORT", "0", "port", 0),
        ("PORT", "65535", "port", 65_535),
        ("WAL_DIR", "/var/lib/fastq", "directory", Path("/var/lib/fastq")),
        ("TRUSTED_PROXIES", "10.0.0.0/8, ::1", "trusted_proxies", ("10.0.0.0/8", "::1")),
        ("ROOT_PATH", "/a/queue/", "root_path", "/a/queue"),
        ("ROOT_PATH", "/", "root_path", ""),
        ("LOG_FORMAT", "json", "log_format", "json"),
        ("SEED_DEV_KEYS", "false", "seed_dev_keys", False),
        ("SEED_DEV_KEYS", "0", "seed_dev_keys", False),
        ("REDIS_URL", "rediss://redis/1", "redis_url", "rediss://redis/1"),
        ("REDIS_OUTAGE_GRACE", "24h", "redis_grace_ms", 86_400_000),
        ("OWNER_ISOLATION", "1", "owner_isolation", True),
        ("LEASE_DURATION", "1s", "lease_ms", 1_000),
        ("LEASE_DURATION", "12h", "lease_ms", 43_200_000),
        ("LEASE_DURATION", "1m30.5s", "lease_ms", 90_500),
        ("LEASE_CHECK_INTERVAL", "10ms", "lease_check_ms", 10),
        ("LEASE_CHECK_INTERVAL", "1m", "lease_check_ms", 60_000),
        ("DEFAULT_MAX_RETRIES", "0", "max_retries", 0),
        ("DEFAULT_MAX_RETRIES", "1000", "max_retries", 1000),
        ("BACKOFF_BASE", "1ms", "backoff_base_ms", 1),
        ("BACKOFF_FACTOR", "1.5", "backoff_factor", 1.5),
        ("BACKOFF_CAP", "24h", "backoff_cap_ms", 86_400_000),
        ("WAL_SEGMENT_BYTES", "4194304", "segment_bytes", 4 << 20),
        ("WAL_SEGMENT_BYTES", "1GiB", "segment_bytes", 1 << 30),
        ("WAL_SEGMENT_BYTES", "8 MiB", "segment_bytes", 8 << 20),
        ("WAL_ALIGN", "512", "align_bytes", 512),
        ("WAL_ALIGN", "65536", "align_bytes", 65_536),
        ("PAYLOAD_CACHE_BYTES", "0", "cache_bytes", 0),
        ("ACCEPT_CLOCK_BACK", "true", "accept_clock_back", True),
        ("RETENTION_ACKED", "90s", "retention_acked_ms", 90_000),
        ("RETENTION_DEAD", "1h", "retention_dead_ms", 3_600_000),
        ("MAX_FINISHED_JOBS", "10", "finished_jobs_max", 10),
        ("WAL_SLACK_BYTES", "1MiB", "log_slack_bytes", 1 << 20),
        ("WAL_ZERO_CLEANED", "true", "zero_cleaned", True),
    ],
)
def test_values(name: str, text: str, field: str, value: object) -> None:
    assert dataclasses.asdict(load_settings({name: text})) == DEFAULTS | {field: value}


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("HOST", "127.0.0.1:80", "an address or a host name, without a port"),
        ("HOST", "a b", "an address or a host name, without a port"),
        ("PORT", "http", "a whole number from 0 to 65535"),
        ("PORT", "-1", "a whole number from 0 to 65535"),
        ("PORT", "65536", "a whole number from 0 to 65535"),
        ("PORT", " 80", "a whole number from 0 to 65535"),
        ("PORT", "8\u0660", "a whole number from 0 to 65535"),
        ("TLS_CERT", "/no/such/file", "a file that can be read"),
        ("ADMIN_KEY_FILE", "/", "a file that can be read"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "addresses or networks"),
        ("TRUSTED_PROXIES", "*", "addresses or networks"),
        ("ROOT_PATH", "queue", "a path such as /queue"),
        ("ROOT_PATH", "//evil", "a path such as /queue"),
        ("TRUSTED_PROXIES", "10.0.0.1,", "addresses or networks"),
        ("LOG_FORMAT", "JSON", "text or json"),
        ("SEED_DEV_KEYS", "yes", "true, false, 1 or 0"),
        ("SEED_DEV_KEYS", "False", "true, false, 1 or 0"),
        ("OWNER_ISOLATION", "2", "true, false, 1 or 0"),
        ("LEASE_DURATION", "999ms", "a duration from 1s to 12h"),
        ("LEASE_DURATION", "12h1ms", "a duration from 1s to 12h"),
        ("LEASE_DURATION", "30", "a duration, such as 500ms"),
        ("LEASE_DURATION", "30 s", "a duration, such as 500ms"),
        ("LEASE_DURATION", "-30s", "a duration, such as 500ms"),
        ("LEASE_DURATION", "1w", "a duration, such as 500ms"),
        ("LEASE_DURATION", "1s1", "a duration, such as 500ms"),
        ("LEASE_DURATION", "1000.5ms", "a duration in whole milliseconds"),
        ("LEASE_CHECK_INTERVAL", "9ms", "a duration from 10ms to 1m"),
        ("LEASE_CHECK_INTERVAL", "61s", "a duration from 10ms to 1m"),
        ("DEFAULT_MAX_RETRIES", "1001", "a whole number from 0 to 1000"),
        ("DEFAULT_MAX_RETRIES", "3.0", "a whole number from 0 to 1000"),
        ("BACKOFF_BASE", "0", "a duration from 1ms to 24h"),
        ("BACKOFF_FACTOR", "0.5", "a number from 1 to 100"),
        ("BACKOFF_FACTOR", "nan", "a number from 1 to 100"),
        ("BACKOFF_CAP", "10ms", "BACKOFF_BASE (1s) or longer"),
        ("WAL_SEGMENT_BYTES", "4194303", "a size from 4 MiB to 1 GiB"),
        ("WAL_SEGMENT_BYTES", "2GiB", "a size from 4 MiB to 1 GiB"),
        ("WAL_SEGMENT_BYTES", "64MB", "a size from 4 MiB to 1 GiB"),
        ("WAL_SEGMENT_BYTES", "4194305", "a multiple of WAL_ALIGN (4096)"),
        ("WAL_ALIGN", "256", "a power of two from 512 to 65536"),
        ("WAL_ALIGN", "131072", "a power of two from 512 to 65536"),
        ("WAL_ALIGN", "4095", "a power of two from 512 to 65536"),
        ("WAL_ALIGN", "four", "a power of two from 512 to 65536"),
        ("PAYLOAD_CACHE_BYTES", "-1", "a size from 0 bytes to 64 GiB"),
        ("ACCEPT_CLOCK_BACK", "maybe", "true, false, 1 or 0"),
    ],
)
def test_an_invalid_value_names_the_variable_and_the_limits(name: str, text: str, allowed: str) -> None:
    message = refusal(**{name: text})
    assert message.startswith(f"{name}: ")
    assert allowed in message
    if name not in ("BACKOFF_CAP",):  # shown as it was understood, not as it was written
        assert text in message or repr(text) in message


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("redis:6379", "redis://redis:6379"),
        ("redis", "redis://redis"),
        ("rediss://:pw@redis/1", "rediss://:pw@redis/1"),
        ("", None),
    ],
)
def test_redis_urls(text: str, url: str | None) -> None:
    assert load_settings({"REDIS_URL": text}).redis_url == url


@pytest.mark.parametrize("text", ["http://redis", "redis://redis:0", "redis://:6379", "redis:port"])
def test_wrong_redis_urls(text: str) -> None:
    message = refusal(REDIS_URL=text)
    assert message.startswith("REDIS_URL: the value given cannot be used; allowed: ")
    assert text not in message


def test_a_password_is_not_repeated() -> None:
    assert "hunter2" not in refusal(REDIS_URL="http://user:hunter2@redis")


@pytest.mark.parametrize(("given", "missing"), [("TLS_CERT", "TLS_KEY"), ("TLS_KEY", "TLS_CERT")])
def test_certificate_and_key_come_together(tmp_path: Path, given: str, missing: str) -> None:
    file = tmp_path / "pem"
    file.touch()
    assert refusal(**{given: str(file)}).startswith(f"{missing}: missing")


def test_an_invalid_certificate_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pem"
    file.write_text("nothing")
    assert refusal(TLS_CERT=str(file), TLS_KEY=str(file)).startswith("TLS_CERT: ")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the key")
def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=localhost", "-passout", "pass:secret"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert refusal(TLS_CERT=str(cert), TLS_KEY=str(key)).startswith("TLS_CERT: ")


@pytest.mark.parametrize(
    ("text", "ns"),
    [("0", 0), ("0s", 0), ("1h", 3600 * 10**9), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), (".5s", 500_000_000),
     ("1.s", 10**9), ("500ms", 500_000_000), ("3us", 3_000), ("3µs", 3_000), ("3μs", 3_000), ("7ns", 7),
     ("1s1s", 2 * 10**9)],
)  # fmt: skip
def test_durations_are_read_as_go_reads_them(text: str, ns: int) -> None:
    assert duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "1", "s", ".s", "1 s", "1s ", "1S", "1e3s", "1h-1s", "1w"])
def test_invalid_durations(text: str) -> None:
    with pytest.raises(ValueError, match="a duration, such as"):
        duration_ns(text)


@pytest.mark.parametrize(("ms", "text"), [(0, "0s"), (90_000, "1m30s"), (3_600_000, "1h"), (1_001, "1s1ms")])
def test_durations_are_written_short_and_read_back(ms: int, text: str) -> None:
    assert duration_text(ms) == text
    assert duration_ns(text) == ms * 10**6


def test_sizes_are_written_for_people() -> None:
    written = [size_text(count) for count in (0, 512, 1024, 4 << 20, 1 << 30)]
    assert written == ["0 bytes", "512 bytes", "1 KiB", "4 MiB", "1 GiB"]


def test_the_readme_lists_every_setting() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    rows = [line for line in readme.splitlines() if line.startswith("| `")]
    expected = []
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else ""
        expected.append(f"| `{setting.name}` | {default} | {setting.meaning} |")
    assert rows == expected


def test_days_and_the_prefix() -> None:
    assert load_settings({"RETENTION_ACKED": "7d"}).retention_acked_ms == 7 * 24 * 3_600_000
    assert load_settings({"FASTQ_PORT": "81", "PORT": "82"}).port == 81
    assert load_settings({"FASTQ_PORT": "", "PORT": "82"}).port == 82
    assert load_settings({"FASTQ_PORT": "tcp://10.0.0.1:80", "PORT": "82"}).port == 82  # Kubernetes sets it
    for setting in SETTINGS:
        if setting.name not in ("TLS_CERT", "TLS_KEY", "ADMIN_KEY_FILE", "REDIS_URL") and setting.default:
            assert load_settings({f"FASTQ_{setting.name}": setting.default}) == load_settings({})
    with pytest.raises(BadSetting, match=r"^FASTQ_PORT:"):
        load_settings({"FASTQ_PORT": "x", "PORT": "82"})


def test_near_misses_of_names() -> None:
    assert near_misses(
        {"LEASE_DURTION": "1s", "FASTQ_LEASE_DURATIONS": "1s", "PATH": "", "HOSTNAME": "", "HOME": ""}
    ) == [
        "FASTQ_LEASE_DURATIONS is not a setting: did you mean FASTQ_LEASE_DURATION?",
        "LEASE_DURTION is not a setting: did you mean LEASE_DURATION?",
    ]
    assert near_misses({name: "" for setting in SETTINGS for name in (setting.name, f"FASTQ_{setting.name}")}) == []
