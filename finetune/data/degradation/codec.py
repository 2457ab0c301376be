"""Compress a clip with a video codec and decompress it, in memory, with the same bytes every time."""

from collections.abc import Sequence
from fractions import Fraction

import av
import cv2
import numpy as np

from finetune.data.degradation.plan import VideoCodec
from vsr.video_io.colour import EXACT

ENCODERS = {"libx264": "libx264", "h264": "libx264", "mpeg4": "mpeg4"}
DECODERS = {"libx264": "h264", "h264": "h264", "mpeg4": "mpeg4"}
# With its macroblock tree libx264 chooses differently from one run to the next, even on one thread.
REPRODUCIBLE = {"libx264": {"x264-params": "mbtree=0"}, "mpeg4": {}}
RATE = Fraction(1)
"""Frames per second, as published: a bit rate is then a number of bits per frame."""


def transcode(frames: Sequence[np.ndarray], codec: VideoCodec) -> list[np.ndarray]:
    """Encode to YUV 4:2:0 and decode.

    Args:
        frames: (H, W, 3) uint8 RGB, all of the size that ``codec`` states.

    Returns:
        As many frames of the same size. Odd sizes are padded by reflection to encode.
    """
    height, width = codec.size
    encoder = _encoder(codec)
    decoder = av.CodecContext.create(DECODERS[codec.codec], "r")
    decoder.thread_count = 1
    padded = (cv2.copyMakeBorder(f, 0, height % 2, 0, width % 2, cv2.BORDER_REFLECT_101) for f in frames)
    packets = [packet for i, frame in enumerate(padded) for packet in encoder.encode(_to_video_frame(frame, i))]
    packets += encoder.encode(None)
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    assert len(decoded) == len(frames), f"{codec} gave {len(decoded)} frames for {len(frames)}"
    return [_to_pixels(frame)[:height, :width] for frame in decoded]


def _encoder(codec: VideoCodec) -> av.VideoCodecContext:
    name = ENCODERS[codec.codec]
    encoder = av.CodecContext.create(name, "w")
    encoder.height, encoder.width = (side + side % 2 for side in codec.size)
    encoder.pix_fmt = "yuv420p"
    encoder.framerate, encoder.time_base = RATE, 1 / RATE
    encoder.bit_rate = codec.bits_per_frame
    encoder.thread_count = 1  # the pixels depend on it
    encoder.options = REPRODUCIBLE[name]
    return encoder


def _to_video_frame(pixels: np.ndarray, index: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p", interpolation=EXACT)
    frame.pts, frame.time_base = index, 1 / RATE
    return frame


def _to_pixels(frame: av.VideoFrame) -> np.ndarray:
    """Colour samples lie where `_to_video_frame` has put them, amid four pixels.

    Decoders say that they lie at the left ones, as H.264 has it, and swscale believes it: colours would move by half
    a pixel. A frame made anew says nothing.
    """
    untold = av.VideoFrame.from_ndarray(frame.to_ndarray(), format="yuv420p")
    return untold.reformat(format="rgb24", interpolation=EXACT).to_ndarray()
