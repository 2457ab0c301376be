"""Between frames as files hold them, (H, W, 3) integers, and what the network takes, (B, 3, F, H, W) in [-1, 1]."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.errors import UsageError

UPSCALE_MODES = ("bilinear", "bicubic", "nearest", "nearest-exact", "area")


def output_size(
    height: int,
    width: int,
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    short_side: int | None = None,
) -> tuple[int, int]:
    """(height, width) of the result: ``scale`` times the source (halves round up), ``size``, or by the shorter side.

    Args:
        scale: any factor above 0. Exactly one of the three is given.
        size: (width, height) in pixels, as people write them.
        short_side: the other side keeps the aspect ratio.
    """
    if size is not None:
        return size[::-1]
    factor = Fraction(short_side, min(height, width)) if short_side else Fraction(str(scale))
    result = tuple(int(side * factor + Fraction(1, 2)) for side in (height, width))
    if min(result) < 1:
        raise UsageError(f"a scale of {float(factor):g} leaves nothing of {width}x{height} pixels")
    return result


def to_lq(frames: Sequence[np.ndarray], size: tuple[int, int], padded: tuple[int, int], mode: str) -> Tensor:
    """Upsample frames to the output size and pad them by replication, to the right and below.

    Args:
        frames: (H, W, 3) uint8 or uint16, all of one shape.
        size: (height, width) of the output; where it is smaller than the source, frames are averaged down.
        padded: (height, width) that the pipeline takes, not below ``size``.
        mode: of `torch.nn.functional.interpolate`; DOVE: bilinear, corners not aligned.

    Returns:
        x_lq: (1, 3, F, *padded), float32, in [-1, 1].
    """
    padding = (0, padded[1] - size[1], 0, padded[0] - size[0])
    x_lq = torch.empty(1, 3, len(frames), *padded)
    for i, frame in enumerate(frames):
        x_lq[:, :, i] = F.pad(_resize(_to_unit(frame), size, mode), padding, mode="replicate")
    return x_lq.mul_(2).sub_(1)


def to_frame(x: Tensor, dtype: type = np.uint8) -> np.ndarray:
    """One frame (3, H, W) in [0, 1] as (H, W, 3) integers, rounded, not truncated."""
    levels = x.clamp(0, 1).mul_(np.iinfo(dtype).max).round_()
    return levels.permute(1, 2, 0).numpy().astype(dtype, order="C")


def _to_unit(frame: np.ndarray) -> Tensor:
    """(H, W, 3) integers to (1, 3, H, W) float32 in [0, 1]."""
    floats = frame.transpose(2, 0, 1)[None].astype(np.float32, order="C")
    return torch.from_numpy(floats).div_(np.iinfo(frame.dtype).max)


def _resize(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    if mode in ("bilinear", "bicubic"):
        shrinks = size[0] < x.shape[-2] or size[1] < x.shape[-1]
        return F.interpolate(x, size, mode=mode, align_corners=False, antialias=shrinks).clamp_(0, 1)
    return F.interpolate(x, size, mode=mode)
