"""Writing clips reproducibly."""

from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from finetune.data.clips import PyavClip
from vsr.errors import EncoderError, InputError

RATE = 24
"""Frames per second of every clip."""


def encode(path: Path, frames: Sequence[np.ndarray], crf: int, preset: str = "veryslow") -> None:
    """Write frames as H.264 4:4:4, tagged BT.709, reproducibly.

    One thread and no macroblock tree: with either, x264 makes other pixels from one run to the next.

    Raises:
        EncoderError: the file has not come out whole, which imageio-ffmpeg does not tell.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    color = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
    tag = "setparams=color_primaries=bt709:color_trc=bt709"
    convert = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+full_chroma_inp"
    exact = ["-x264-params", "threads=1:mbtree=0", "-fflags", "+bitexact", "-flags", "+bitexact"]
    writer = imageio_ffmpeg.write_frames(
        path,
        (width, height),
        fps=RATE,
        pix_fmt_in="rgb24",
        pix_fmt_out="yuv444p",
        codec="libx264",
        quality=None,  # otherwise imageio-ffmpeg adds a -crf of its own
        macro_block_size=1,
        output_params=["-crf", str(crf), "-preset", preset, "-vf", f"{convert},{tag}", *color, *exact],
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    check_whole(path, len(frames))


def check_whole(path: Path, num_frames: int) -> None:
    """EncoderError unless the file holds so many frames."""
    try:
        held = len(PyavClip(path))
    except InputError as error:
        raise EncoderError(f"the encoder failed, or the disk is full: {error}") from error
    if held != num_frames:
        raise EncoderError(f"{path}: the encoder failed, or the disk is full: {held} of {num_frames} frames")
