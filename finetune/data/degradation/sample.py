"""Draw a plan. Parameters are drawn once per clip; those with a step then walk from frame to frame.

Source: RealBasicVSR (arXiv:2111.12704) on top of Real-ESRGAN (arXiv:2107.10833); numbers come from the configuration.
"""

from bisect import bisect_right
from dataclasses import astuple, fields
from itertools import accumulate

import numpy as np

from finetune.data.degradation.config import (
    BlurConfig,
    CodecConfig,
    DegradationConfig,
    FinalConfig,
    JpegConfig,
    KernelOdds,
    NoiseConfig,
    ResizeConfig,
    SincConfig,
    StageConfig,
    Walk,
)
from finetune.data.degradation.plan import (
    Blur,
    GaussianNoise,
    Jpeg,
    Kernel,
    KernelKind,
    Operation,
    Plan,
    PoissonNoise,
    Resize,
    VideoCodec,
)
from vsr.errors import UsageError

KERNEL_KINDS: tuple[KernelKind, ...] = tuple(field.name for field in fields(KernelOdds))
SMALLEST_SIDE = 2
"""Pixels; what a resize leaves at least, since 4:2:0 codecs need one pair."""
SMALLEST_BIT_RATE = 1000
"""Bits per second; libx264 counts in whole kilobits."""


def sample_plan(
    config: DegradationConfig, rng: np.random.Generator, num_frames: int, height: int, width: int, *, scale: int = 4
) -> Plan:
    """Draw all that happens to one clip.

    Args:
        rng: the only source of randomness; the same state gives the same plan.
        num_frames: of the clip, 1 for an image.
        height, width: of the ground truth in pixels, multiples of ``scale``.
    """
    if height % scale or width % scale or min(num_frames, height, width) < 1:
        raise UsageError(f"expected frames of multiples of {scale} pixels, got {num_frames} of {width}x{height}")
    sampler = _Sampler(config, rng, num_frames, (height, width), scale)
    operations = [*sampler.stage(config.first), *sampler.stage(config.second), *sampler.final(config.final)]
    return Plan(
        num_frames=num_frames,
        size=(height, width),
        scale=scale,
        output_bits=config.output_bits,
        operations=tuple(operations),
    )


def walk(rng: np.random.Generator, first: float, rule: Walk, length: int) -> list[float]:
    """A random walk from ``first`` with steps in U(-step, step), clipped to the bounds at every step."""
    values = [first]
    if rule.step == 0:
        return values * length
    for step in rng.uniform(-rule.step, rule.step, length - 1).tolist():
        values.append(min(max(values[-1] + step, rule.low), rule.high))
    return values


class _Sampler:
    """Draws the operations on one clip in order and keeps track of the size of its frames."""

    def __init__(
        self, config: DegradationConfig, rng: np.random.Generator, num_frames: int, size: tuple[int, int], scale: int
    ) -> None:
        self._config, self._rng, self._num_frames = config, rng, num_frames
        self._gt_pixels = size[0] * size[1]
        self._lq_size = (size[0] // scale, size[1] // scale)
        self._size = size  # of the first frame now

    def stage(self, config: StageConfig) -> list[Operation]:
        operations: list[Operation] = self._blur(config.blur)
        operations.append(self._resize(config.resize))
        operations.append(self._noise(config.noise))
        return operations + self._compression(config.jpeg, config.codec)

    def final(self, config: FinalConfig) -> list[Operation]:
        compresses_first = bool(config.jpeg or config.codec) and self._happens(0.5)
        before = self._compression(config.jpeg, config.codec) if compresses_first else []
        resize = self._resize_to([self._lq_size] * self._num_frames)
        sinc = self._sinc(config.sinc)
        after = [] if compresses_first else self._compression(config.jpeg, config.codec)
        return [*before, resize, *sinc, *after]

    def _compression(self, jpeg: JpegConfig | None, codec: CodecConfig | None) -> list[Operation]:
        return ([self._jpeg(jpeg)] if jpeg else []) + ([self._codec(codec)] if codec else [])

    def _blur(self, config: BlurConfig) -> list[Operation]:
        if not self._happens(config.probability):
            return []
        kind = KERNEL_KINDS[self._choose(astuple(config.kinds))]
        size = self._one_of(config.sizes)
        if kind == "sinc":
            omega = config.omega_below_13 if size < 13 else config.omega_from_13
            return [self._sinc_blur(size, omega)]
        sigma_x = self._walk(config.sigma)
        is_aniso = kind.endswith("aniso")
        sigma_y = self._walk(config.sigma) if is_aniso else sigma_x
        theta = self._walk(config.theta) if is_aniso else [0.0] * self._num_frames
        shapes = zip(sigma_x, sigma_y, theta, self._betas(kind, config), strict=True)
        kernels = [Kernel(kind=kind, size=size, sigma_x=x, sigma_y=y, theta=t, beta=b) for x, y, t, b in shapes]
        return [Blur(kernels=tuple(kernels))]

    def _betas(self, kind: KernelKind, config: BlurConfig) -> list[float]:
        """Exponents per frame; the three ways to draw them are those of RealBasicVSR, Real-ESRGAN and mmagic."""
        if kind in ("iso", "aniso"):
            return [1.0] * self._num_frames
        rule = config.beta_plateau if kind.startswith("plateau") else config.beta_generalized
        if config.beta_draw == "uniform":
            return self._walk(rule)
        if config.beta_draw == "halves":
            bounds = (rule.low, 1.0) if self._happens(0.5) else (1.0, rule.high)
            return walk(self._rng, self._rng.uniform(*bounds), rule, self._num_frames)
        return [self._rng.uniform(min(b, 1.0), max(b, 1.0)) for b in self._walk(rule)]

    def _sinc(self, config: SincConfig) -> list[Operation]:
        if not self._happens(config.probability):
            return []
        return [self._sinc_blur(self._one_of(config.sizes), config.omega)]

    def _sinc_blur(self, size: int, omega: Walk) -> Blur:
        return Blur(kernels=tuple(Kernel(kind="sinc", size=size, omega=value) for value in self._walk(omega)))

    def _resize(self, config: ResizeConfig) -> Resize:
        low, high = [(1.0, config.factor.high), (config.factor.low, 1.0), (1.0, 1.0)][
            self._choose((config.up, config.down, config.keep))
        ]
        factors = walk(self._rng, self._rng.uniform(low, high), config.factor, self._num_frames)
        base = self._lq_size if config.relative_to == "lq" else self._size
        unit = 2 if config.even else 1
        sides = [[max(int(side * factor) // unit * unit, SMALLEST_SIDE) for side in base] for factor in factors]
        return self._resize_to([(height, width) for height, width in sides])

    def _resize_to(self, sizes: list[tuple[int, int]]) -> Resize:
        self._size = sizes[0]
        interpolation = self._one_of(self._config.interpolations)
        return Resize(sizes=tuple(sizes), interpolation=interpolation, resizer=self._config.resizer)

    def _noise(self, config: NoiseConfig) -> GaussianNoise | PoissonNoise:
        is_gaussian, gray = self._happens(config.gaussian), self._happens(config.gray)
        strengths = tuple(self._walk(config.sigma if is_gaussian else config.poisson_scale))
        seed = int(self._rng.integers(2**63))
        if is_gaussian:
            return GaussianNoise(sigmas=strengths, gray=gray, seed=seed)
        return PoissonNoise(scales=strengths, gray=gray, white=float(config.poisson_white), seed=seed)

    def _jpeg(self, config: JpegConfig) -> Jpeg:
        qualities = tuple(round(quality) for quality in self._walk(config.quality))
        return Jpeg(qualities=qualities, swap_red_blue=config.swap_red_blue)

    def _codec(self, config: CodecConfig) -> VideoCodec:
        low, high = config.bits_per_frame
        bits = int(self._rng.integers(low, high, endpoint=True))
        if config.reference_pixels:
            bits = round(bits * self._gt_pixels / config.reference_pixels)
        codec = self._one_of(config.codecs)
        return VideoCodec(codec=codec, bits_per_frame=max(bits, SMALLEST_BIT_RATE), size=self._size)

    def _walk(self, rule: Walk) -> list[float]:
        return walk(self._rng, self._rng.uniform(rule.low, rule.high), rule, self._num_frames)

    def _happens(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def _choose(self, odds: tuple[float, ...]) -> int:
        """An index, drawn with the given probabilities; one of probability 0 never comes."""
        bounds = list(accumulate(odds))
        return bisect_right(bounds, self._rng.random() * bounds[-1])

    def _one_of(self, choices: tuple) -> object:
        return choices[self._rng.integers(len(choices))]
