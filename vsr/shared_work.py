"""The folder through which processes share the files of a batch: who does what, restored windows, what became of each.

    OUTPUT/.vsr-work/members               every process holds it, shared; the last one to leave clears up
    OUTPUT/.vsr-work/rank-N                process N holds it while it is at work
    OUTPUT/.vsr-work/report                held while report.json is changed
    OUTPUT/.vsr-work/long.json             the files of which windows are shared, as the first process of this run chose
    OUTPUT/.vsr-work/NAME/whole, join      held by who restores the file, or joins its windows
    OUTPUT/.vsr-work/NAME/result.json      what became of it in this run
    OUTPUT/.vsr-work/NAME/refused-N.json   process N cannot do it, in this run
    OUTPUT/.vsr-work/NAME/IDENTITY/N       held by who restores window N
    OUTPUT/.vsr-work/NAME/IDENTITY/N.npy   window N, restored; kept until the file is joined
    OUTPUT/.vsr-work/NAME/IDENTITY/N.json  how it was restored

A result stands only while the processes of one run are at work; windows outlive it, and the next run goes on from them.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from vsr.claims import is_held, lock
from vsr.errors import EncoderError, InputError
from vsr.ranks import Rank
from vsr.shared_file import REFUSED, SharedFile, publish_text

NAME = ".vsr-work"
LONG, RANK = "long.json", "rank-"


class SharedWork:
    """The work folder of one output folder, while this process is a member; see `join_work`."""

    def __init__(self, folder: Path, rank: Rank) -> None:
        self.folder, self._rank = folder, rank

    def file(self, name: str, target: Path, identity: Any) -> SharedFile:
        """The part of the folder for the source ``name``, which becomes ``target``.

        Args:
            identity: of source and settings, as JSON holds it.
        """
        known = _short_hash(json.dumps(identity, sort_keys=True))
        return SharedFile(self.folder / _short_hash(target.name), name, known, self._rank)

    def agree(self, choose: Callable[[], list[str]]) -> set[str]:
        """What the first process of this run chose: it holds for all."""
        path = self.folder / LONG
        with self.report_lock():
            if not path.exists():
                publish_text(path, json.dumps(choose()))
        return set(json.loads(path.read_text(encoding="utf-8")))

    def is_hopeless(self, file: SharedFile) -> bool:
        """Every other process has refused the file, or is not at work."""
        others = set(range(self._rank.size)) - {self._rank.index} - file.refusals()
        return not any(is_held(self.folder / f"{RANK}{index}") for index in others)

    @contextmanager
    def report_lock(self) -> Iterator[None]:
        """Held while one process changes what belongs to all."""
        with (self.folder / "report").open("a", encoding="utf-8") as file:
            lock(file, fcntl.LOCK_EX)
            yield


@contextmanager
def join_work(output: Path, rank: Rank) -> Iterator[SharedWork | None]:
    """Become one of the processes that fill ``output``; None for a process alone that finds no windows left to use."""
    folder = output / NAME
    if rank.size == 1 and not folder.is_dir():
        yield None
        return
    with _enter(folder) as members, (folder / f"{RANK}{rank.index}").open("a+", encoding="utf-8") as at_work:
        lock(at_work, fcntl.LOCK_SH)  # not alone: whoever asks whether it is held holds it for a moment
        try:
            yield SharedWork(folder, rank)
        finally:
            if lock(members, fcntl.LOCK_EX | fcntl.LOCK_NB):
                _clear_up(folder)


def _enter(folder: Path) -> TextIO:
    """Hold ``members`` together with the others. Who comes first forgets the results of a run that was killed."""
    path = folder / "members"
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EncoderError(f"{folder}, where processes share a batch, cannot be made: {error.strerror}") from error
        with suppress(FileNotFoundError):
            file = path.open("a+", encoding="utf-8")  # NFS shares a lock only with who may read
            if lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_still(path, file):
                _forget_results(folder)
            lock(file, fcntl.LOCK_SH)
            if _is_still(path, file):  # and not cleared away while this process waited for it
                return file
            file.close()


def _is_still(path: Path, file: TextIO) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def _clear_up(folder: Path) -> None:
    """Leave only windows that can still be joined, and nothing where there are none."""
    for entry in list(folder.iterdir()):
        if entry.is_dir() and (not any(entry.rglob("*.npy")) or _cannot_be_read(entry)):
            shutil.rmtree(entry, ignore_errors=True)
    _forget_results(folder)
    if not any(entry.is_dir() for entry in folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)


def _cannot_be_read(folder: Path) -> bool:
    """The source, as the result in the folder of a file says."""
    with suppress(FileNotFoundError):
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return result.get("exit_code") == InputError.exit_code
    return False


def _forget_results(folder: Path) -> None:
    for pattern in (LONG, "*/result.json", f"*/{REFUSED}*.json"):
        for said in folder.glob(pattern):
            said.unlink()


def _short_hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
