"""Colour of stored frames: what their tags mean, and their conversion to RGB.

swscale does the conversion. It has three habits that are undone here. Deep YUV comes out at 255/256 of the full 16-bit
scale (limited range) or with its low bits zero (full range), so white would be 65280 instead of 65535. It takes grey
frames for full range whatever their tag says. And it takes fewer colour samples for centred on their pixels where the
decoder does not say that they lie on the left, as those of video do: colours would move by half a pixel.
"""

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from vsr.video_io.info import VideoInfo

MATRICES = {0: "rgb", 1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
"""Code of ITU-T H.273 to the name that swscale knows."""
SWSCALE_MATRICES = {"bt709": 1, "fcc": 4, "bt601": 5, "smpte240m": 7, "bt2020": 9, "rgb": 5}
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

SITING_UNSTATED = frozenset(
    ("vp8", "vp9", "av1", "theora", "wmv1", "wmv2", "flv1", "h263", "h263p", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3")
) | {"prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff", "utvideo"}
"""Codecs whose decoders do not say where colour samples lie; av1 may, but seldom does outside BT.2020."""

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""What swscale does without being told makes a video about a level darker at each conversion to and fro."""


def assumed_matrix(rows: int, untagged: str) -> int:
    """Code of the matrix of an untagged source: BT.709 from 720 rows up, else BT.601, unless the user says so."""
    return 1 if untagged == "709" or (untagged == "auto" and rows >= 720) else 6


def is_full_range(frame: av.VideoFrame) -> bool:
    """An unstated range means limited for YUV, and full for RGB and for grey as FFmpeg writes it."""
    if frame.color_range == ColorRange.UNSPECIFIED:
        return frame.format.name.startswith("yuvj") or is_rgb(frame.format) or is_grey(frame.format)
    return frame.color_range == ColorRange.JPEG


def white_16(depth: int, full_range: bool) -> int:
    """What swscale makes of white when it turns YUV of ``depth`` bits into 16-bit RGB, and takes for white back."""
    return ((1 << depth) - 1) << (16 - depth) if full_range else 65280


def rescale(pixels: np.ndarray, factor: float, offset: float = 0.0) -> np.ndarray:
    """``factor * pixels + offset``, rounded and clipped to the type of ``pixels``."""
    if factor == 1.0 and offset == 0.0:
        return pixels
    return cv2.addWeighted(pixels, factor, pixels, 0.0, offset)


class RgbConverter:
    """Turns the decoded frames of one source into RGB arrays."""

    def __init__(self, info: VideoInfo) -> None:
        stored = av.VideoFormat(info.pixel_format)
        self._reformatter = VideoReformatter()
        self._matrix = SWSCALE_MATRICES[info.matrix]
        self._range = ColorRange.JPEG if info.full_range else ColorRange.MPEG
        self._format = "rgb48le" if info.depth > 8 else "rgb24"
        self._factor, self._offset = _correction(info, is_grey=is_grey(stored))
        self._sited = _LeftSiting() if siting_is_unstated(info) else lambda frame: frame

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        rgb = self._reformatter.reformat(
            self._sited(frame),
            format=self._format,
            src_colorspace=self._matrix,
            src_color_range=self._range,
            dst_color_range=ColorRange.JPEG,
            interpolation=EXACT,
        )
        return rescale(rgb.to_ndarray(), self._factor, self._offset)


class _LeftSiting:
    """States of frames that their colour samples lie on the left, as in MPEG-2; their pixels stay as they are."""

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        self._graph = self._graph or self._built_for(frame)  # all frames of a clip have one size
        self._graph.push(frame)
        return self._graph.pull()

    @staticmethod
    def _built_for(frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base
        )
        graph.link_nodes(source, graph.add("setparams", "chroma_location=left"), graph.add("buffersink")).configure()
        return graph


def siting_is_unstated(info: VideoInfo) -> bool:
    """Colour samples are fewer than pixels, and the decoder does not say where they lie.

    HEVC states that of 4:2:0 only. BT.2020 puts them elsewhere, and its files say so.
    """
    stored = av.VideoFormat(info.pixel_format)
    is_subsampled = not is_rgb(stored) and not is_grey(stored) and stored.chroma_width(16) < 16
    is_hevc_422 = info.codec == "hevc" and stored.chroma_height(16) == 16
    return is_subsampled and info.matrix != "bt2020" and (info.codec in SITING_UNSTATED or is_hevc_422)


def is_rgb(stored: av.VideoFormat) -> bool:
    return stored.is_rgb or stored.has_palette


def is_grey(stored: av.VideoFormat) -> bool:
    return not is_rgb(stored) and sum(not component.is_alpha for component in stored.components) == 1


def has_alpha(stored: av.VideoFormat) -> bool:
    return any(component.is_alpha for component in stored.components)


def _correction(info: VideoInfo, *, is_grey: bool) -> tuple[float, float]:
    """Factor and offset that put black at 0 and white at the largest value."""
    largest = 255 if info.depth <= 8 else 65535
    if info.matrix == "rgb":
        return 1.0, 0.0
    if is_grey and not info.full_range:
        unit = 1 if info.depth <= 8 else 256
        factor = largest / (219 * unit)
        return factor, -16 * unit * factor
    if info.depth <= 8:
        return 1.0, 0.0
    return largest / white_16(info.depth, info.full_range), 0.0
