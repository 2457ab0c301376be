"""Stage 3, first half: scores of a scene without reference. What they mean for it is decided in selection.py."""

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from finetune.curation.rows import Row, failed
from finetune.curation.stage import Bench, frames_of_scenes

if TYPE_CHECKING:
    from torch import Tensor

    from vsr.metrics.metric import Scorer

STAGE = "quality"


def score(rows: list[Row], bench: Bench) -> list[Row]:
    """Fill in the scores of the scenes of one file."""
    if not bench.scorers:
        return rows
    frames = frames_of_scenes(bench.root / rows[0]["path"], rows)
    scored = []
    for _, group in groupby(frames, key=lambda item: item[0]["scene_idx"]):
        scored.append(_score_scene(rows[len(scored)], group, bench))
    return scored


def even_frames(count: int, wanted: int) -> set[int]:
    """Numbers of ``wanted`` frames out of ``count``, or of all if there are fewer, in the middle of equal parts."""
    parts = min(wanted, count)
    return {(2 * i + 1) * count // (2 * parts) for i in range(parts)}


def _score_scene(row: Row, frames: Iterable[tuple[Row, int, np.ndarray]], bench: Bench) -> Row:
    from vsr.metrics.metric import Clip

    count = row["end_frame"] - row["start_frame"]
    clip = Clip(name=f"{row['source_id']}:{row['start_frame']}-{row['end_frame']}", count=count)
    spread = even_frames(count, bench.config.quality.clipiqa_frames)
    try:
        scorers = {name: start(clip) for name, start in bench.scorers.items()}
        for _, number, pixels in frames:
            _add(scorers, number, pixels, spread)
        values = {column: found for scorer in scorers.values() for column, found in scorer.values().items()}
    except ValueError as error:
        return failed(row, STAGE, "not_scorable", str(error).splitlines()[0], type(error).__name__)
    return {**row, "frames_scored": count, **{column: float(np.mean(found)) for column, found in values.items()}}


def _add(scorers: "dict[str, Scorer]", number: int, pixels: np.ndarray, spread: set[int]) -> None:
    x = _as_tensor(pixels)
    for name, scorer in scorers.items():
        if name != "clipiqa" or number in spread:
            scorer.add(x, None)


def _as_tensor(pixels: np.ndarray) -> "Tensor":
    """(H, W, 3) of any depth -> (1, 3, H, W) in [0, 1]."""
    import torch

    return torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)[None]
