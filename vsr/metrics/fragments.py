"""What DOVER and FasterVQA look at: which frames, and which fragments of them, or the whole frame made small.

Frames come in order and are cut as they come, so that memory does not grow with the length of a clip.

Source: the samplers of DOVER and FAST-VQA, with random numbers that depend on a seed and the name of the clip only.
"""

from collections import defaultdict
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vsr.metrics.settings import ScoreSettings

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
GRID, FRAGMENT = 7, 32
SIZE = GRID * FRAGMENT
"""Rows and columns that the networks see, and the least that a frame must have."""
LEAST_FRAMES = 32


def clip_generator(seed: int, name: str) -> np.random.Generator:
    """Random numbers of a clip: the same in every run, whatever else is scored."""
    return np.random.default_rng([seed, crc32(name.encode())])


def check_length(count: int, metric: str, settings: ScoreSettings) -> None:
    """Raise ValueError for a clip in which the samplers would repeat frames, unless that is asked for."""
    if count < LEAST_FRAMES and not settings.allow_short:
        raise ValueError(
            f"{metric} needs at least {LEAST_FRAMES} frames, got {count}; --allow_short repeats some, as published "
            "numbers of such clips have it"
        )


def spread_frames(
    count: int, generator: np.random.Generator, *, groups: int, length: int, interval: int = 2
) -> np.ndarray:
    """Indices of ``groups`` runs of ``length`` frames, one at random in each equal part of the clip.

    Args:
        count: frames of the clip; indices beyond the end start over.
        interval: distance of the frames of a run.

    Returns:
        (groups * length,) in [0, count).
    """
    part = count // groups
    slack = part - length * interval
    offsets = generator.integers(0, slack, groups) if slack > 0 else np.zeros(groups, dtype=int)
    starts = np.arange(groups) * part + offsets
    return (starts[:, None] + np.arange(length) * interval).ravel() % count


def centre_frames(count: int, length: int = 32) -> np.ndarray:
    """Indices of successive frames in the middle of the clip; those beyond its end start over."""
    return (max(count - length + 1, 0) // 2 + np.arange(length)) % count


class FragmentSampler:
    """A clip of fragments: each frame is cut into a grid of 7x7, and 32x32 pixels of each cell are kept as they are.

    The place inside a cell is random and changes every ``aligned`` frames of the sample.
    """

    def __init__(self, indices: Sequence[int], generator: np.random.Generator, aligned: int) -> None:
        self._positions = _positions_of(indices)
        self._generator, self._aligned = generator, aligned
        self._offsets: np.ndarray | None = None
        self._pixels = torch.zeros(3, len(indices), SIZE, SIZE)

    def add(self, index: int, frame: Tensor) -> None:
        """Take frame ``index`` of the clip, (3, H, W) in [0, 1], if it is in the sample."""
        positions = self._positions.get(index, [])
        if positions and self._offsets is None:
            self._offsets = self._draw(*frame.shape[-2:])
        for position in positions:
            self._cut(frame, position)

    def result(self) -> Tensor:
        """(3, F, 224, 224), normalised."""
        return normalised(self._pixels)

    def _draw(self, height: int, width: int) -> np.ndarray:
        """(7, 7, turns, 2) rows and columns of the fragments in the frame."""
        turns = -(-self._pixels.shape[1] // self._aligned)
        places = np.empty((GRID, GRID, turns, 2), dtype=int)
        for axis, length in enumerate((height, width)):
            cell = length // GRID
            starts = np.minimum(np.arange(GRID) * cell, length - FRAGMENT)
            slack = cell - FRAGMENT
            shape = (GRID, GRID, turns)
            random = self._generator.integers(0, slack, shape) if slack > 0 else np.zeros(shape, dtype=int)
            places[..., axis] = random + starts.reshape((GRID, 1, 1) if axis == 0 else (1, GRID, 1))
        return places

    def _cut(self, frame: Tensor, position: int) -> None:
        for row in range(GRID):
            for column in range(GRID):
                top, left = self._offsets[row, column, position // self._aligned]
                rows, columns = (slice(place * FRAGMENT, (place + 1) * FRAGMENT) for place in (row, column))
                self._pixels[:, position, rows, columns] = frame[:, top : top + FRAGMENT, left : left + FRAGMENT]


class WholeFrameSampler:
    """A clip of whole frames, made 224x224 whatever their shape."""

    def __init__(self, indices: Sequence[int]) -> None:
        self._positions = _positions_of(indices)
        self._pixels = torch.zeros(3, len(indices), SIZE, SIZE)

    def add(self, index: int, frame: Tensor) -> None:
        """Take frame ``index`` of the clip, (3, H, W) in [0, 1], if it is in the sample."""
        if positions := self._positions.get(index):
            small = F.interpolate(frame[None], (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)[0]
            self._pixels[:, positions] = small[:, None]

    def result(self) -> Tensor:
        """(3, F, 224, 224), normalised."""
        return normalised(self._pixels)


def normalised(pixels: Tensor) -> Tensor:
    """(3, F, H, W) in [0, 1] -> the scale of ImageNet's networks."""
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, STD))
    return (255 * pixels - mean) / std


def check_size(frame: Tensor, metric: str) -> None:
    """Raise ValueError for a frame from which the fragments cannot be cut."""
    height, width = frame.shape[-2:]
    if min(height, width) < SIZE:
        raise ValueError(f"{metric} needs frames of at least {SIZE}x{SIZE} pixels, got {width}x{height}")


def _positions_of(indices: Sequence[int]) -> dict[int, list[int]]:
    """Frame of the clip -> its places in the sample."""
    positions = defaultdict(list)
    for position, index in enumerate(indices):
        positions[int(index)].append(position)
    return positions
