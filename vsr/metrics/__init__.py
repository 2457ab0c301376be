"""Scores of restored videos against their ground truth."""

from vsr.metrics.pairs import Pair, stem_of
from vsr.metrics.scoring import check_metrics, score, score_pairs

__all__ = ["Pair", "check_metrics", "score", "score_pairs", "stem_of"]
