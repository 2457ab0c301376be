"""Give a restored window the colours of its input: the wavelet colour fix of StableSR (arXiv:2305.07015)."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
COLOR_FIXES = ("none", "wavelet")


def wavelet_color_fix(x_sr: Tensor, x_lq: Tensor) -> Tensor:
    """Replace the lowest frequencies of ``x_sr`` by those of ``x_lq``.

    Deviation: the difference of the low frequencies is averaged over the frames of the window, so that the correction
    is one picture per window and cannot flicker; windows are cross-faded afterwards like everything else.

    Args:
        x_sr, x_lq: (1, 3, F, H, W) in [0, 1].
    """
    drift = torch.stack([(x_lq[:, :, i] - x_sr[:, :, i]) for i in range(x_sr.shape[2])]).mean(dim=0)
    return (x_sr + _low_frequencies(drift)[:, :, None]).clamp_(0, 1)


def _low_frequencies(x: Tensor) -> Tensor:
    """The a-trous binomial blur of (B, 3, H, W), repeated with holes of 1, 2, 4, ... pixels."""
    row = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=x.dtype)
    kernel = torch.outer(row, row).expand(x.shape[1], 1, 3, 3)
    for level in range(LEVELS):
        hole = 2**level
        x = F.conv2d(F.pad(x, [hole] * 4, mode="replicate"), kernel, dilation=hole, groups=x.shape[1])
    return x
