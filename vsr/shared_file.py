"""One file that processes restore together: who holds it or a window of it, restored windows, what became of it."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from vsr.claims import claim, is_held, sign
from vsr.errors import EncoderError
from vsr.ranks import Rank
from vsr.video_io.temporary import sync

log = logging.getLogger(__name__)

REFUSED = "refused-"
BYTES_PER_PIXEL = 17
"""Of the result, that restored windows take: 12, and their overlaps."""


class SharedFile:
    """One file of the batch in the work folder.

    Args:
        folder: its own; made when it is missing.
        name: of the source, for people.
        identity: a name for source and settings; windows of another one are never joined.
        rank: this process.
    """

    def __init__(self, folder: Path, name: str, identity: str, rank: Rank) -> None:
        self._folder, self._name, self._rank = folder, name, rank
        self._windows = folder / identity
        self._count: int | None = None

    @property
    def result(self) -> dict[str, Any] | None:
        """What became of the file in this run; None: it is still open."""
        with suppress(FileNotFoundError):
            return json.loads((self._folder / "result.json").read_text(encoding="utf-8"))
        return None

    def refuse(self) -> bool:
        """Say that this process cannot do the file, which others may; whether now all processes have said so.

        It holds while this process is at work: that has to stay until the file is settled.
        """
        with self._disk_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            publish_text(self._folder / f"{REFUSED}{self._rank.index}.json", "{}")
        return len(self.refusals()) >= self._rank.size

    def refusals(self) -> set[int]:
        """The processes that cannot do the file."""
        return {int(path.stem.removeprefix(REFUSED)) for path in self._folder.glob(f"{REFUSED}*.json")}

    def settle(self, result: dict[str, Any]) -> None:
        """Say to all processes what became of the file, unless one has; when it is done, its windows go.

        Those of a file that has failed stay: others may still be at theirs.
        """
        with self._disk_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            if self.result is None:
                publish_text(self._folder / "result.json", json.dumps(result))
        if "error" not in result:
            self.drop_windows()

    def drop_windows(self) -> None:
        """Remove restored windows, of this identity and of others: the result is there."""
        for entry in self._folder.glob("*/"):
            shutil.rmtree(entry, ignore_errors=True)

    @contextmanager
    def claim(self, what: str) -> Iterator[bool]:
        """Whether this process alone does ``what`` ("whole" or "join") while the block runs."""
        with self._disk_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
        with claim(self._folder / what) as held:
            mine = held is not None and self.result is None
            if mine:
                self._sign(held, self._name)
            yield mine

    @property
    def has_windows(self) -> bool:
        """An earlier run left windows that still fit."""
        return self._windows.is_dir() and any(self._windows.glob("*.npy"))

    @contextmanager
    def claim_window(self, number: int) -> Iterator[bool]:
        """Whether this process alone restores a window, not restored yet, while the block runs."""
        if self.result is None:
            with self._disk_errors():
                self._windows.mkdir(parents=True, exist_ok=True)
        with claim(self._windows / f"{number:06d}") as held:
            # the result again: only now can nobody clear up between the question and the work
            mine = held is not None and not self._path(number).exists() and self.result is None
            if mine:
                self._sign(held, f"window {number} of {self._name}")
            yield mine

    def store(self, number: int, x_sr: Tensor, plan: str, notes: list[str]) -> None:
        """Keep a restored window, (F, 3, H, W) float32, and how it was restored; it is there complete or not at all."""
        temporary = self._path(number).with_suffix(".part")
        with self._disk_errors(), removing(temporary):
            publish_text(self._path(number).with_suffix(".json"), json.dumps({"plan": plan, "notes": notes}))
            with temporary.open("wb") as file:
                np.save(file, x_sr.numpy())
            sync(temporary)
            temporary.replace(self._path(number))

    def load(self, number: int, clip: object = None) -> Tensor:
        """A stored window, bit for bit; what is asked of a window as `vsr.restore.restore_frames` asks."""
        try:
            return torch.from_numpy(np.load(self._path(number)))
        except (OSError, ValueError) as error:
            raise EncoderError(
                f"{self._path(number)}: a restored window cannot be read ({error}); delete it and run the same command"
            ) from error

    def made(self) -> dict[str, Any]:
        """The ``plan`` or plans by which the windows were restored, whoever did it, and ``notes`` on that."""
        made = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self._windows.glob("*.json"))]
        plans, notes = (one["plan"] for one in made), (note for one in made for note in one["notes"])
        return {"plan": "; ".join(dict.fromkeys(plans)), "notes": list(dict.fromkeys(notes))}

    def kept_bytes(self) -> int:
        """What its restored windows take."""
        with suppress(FileNotFoundError):  # joined just now
            return sum(path.stat().st_size for path in self._windows.glob("*.npy"))
        return 0

    def seen(self, count: int) -> None:
        """The file has been read to its end: it has ``count`` windows."""
        self._count = count

    @property
    def is_complete(self) -> bool:
        """All windows are there, so that they can be joined."""
        return self._count is not None and not self._missing()

    @property
    def has_free_windows(self) -> bool:
        """Some window is neither restored nor in the hands of a process; or nobody knows yet."""
        if self._count is None:
            return True
        return any(not is_held(self._windows / f"{number:06d}") for number in self._missing())

    def describe(self) -> str:
        """How far the file is, for people."""
        if self._count is None:
            return self._name
        return f"{self._name} ({self._count - len(self._missing())} of {self._count} windows)"

    def _missing(self) -> list[int]:
        return [number for number in range(self._count or 0) if not self._path(number).exists()]

    def _path(self, number: int) -> Path:
        return self._windows / f"{number:06d}.npy"

    def _sign(self, held: TextIO, what: str) -> None:
        owner = f"rank {self._rank.index}"
        if before := sign(held, owner):
            log.warning("%s ended before %s was finished; %s does it again", before, what, owner)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EncoderError(
                f"{self._folder} cannot be written: {error.strerror or error}; while several processes share a file, "
                f"its restored windows lie there, about {BYTES_PER_PIXEL} bytes for each pixel of the result"
            ) from error


def publish_text(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    with removing(temporary):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


@contextmanager
def removing(temporary: Path) -> Iterator[None]:
    """Leave no file there, whatever happens."""
    try:
        yield
    finally:
        with suppress(OSError):
            temporary.unlink()
