"""Time stamps: of decoded frames, made strictly increasing as encoders demand, and of the frames that are written."""

import logging
import math
from fractions import Fraction

import av

from vsr.video_io.info import VideoInfo
from vsr.video_io.refusals import refuse_damaged

log = logging.getLogger(__name__)

FINE_STEPS = 1000
"""Units per step of a constant rate, so that a late start is kept to a thousandth of a frame."""
NTSC = 1001
LARGEST = 2**31 - 1
"""FFmpeg keeps the parts of a rate in 32 bits."""


class Timeline:
    """Gives each frame its time in units of ``info.time_base``, counted from ``info.origin``.

    Containers without presentation times (AVI, raw streams) make FFmpeg guess them. As in the ffmpeg program, the
    decoding times are used instead as soon as the guesses have run backwards more often than those.

    Args:
        strict: refuse a clock that starts again; else what follows is squeezed behind the last frame.
    """

    def __init__(self, info: VideoInfo, *, strict: bool = True) -> None:
        self._name, self._strict = info.path, strict
        self._second = round(1 / info.time_base)
        self._origin = round(info.origin / info.time_base)
        self._step = max(1, round(1 / (info.rate * info.time_base)))
        self._shown, self._decoded = _Order(), _Order()
        self._last: int | None = None
        self._warned = False

    def time_of(self, frame: av.VideoFrame) -> int:
        self._shown.see(frame.pts)
        self._decoded.see(frame.dts)
        guess_fails = self._shown.faults > self._decoded.faults
        stamp = frame.dts if frame.pts is None or (guess_fails and frame.dts is not None) else frame.pts
        self._last = self._after_last(stamp)
        return self._last

    def _after_last(self, stamp: int | None) -> int:
        if stamp is None:
            return 0 if self._last is None else self._last + self._step
        time = stamp - self._origin
        if self._last is None or time > self._last:
            return time
        if self._strict and self._last - time > self._second:
            raise refuse_damaged(self._name, "its time stamps start again, as in files that were joined")
        if not self._warned:
            log.warning("%s: time stamps run backwards at %d; such frames are moved behind the last", self._name, stamp)
            self._warned = True
        return self._last + 1


class _Order:
    """Counts how often a sequence fails to increase."""

    def __init__(self) -> None:
        self.faults = 0
        self._last: int | None = None

    def see(self, stamp: int | None) -> None:
        if stamp is None:
            return
        self.faults += self._last is not None and stamp <= self._last
        self._last = stamp


class OutputClock:
    """Turns the time stamps of the source into those of the result.

    A rate such as 23.976024 is taken for the simple one nearest to it, 24000/1001: containers hold no finer ones.
    """

    def __init__(self, info: VideoInfo, fps: Fraction | None) -> None:
        self._source_base, self._fps = info.time_base, fps and _simple(fps)
        if info.kind == "video" and info.frame_count is None and fps == info.rate:
            self._fps = None  # nobody has counted whether the rate varies
        if self._fps is None and info.kind != "video":
            self._fps = info.rate
        self.rate = self._fps or info.rate
        self.time_base = 1 / Fraction(self.rate.numerator * FINE_STEPS) if self._fps else info.time_base
        self.shift = -info.origin
        self._first = 0

    def start(self, pts: int) -> None:
        """Note the first time stamp. NUT has no times before zero, so a negative one moves everything up."""
        self._first = round(pts * self._source_base / self.time_base)
        if self._first < 0:
            self.shift -= self._first * self.time_base

    def tick(self, index: int, pts: int) -> int:
        """Time stamp of frame ``index`` in units of ``time_base``."""
        base = -min(self._first, 0)
        if self._fps is None:
            return pts + base
        return self._first + base + index * round(1 / (self._fps * self.time_base))


def _simple(rate: Fraction) -> Fraction:
    return rate.limit_denominator(max(1, min(NTSC, LARGEST // (FINE_STEPS * math.ceil(rate)))))
