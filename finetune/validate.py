"""Validation during training: the same pipeline and the same path as inference, on a small folder with ground truth."""

import logging
from pathlib import Path

import cv2
import numpy as np
import torch

from finetune.recipe import ValidationConfig
from vsr.compare import FOLDER as COMPARED
from vsr.compare import compare
from vsr.errors import InputError
from vsr.metrics import Pair, check_metrics, score_pairs
from vsr.pipelines.dove import DOVEPipeline
from vsr.restore_file import restore_video
from vsr.video_io import OutputOptions, find_inputs, output_path, probe

log = logging.getLogger(__name__)

OUTPUT = OutputOptions(audio=False)

SHOWN = 4
"""Clips whose pictures go to the tracker."""

Pictures = dict[str, np.ndarray]
"""Name of a clip: (H, W, 3) uint8."""


def check_validation(config: ValidationConfig) -> None:
    """Raise a VSRError when a folder is missing or empty or a metric is unknown, before training starts."""
    check_metrics(config.metrics)
    truths = {path.stem for path in find_inputs(config.gt)}
    missing = sorted({path.stem for path in find_inputs(config.lq)} - truths)
    if missing:
        raise InputError(f"validation: {config.gt} has no ground truth for {', '.join(missing)}")


@torch.no_grad()
def validate(pipe: DOVEPipeline, config: ValidationConfig, folder: Path) -> tuple[dict[str, float], Pictures]:
    """Restore the clips into ``folder``, score them and write comparison pictures.

    The state of training is untouched: no random numbers are drawn, and the student gets its mode back.

    Returns:
        The average of each metric over the clips; and a few pictures: bicubic | restored | ground truth.
    """
    was_training = pipe.transformer.training
    sources, truths = find_inputs(config.lq), {path.stem: path for path in find_inputs(config.gt)}
    pipe.transformer.eval()
    try:
        for source in sources:
            restore_video(source, _result(source, folder), pipe, output=OUTPUT)
    finally:
        pipe.transformer.train(was_training)
    pairs = [Pair(source.stem, _result(source, folder), truths[source.stem]) for source in sources]
    report = score_pairs(pairs, config.metrics, pred=folder, gt=config.gt)
    for failure in report.failures:
        log.warning("validation: %s", failure)
    report.write(folder / "metrics.json")
    averages = {name: average.mean for name, average in report.averages.items() if average.mean is not None}
    return averages, {source.stem: _picture(source, truths[source.stem], folder) for source in sources[:SHOWN]}


def _result(source: Path, folder: Path) -> Path:
    return output_path(folder, probe(source), OUTPUT)


def _picture(source: Path, truth: Path, folder: Path) -> np.ndarray:
    compare(probe(source), _result(source, folder), truth, source.stem)
    return cv2.cvtColor(cv2.imread(str(folder / COMPARED / f"{source.stem}.png")), cv2.COLOR_BGR2RGB)
