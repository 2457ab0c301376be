"""What a person or a program sees while files are restored: a bar on stderr, or one JSON object a line on stdout."""

import json
import time
from typing import Any

from tqdm import tqdm


class Bars:
    """A bar for each file, with frames per second and the time left."""

    def __init__(self, num_files: int) -> None:
        self._num_files, self._begun, self._bar = num_files, 0, None

    def start(self, name: str, num_frames: int | None) -> None:
        """A file begins; ``num_frames`` None: not known."""
        self._begun += 1
        label = f"[{self._begun}/{self._num_files}] {name}"
        self._bar = tqdm(total=num_frames, unit="frame", desc=label, dynamic_ncols=True, smoothing=0.1)

    def advance(self, num_frames: int) -> None:
        """Frames became final."""
        self._bar.update(num_frames)

    def done(self, facts: dict[str, Any]) -> None:
        """The file is finished."""
        self._bar.close()
        for note in facts["notes"]:
            tqdm.write(f"  {note}")

    def failed(self, name: str, reason: str, exit_code: int) -> None:
        """The file could not be restored."""
        if self._bar is not None:
            self._bar.close()

    def end(self, exit_code: int) -> None:
        """All files are through."""


class JsonLines:
    """The same as events: start, progress, done, failed, end."""

    def __init__(self, num_files: int) -> None:
        self._num_files, self._begun = num_files, 0

    def start(self, name: str, num_frames: int | None) -> None:
        self._begun += 1
        self._name, self._total, self._frames, self._start = name, num_frames, 0, time.perf_counter()
        _print("start", file=name, number=self._begun, files=self._num_files, frames=num_frames)

    def advance(self, num_frames: int) -> None:
        self._frames += num_frames
        rate = self._frames / (time.perf_counter() - self._start)
        left = (self._total - self._frames) / rate if self._total else None
        facts = {"frames_per_second": round(rate, 3), "seconds_left": None if left is None else round(left, 1)}
        _print("progress", file=self._name, done=self._frames, frames=self._total, **facts)

    def done(self, facts: dict[str, Any]) -> None:
        _print("done", file=self._name, **facts)

    def failed(self, name: str, reason: str, exit_code: int) -> None:
        _print("failed", file=name, error=reason, exit_code=exit_code)

    def end(self, exit_code: int) -> None:
        _print("end", exit_code=exit_code)


def _print(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}, ensure_ascii=False), flush=True)
