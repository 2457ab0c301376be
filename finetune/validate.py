"""Validation during training: the same pipeline and the same path as inference, on a small folder with ground truth."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch

from finetune.recipe import ValidationConfig
from vsr.compare import check_ground_truth, compare
from vsr.errors import InputError, VSRError
from vsr.fitting import Fitting
from vsr.frames import output_size
from vsr.jobs import twins
from vsr.metrics import Pair, check_metrics, score_pairs, stem_of
from vsr.pipelines.dove import DOVEPipeline
from vsr.restore_file import restore_video
from vsr.video_io import COMPARISONS, OutputOptions, find_inputs, output_path, probe

log = logging.getLogger(__name__)

OUTPUT = OutputOptions(audio=False)

SHOWN = 4
"""Clips whose pictures go to the tracker."""

T = TypeVar("T")
Pictures = dict[str, np.ndarray]
"""Name of a clip: (H, W, 3) uint8."""


def check_validation(config: ValidationConfig, scale: float) -> None:
    """Raise a VSRError before training starts when a metric is unknown or clips do not fit their ground truth.

    Args:
        scale: super-resolution factor of the model.
    """
    check_metrics(config.metrics)
    for folder in (config.gt, config.lq):
        for first, second in twins(find_inputs(folder), stem_of):
            raise InputError(f"validation: {first} and {second} have one name, by which results go; rename one")
    truths, sources = _by_stem(config.gt), _by_stem(config.lq)
    missing = sorted(sources.keys() - truths.keys())
    if missing:
        raise InputError(f"validation: {config.gt} has no ground truth for {', '.join(missing)}")
    for name, source in sources.items():
        info = probe(source)
        check_ground_truth(truths[name], output_size(info.height, info.width, scale=scale), info.frame_count)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Clips by the name that their results will have."""
    return {stem_of(path): path for path in find_inputs(folder)}


@torch.no_grad()
def validate(pipe: DOVEPipeline, config: ValidationConfig, folder: Path) -> tuple[dict[str, float], Pictures]:
    """Restore the clips into ``folder``, score them and write comparison pictures.

    The state of training is untouched: no random numbers are drawn, and the student gets its mode back.

    Returns:
        The average of each metric over the clips; and a few pictures: bicubic | restored | ground truth.
    """
    was_training = pipe.transformer.training
    pipe.transformer.eval()
    try:
        sources = [source for source in find_inputs(config.lq) if _restored(source, folder, pipe)]
    finally:
        pipe.transformer.train(was_training)
    if not sources:
        return {}, {}
    truths = _by_stem(config.gt)
    pairs = [Pair(stem_of(source), _result(source, folder), truths[stem_of(source)]) for source in sources]
    report = score_pairs(pairs, config.metrics, pred=folder, gt=config.gt)
    for failure in report.failures:
        log.warning("validation: %s", failure)
    _surely("metrics.json", lambda: report.write(folder / "metrics.json"))
    averages = {name: average.mean for name, average in report.averages.items() if average.mean is not None}
    shown = zip(sources[:SHOWN], pairs, strict=False)
    pictures = {pair.name: _surely(pair.name, partial(_picture, source, pair)) for source, pair in shown}
    return averages, {name: picture for name, picture in pictures.items() if picture is not None}


def _restored(source: Path, folder: Path, pipe: DOVEPipeline) -> bool:
    """Restore a clip; whether that went well."""
    fitting, target = Fitting(pipe, may_offload=False), partial(_result, source, folder)
    return bool(_surely(source.name, lambda: restore_video(source, target(), pipe, output=OUTPUT, fitting=fitting)))


def _surely(name: str, work: Callable[[], T]) -> T | None:
    """Do the work; what fails is named and gives None, since training has to go on."""
    try:
        return work()
    except (VSRError, OSError) as error:
        log.warning("validation: %s: %s", name, error)
        return None


def _result(source: Path, folder: Path) -> Path:
    return output_path(folder, probe(source), OUTPUT)


def _picture(source: Path, pair: Pair) -> np.ndarray:
    compare(probe(source), pair.pred, pair.gt, pair.name)
    picture = cv2.imread(str(pair.pred.parent / COMPARISONS / f"{pair.name}.png"))
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
