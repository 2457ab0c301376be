"""Reading a source as a stream of RGB frames, complete or not at all."""

import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer

from vsr.errors import InputError
from vsr.video_io.colour import RgbConverter
from vsr.video_io.images import read_image
from vsr.video_io.info import Frame, VideoInfo
from vsr.video_io.media import open_media
from vsr.video_io.refusals import refuse_damaged, refuse_interlaced

log = logging.getLogger(__name__)
T = TypeVar("T")


def read_frames(info: VideoInfo, *, strict: bool = True) -> Iterator[Frame]:
    """Yield the frames of a source in display order, turned for display. Closing the generator closes the file.

    Args:
        info: the source, from ``probe``.
        strict: raise InputError at the first damaged frame and when the file ends before its header says so. Otherwise
            yield what can be decoded, and log what is wrong.
    """
    frames = _read_video(info, strict=strict) if info.kind == "video" else _read_images(info)
    count = 0
    for frame in frames:
        count += 1
        yield frame
    if not count:
        raise InputError(f"{info.path}: holds no frame that can be decoded")


def _read_images(info: VideoInfo) -> Iterator[Frame]:
    expected = (info.height, info.width, 3)
    for pts, path in enumerate(info.files):
        pixels = read_image(path).pixels
        if pixels.shape != expected or 8 * pixels.itemsize != info.depth:
            raise InputError(
                f"{path}: is {pixels.shape[1]}x{pixels.shape[0]} with {8 * pixels.itemsize} bits, but the clip began "
                f"with {info.width}x{info.height} and {info.depth} bits; all frames of a clip must agree"
            )
        yield Frame(pixels=pixels, pts=pts)


def _read_video(info: VideoInfo, *, strict: bool) -> Iterator[Frame]:
    convert = RgbConverter(info)
    origin = round(info.origin / info.time_base)
    last_pts: int | None = None
    with open_media(info.path) as container:
        for frame in _decoded(info, container, strict=strict):
            _check_frame(info, frame)
            pts = _next_pts(info, frame, origin, last_pts)
            pixels = np.rot90(convert(frame), k=info.rotation // 90)
            yield Frame(pixels=np.ascontiguousarray(pixels), pts=pts)
            last_pts = pts


def _decoded(info: VideoInfo, container: InputContainer, *, strict: bool) -> Iterator[av.VideoFrame]:
    """Decode the video stream while watching every stream for the end that the header promises."""
    stream = container.streams[info.stream_index]
    stream.thread_type = "AUTO"
    end = Fraction(0)
    packets = container.demux()
    while (packet := _guarded(info, lambda: next(packets, None), strict=strict)) is not None:
        end = max(end, _end_of(packet))
        if packet.stream.index != info.stream_index:  # flushing packets know only their stream
            continue
        if packet.is_corrupt:
            _complain(info, "a damaged packet", packet.pts, strict=strict)
        for frame in _guarded(info, packet.decode, strict=strict) or []:
            if frame.is_corrupt:
                _complain(info, "a damaged frame", frame.pts, strict=strict)
            yield frame
    _check_end(info, container, end, strict=strict)


def _guarded(info: VideoInfo, step: Callable[[], T], *, strict: bool) -> T | None:
    """Run one demuxing or decoding step; in strict mode FFmpeg's error ends the reading."""
    try:
        return step()
    except (av.error.FFmpegError, OSError) as error:
        _complain(info, f"an error ({error})", None, strict=strict)
        return None


def _complain(info: VideoInfo, what: str, pts: int | None, *, strict: bool) -> None:
    where = "" if pts is None else f" at {float(pts * info.time_base):.3f} s"
    if strict:
        raise refuse_damaged(info.path, what + where)
    log.warning("%s: damaged or cut off: %s%s", info.path, what, where)


def _end_of(packet: av.Packet) -> Fraction:
    if packet.pts is None:
        return Fraction(0)
    return (packet.pts + (packet.duration or 0)) * packet.time_base


def _check_end(info: VideoInfo, container: InputContainer, end: Fraction, *, strict: bool) -> None:
    """Matroska and AVI end without an error wherever they are cut; only their header knows the duration."""
    if container.duration is None:
        return
    promised = Fraction((container.start_time or 0) + container.duration, av.time_base)
    if end < promised - max(2 / info.rate, Fraction(1, 10)):
        _complain(info, f"it ends at {float(end):.3f} s instead of {float(promised):.3f} s", None, strict=strict)


def _check_frame(info: VideoInfo, frame: av.VideoFrame) -> None:
    stored = (info.height, info.width) if info.rotation % 180 else (info.width, info.height)
    if (frame.width, frame.height) != stored:
        raise InputError(
            f"{info.path}: the frame size changes from {stored[0]}x{stored[1]} to {frame.width}x{frame.height}; "
            "cut the video where it changes"
        )
    if frame.interlaced_frame:
        raise refuse_interlaced(info.path)


def _next_pts(info: VideoInfo, frame: av.VideoFrame, origin: int, last: int | None) -> int:
    """The frame's time; a missing or repeated one becomes the next that an encoder can take."""
    step = max(1, round(1 / (info.rate * info.time_base)))
    if frame.pts is None:
        return 0 if last is None else last + step
    pts = frame.pts - origin
    if last is not None and pts <= last:
        log.warning("%s: time stamp %d does not follow %d; moved to %d", info.path, pts, last, last + 1)
        return last + 1
    return pts
