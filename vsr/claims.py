"""Claims of processes on files of a shared folder: locks, which the system gives back however a process ends.

So nothing has to tell a dead owner from a slow one: no heartbeat, no process numbers, no clocks of several machines.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from vsr.errors import EncoderError, UsageError


@contextmanager
def claim(path: Path) -> Iterator[TextIO | None]:
    """Hold ``path`` alone while the block runs; None, at once, where another process holds it or its folder is gone."""
    try:
        file = path.open("a+", encoding="utf-8")
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise EncoderError(f"{path} cannot be written: {error.strerror}") from error
    with file:
        yield file if lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB) else None


def is_held(path: Path) -> bool:
    """Whether another process holds ``path`` now."""
    if not path.exists():
        return False
    with claim(path) as held:
        return held is None


def lock(file: TextIO, kind: int) -> bool:
    """Lock an open file as `fcntl.flock` does; False where another process holds it.

    Raises:
        UsageError: the file system has no locks.
    """
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UsageError(
            f"{file.name} cannot be locked ({error.strerror}); several processes need an --output_path on a file "
            f"system with locks (flock): use another one, or one process"
        ) from error
    return True


def sign(file: TextIO, name: str) -> str:
    """Write into a claim who holds it; returns who did before, empty when nobody."""
    file.seek(0)
    before = file.read()
    with suppress(OSError):  # only for people: a full disk is told where the work needs it
        file.truncate(0)
        file.write(f"{name} (process {os.getpid()} on {socket.gethostname()})")
        file.flush()
    return before
