"""Stage 3, second half: thresholds of the scores, given or found from all of them, and what they reject."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from finetune.curation.config import QualityConfig
from finetune.curation.rows import KEPT, Row, rejected

STAGE = "quality"


def thresholds_of(config: QualityConfig, scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Column -> the score that a scene must reach.

    Args:
        scores: of every scene that was scored, by column; all of one length.
    """
    if not config.metrics:
        return {}
    columns = {column: np.asarray(scores[column], dtype=np.float64) for column in config.deciding}
    scored = np.logical_and.reduce([np.isfinite(values) for values in columns.values()])
    columns = {column: values[scored] for column, values in columns.items()}
    if config.mode == "absolute":
        return {column: getattr(config.at_least, column) for column in columns}
    return joint_quantile(columns, config.target_count)


def joint_quantile(columns: Mapping[str, np.ndarray], target: int) -> dict[str, float]:
    """Thresholds at one quantile of every column such that at least ``target`` rows reach all of them.

    A row's own quantile is the smallest fraction, over the columns, of rows that it exceeds; the quantile of the
    thresholds is the target-th largest of these. Rows that tie with that one pass as well: without equal scores, at
    most one more for each further column.

    Args:
        columns: (N,) each.

    Returns:
        Column -> threshold; empty without rows.
    """
    ordered = {name: np.sort(values) for name, values in columns.items()}
    count = len(next(iter(ordered.values()), ()))
    if not count:
        return {}
    below = {name: np.searchsorted(ordered[name], values, side="left") for name, values in columns.items()}
    own = np.min(np.stack(list(below.values())), axis=0)
    cut = np.sort(own)[max(count - target, 0)]
    return {name: float(columns[name][below[name] >= cut].min()) for name in columns}


def select(row: Row, thresholds: Mapping[str, float]) -> Row:
    """The row, or its rejection with all scores that are too low."""
    if row["status"] != KEPT:
        return row
    low = [column for column, least in thresholds.items() if not _reaches(row.get(column), least)]
    if not low:
        return row
    detail = ", ".join(f"{column} {row[column]:.4f} < {thresholds[column]:.4f}" for column in low)
    return rejected(row, STAGE, f"low_{low[0]}", detail)


def _reaches(value: float, least: float) -> bool:
    return math.isfinite(value) and value >= least
