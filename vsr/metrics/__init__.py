"""Scores of restored videos against their ground truth."""

from vsr.metrics.scoring import score

__all__ = ["score"]
