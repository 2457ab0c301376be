"""Reading a source as a stream of RGB frames, complete or not at all."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer

from vsr.errors import InputError
from vsr.video_io.colour import RgbConverter
from vsr.video_io.completeness import EndWatch
from vsr.video_io.images import read_image
from vsr.video_io.info import Frame, VideoInfo
from vsr.video_io.media import open_media
from vsr.video_io.refusals import refuse_damaged, refuse_interlaced
from vsr.video_io.timestamps import Timeline

log = logging.getLogger(__name__)
T = TypeVar("T")


def read_frames(info: VideoInfo, *, strict: bool = True) -> Iterator[Frame]:
    """Yield the frames of a source in display order, turned for display. Closing the generator closes the file.

    Args:
        info: the source, from ``probe``.
        strict: raise InputError at the first damaged frame and when the file ends before its header says so. Otherwise
            yield what can be decoded, and log what is wrong.
    """
    count = 0
    with closing(_read_video(info, strict=strict) if info.kind == "video" else _read_images(info)) as frames:
        for frame in frames:
            count += 1
            yield frame
    if not count:
        raise InputError(f"{info.path}: holds no frame that can be decoded")


def _read_images(info: VideoInfo) -> Iterator[Frame]:
    expected = (info.height, info.width, 3)
    for pts, path in enumerate(info.files):
        pixels = read_image(path)
        if pixels.shape != expected or 8 * pixels.itemsize != info.depth:
            raise InputError(
                f"{path}: is {pixels.shape[1]}x{pixels.shape[0]} with {8 * pixels.itemsize} bits, but the clip began "
                f"with {info.width}x{info.height} and {info.depth} bits; all frames of a clip must agree"
            )
        yield Frame(pixels=pixels, pts=pts)


def _read_video(info: VideoInfo, *, strict: bool) -> Iterator[Frame]:
    convert = RgbConverter(info)
    timeline = Timeline(info, strict=strict)
    with open_media(info.path) as container:
        for frame in _decoded(info, container, strict=strict):
            _check_frame(info, frame)
            pixels = np.rot90(convert(frame), k=info.rotation // 90)
            yield Frame(pixels=np.ascontiguousarray(pixels), pts=timeline.time_of(frame))


def _decoded(info: VideoInfo, container: InputContainer, *, strict: bool) -> Iterator[av.VideoFrame]:
    """Decode the video stream while watching every stream for the end that the header promises."""
    stream = container.streams[info.stream_index]
    stream.thread_type = "AUTO"
    watch, packets, flushed = EndWatch(info, container), container.demux(), False
    while (packet := _guarded(info, lambda: next(packets, None), strict=strict)) is not None:
        watch.see(packet)
        if packet.stream.index != info.stream_index:  # packets that flush a decoder know only their stream
            continue
        if packet.is_corrupt:
            _complain(info, "a damaged packet", packet.pts, strict=strict)
        flushed = packet.size == 0 and packet.dts is None
        if packet.size or flushed:  # otherwise the frame before is shown on (Theora, AVI)
            yield from _checked(info, _guarded(info, packet.decode, strict=strict), strict=strict)
    if not flushed:
        yield from _checked(info, _guarded(info, stream.decode, strict=strict), strict=strict)
    if missing := watch.complaint():
        _complain(info, missing, None, strict=strict)


def _checked(info: VideoInfo, frames: list[av.VideoFrame] | None, *, strict: bool) -> Iterator[av.VideoFrame]:
    """Complain about frames that the decoder had to patch."""
    for frame in frames or []:
        if frame.is_corrupt:
            _complain(info, "a damaged frame", frame.pts, strict=strict)
        yield frame


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


def _check_frame(info: VideoInfo, frame: av.VideoFrame) -> None:
    stored = (info.height, info.width) if info.rotation % 180 else (info.width, info.height)
    if (frame.width, frame.height) != stored:
        raise InputError(
            f"{info.path}: the frame size changes from {stored[0]}x{stored[1]} to {frame.width}x{frame.height}; "
            "cut the video where it changes"
        )
    if frame.interlaced_frame:
        raise refuse_interlaced(info.path)
