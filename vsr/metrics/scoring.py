"""Score predictions, alone or against ground truth: two folders in, one report out."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vsr.errors import InputError, OutOfMemoryError
from vsr.metrics.catalog import METRICS, check_metrics, package_version, weights_of
from vsr.metrics.metric import Clip, Metric, Scorer, Start
from vsr.metrics.pairs import Pair, pair_by_stem
from vsr.metrics.report import Failure, Report, Statistics
from vsr.metrics.settings import Align, ScoreSettings
from vsr.video_io import probe, read_frames
from vsr.video_io.probe import Untagged

Frames = tuple[Tensor, Tensor | None]
"""(1, 3, H, W) in [0, 1] of the prediction and of the ground truth, if there is one."""
NOT_COMPUTABLE = (ValueError, OutOfMemoryError)


def score(
    pred: str | Path,
    gt: str | Path | None = None,
    metrics: Sequence[str] = ("psnr", "ssim"),
    *,
    settings: ScoreSettings | None = None,
    on_clip: Callable[[str], None] = lambda name: None,
) -> Report:
    """Score every clip of ``pred`` against the clip of ``gt`` with the same stem; frames are streamed.

    Args:
        pred, gt: a folder of videos, frame folders and images, or a single one of these; without ``gt`` only metrics
            without reference can be computed.
        metrics: names from ``vsr.metrics.METRICS``.
        on_clip: called with the name of each clip before it is scored.

    Returns:
        The report. A clip that is missing, extra, unreadable or of another size or length than its ground truth is a
        failure in it and part of no average.

    Raises:
        UsageError: an unknown metric, or one that compares when there is no ground truth.
        InputError: ``pred`` or ``gt`` is missing or has nothing to score.
        ModelError: weights or packages of a metric are missing; found before any video is opened.
    """
    pred, gt = Path(pred), None if gt is None else Path(gt)
    check_metrics(metrics, settings, with_gt=gt is not None)
    pairs, failures = pair_by_stem(pred, gt)
    return score_pairs(pairs, metrics, pred=pred, gt=gt, failures=failures, settings=settings, on_clip=on_clip)


def score_pairs(
    pairs: Sequence[Pair],
    metrics: Sequence[str],
    *,
    pred: Path,
    gt: Path | None,
    failures: Sequence[Failure] = (),
    settings: ScoreSettings | None = None,
    on_clip: Callable[[str], None] = lambda name: None,
) -> Report:
    """Score clips that are paired already; see `score`.

    Args:
        pred, gt: where the clips come from, for the report.
        failures: what has failed before.

    Raises:
        ScoringInterrupted: Ctrl-C; nothing that was scored is lost.
    """
    settings = settings or ScoreSettings()
    check_metrics(metrics, settings, with_gt=all(pair.gt is not None for pair in pairs))
    starts = {name: METRICS[name].build(settings) for name in metrics} if pairs else {}
    failures, clips = list(failures), {}
    left, interrupted = list(pairs), False
    try:
        while left:
            on_clip(left[0].name)
            scores, failed = _score_clip(left[0], starts, settings)
            pair = left.pop(0)
            clips |= {pair.name: scores} if scores else {}
            failures += failed
    except KeyboardInterrupt:
        interrupted = True
        failures += [Failure(name=pair.name, reason="not scored: interrupted") for pair in left]
    chosen = {name: METRICS[name] for name in metrics}
    report = Report(
        pred=pred,
        gt=gt,
        settings={"metrics": list(metrics), **asdict(settings)},
        clips=clips,
        failures=failures,
        weights=weights_of(metrics, settings),
        **_facts(chosen, settings),
    )
    if interrupted:
        raise ScoringInterrupted(report)
    return report


class ScoringInterrupted(KeyboardInterrupt):
    """Ctrl-C, with the report of what had been scored before."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


def _facts(chosen: Mapping[str, Metric], settings: ScoreSettings) -> dict[str, object]:
    """What the report says about the metrics."""
    packages = {package for metric in chosen.values() for package in metric.packages}
    columns = {column: metric for metric in chosen.values() for column in metric.columns}
    definitions = {column: metric.define(settings).format(column=column) for column, metric in columns.items()}
    return {
        "definitions": definitions,
        "lower_better": frozenset(column for column, metric in columns.items() if metric.lower_better),
        "packages": {name: package_version(name) for name in sorted(packages)},
    }


def _score_clip(
    pair: Pair, starts: Mapping[str, Start], settings: ScoreSettings
) -> tuple[dict[str, Statistics], list[Failure]]:
    """Statistics of the metrics that could be computed, and a failure for each that could not, or for the clip.

    A second pass over the clip serves the metrics that have to know its length first.
    """
    scores: dict[str, Statistics] = {}
    reasons: dict[str, str] = {}
    late = [name for name in starts if METRICS[name].needs_count]
    try:
        first = {name: start for name, start in starts.items() if name not in late}
        count = _run_pass(pair, first, settings, None, scores, reasons)
        if late:
            _run_pass(pair, {name: starts[name] for name in late}, settings, count, scores, reasons)
    except (InputError, ClipMismatch) as error:
        return {}, [Failure(name=pair.name, reason=str(error))]
    failures = [
        Failure(name=pair.name, metric=column, reason=reason)
        for name, reason in reasons.items()
        for column in METRICS[name].columns
    ]
    return {column: scores[column] for name in starts for column in METRICS[name].columns if column in scores}, failures


def _run_pass(
    pair: Pair,
    starts: Mapping[str, Start],
    settings: ScoreSettings,
    count: int | None,
    scores: dict[str, Statistics],
    reasons: dict[str, str],
) -> int:
    """Give every frame to every metric; what comes of it goes to ``scores`` or ``reasons``. Returns the frames seen."""
    scorers: dict[str, Scorer] = {}

    def attempt(name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except NOT_COMPUTABLE as error:
            reasons[name] = str(error)
            scorers.pop(name, None)

    def finish(name: str) -> None:
        values = scorers[name].values()
        scores.update({column: Statistics.of(_finite(numbers)) for column, numbers in values.items()})

    clip = Clip(name=pair.name, count=count)
    for name, start in starts.items():
        attempt(name, lambda name=name, start=start: scorers.update({name: start(clip)}))
    if count is not None and not scorers:
        return count
    seen = 0
    for x, y in paired_frames(pair, settings.align, settings.untagged):
        seen += 1
        for name in list(scorers):
            attempt(name, lambda name=name, x=x, y=y: scorers[name].add(x, y))
    for name in list(scorers):
        attempt(name, lambda name=name: finish(name))
    return seen


def _finite(values: Sequence[float]) -> Sequence[float]:
    for value in values:
        if not math.isfinite(value):  # a mean would carry it into every average
            raise ValueError(f"the value of a frame is {value}")
    return values


class ClipMismatch(Exception):
    """A clip and its ground truth differ in size or length, so that no score of theirs would mean anything."""


def paired_frames(pair: Pair, align: Align = "none", untagged: Untagged = "auto") -> Iterator[Frames]:
    """Stream the frames of a clip beside those of its ground truth; one pair is in memory at a time.

    Yields:
        (1, 3, H, W) float32 RGB in [0, 1], each normalised by the range of its own depth.

    Raises:
        InputError: a file cannot be decoded to its end.
        ClipMismatch: sizes differ and are not to be aligned, or one side ends first (found at that point, with both
            lengths counted out).
    """
    if pair.gt is None:
        yield from ((x, None) for x in _frames(pair.pred, untagged))
        return
    with closing(_frames(pair.pred, untagged)) as preds, closing(_frames(pair.gt, untagged)) as gts:
        for index, (x, y) in enumerate(zip_longest(preds, gts)):
            if x is None or y is None:
                longer = index + 1 + sum(1 for _ in (gts if x is None else preds))
                counts = (index, longer) if x is None else (longer, index)
                raise ClipMismatch("frame counts differ: {} predicted, {} in the ground truth".format(*counts))
            if x.shape != y.shape and align == "none":
                sizes = [f"{frame.shape[-1]}x{frame.shape[-2]}" for frame in (x, y)]
                raise ClipMismatch("sizes differ: {} predicted, {} in the ground truth".format(*sizes))
            yield aligned(x, y, align)


def aligned(x: Tensor, y: Tensor, align: Align) -> tuple[Tensor, Tensor]:
    """Both frames cut to their common size, from the top left corner or the centre; (1, 3, H, W) each."""
    height, width = (min(x.shape[axis], y.shape[axis]) for axis in (-2, -1))

    def cut(frame: Tensor) -> Tensor:
        top, left = ((frame.shape[-2] - height) // 2, (frame.shape[-1] - width) // 2) if align == "center" else (0, 0)
        return frame[..., top : top + height, left : left + width]

    return cut(x), cut(y)


def _frames(path: Path, untagged: Untagged) -> Iterator[Tensor]:
    for frame in read_frames(probe(path, untagged=untagged)):
        pixels = frame.pixels.astype(np.float32) / np.iinfo(frame.pixels.dtype).max
        yield rearrange(torch.from_numpy(pixels), "h w c -> 1 c h w")
