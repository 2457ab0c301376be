"""Results that appear under their final name only when complete."""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vsr.claims import is_held, lock
from vsr.errors import EncoderError, UsageError

log = logging.getLogger(__name__)

OWNER = "owner"
"""Held, as long as it is in use, in the folder that becomes a result."""


@contextmanager
def complete_or_nothing(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside ``target``; what is put there as ``result`` is renamed to ``target`` at the end.

    Leaving by an exception of any kind removes the folder. Folders that a killed run left behind are removed first.
    """
    _refuse_foreign_folder(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        marker = _marker(target)
        for left in target.parent.glob(f"{marker}*"):
            if _is_in_use(left):
                log.warning("another process is writing %s, too", target)
            else:
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=marker, dir=target.parent))
    except OSError as error:
        raise EncoderError(f"cannot write into {target.parent}: {error.strerror}") from error
    try:
        with _in_use(folder):
            yield folder
            _publish(folder / "result", target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    with (folder / OWNER).open("w", encoding="utf-8") as file:
        with suppress(UsageError):  # no locks here: then a folder in use looks like one that was left
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _is_in_use(folder: Path) -> bool:
    with suppress(UsageError, OSError):
        return is_held(folder / OWNER)
    return False


def sync(path: Path) -> None:
    """Force a file or folder to the disk, so that a power cut cannot empty what a rename has published."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _publish(result: Path, target: Path) -> None:
    try:
        sync(result)
        if os.path.lexists(target) and (result.is_dir() or (target.is_dir() and not target.is_symlink())):
            target.rename(result.with_name("replaced"))  # only a file can be renamed onto a file, or onto a link
        result.replace(target)
        sync(target.parent)
    except OSError as error:
        raise EncoderError(f"cannot finish {target}: {error.strerror}") from error


def _refuse_foreign_folder(target: Path) -> None:
    """Only a folder of frames, as a writer here makes it, is ever replaced, with a desktop's own notes on it."""
    frames = r"\d{6,}\.png|\.DS_Store|Thumbs\.db"
    if target.is_dir() and not all(re.fullmatch(frames, entry.name) for entry in target.iterdir()):
        raise UsageError(f"{target} is a folder with other files than frames; it is not replaced, give another name")


def _marker(target: Path) -> str:
    """A hidden name of fixed length: the target's own may already be as long as the file system allows."""
    return f".vsr-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"
