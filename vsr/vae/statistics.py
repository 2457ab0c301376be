"""Mean and deviation of the groups of a GroupNorm over channels-last activations, in one pass over memory."""

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from itertools import islice
from math import gcd
from typing import TypeVar

import torch
from torch import Tensor

CACHED_ELEMENTS = 1 << 20
"""4 MB of float32: what a CPU works on while it stays in its cache, and enough to be worth an operation's overhead."""
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

    Of each block first, its variance about its own mean, so that nothing cancels; then of all together (Chan et al.,
    "Updating formulae and a pairwise algorithm for computing sample variances", 1979).

    Args:
        strips: that make up one activation: (B, T, rows, W, C) each, with contiguous rows.
    """
    rows, means, variances = zip(*((block.shape[1], *_moments(block)) for block in _blocks(strips)), strict=True)
    means, variances = (torch.stack(v).unflatten(-1, (num_groups, -1)) for v in (means, variances))
    share = torch.tensor(rows, dtype=torch.float32, device=means.device).div(sum(rows))[:, None, None, None, None]
    mean = (means * share).sum(dim=0).mean(dim=(1, 3))
    variance = ((variances + (means - mean[:, None, :, None]).square()) * share).sum(dim=0).mean(dim=(1, 3))
    channels = means.shape[-1]
    return tuple(v.repeat_interleave(channels, dim=1) for v in (mean, (variance + eps).rsqrt()))


def _moments(block: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances of equal parts of a block (B, rows, W, C): both (B, parts, C) float32.

    A CPU has both in one operation, in a third of the time. It adds one number after the other: parts keep the sums
    short.
    """
    if kind_of(block.device) != "cpu" or block.is_meta:
        mean = block.mean(dim=(1, 2), keepdim=True, dtype=torch.float32)
        return mean[:, :, 0], (block - mean).square_().mean(dim=(1, 2))[:, None]
    parts = gcd(block.shape[2], 16)
    samples = (sample.reshape(-1, parts * block.shape[3]) for sample in block)
    running = torch.zeros(parts * block.shape[3])  # not used; float32 here makes float32 moments of 16-bit samples
    moments = zip(*(torch.batch_norm_update_stats(sample, running, running, 0.0) for sample in samples), strict=True)
    return tuple(torch.stack(v).unflatten(1, (parts, -1)) for v in moments)


def _blocks(strips: Iterable[Tensor]) -> Iterator[Tensor]:
    """Rows of pixels (B, rows, W, C), few enough to work on at once."""
    for strip in strips:
        for frame in standing_for_all(strip.unbind(1), strip.device):
            blocks = frame.split(block_rows(frame[:, :1].numel(), frame.device), dim=1)
            yield from standing_for_all(blocks, frame.device)
