"""Errors that end the process, or keep it from starting."""

from __future__ import annotations

from fastq.errors.kinds import FastqError, StartError

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
    """Acknowledged data is damaged or missing. The message names the file, the offset and the sequence numbers.

    Args:
        segment: the damaged segment; 0 if no segment is damaged.
        sound_seq: frames up to this one can be read in order; None: not known.
        durable_seq: frames up to this one are known to have been durable.
    """

    exit_code = 65

    def __init__(
        self, message: str, *, segment: int = 0, offset: int = 0, sound_seq: int | None = None, durable_seq: int = 0
    ) -> None:
        super().__init__(message)
        self.segment, self.offset, self.sound_seq, self.durable_seq = segment, offset, sound_seq, durable_seq


class BackupDamaged(StartError):
    """An archive is no backup, is incomplete, or has changed. The message says which."""

    exit_code = 65


class RepairRefused(StartError):
    """There is nothing to repair, or this repair does not help. The message says what would."""

    exit_code = 65


class WouldOverwrite(StartError):
    """A command would overwrite existing files."""

    exit_code = 73


class UnsupportedFormat(StartError):
    """A later version of fastq wrote the log. The message names the version that is needed."""

    exit_code = 65


class ClockBehindLog(StartError):
    """The wall clock is more than an hour behind the log's last time."""

    exit_code = 78


# --- while running ----------------------------------------------------------------------------------------------------


class LogFailed(FastqError):
    """A write or a sync failed. No answer leaves any more, and the process ends with this exit code."""

    exit_code = 70


class CoreFailed(FastqError):
    """An appended record cannot be applied: a defect of fastq, or memory ran out. The process ends."""

    exit_code = 70


class RecordTooLarge(FastqError):
    """A record does not fit into one segment: a defect of fastq."""
