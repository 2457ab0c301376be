"""What is known about a source before it is read, and one frame of it."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

UNSPECIFIED = 2
"""The code of ITU-T H.273 for a colour property that nobody stated."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """A video file, a folder of frames or an image, as its header describes it."""

    path: Path
    """The file or folder, absolute."""
    kind: Literal["video", "frames", "image"]
    """What ``path`` is; ``frames`` is a folder of numbered images that form one clip."""
    width: int
    """Columns of a frame after rotation."""
    height: int
    """Rows of a frame after rotation."""
    frame_count: int | None
    """Number of frames that the header states; None when it does not, or contradicts itself."""
    rate: Fraction
    """Frames per second, on average."""
    time_base: Fraction
    """Seconds per unit of ``Frame.pts``."""
    depth: int
    """Bits per channel of the source; frames deeper than 8 are read as uint16."""
    rotation: int = 0
    """Degrees counter-clockwise by which stored frames are turned for display; the reader does it."""
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel by its height, after rotation."""
    matrix: str = "bt709"
    """Conversion between YUV and RGB: bt709, bt601, bt2020, fcc, smpte240m; rgb when the source is RGB."""
    matrix_code: int = 1
    """``matrix`` as a code of ITU-T H.273, which tells the two kinds of bt601 apart."""
    full_range: bool = False
    """Black is 0 and white the largest value (full), instead of 16 and 235 at 8 bits (limited)."""
    primaries: int = UNSPECIFIED
    """Colour primaries, a code of ITU-T H.273."""
    transfer: int = UNSPECIFIED
    """Transfer characteristics, a code of ITU-T H.273."""
    tagged: bool = True
    """The source states its matrix; if not, ``matrix`` was assumed."""
    audio: tuple[str, ...] = ()
    """Codec of each audio stream, in order; "unknown" also where the stream declares no sample rate."""
    audio_rates: tuple[int, ...] = ()
    """Samples per second of each audio stream."""
    subtitles: tuple[str, ...] = ()
    """Codec of each subtitle stream, in order."""
    duration: float | None = None
    """Seconds, when the header states them."""
    origin: Fraction = Fraction(0)
    """Seconds on the clock of the file at which pts 0 lies; not 0 in broadcast streams, whose clock is arbitrary."""
    codec: str = ""
    """FFmpeg's name of the video codec; empty for images."""
    has_tags: bool = False
    """The container has a title, chapters or the like."""
    pixel_format: str = ""
    """FFmpeg's name of the stored pixel format; empty for images."""
    stream_index: int = 0
    """Index of the video stream in the file."""
    files: tuple[Path, ...] = ()
    """The images of a folder of frames, in order, or the one image."""
    warnings: tuple[str, ...] = ()
    """What a user should know about this source although it can be read."""

    @property
    def likely_frame_count(self) -> int | None:
        """The header's count, else what its duration makes likely: Matroska and broadcast streams count no frames."""
        if self.frame_count is None and self.duration is not None:
            return round(self.duration * self.rate)
        return self.frame_count


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture and its time."""

    pixels: np.ndarray
    """(H, W, 3) RGB, uint8, or uint16 in which 65535 is white when the source is deeper than 8 bits."""
    pts: int
    """Presentation time in units of ``VideoInfo.time_base``."""
