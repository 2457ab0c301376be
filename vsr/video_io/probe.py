"""Looking at a source before work: what it is, and whether it can be restored."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from vsr.errors import InputError
from vsr.video_io import colour
from vsr.video_io.images import read_image, what_is_lost
from vsr.video_io.info import UNSPECIFIED, VideoInfo
from vsr.video_io.inputs import IMAGE_EXTENSIONS, images_in
from vsr.video_io.media import open_media
from vsr.video_io.refusals import refuse_colour_matrix, refuse_hdr, refuse_interlaced, refuse_mirrored

IMAGE_RATE = Fraction(16)
"""Frames per second of a folder of images, which has no time of its own."""
MAX_PIXELS = 2**26
MAX_DURATION = 24 * 3600.0
# Broadcast streams start their clock anywhere; of all other files the clock is kept as it is.
ARBITRARY_CLOCK = ("mpegts", "mpeg")

Untagged = Literal["auto", "601", "709"]


def probe(
    path: str | Path,
    *,
    untagged: Untagged = "auto",
    max_pixels: int = MAX_PIXELS,
    max_duration: float = MAX_DURATION,
) -> VideoInfo:
    """Describe a source, or raise InputError with the reason why it cannot be restored.

    Args:
        path: a video, an image, or a folder that holds the frames of one clip.
        untagged: the YUV matrix of videos that do not state theirs; ``auto`` is BT.709 from 720 rows up, else BT.601.
        max_pixels: refuse larger frames.
        max_duration: refuse longer videos, in seconds.
    """
    path = Path(path).absolute()
    if path.is_dir():
        info = _probe_images(path, images_in(path), "frames")
    elif path.suffix.lower() in IMAGE_EXTENSIONS:
        info = _probe_images(path, [path], "image")
    else:
        with open_media(path) as container:
            stream = _video_stream(path, container)
            _check_limits(path, container, stream, max_pixels=max_pixels, max_duration=max_duration)
            return _describe(path, container, stream, untagged)
    if info.width * info.height > max_pixels:
        raise _too_large(path, info.width, info.height, max_pixels)
    return info


def _probe_images(path: Path, files: list[Path], kind: Literal["frames", "image"]) -> VideoInfo:
    if not files:
        raise InputError(f"no image found in {path}; expected files that end in one of: {' '.join(IMAGE_EXTENSIONS)}")
    first = read_image(files[0])
    height, width, _ = first.shape
    return VideoInfo(
        path=path,
        kind=kind,
        width=width,
        height=height,
        frame_count=len(files),
        rate=IMAGE_RATE,
        time_base=1 / IMAGE_RATE,
        depth=8 * first.itemsize,
        matrix="rgb",
        matrix_code=0,
        full_range=True,
        duration=float(len(files) / IMAGE_RATE),
        files=tuple(files),
        warnings=what_is_lost(files[0]),
    )


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The first video stream that is not the cover picture of a sound file."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise InputError(f"{path}: has no video stream, only {_kinds_of(container)}")
    if streams[0].codec_context is None:
        raise InputError(f"{path}: its video codec is not known to FFmpeg {av.ffmpeg_version_info}")
    return streams[0]


def _kinds_of(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no stream at all"


def _check_limits(
    path: Path, container: InputContainer, stream: VideoStream, *, max_pixels: int, max_duration: float
) -> None:
    if stream.width * stream.height > max_pixels:
        raise _too_large(path, stream.width, stream.height, max_pixels)
    duration = _duration(container, stream)
    if duration is not None and duration > max_duration:
        raise InputError(f"{path}: lasts {duration:.0f} s, more than the limit of {max_duration:.0f} s; cut it first")


def _too_large(path: Path, width: int, height: int, max_pixels: int) -> InputError:
    return InputError(f"{path}: frames of {width}x{height} are larger than the limit of {max_pixels} pixels")


def _describe(path: Path, container: InputContainer, stream: VideoStream, untagged: Untagged) -> VideoInfo:
    frame = _first_frame(path, container, stream)
    if stream.codec_context.field_order > 1 or frame.interlaced_frame:
        raise refuse_interlaced(path)
    if _is_mirrored(frame):
        raise refuse_mirrored(path)
    if frame.color_trc in colour.HDR_TRANSFERS:
        raise refuse_hdr(path, colour.HDR_TRANSFERS[frame.color_trc])
    info = VideoInfo(
        path=path,
        kind="video",
        width=frame.width,
        height=frame.height,
        frame_count=_frame_count(stream),
        rate=stream.average_rate or stream.guessed_rate or Fraction(25),
        time_base=stream.time_base,
        depth=max(8, *(component.bits for component in frame.format.components)),
        sample_aspect_ratio=stream.sample_aspect_ratio or Fraction(1),
        audio=tuple(_codec_name(s) if _sample_rate(s) else "unknown" for s in container.streams.audio),
        audio_rates=tuple(_sample_rate(s) for s in container.streams.audio),
        subtitles=tuple(_codec_name(s) for s in container.streams.subtitles),
        duration=_duration(container, stream),
        origin=_origin(container),
        has_tags=bool(container.metadata or container.chapters()),
        codec=_codec_name(stream),
        pixel_format=frame.format.name,
        stream_index=stream.index,
    )
    return _with_warnings(_with_colour(_turned(info, frame.rotation), frame, untagged), frame)


def _first_frame(path: Path, container: InputContainer, stream: VideoStream) -> av.VideoFrame:
    """Rotation, interlacing and the true tags are only known from a decoded frame."""
    try:
        return next(container.decode(stream))
    except StopIteration:
        raise InputError(f"{path}: holds no video frame") from None
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: the first frame cannot be decoded: {error}") from error


def _is_mirrored(frame: av.VideoFrame) -> bool:
    """Whether the display matrix does more than turn; ``frame.rotation`` is wrong for such a frame."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).astype(int)
    return bool(a * d < b * c)


def _turned(info: VideoInfo, rotation: int) -> VideoInfo:
    if rotation % 90:
        raise InputError(f"{info.path}: is turned by {rotation} degrees; expected a multiple of 90")
    if rotation % 180 == 0:
        return replace(info, rotation=rotation % 360)
    return replace(
        info,
        rotation=rotation % 360,
        width=info.height,
        height=info.width,
        sample_aspect_ratio=1 / info.sample_aspect_ratio,
    )


def _with_colour(info: VideoInfo, frame: av.VideoFrame, untagged: Untagged) -> VideoInfo:
    is_rgb = colour.is_rgb(frame.format)
    code = 0 if is_rgb else frame.colorspace
    if code == 0 and colour.is_grey(frame.format):
        code = UNSPECIFIED  # grey from a PNG codec is tagged RGB
    tagged = code != UNSPECIFIED
    if not tagged:
        code = colour.assumed_matrix(frame.height, untagged)
    if code not in colour.MATRICES or (code == 0 and not is_rgb):
        raise refuse_colour_matrix(info.path, code)
    known_709 = not tagged and code == 1
    return replace(
        info,
        matrix=colour.MATRICES[code],
        matrix_code=code,
        full_range=colour.is_full_range(frame),
        primaries=1 if known_709 and frame.color_primaries == UNSPECIFIED else frame.color_primaries,
        transfer=1 if known_709 and frame.color_trc == UNSPECIFIED else frame.color_trc,
        tagged=tagged,
    )


def _with_warnings(info: VideoInfo, frame: av.VideoFrame) -> VideoInfo:
    warnings = []
    if not info.tagged:
        warnings.append(f"the colour matrix is not stated; {info.matrix} is assumed (setting: untagged)")
    if colour.has_alpha(frame.format):
        warnings.append("the alpha channel is dropped")
    if info.sample_aspect_ratio != 1:
        warnings.append(f"pixels are not square ({info.sample_aspect_ratio}); the ratio is kept in the output")
    return replace(info, warnings=tuple(warnings))


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _frame_count(stream: VideoStream) -> int | None:
    """The header's count, unless an edit list shows fewer frames than are stored."""
    if stream.frames and stream.duration and stream.average_rate:
        shown = stream.duration * stream.time_base * stream.average_rate
        return stream.frames if abs(stream.frames - shown) <= 2 else None
    return stream.frames or None


def _origin(container: InputContainer) -> Fraction:
    if container.format.name not in ARBITRARY_CLOCK or container.start_time is None:
        return Fraction(0)
    return Fraction(container.start_time, av.time_base)


def _codec_name(stream: av.stream.Stream) -> str:
    return stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"


def _sample_rate(stream: av.AudioStream) -> int:
    """0 where nobody knows: a stream that is announced and holds no sound."""
    return stream.codec_context.sample_rate if stream.codec_context else 0
