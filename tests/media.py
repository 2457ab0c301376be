"""Tiny clips made on the spot with the bundled ffmpeg. Nothing binary is stored."""

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

from vsr.video_io import OutputOptions, open_writer, output_path, probe, read_frames

LUMA = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114)}
"""Weights of red and blue in luma."""


def ffmpeg(*arguments: str | Path, data: bytes = b"") -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *map(str, arguments)]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def clip(path: Path, *arguments: str | Path, size: str = "64x48", rate: str = "25", seconds: str = "0.4") -> Path:
    """A moving test picture, encoded as the arguments say."""
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}", *arguments, path)
    return path


def clip_with_sound(path: Path, *arguments: str | Path, rate: str = "25", seconds: str = "1") -> Path:
    """A test picture with one audio stream, at 44.1 kHz."""
    picture = ["-f", "lavfi", "-i", f"testsrc2=s=64x48:r={rate}:d={seconds}"]
    sound = ["-f", "lavfi", "-i", f"sine=f=440:d={seconds}"]
    ffmpeg(*picture, *sound, *arguments, path)
    return path


def two_sounds_and_subtitles(path: Path) -> Path:
    """Two audio streams in two codecs, SRT, 30000/1001 frames per second; Matroska."""
    text = path.with_suffix(".srt")
    text.write_text("1\n00:00:00,100 --> 00:00:00,600\nhello\n\n2\n00:00:00,700 --> 00:00:00,900\nworld\n")
    picture = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=30000/1001:d=1"]
    sounds = ["-f", "lavfi", "-i", "sine=f=440:d=1", "-f", "lavfi", "-i", "sine=f=880:r=48000:d=1"]
    maps = ["-map", "0", "-map", "1", "-map", "2", "-map", "3"]
    codecs = ["-c:a:0", "aac", "-c:a:1", "libopus", "-c:s", "srt", "-metadata:s:a:1", "language=deu"]
    ffmpeg(*picture, *sounds, "-i", text, *maps, *codecs, path)
    return path


def variable_rate(path: Path, *arguments: str) -> Path:
    """24 frames whose distances vary: every second one of the last half is missing."""
    select = "select='lt(n,12)+not(mod(n,3))'"
    return clip(path, "-vf", select, "-fps_mode", "vfr", "-frames:v", "24", *arguments, rate="30", seconds="2")


def raw_video(path: Path, frames: np.ndarray, pixel_format: str, *arguments: str, size: str, rate: str = "25") -> Path:
    """Encode raw frames, given as the bytes of ``pixel_format``."""
    raw = ["-f", "rawvideo", "-pix_fmt", pixel_format, "-s", size, "-r", rate, "-i", "-"]
    ffmpeg(*raw, *arguments, path, data=np.ascontiguousarray(frames).tobytes())
    return path


def colour_chart() -> np.ndarray:
    """(48, 64, 3) uint8: primaries, greys, and colours drawn at random, in patches of 8 pixels."""
    colours = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    colours[0] = [[255 * (i >> 2 & 1), 255 * (i >> 1 & 1), 255 * (i & 1)] for i in range(8)]
    colours[1] = np.linspace(0, 255, 8).round()[:, None]
    return colours.repeat(8, axis=0).repeat(8, axis=1)


def yuv444_of(rgb: np.ndarray, matrix: str, *, full_range: bool, depth: int = 8) -> np.ndarray:
    """(3, H, W): the formula of ITU-R BT.601 and BT.709, rounded, for RGB in [0, 255]."""
    red, blue = LUMA[matrix]
    x = rgb.astype(float) / 255
    luma = x @ [red, 1 - red - blue, blue]
    chroma = [(x[..., 2] - luma) / (2 - 2 * blue), (x[..., 0] - luma) / (2 - 2 * red)]
    unit, largest = 2 ** (depth - 8), 2**depth - 1
    if full_range:
        planes = [luma * largest, *(c * largest + 128 * unit for c in chroma)]
    else:
        planes = [(16 + 219 * luma) * unit, *((128 + 224 * c) * unit for c in chroma)]
    return np.rint(np.clip(planes, 0, largest)).astype(np.uint8 if depth == 8 else "<u2")


def copy_through(source: Path, folder: Path, *, strict: bool = True, **settings: object) -> tuple[Path, list[str]]:
    """Read a source and write it again at its own size; the way every restored video goes, without a model."""
    info, options = probe(source), OutputOptions(**settings)
    target = output_path(folder, info, options)
    with open_writer(target, info, width=info.width, height=info.height, options=options) as writer:
        for frame in read_frames(info, strict=strict):
            writer.write(as_type(frame.pixels, writer.dtype), frame.pts)
    return target, writer.notes


def as_type(pixels: np.ndarray, dtype: type) -> np.ndarray:
    """The same picture at 8 or 16 bits, rounded."""
    if pixels.dtype == dtype:
        return pixels
    return (
        pixels.astype(np.uint16) * 257 if dtype is np.uint16 else ((pixels.astype(int) + 128) // 257).astype(np.uint8)
    )


def pixels_of(source: Path, **settings: object) -> np.ndarray:
    """All frames of a source, (F, H, W, 3)."""
    return np.stack([frame.pixels for frame in read_frames(probe(source, **settings))])


def times_of(source: Path) -> list[Fraction]:
    """When each frame is shown, in seconds, as PyAV reads it and not as this package does."""
    with av.open(str(source)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def packets_of(source: Path, kind: str, index: int = 0) -> list[tuple[bytes, Fraction]]:
    """Bytes and time of every packet of an audio or subtitle stream."""
    with av.open(str(source)) as container:
        stream = getattr(container.streams, kind)[index]
        return [(bytes(packet), packet.pts * packet.time_base) for packet in container.demux(stream) if packet.size]
