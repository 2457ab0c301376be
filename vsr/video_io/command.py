"""The arguments of the ffmpeg that encodes a result. An argument list; no shell ever sees it."""

import math
from fractions import Fraction
from pathlib import Path

from vsr.video_io.info import VideoInfo
from vsr.video_io.media import SAFE_DEMUXERS, media_url
from vsr.video_io.output import MATROSKA_AUDIO, CopiedStreams, OutputOptions

DEFAULT_CRF = 12
RAW_FRAMES = ["-protocol_whitelist", "pipe", "-probesize", "32", "-analyzeduration", "0", "-f", "nut", "-i", "pipe:0"]
NARROWEST_SLICED = 16
"""FFV1 cuts frames into slices, for threads and checksums, and fails where it cannot."""
LARGEST_TIMESCALE = 2**31 - 1


def encode_arguments(
    target: Path,
    info: VideoInfo,
    options: OutputOptions,
    streams: CopiedStreams,
    *,
    container: str,
    pixel_format: str,
    width: int,
    time_base: Fraction,
    shift: Fraction,
) -> list[str]:
    """Arguments that read frames from standard input and write ``target``.

    Args:
        container: mp4 or matroska.
        pixel_format: what is stored, for example yuv444p.
        width: columns of a frame.
        time_base: seconds per unit of the time stamps that are sent.
        shift: seconds to add to the time stamps of the copied streams, as was done to those of the frames.
    """
    return [
        "-copyts",  # without it ffmpeg moves the start of each input to zero, and sound no longer meets picture
        *RAW_FRAMES,
        *_source(info, streams, shift),
        *_copied(info, streams, container),
        *_picture(info, pixel_format),
        *_codec(options, container, width),
        *["-fps_mode", "passthrough", "-enc_time_base", "demux"],
        *_muxer(container, time_base),
        media_url(target),
    ]


def _source(info: VideoInfo, streams: CopiedStreams, shift: Fraction) -> list[str]:
    if not _needs_source(info, streams):
        return []
    safe = ["-protocol_whitelist", "file", "-format_whitelist", SAFE_DEMUXERS]
    return [*safe, "-itsoffset", f"{float(shift):.6f}", "-i", media_url(info.path)]


def _copied(info: VideoInfo, streams: CopiedStreams, container: str) -> list[str]:
    maps = ["-map", "0:v:0"]
    if not _needs_source(info, streams):
        return maps
    for i in streams.audio:
        maps += ["-map", f"1:a:{i}"]
    for i in streams.subtitles:
        maps += ["-map", f"1:s:{i}"]
    if container == "matroska":
        maps += ["-map", "1:t?"]  # the fonts of ASS subtitles
    codecs = ["-c", "copy"]
    for position, i in enumerate(streams.audio):
        if info.audio[i] not in MATROSKA_AUDIO:
            codecs += [f"-c:a:{position}", "flac"]
    for position, i in enumerate(streams.subtitles):
        if container == "matroska" and info.subtitles[i] == "mov_text":
            codecs += [f"-c:s:{position}", "srt"]
    return [*maps, "-map_metadata", "1", "-map_chapters", "1" if streams.chapters else "-1", *codecs]


def _needs_source(info: VideoInfo, streams: CopiedStreams) -> bool:
    return bool(streams.audio or streams.subtitles or info.has_tags)


def _picture(info: VideoInfo, pixel_format: str) -> list[str]:
    """Convert to the source's matrix and range, and tag what was done. zscale rounds exactly, swscale does not."""
    sar = f"setsar={info.sample_aspect_ratio.numerator}/{info.sample_aspect_ratio.denominator}"
    primaries, transfer = (1, 1) if info.kind != "video" else (info.primaries, info.transfer)
    tags = f"color_primaries={primaries}:color_trc={transfer}"
    if pixel_format in ("bgr0", "gbrp16le"):
        return ["-vf", f"format={pixel_format},setparams=range=full:colorspace=gbr:{tags},{sar}", "-color_range", "pc"]
    matrix = 1 if info.matrix == "rgb" else info.matrix_code
    full = info.full_range and info.matrix != "rgb"
    name = "full" if full else "limited"
    convert = f"zscale=matrix={matrix}:rangein=full:range={name}:chromal=left:filter=bicubic:dither=none"
    filters = f"{convert},format={pixel_format},setparams=range={name}:colorspace={matrix}:{tags},{sar}"
    return ["-vf", filters, "-color_range", "pc" if full else "tv"]


def _codec(options: OutputOptions, container: str, width: int) -> list[str]:
    if options.pixel_format == "rgb":
        version = ["-level", "3", "-slicecrc", "1"] if width >= NARROWEST_SLICED else ["-level", "1"]
        return ["-c:v", "ffv1", *version, "-g", "1"]
    crf = DEFAULT_CRF if options.crf is None else options.crf
    arguments = ["-c:v", options.codec, "-preset", "medium", "-crf", str(crf)]
    if options.codec == "libx265":
        arguments += ["-x265-params", "log-level=error"]
        arguments += ["-tag:v", "hvc1"] if container == "mp4" else []
    return arguments


def _muxer(container: str, time_base: Fraction) -> list[str]:
    arguments = ["-f", container]
    if container == "mp4":
        # Start offsets are stored in units of the movie, 1 ms unless told; these units hold frames and sound exactly.
        timescale = math.lcm(time_base.denominator, 48000)
        arguments += ["-movflags", "+faststart"]
        arguments += ["-movie_timescale", str(timescale)] if timescale <= LARGEST_TIMESCALE else []
    return arguments
