"""Mean and deviation of the groups of a GroupNorm over channels-last activations, in one pass over memory."""

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

CACHED_ELEMENTS = 1 << 18
"""1 MB of float32: what a CPU core works on while it stays in its cache."""
BLOCK_ELEMENTS = 1 << 24
"""The same for other devices: enough to fill a GPU, too little to show in its memory."""

COUNTED_FOR = ContextVar("counted_for", default="cuda")
"""The type of device that tensors on the meta device stand for, while memory is counted."""

T = TypeVar("T")


def kind_of(device: torch.device) -> str:
    """The type of a device; of the meta device, of that which it stands for."""
    return COUNTED_FOR.get() if device.type == "meta" else device.type


def block_rows(row_elements: int, device: torch.device) -> int:
    """How many rows to work on at once."""
    elements = CACHED_ELEMENTS if kind_of(device) == "cpu" else BLOCK_ELEMENTS
    return max(1, elements // row_elements)


def standing_for_all(blocks: Iterable[T], device: torch.device) -> Iterable[T]:
    """The blocks; on the meta device, where there are no numbers, the first: it takes as much memory as any."""
    return islice(blocks, 1) if device.type == "meta" else blocks


def group_statistics(strips: Iterable[Tensor], num_groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) of each group, repeated for its channels: both (B, C) float32.

    Sums are of differences from the mean of the first block, so nothing cancels, and float64 between blocks (float32 on
    MPS, which has no float64 and few blocks).

    Args:
        strips: that make up one activation: (B, T, rows, W, C) each, with contiguous rows.
    """
    count = 0
    for block in _blocks(strips):
        if not count:
            origin = block.float().mean(dim=1, keepdim=True)
            between = torch.float32 if kind_of(origin.device) == "mps" else torch.float64
            first, second = (torch.zeros_like(origin, dtype=between) for _ in range(2))
        difference = block - origin
        first += difference.sum(dim=1, keepdim=True)
        second += difference.square_().sum(dim=1, keepdim=True)
        count += block.shape[1]
    mean, square, origin = (
        v.unflatten(-1, (num_groups, -1)) for v in (first / count, second / count, origin.to(between))
    )
    column_means = origin + mean
    means = column_means.mean(dim=(1, 2, 4), keepdim=True)
    variance = square - mean.square() + (column_means - means).square()
    inverse_deviation = (variance.mean(dim=(1, 2, 4), keepdim=True).clamp(min=0) + eps).rsqrt()
    size = column_means[:, :1, :1].shape
    return tuple(v.expand(size).flatten(1).float() for v in (means, inverse_deviation))


def _blocks(strips: Iterable[Tensor]) -> Iterator[Tensor]:
    """Rows of pixels (B, rows, W, C), few enough to work on at once."""
    for strip in strips:
        for frame in standing_for_all(strip.unbind(1), strip.device):
            blocks = frame.split(block_rows(frame[:, :1].numel(), frame.device), dim=1)
            yield from standing_for_all(blocks, frame.device)
