"""Scene cuts, found on a stream of frames, so that no window mixes two shots.

A frame is reduced to luma histograms of a 4x4 grid of blocks; two frames differ by half the L1 distance of their
histograms, between 0 and 1. A cut is an isolated peak of that difference: large, and at least twice as large as its
neighbours. The second condition is what keeps flashes (two peaks in a row), strobe light and fast motion in one scene;
a dissolve is not split. These few lines rather than PySceneDetect: its detectors read files, we have a stream, and a
window that is split where it need not be costs quality in every frame around it, so this detector prefers to miss.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

THRESHOLD = 0.35
NEIGHBOURS = 2
BLOCKS, BINS = 4, 16


def number_scenes(frames: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number of the scene, frame) for every frame, in order, `NEIGHBOURS` frames behind the input.

    Args:
        frames: (H, W, 3) uint8 or uint16.
    """
    scene, waiting = 0, deque()
    differences = deque([0.0] * NEIGHBOURS, maxlen=2 * NEIGHBOURS + 1)
    for frame, difference in _with_difference(frames):
        waiting.append(frame)
        differences.append(difference)
        if len(waiting) > NEIGHBOURS:
            scene += _is_cut(differences)
            yield scene, waiting.popleft()
    for frame in tuple(waiting):
        differences.append(0.0)
        scene += _is_cut(differences)
        yield scene, frame


def _with_difference(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, float]]:
    previous = None
    for frame in frames:
        histograms = _block_histograms(frame)
        yield frame, 0.0 if previous is None else float(np.abs(histograms - previous).sum() / (2 * BLOCKS**2))
        previous = histograms


def _block_histograms(frame: np.ndarray) -> np.ndarray:
    """(BLOCKS^2, BINS) histograms of luma, each summing to 1."""
    eight_bit = frame if frame.dtype == np.uint8 else (frame >> 8).astype(np.uint8)
    small = cv2.resize(eight_bit, (32 * BLOCKS, 32 * BLOCKS), interpolation=cv2.INTER_AREA)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    blocks = luma.reshape(BLOCKS, 32, BLOCKS, 32).swapaxes(1, 2).reshape(BLOCKS**2, -1)
    counts = [np.bincount(block * BINS // 256, minlength=BINS) for block in blocks.astype(np.int64)]
    return np.stack(counts) / blocks.shape[1]


def _is_cut(differences: deque[float]) -> bool:
    *before, peak = list(differences)[: NEIGHBOURS + 1]
    after = list(differences)[NEIGHBOURS + 1 :]
    return peak > THRESHOLD and peak > 2 * max(*before, *after)
