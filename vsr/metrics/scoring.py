"""Score predictions against ground truth, frame by frame: two folders in, one report out."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vsr.errors import InputError, UsageError
from vsr.metrics.image import psnr, ssim
from vsr.metrics.pairs import Pair, pair_by_stem
from vsr.metrics.report import Failure, Report, Statistics
from vsr.video_io import probe, read_frames

FrameFunction = Callable[[Tensor, Tensor], Tensor]
"""(1, 3, H, W) frames in [0, 1] of the prediction and of the ground truth -> (1,)."""


@dataclass(frozen=True, kw_only=True)
class FrameMetric:
    """A metric of frame pairs: how it is computed and what the report says about it."""

    function: Callable[..., Tensor]
    """(x, y, *, crop, test_y_channel) -> (N,); x and y (N, 3, H, W) in [0, 1]; ValueError: not computable."""
    definition: str
    channels: str
    """What it compares unless ``test_y_channel`` is set."""


FRAME_METRICS = {
    "psnr": FrameMetric(function=psnr, definition="10 log10(1 / (mse + 1e-8)) dB, at most 80", channels="RGB"),
    "ssim": FrameMetric(
        function=ssim,
        definition="11x11 Gaussian window of sigma 1.5, valid part, range 255 rounded, no downsampling",
        channels="Y of YIQ, full range",
    ),
}


def score(
    pred: str | Path,
    gt: str | Path,
    metrics: Sequence[str] = ("psnr", "ssim"),
    *,
    crop: int = 0,
    test_y_channel: bool = False,
    every: int = 1,
    on_clip: Callable[[str], None] = lambda name: None,
) -> Report:
    """Score every clip of ``pred`` against the clip of ``gt`` with the same stem; frames are streamed.

    Args:
        pred, gt: a folder of videos, frame folders and images, or a single one of these.
        metrics: names from ``FRAME_METRICS``.
        crop: pixels left out along each border.
        test_y_channel: compare the limited-range BT.601 luma (PSNR: instead of RGB; SSIM: instead of the Y of YIQ).
        every: score every k-th frame only; all frames are still decoded and counted.
        on_clip: called with the name of each clip before it is scored.

    Returns:
        The report. A clip that is missing, extra, unreadable or of another size or length than its ground truth is a
        failure in it and part of no average.

    Raises:
        UsageError: an unknown metric or a setting out of range.
        InputError: ``pred`` or ``gt`` is missing or has nothing to score.
    """
    pred, gt = Path(pred), Path(gt)
    check_metrics(metrics, crop, every)
    pairs, failures = pair_by_stem(pred, gt)
    return score_pairs(
        pairs,
        metrics,
        pred=pred,
        gt=gt,
        failures=failures,
        crop=crop,
        test_y_channel=test_y_channel,
        every=every,
        on_clip=on_clip,
    )


def score_pairs(
    pairs: Sequence[Pair],
    metrics: Sequence[str],
    *,
    pred: Path,
    gt: Path,
    failures: Sequence[Failure] = (),
    crop: int = 0,
    test_y_channel: bool = False,
    every: int = 1,
    on_clip: Callable[[str], None] = lambda name: None,
) -> Report:
    """Score clips that are paired already; see `score`.

    Args:
        pred, gt: where the clips come from, for the report.
        failures: what has failed before.
    """
    check_metrics(metrics, crop, every)
    functions = {
        name: partial(FRAME_METRICS[name].function, crop=crop, test_y_channel=test_y_channel) for name in metrics
    }
    failures, clips = list(failures), {}
    for pair in pairs:
        on_clip(pair.name)
        scores, failed = _score_clip(pair, functions, every)
        clips |= {pair.name: scores} if scores else {}
        failures += failed
    return Report(
        pred=pred,
        gt=gt,
        settings={"metrics": list(metrics), "crop": crop, "test_y_channel": test_y_channel, "every": every},
        definitions={name: _definition(name, crop, test_y_channel) for name in metrics},
        clips=clips,
        failures=failures,
    )


def check_metrics(metrics: Sequence[str], crop: int = 0, every: int = 1) -> None:
    """Raise UsageError for an unknown metric or a setting out of range."""
    unknown = [name for name in metrics if name not in FRAME_METRICS]
    if unknown or not metrics or len(set(metrics)) < len(metrics):
        raise UsageError(f"metrics must be distinct names out of {', '.join(FRAME_METRICS)}, got {', '.join(metrics)}")
    if crop < 0:
        raise UsageError(f"crop must be 0 or more pixels, got {crop}")
    if every < 1:
        raise UsageError(f"every must be 1 or more frames, got {every}")


def _definition(name: str, crop: int, test_y_channel: bool) -> str:
    metric = FRAME_METRICS[name]
    channels = "Y of BT.601, limited range" if test_y_channel else metric.channels
    return f"{metric.definition}; {channels}; crop {crop}; mean of frames, then of clips"


def _score_clip(
    pair: Pair, functions: Mapping[str, FrameFunction], every: int
) -> tuple[dict[str, Statistics], list[Failure]]:
    """Statistics of the metrics that could be computed, and a failure for each that could not, or for the clip."""
    values: dict[str, list[float]] = {name: [] for name in functions}
    reasons: dict[str, str] = {}
    try:
        for x, y in islice(paired_frames(pair), 0, None, every):
            for name in [name for name in functions if name not in reasons]:
                try:
                    values[name].append(_finite(functions[name](x, y).item()))
                except ValueError as error:
                    reasons[name] = str(error)
        scores = {name: Statistics.of(values[name]) for name in functions if name not in reasons}
    except (InputError, ClipMismatch) as error:
        return {}, [Failure(name=pair.name, reason=str(error))]
    return scores, [Failure(name=pair.name, metric=name, reason=reason) for name, reason in reasons.items()]


def _finite(value: float) -> float:
    if not math.isfinite(value):  # a mean would carry it into every average
        raise ValueError(f"the value of a frame is {value}")
    return value


class ClipMismatch(Exception):
    """A clip and its ground truth differ in size or length, so that no score of theirs would mean anything."""


def paired_frames(pair: Pair) -> Iterator[tuple[Tensor, Tensor]]:
    """Stream the frames of a clip beside those of its ground truth; one pair is in memory at a time.

    Yields:
        (1, 3, H, W) float32 RGB in [0, 1], each normalised by the range of its own depth.

    Raises:
        InputError: a file cannot be decoded to its end.
        ClipMismatch: sizes differ, or one side ends first (found at that point, with both lengths counted out).
    """
    with closing(_frames(pair.pred)) as preds, closing(_frames(pair.gt)) as gts:
        for index, (x, y) in enumerate(zip_longest(preds, gts)):
            if x is None or y is None:
                longer = index + 1 + sum(1 for _ in (gts if x is None else preds))
                counts = (index, longer) if x is None else (longer, index)
                raise ClipMismatch("frame counts differ: {} predicted, {} in the ground truth".format(*counts))
            if x.shape != y.shape:
                sizes = [f"{frame.shape[-1]}x{frame.shape[-2]}" for frame in (x, y)]
                raise ClipMismatch("sizes differ: {} predicted, {} in the ground truth".format(*sizes))
            yield x, y


def _frames(path: Path) -> Iterator[Tensor]:
    for frame in read_frames(probe(path)):
        pixels = frame.pixels.astype(np.float32) / np.iinfo(frame.pixels.dtype).max
        yield rearrange(torch.from_numpy(pixels), "h w c -> 1 c h w")
