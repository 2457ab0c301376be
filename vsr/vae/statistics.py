"""Mean and deviation of the groups of a GroupNorm over channels-last activations, in one pass over memory."""

import torch
from torch import Tensor

CACHED_ELEMENTS = 1 << 18
"""1 MB of float32: what a CPU core works on while it stays in its cache."""
BLOCK_ELEMENTS = 1 << 24
"""The same for other devices: enough to fill a GPU, too little to show in its memory."""


def block_rows(row_elements: int, device: torch.device) -> int:
    """How many rows to work on at once."""
    elements = CACHED_ELEMENTS if device.type == "cpu" else BLOCK_ELEMENTS
    return max(1, elements // row_elements)


def group_statistics(x: Tensor, num_groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) of each group, repeated for its channels: both (B, C) float32.

    Sums are of differences from the mean of the first block, so nothing cancels, and float64 between blocks.

    Args:
        x: (B, T, H, W, C), contiguous.
    """
    batch, frames, height, width, channels = x.shape
    lines = x.reshape(batch, frames * height, width * channels)
    step = block_rows(batch * width * channels, x.device)
    origin = lines[:, :step].float().mean(dim=1, keepdim=True)
    first, second = (torch.zeros_like(origin[:, 0], dtype=torch.float64) for _ in range(2))
    for block in lines.split(step, dim=1):
        difference = block - origin
        first += difference.sum(dim=1)
        second += difference.square_().sum(dim=1)
    grouped = (batch, width, num_groups, channels // num_groups)
    mean, square, origin = (v.view(grouped) for v in (first / lines.shape[1], second / lines.shape[1], origin.double()))
    line_means = origin + mean
    means = line_means.mean(dim=(1, 3), keepdim=True)
    variance = (square - mean.square() + (line_means - means).square()).mean(dim=(1, 3), keepdim=True)
    inverse_deviation = (variance.clamp(min=0) + eps).rsqrt()
    expanded = (batch, 1, num_groups, channels // num_groups)
    return tuple(v.expand(expanded).reshape(batch, channels).float() for v in (means, inverse_deviation))
