"""A few frames out of the middle of a video, without decoding the rest. Frames are (H, W, 3) uint8 RGB.

decord reads first; what it cannot read (AVI, AV1) and machines without it (its wheels are for x86-64) use PyAV.
"""

import contextlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Protocol

import av
import numpy as np
from av.container import InputContainer

from finetune.data.sources import Source
from vsr.errors import InputError
from vsr.video_io import VideoInfo, probe, read_frames
from vsr.video_io.colour import RgbConverter, siting_is_unstated
from vsr.video_io.images import read_image
from vsr.video_io.media import open_media

TIMED = frozenset((".mp4", ".m4v", ".mov", ".mkv", ".webm"))
"""Files that state when each frame is shown. In others (AVI) decord finds the wrong frames."""
CHUNK = 16
"""Frames that decord decodes at once; its memory grows with them."""


class Clip(Protocol):
    """A video that gives any run of consecutive frames."""

    def __len__(self) -> int: ...

    def frames(self, start: int, count: int) -> Iterator[np.ndarray]: ...


def open_clip(path: Path) -> Clip:
    """Open a video; InputError names the file and the reason when it cannot be read."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; let finetune.scripts.prepare_dataset write the list anew")
    exact = PyavClip(path)  # refuses what inference refuses, and knows frames that a cut has left in a file but hidden
    fast = None if exact.leaves_colours_open else open_with_decord(path)
    return fast if fast is not None and len(fast) == len(exact) else exact


def open_source(source: Source) -> Clip:
    """Open a video, or the part of one."""
    clip = open_clip(source.path)
    return clip if source.span is None and source.box is None else ClipPart(clip, source)


class ClipPart:
    """Some frames of a clip, and a box of each."""

    def __init__(self, clip: Clip, source: Source) -> None:
        self._clip, self._source = clip, source
        self._start, self._stop = source.span or (0, len(clip))
        if not 0 <= self._start < self._stop <= len(clip):
            raise InputError(f"{source.path}: has {len(clip)} frames, but {self._start} to {self._stop} are asked for")

    def __len__(self) -> int:
        return self._stop - self._start

    def frames(self, start: int, count: int) -> Iterator[np.ndarray]:
        for frame in self._clip.frames(self._start + start, count):
            yield self._cropped(frame)

    def _cropped(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        x, y, w, h = self._source.box or (0, 0, width, height)
        if x < 0 or y < 0 or x + w > width or y + h > height:
            raise InputError(f"{self._source.path}: is {width}x{height}, too small for its box of {w}x{h} at {x}, {y}")
        return frame[y : y + h, x : x + w]


def open_with_decord(path: Path) -> "DecordClip | None":
    """None where decord is not installed or cannot be relied on to read the file."""
    if path.suffix.lower() not in TIMED:
        return None
    try:
        import decord
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        return DecordClip(path, decord)
    except (decord.DECORDError, RuntimeError):  # the second for files that it cannot open
        return None


class DecordClip:
    """Random access by decord. A file that turns out damaged is read by PyAV, which says what is wrong with it."""

    def __init__(self, path: Path, decord: ModuleType) -> None:
        self._path, self._error = path, decord.DECORDError
        self._reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)

    def __len__(self) -> int:
        return len(self._reader)

    def frames(self, start: int, count: int) -> Iterator[np.ndarray]:
        stop = start + count
        for first in range(start, stop, CHUNK):
            yield from self._chunk(range(first, min(first + CHUNK, stop)))

    def _chunk(self, indices: range) -> Iterable[np.ndarray]:
        try:
            return self._reader.get_batch(indices).asnumpy()
        except self._error:
            return PyavClip(self._path).frames(indices.start, len(indices))


class PyavClip:
    """Random access by PyAV: presentation times of all packets tell which frame is where, then seek and decode."""

    def __init__(self, path: Path) -> None:
        self._info = probe(path)
        with _opened(self._info) as container:
            packets = container.demux(container.streams[self._info.stream_index])
            held = [packet for packet in packets if packet.size]
        if len(held) < (self._info.frame_count or 0):
            raise InputError(f"{path}: cut off: it holds {len(held)} of {self._info.frame_count} frames")
        self._times = sorted(packet.pts for packet in held if packet.pts is not None and not packet.is_discard)

    def __len__(self) -> int:
        return len(self._times)

    @property
    def leaves_colours_open(self) -> bool:
        """Decord would move them by half a pixel, or take another matrix: BT.601 whatever the size."""
        return siting_is_unstated(self._info) or (not self._info.tagged and self._info.matrix != "bt601")

    def frames(self, start: int, count: int) -> Iterator[np.ndarray]:
        wanted = self._times[start : start + count]
        if len(wanted) < count:
            raise InputError(f"{self._info.path}: cut off: it has {len(self)} frames, not {start + count}")
        found = self._decode(wanted)
        if len(found) == len(wanted):
            return iter(found)
        # The container keeps no times (AVI), its index leads astray, or it is damaged, which reading in order reports.
        in_order = islice(read_frames(self._info), start, start + count)
        return (to_8_bits(frame.pixels) for frame in in_order)

    def _decode(self, wanted: list[int]) -> list[np.ndarray]:
        """The frames from the first to the last of the wanted times, as far as seeking finds them."""
        convert, found = RgbConverter(self._info), []
        with _opened(self._info) as container:
            stream = container.streams[self._info.stream_index]
            container.seek(wanted[0], stream=stream)
            for frame in container.decode(stream):
                if frame.pts is None or frame.pts > wanted[-1] or frame.is_corrupt:
                    break
                if frame.pts >= wanted[0]:
                    found.append(np.rot90(to_8_bits(convert(frame)), k=self._info.rotation // 90))
        return found


def read_still(path: Path) -> np.ndarray:
    """An image, (H, W, 3) uint8."""
    return to_8_bits(read_image(path))


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """uint8 or uint16 pixels as uint8, rounded."""
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


@contextlib.contextmanager
def _opened(info: VideoInfo) -> Iterator[InputContainer]:
    """The file of ``info``; errors of FFmpeg while it is open name the file."""
    try:
        with open_media(info.path) as container:
            yield container
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{info.path}: damaged or cut off: {error}") from error
