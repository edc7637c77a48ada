"""Errors that end the process, or keep it from starting."""

from __future__ import annotations

from fastq.errors.roots import FastqError, StartError

# --- at the start -----------------------------------------------------------------------------------------------------


class BadSetting(StartError):
    """An environment variable has a value that cannot be used. The message begins with the variable's name."""

    exit_code = 78


class DirectoryLocked(StartError):
    """Another server uses the data directory."""

    exit_code = 75


class DirectoryFailed(StartError):
    """The data directory could not be read or written: the device failed, or is full."""

    exit_code = 74


class LogDamaged(StartError):
    """Acknowledged data is damaged or missing. The message names the file, the offset and the sequences.

    Args:
        segment: the damaged one; 0 if the damage is not in a segment.
        sound_seq: all frames up to this one can be read; None: unknown.
        durable_seq: all frames up to this one were durable.
    """

    exit_code = 65

    def __init__(
        self, message: str, *, segment: int = 0, offset: int = 0, sound_seq: int | None = None, durable_seq: int = 0
    ) -> None:
        super().__init__(message)
        self.segment, self.offset, self.sound_seq, self.durable_seq = segment, offset, sound_seq, durable_seq


class BackupDamaged(StartError):
    """An archive is not a backup, is incomplete, or has changed since it was written. The message says which."""

    exit_code = 65


class RepairRefused(StartError):
    """There is nothing to repair, or not with these options. The message says what to do."""

    exit_code = 65


class NothingToRepair(RepairRefused):
    """The log is sound: a server starts on it."""


class WouldOverwrite(StartError):
    """A command would overwrite files."""

    exit_code = 73


class UnsupportedFormat(StartError):
    """The log was written by a later version. The message names the version that is needed."""

    exit_code = 65


class ClockBehindLog(StartError):
    """The wall clock is more than an hour behind the log's last time."""

    exit_code = 78


# --- while running ----------------------------------------------------------------------------------------------------


class LogFailed(FastqError):
    """A write or a sync failed. The process stops answering and ends with this exit code."""

    exit_code = 70


class CoreFailed(FastqError):
    """An appended record cannot be applied: a bug of ours, or no memory. The process ends as for LogFailed."""

    exit_code = 70


class RecordTooLarge(FastqError):
    """A record does not fit into a segment: a limit of ours is wrong."""
