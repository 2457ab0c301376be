"""Scores of restored videos, alone or against their ground truth."""

from vsr.metrics.catalog import METRICS, check_metrics
from vsr.metrics.pairs import Pair, stem_of
from vsr.metrics.scoring import score, score_pairs
from vsr.metrics.settings import ScoreSettings

__all__ = ["METRICS", "Pair", "ScoreSettings", "check_metrics", "score", "score_pairs", "stem_of"]
