"""What a person or a program sees while files are restored: bars and tables, or one JSON object a line on stdout."""

import json
import sys
import time
from typing import Any

from tqdm import tqdm


class Bars:
    """For people: a bar on stderr for each file, with frames per second and the time left; tables on stdout."""

    def __init__(self, num_files: int) -> None:
        self._num_files, self._numbers, self._bar = num_files, {}, None

    def expect(self, num_files: int) -> None:
        """So many files are left to do."""
        self._num_files = num_files

    def start(self, name: str, num_frames: int | None) -> None:
        """A file begins; ``num_frames`` None: not known."""
        label = f"[{self._number(name)}/{self._num_files}] {name}"
        self._bar = tqdm(total=num_frames, unit="frame", desc=label, dynamic_ncols=True, smoothing=0.1)

    def _number(self, name: str) -> int:
        """Of a file, from 1; it stays the same when the file begins again."""
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def advance(self, num_frames: int) -> None:
        """Frames became final."""
        self._bar.set_postfix_str("", refresh=False)
        self._bar.update(num_frames)

    def tile(self, done: int, count: int) -> None:
        """Of the tiles of a window, where there are several: frames become final with the last one only."""
        if count > 1:
            self._bar.set_postfix_str(f"tile {done} of {count}")

    def done(self, facts: dict[str, Any]) -> None:
        """The file is finished."""
        self.stop()
        for note in facts["notes"]:
            tqdm.write(f"  {note}", file=sys.stderr)

    def stop(self) -> None:
        """No more of this file."""
        if self._bar is not None:
            self._bar.close()

    def event(self, event: str, **facts: Any) -> None:
        """Something that people read elsewhere."""

    def table(self, name: str, text: str, facts: Any) -> None:
        """A table, or what it holds."""
        print(printable(text))


def printable(text: str) -> str:
    """With escapes for the bytes of file names that are not UTF-8: most terminals refuse them."""
    return text.encode("utf-8", "backslashreplace").decode()


class JsonLines(Bars):
    """For programs: the same as events start, progress, done, and those of others; nothing else goes to stdout."""

    def start(self, name: str, num_frames: int | None) -> None:
        self._name, self._total, self._frames, self._start = name, num_frames, 0, time.perf_counter()
        self.event("start", file=name, number=self._number(name), files=self._num_files, frames=num_frames)

    def advance(self, num_frames: int) -> None:
        self._frames += num_frames
        rate = self._frames / (time.perf_counter() - self._start)
        left = max(0, self._total - self._frames) / rate if self._total else None
        facts = {"frames_per_second": round(rate, 3), "seconds_left": None if left is None else round(left, 1)}
        self.event("progress", file=self._name, done=self._frames, frames=self._total, **facts)

    def tile(self, done: int, count: int) -> None:
        if count > 1:
            self.event("tile", file=self._name, done=done, tiles=count)

    def done(self, facts: dict[str, Any]) -> None:
        self.event("done", file=self._name, **facts)

    def event(self, event: str, **facts: Any) -> None:
        print(json.dumps({"event": event, **facts}), flush=True)

    def table(self, name: str, text: str, facts: Any) -> None:
        self.event(name, **facts)


class Silent(Bars):
    """For the processes that do not speak for all."""

    def start(self, name: str, num_frames: int | None) -> None:
        pass

    def advance(self, num_frames: int) -> None:
        pass

    def tile(self, done: int, count: int) -> None:
        pass

    def done(self, facts: dict[str, Any]) -> None:
        pass

    def table(self, name: str, text: str, facts: Any) -> None:
        pass
