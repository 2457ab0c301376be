"""Cross-fades between overlapping windows and tiles. Weights are raised cosines and sum to 1 at every sample."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from vsr.windows import Window

T = TypeVar("T")


def rising_edge(length: int) -> Tensor:
    """(length,) weights of the newcomer in an overlap: strictly between 0 and 1, symmetric about 1/2."""
    position = torch.arange(1, length + 1) / (length + 1)
    return 0.5 - 0.5 * torch.cos(math.pi * position)


def fade_in_(new: Tensor, old: Tensor) -> Tensor:
    """Replace ``new``, in place, by a fade from ``old`` to it along the first axis, over the whole length."""
    remaining = rising_edge(len(new)).flip(0).view(-1, *[1] * (new.ndim - 1))
    return new.lerp_(old, remaining)


def join_windows(cut: Iterable[tuple[int, Window[T]]], restored: Callable[[int, list[T]], Tensor]) -> Iterator[Tensor]:
    """Blend the windows of a scene, in order; yield after each the (F, 3, H, W) that no later window touches.

    Args:
        cut: windows with their numbers.
        restored: gives the (F, 3, H, W) of a window by its number and its frames.
    """
    tail = torch.empty(0)
    for number, window in cut:
        x_sr = restored(number, window.frames)
        if len(tail):
            shared = x_sr[: len(tail)]  # contiguous: the last bit of a fade hangs on the layout in memory
            shared.copy_(fade_in_(shared.contiguous(), tail))
        yield x_sr[: window.advance]
        rest = x_sr[window.advance :]
        # one buffer for all windows: a new one for each would leave holes in the heap, and memory would seem to grow
        tail = tail.copy_(rest) if tail.shape == rest.shape else rest.clone(memory_format=torch.contiguous_format)


def tile_weights(length: int, tile: int, starts: Sequence[int]) -> list[Tensor]:
    """For each tile of an axis its (tile,) weights; over all tiles they sum to 1 at every pixel."""
    weights = [torch.ones(tile) for _ in starts]
    for i in range(1, len(starts)):
        shared = starts[i - 1] + tile - starts[i]
        weights[i][:shared] *= rising_edge(shared)
        weights[i - 1][tile - shared :] *= rising_edge(shared).flip(0)
    total = torch.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    return [weight / total[start : start + tile] for start, weight in zip(starts, weights, strict=True)]
