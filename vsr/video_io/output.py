"""What is written: format, container, name, and which streams of the source come along."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from vsr.errors import UsageError
from vsr.video_io.info import VideoInfo

PixelFormat = Literal["yuv420p", "yuv444p", "yuv420p10le", "rgb"]
Codec = Literal["libx264", "libx265"]

PIXEL_FORMATS = ("yuv420p", "yuv444p", "yuv420p10le", "rgb")
CODECS = ("libx264", "libx265")
LARGEST_SIDE = 16384
"""Pixels; of libx264."""
LARGEST_CRF = 51

MP4_AUDIO = frozenset(["aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "dts", "mp2"])
"""Audio that MP4 holds and players find there; PCM and Vorbis go to Matroska."""
SLOWEST_MP3_IN_MP4 = 16000
"""Samples per second; MPEG-4 knows no slower layer III."""
MATROSKA_AUDIO = MP4_AUDIO | {
    *("vorbis", "truehd", "tta", "wavpack", "cook", "wmav1", "wmav2", "wmapro", "wmalossless"),
    *("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_s16be", "pcm_s24be", "pcm_s32be"),
    *("pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav"),
}
"""Audio that Matroska holds; all else is stored there as FLAC."""
MP4_SUBTITLES = frozenset({"mov_text"})
TEXT_SUBTITLES = frozenset({"subrip", "ass", "webvtt", "text", "mov_text"})
PICTURE_SUBTITLES = frozenset({"hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"})
MATROSKA_SUBTITLES = TEXT_SUBTITLES | PICTURE_SUBTITLES


SLOWEST, FASTEST = Fraction(1, 1000), 10_000
"""Frames per second that containers can say."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How results are written."""

    pixel_format: PixelFormat = "yuv420p"
    """yuv420p plays everywhere; yuv444p keeps all colour samples; yuv420p10le has 10 bits; rgb is lossless (FFV1)."""
    png: bool = False
    """Write a folder of PNG files instead of a video."""
    crf: int | None = None
    """Quality of the lossy formats: 0 is best, 51 worst; None is 12, visually lossless."""
    codec: Codec = "libx264"
    """Encoder of the lossy formats."""
    fps: Fraction | None = None
    """Frames per second; None keeps the source's time stamps."""
    audio: bool = True
    """Copy the audio streams of the source."""

    def __post_init__(self) -> None:
        if self.pixel_format not in PIXEL_FORMATS:
            raise UsageError(f"pixel_format must be one of {', '.join(PIXEL_FORMATS)}, got {self.pixel_format!r}")
        if self.codec not in CODECS:
            raise UsageError(f"codec must be one of {', '.join(CODECS)}, got {self.codec!r}")
        if self.crf is not None and not 0 <= self.crf <= LARGEST_CRF:
            raise UsageError(f"crf must be between 0 and {LARGEST_CRF}, got {self.crf}")
        if self.fps is not None and not SLOWEST <= self.fps <= FASTEST:
            raise UsageError(f"fps must be between {SLOWEST} and {FASTEST} frames per second, got {self.fps}")
        if self.crf is not None and (self.png or self.pixel_format == "rgb"):
            raise UsageError("crf has no effect on lossless output (rgb, png); leave one of them out")
        if self.codec != CODECS[0] and (self.png or self.pixel_format == "rgb"):
            raise UsageError("codec has no effect on lossless output (rgb, png); leave one of them out")
        if self.png and (self.fps is not None or self.pixel_format != PIXEL_FORMATS[0]):
            raise UsageError("fps and pixel_format have no effect on PNG files; leave them out")


@dataclass(frozen=True, kw_only=True)
class CopiedStreams:
    """Which streams of the source are copied, by index among their kind, and what had to be left out."""

    audio: tuple[int, ...] = ()
    """Indices of audio streams."""
    subtitles: tuple[int, ...] = ()
    """Indices of subtitle streams."""
    chapters: bool = True
    """Chapters still lie where they did."""
    notes: tuple[str, ...] = ()
    """Why a stream is missing or not as it was."""


def output_path(folder: Path, info: VideoInfo, options: OutputOptions) -> Path:
    """Where the result of a source goes inside ``folder``: STEM.mp4, STEM.mkv, STEM.png or the folder STEM."""
    name = info.path.name if info.kind == "frames" else info.path.stem
    if name in ("", ".", ".."):
        raise UsageError(f"cannot derive an output name from {info.path}")
    if info.kind == "image":
        return folder / f"{name}.png"
    return folder / (name if options.png else name + _extension(info, options))


def refuse_too_large(info: VideoInfo, options: OutputOptions, size: tuple[int, int]) -> None:
    """Raise UsageError when the encoder takes no frames of this size (height, width)."""
    encodes = info.kind != "image" and not options.png and options.pixel_format != "rgb"
    if encodes and options.codec == "libx264" and max(size) > LARGEST_SIDE:
        raise UsageError(
            f"libx264 encodes sides of up to {LARGEST_SIDE} pixels, the result would be {size[1]}x{size[0]}; "
            f"use --codec libx265 or --png_save, or a smaller --upscale or --size"
        )


def copied_streams(info: VideoInfo, options: OutputOptions) -> CopiedStreams:
    """Choose the streams to copy: all, unless the user or a changed duration says otherwise."""
    if info.kind != "video":
        return CopiedStreams()
    if _duration_changes(info, options):
        lost = [*info.audio, *info.subtitles] if options.audio else info.subtitles
        note = f"audio and subtitles are dropped: at {options.fps} frames per second the duration changes"
        return CopiedStreams(chapters=False, notes=(note,) if lost else ())
    audio = tuple(i for i, codec in enumerate(info.audio) if codec != "unknown") if options.audio else ()
    subtitles = tuple(i for i, codec in enumerate(info.subtitles) if codec in MATROSKA_SUBTITLES)
    notes = [
        f"subtitle stream {i} ({codec}) fits no output container and is dropped"
        for i, codec in enumerate(info.subtitles)
        if i not in subtitles
    ]
    notes += [
        f"audio stream {i} has an unknown codec or no sound and is dropped"
        for i in range(len(info.audio))
        if options.audio and i not in audio
    ]
    notes += [
        f"audio stream {i} ({info.audio[i]}) fits no output container and is stored as FLAC"
        for i in audio
        if info.audio[i] not in MATROSKA_AUDIO
    ]
    return CopiedStreams(audio=audio, subtitles=subtitles, notes=tuple(notes))


def fits_mp4(info: VideoInfo, streams: CopiedStreams) -> bool:
    """Whether MP4 can hold all copied streams as they are."""
    audio_fits = all(_audio_fits_mp4(info.audio[i], info.audio_rates[i]) for i in streams.audio)
    return audio_fits and all(info.subtitles[i] in MP4_SUBTITLES for i in streams.subtitles)


def _audio_fits_mp4(codec: str, rate: int) -> bool:
    return codec in MP4_AUDIO and not (codec == "mp3" and rate < SLOWEST_MP3_IN_MP4)


def _extension(info: VideoInfo, options: OutputOptions) -> str:
    plain = options.pixel_format != "rgb" and fits_mp4(info, copied_streams(info, options))
    return ".mp4" if plain else ".mkv"


def _duration_changes(info: VideoInfo, options: OutputOptions) -> bool:
    """At most one frame of drift at the end counts as unchanged."""
    if options.fps is None or options.fps == info.rate:
        return False
    if info.frame_count is None or info.duration is None:
        return True
    return abs(info.frame_count / options.fps - Fraction(info.duration)) > 1 / options.fps
