"""Results that appear under their final name only when complete."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsr.errors import EncoderError, UsageError


@contextmanager
def complete_or_nothing(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside ``target``; what is put there as ``result`` is renamed to ``target`` at the end.

    Leaving by an exception of any kind removes the folder. Folders that a killed run left behind are removed first.
    """
    _refuse_foreign_folder(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        marker = _marker(target)
        for stale in target.parent.glob(f"{marker}*"):
            shutil.rmtree(stale, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=marker, dir=target.parent))
    except OSError as error:
        raise EncoderError(f"cannot write into {target.parent}: {error.strerror}") from error
    try:
        yield folder
        _publish(folder / "result", target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        if target.is_dir() and not target.is_symlink():
            target.rename(result.with_name("replaced"))  # a folder cannot be renamed onto one that has files
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
