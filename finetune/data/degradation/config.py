"""What may happen to a clip: ranges and probabilities, read from YAML. Levels are 0..255, lengths pixels.

The published values and their sources stand in configs/degradation/*.yaml.
"""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from finetune.data.degradation.plan import CodecName, Interpolation, Resizer
from finetune.typed_yaml import read_yaml
from vsr.errors import UsageError

PRESETS = Path(__file__).parents[3] / "configs" / "degradation"


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A parameter that is uniform in [low, high] in the first frame and then drifts from frame to frame."""

    low: float
    high: float
    step: float
    """Frame t+1 has clip(value + U(-step, step), low, high); 0: constant over the clip."""

    def __post_init__(self) -> None:
        if self.low > self.high or self.step < 0:
            raise ValueError(f"expected low <= high and step >= 0, got {self.low}, {self.high} and {self.step}")


@dataclass(frozen=True, kw_only=True)
class KernelOdds:
    """Probability of each kind of blur kernel; they sum to 1."""

    iso: float
    aniso: float
    generalized_iso: float
    generalized_aniso: float
    plateau_iso: float
    plateau_aniso: float
    sinc: float

    def __post_init__(self) -> None:
        _check_odds([getattr(self, field.name) for field in fields(self)])


@dataclass(frozen=True, kw_only=True)
class BlurConfig:
    """Blur with a kernel of a kind drawn once per clip."""

    probability: float
    sizes: tuple[int, ...]
    """Equally likely, odd."""
    kinds: KernelOdds
    sigma: Walk
    """Along each of the two axes."""
    theta: Walk
    """Of the anisotropic kinds, in radians."""
    beta_generalized: Walk
    beta_plateau: Walk
    beta_draw: Literal["uniform", "halves", "per_frame"]
    """"uniform": over the range. "halves": below 1 or above 1 with probability 1/2 each (Real-ESRGAN). "per_frame":
    between 1 and a uniform draw, anew in every frame, so that the blur flickers (mmagic, DOVE)."""
    omega_below_13: Walk
    """Of sinc kernels smaller than 13, in radians per pixel."""
    omega_from_13: Walk
    """Of the other sinc kernels."""

    def __post_init__(self) -> None:
        _check_kernels(self.probability, self.sizes)


@dataclass(frozen=True, kw_only=True)
class SincConfig:
    """The low-pass filter after the last resize, which rings as over-sharpened pictures do."""

    probability: float
    sizes: tuple[int, ...]
    omega: Walk

    def __post_init__(self) -> None:
        _check_kernels(self.probability, self.sizes)


@dataclass(frozen=True, kw_only=True)
class ResizeConfig:
    """Enlarge, reduce or keep, drawn once per clip."""

    up: float
    """Probability of a factor in [1, factor.high]."""
    down: float
    """Probability of a factor in [factor.low, 1]."""
    keep: float
    """Probability of the factor 1 (which drifts like the others)."""
    factor: Walk
    relative_to: Literal["current", "lq"]
    """The size that is multiplied: the current one, or that of the final low-quality frame."""
    even: bool
    """Round sizes down to even numbers."""

    def __post_init__(self) -> None:
        _check_odds([self.up, self.down, self.keep])
        if not 0 < self.factor.low <= 1 <= self.factor.high:
            raise ValueError(f"factor: expected 0 < low <= 1 <= high, got {self.factor.low} and {self.factor.high}")


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Gaussian or Poisson noise, drawn once per clip."""

    gaussian: float
    """Probability of Gaussian noise; otherwise Poisson."""
    gray: float
    """Probability of one noise for all channels."""
    sigma: Walk
    """Of Gaussian noise."""
    poisson_scale: Walk
    poisson_white: Literal[1, 255]
    """Value of white when photons are counted: 1 as published, 255 as mmagic and DOVE have it, 16 times weaker."""

    def __post_init__(self) -> None:
        _check_probabilities(self.gaussian, self.gray)


@dataclass(frozen=True, kw_only=True)
class JpegConfig:
    """JPEG compression of each frame."""

    quality: Walk
    swap_red_blue: bool
    """Hand RGB to an encoder that expects BGR, as mmagic and DOVE do."""


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Video compression of the clip."""

    codecs: tuple[CodecName, ...]
    """Equally likely."""
    bits_per_frame: tuple[int, int]
    """Uniform, both ends included."""
    reference_pixels: int | None
    """Ground-truth pixels of a frame that ``bits_per_frame`` is for; other sizes get as many bits per pixel. null: the
    bits do not depend on the size."""

    def __post_init__(self) -> None:
        low, high = self.bits_per_frame
        if not self.codecs or not 0 < low <= high:
            raise ValueError(
                f"expected at least one codec and 0 < low <= high bits, got {self.codecs} and {low}, {high}"
            )


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One pass of blur, resize, noise and compression, in this order."""

    blur: BlurConfig
    resize: ResizeConfig
    noise: NoiseConfig
    jpeg: JpegConfig | None
    codec: CodecConfig | None


@dataclass(frozen=True, kw_only=True)
class FinalConfig:
    """Resize to the low-quality size and sinc filter, before or after (1/2 each) a last compression."""

    sinc: SincConfig
    jpeg: JpegConfig | None
    codec: CodecConfig | None


@dataclass(frozen=True, kw_only=True)
class DegradationConfig:
    """A second-order degradation, as in Real-ESRGAN and RealBasicVSR."""

    first: StageConfig
    second: StageConfig
    final: FinalConfig
    interpolations: tuple[Interpolation, ...]
    """Of all resizes, equally likely."""
    resizer: Resizer
    output_bits: Literal[8, 16]
    """8: the low-quality clip is rounded as files are; 16: as good as not rounded."""


def load_degradation(name: str | Path) -> DegradationConfig:
    """Read a preset of configs/degradation by name, or a YAML file by path (anything with a suffix or a slash)."""
    path = Path(name)
    if path.suffix or len(path.parts) > 1:
        return read_yaml(path, DegradationConfig)
    known = sorted(preset.stem for preset in PRESETS.glob("*.yaml"))
    if str(name) not in known:
        close = get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known presets: {', '.join(known)}; or give a YAML file"
        raise UsageError(f"unknown degradation {str(name)!r}; {hint}")
    return read_yaml(PRESETS / f"{name}.yaml", DegradationConfig)


def _check_odds(odds: list[float]) -> None:
    _check_probabilities(*odds)
    if abs(sum(odds) - 1) > 1e-6:
        raise ValueError(f"expected probabilities that sum to 1, got {odds} with the sum {sum(odds):g}")


def _check_probabilities(*probabilities: float) -> None:
    for probability in probabilities:
        if not 0 <= probability <= 1:
            raise ValueError(f"expected a probability in [0, 1], got {probability}")


def _check_kernels(probability: float, sizes: tuple[int, ...]) -> None:
    _check_probabilities(probability)
    if not sizes or any(size < 1 or size % 2 == 0 for size in sizes):
        raise ValueError(f"sizes: expected odd numbers, got {list(sizes)}")
