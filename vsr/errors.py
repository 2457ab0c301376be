"""Errors that a user can act on. Each kind has the exit code that every program of this repository ends with."""


class VSRError(Exception):
    """Base of all errors with a message written for the user: what was expected, what was got, what to do."""

    exit_code = 1


class UsageError(VSRError, ValueError):
    """A setting is wrong or contradicts another one."""

    exit_code = 2


class InputError(VSRError):
    """A file or folder cannot be read as a video, a folder of frames or an image."""

    exit_code = 3


class OutOfMemoryError(VSRError):
    """The device ran out of memory; the message names settings that need less."""

    exit_code = 4


class ModelError(VSRError):
    """A model folder is missing, incomplete or not of a kind this repository runs."""

    exit_code = 5


class EncoderError(VSRError):
    """The video encoder failed or the disk is full; the message carries ffmpeg's own words."""

    exit_code = 6


SOME_FAILED = 7
"""Exit code when at least one of several items failed; the others are done and each failure is named."""

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""
