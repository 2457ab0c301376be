"""What happens to one clip, as plain data: every draw is made, no pixel is touched. Sizes are (height, width)."""

from dataclasses import dataclass
from typing import Literal

KernelKind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso", "sinc"]
Interpolation = Literal["bilinear", "area", "bicubic"]
Resizer = Literal["opencv", "torch"]
CodecName = Literal["libx264", "h264", "mpeg4"]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """The blur kernel of one frame; lengths in pixels, angles in radians."""

    kind: KernelKind
    """Family; "iso" ones have sigma_y = sigma_x and theta = 0."""
    size: int
    """Rows and columns, odd."""
    sigma_x: float = 0.0
    """Width along the first axis; 0 for sinc."""
    sigma_y: float = 0.0
    """Width along the second axis; 0 for sinc."""
    theta: float = 0.0
    """Angle from the columns' axis to the first axis."""
    beta: float = 1.0
    """Exponent of the generalized and plateau families; 1 makes a generalized Gaussian a plain one."""
    omega: float = 0.0
    """Cut-off frequency of sinc, in radians per pixel; 0 for the others."""


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Convolution with one kernel per frame."""

    kernels: tuple[Kernel, ...]


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Interpolation to one size per frame."""

    sizes: tuple[tuple[int, int], ...]
    interpolation: Interpolation
    resizer: Resizer
    """Who interpolates; the two differ where "area" enlarges: OpenCV interpolates, torch repeats."""


@dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """Additive white noise, independent from frame to frame."""

    sigmas: tuple[float, ...]
    """Standard deviation per frame, in levels of 0..255."""
    gray: bool
    """One noise for all three channels."""
    seed: int
    """Of the noise; frame i uses the key (seed, i)."""


@dataclass(frozen=True, kw_only=True)
class PoissonNoise:
    """Shot noise: scale * (photon count of the picture - the picture)."""

    scales: tuple[float, ...]
    """Strength per frame; 1 is plain shot noise."""
    gray: bool
    """One noise for all three channels, from the luma of the frame."""
    white: float
    """Value of white when photons are counted; 255 instead of 1 makes the noise sqrt(255) times weaker."""
    seed: int
    """Of the noise; frame i uses the key (seed, i)."""


@dataclass(frozen=True, kw_only=True)
class Jpeg:
    """JPEG there and back."""

    qualities: tuple[int, ...]
    """Per frame, 0 to 100."""
    swap_red_blue: bool
    """The encoder takes red for blue and blue for red, so it keeps less of red and more of blue."""


@dataclass(frozen=True, kw_only=True)
class VideoCodec:
    """A video codec there and back, at one frame per second, YUV 4:2:0."""

    codec: CodecName
    """"h264" is libx264 as well: the published configurations list both."""
    bits_per_frame: int
    """Average bit rate."""
    size: tuple[int, int]
    """Of all encoded frames; others are interpolated to it first."""


Operation = Blur | Resize | GaussianNoise | PoissonNoise | Jpeg | VideoCodec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that happens to one clip, in order."""

    num_frames: int
    size: tuple[int, int]
    """Of the ground truth."""
    scale: int
    """Ground truth by low quality."""
    output_bits: Literal[8, 16]
    """Depth of the result: 8 rounds it to what files hold, 16 keeps fractions of a level."""
    operations: tuple[Operation, ...]
