"""What a metric is to the scoring loop: something built once that scores one clip after the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vsr.metrics.settings import ScoreSettings
from vsr.metrics.weights import Weight

Values = Mapping[str, list[float]]
"""Column of the report -> its values in one clip: one per frame, pair of frames, or clip."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What a metric knows of a clip before its first frame."""

    name: str
    count: int | None = None
    """Frames, for metrics that ask for it (``Metric.needs_count``)."""


class Scorer(Protocol):
    """Scores one clip; gets every frame in order. Both methods raise ValueError when the metric is not computable."""

    def add(self, x: Tensor, y: Tensor | None) -> None:
        """Take the next frame of the prediction and of the ground truth, if there is one: (1, 3, H, W) in [0, 1]."""

    def values(self) -> Values:
        """All values of the clip, after its last frame."""


Start = Callable[[Clip], Scorer]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One name of ``--metrics``."""

    build: Callable[[ScoreSettings], Start]
    """Load what it needs; called once per run, after its weights were checked."""
    columns: tuple[str, ...]
    """Names of its numbers in the report."""
    define: Callable[[ScoreSettings], str]
    """What the numbers mean; may hold ``{column}``."""
    needs_gt: bool = False
    needs_count: bool = False
    """Gets the frames in a second pass over the clip, when their number is known."""
    lower_better: bool = False
    weights: Callable[[ScoreSettings], tuple[Weight, ...]] = lambda settings: ()
    packages: tuple[str, ...] = ()
    """Python packages it needs besides those of restoring, as they are called on PyPI."""


class PerFrame:
    """A metric of single frames or pairs of them: every k-th frame, in batches of equal size except the last."""

    def __init__(self, function: Callable[..., Tensor], column: str, settings: ScoreSettings, *, needs_gt: bool):
        """``function`` maps (N, 3, H, W), twice if ``needs_gt``, on the device of the settings, to (N,)."""
        self._function, self._column, self._settings, self._needs_gt = function, column, settings, needs_gt
        self._index = 0
        self._waiting: list[tuple[Tensor, ...]] = []
        self._values: list[float] = []

    def add(self, x: Tensor, y: Tensor | None) -> None:
        if self._index % self._settings.every == 0:
            self._waiting.append((x, y) if self._needs_gt else (x,))
        self._index += 1
        if len(self._waiting) == self._settings.batch:
            self._score_waiting()

    def values(self) -> Values:
        if self._waiting:
            self._score_waiting()
        return {self._column: self._values}

    @torch.no_grad()
    def _score_waiting(self) -> None:
        frames = [torch.cat(side).to(self._settings.device) for side in zip(*self._waiting, strict=True)]
        self._waiting = []
        self._values += self._function(*frames).reshape(-1).tolist()  # (N,), (N, 1), or () for one frame
