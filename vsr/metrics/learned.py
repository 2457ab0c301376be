"""Image metrics that are networks or statistics learned from pictures, through pyiqa 0.1.16.

pyiqa is imported when one of them is asked for, never before, and finds its weights in torch's hub folder, where
`vsr.metrics.weights` has checked them; it downloads nothing.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vsr.memory import naming_memory
from vsr.metrics.metric import Clip, Metric, PerFrame, Scorer, Start
from vsr.metrics.settings import ScoreSettings
from vsr.metrics.weights import ALEXNET, CLIP_RN50, VGG16, VIT_B8, Weight, pyiqa_file


@dataclass(frozen=True, kw_only=True)
class Learned:
    """One metric of pyiqa, under pyiqa's name."""

    definition: str
    weights: tuple[Weight, ...]
    needs_gt: bool = False
    lower_better: bool = False
    packages: tuple[str, ...] = ("pyiqa", "timm")


LEARNED = {
    "lpips": Learned(
        definition="LPIPS v0.1 on AlexNet, full resolution",
        weights=(pyiqa_file("LPIPS_v0.1_alex-df73285e.pth"), ALEXNET),
        needs_gt=True,
        lower_better=True,
    ),
    "lpips-vgg": Learned(
        definition="LPIPS v0.1 on VGG-16, full resolution",
        weights=(pyiqa_file("LPIPS_v0.1_vgg-a78928a0.pth"), VGG16),
        needs_gt=True,
        lower_better=True,
    ),
    "dists": Learned(
        definition="DISTS on VGG-16, full resolution (the authors' demo resizes to 256)",
        weights=(pyiqa_file("DISTS_weights-f5e65c96.pth"), VGG16),
        needs_gt=True,
        lower_better=True,
    ),
    "clipiqa": Learned(
        definition="CLIP-IQA on RN50, mean of five prompt pairs, native resolution, no position embedding",
        weights=(CLIP_RN50,),
        packages=("pyiqa", "timm", "openai-clip"),
    ),
    "musiq": Learned(
        definition="MUSIQ trained on KonIQ-10k, native resolution and longer sides of 384 and 224",
        weights=(pyiqa_file("musiq_koniq_ckpt-e95806b9.pth"),),
    ),
    "maniqa": Learned(
        definition="MANIQA trained on KonIQ-10k, scale 0.8, mean of 20 uniform crops of 224",
        weights=(pyiqa_file("ckpt_koniq10k.pt"), VIT_B8),
    ),
    "maniqa-pipal": Learned(
        definition="MANIQA trained on PIPAL, mean of 20 uniform crops of 224",
        weights=(pyiqa_file("MANIQA_PIPAL-ae6d356b.pth"), VIT_B8),
    ),
    "niqe": Learned(
        definition="NIQE, Y of YIQ, blocks of 96, parameters niqe_modelparameters.mat",
        weights=(pyiqa_file("niqe_modelparameters.mat"),),
        lower_better=True,
    ),
}


def learned_metrics() -> dict[str, Metric]:
    """All of them as the scoring loop takes them."""
    return {name: _metric(name, facts) for name, facts in LEARNED.items()}


def _metric(name: str, facts: Learned) -> Metric:
    def define(settings: ScoreSettings) -> str:
        crop = f"; crop {settings.crop}" if facts.needs_gt else ""
        return f"{facts.definition}{crop}; mean of frames, then of clips"

    return Metric(
        build=partial(_build, name, facts),
        columns=(name,),
        define=define,
        needs_gt=facts.needs_gt,
        lower_better=facts.lower_better,
        weights=lambda settings: facts.weights,
        packages=facts.packages,
    )


def _build(name: str, facts: Learned, settings: ScoreSettings) -> Start:
    network = create(name, settings.device)
    function = partial(_evaluate, name, network, settings.crop if facts.needs_gt else 0)

    def start(clip: Clip) -> Scorer:
        return PerFrame(function, name, settings, needs_gt=facts.needs_gt)

    return start


def create(name: str, device: str, **options: Any) -> nn.Module:
    """A metric of pyiqa with its weights; ``options`` replace pyiqa's own."""
    import pyiqa

    with _weights_of_torch_hub(), redirect_stdout(sys.stderr):  # it says what it loads; ours is for results
        return pyiqa.create_metric(name, device=torch.device(device), **options)


def _evaluate(name: str, network: Callable[..., Tensor], crop: int, *frames: Tensor) -> Tensor:
    """Values of (N, 3, H, W) frames; a ValueError says which metric could not be computed and why."""
    height, width = frames[0].shape[-2:]
    if 2 * crop >= min(height, width):
        raise ValueError(f"a crop of {crop} pixels along each border leaves nothing of {width}x{height} frames")
    frames = tuple(x[..., crop : height - crop, crop : width - crop] for x in frames)
    try:
        with naming_memory(f"{name} of {len(frames[0])} frames of {width}x{height}", "--device cpu"):
            return network(*frames)
    except (AssertionError, RuntimeError, np.linalg.LinAlgError) as error:  # pyiqa's ways to refuse a picture
        raise ValueError(f"{name} cannot be computed for {width}x{height} frames: {error}") from error


@contextmanager
def _weights_of_torch_hub() -> Iterator[None]:
    """Make pyiqa read the files that were checked: it fixes its folder when imported, and asks a server for a ViT."""
    import timm
    from pyiqa.utils import download_util

    folder, create_model = download_util.DEFAULT_CACHE_DIR, timm.create_model

    def from_cache(model: str, pretrained: bool = False, **options: Any) -> nn.Module:
        overlay = {"pretrained_cfg_overlay": {"file": str(VIT_B8.path)}} if pretrained else {}
        return create_model(model, pretrained=pretrained, **overlay, **options)

    download_util.DEFAULT_CACHE_DIR = f"{torch.hub.get_dir()}/pyiqa"
    timm.create_model = from_cache
    try:
        yield
    finally:
        download_util.DEFAULT_CACHE_DIR, timm.create_model = folder, create_model
