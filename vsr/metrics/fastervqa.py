"""FasterVQA: quality of a video in [0, 1], from fragments of 32 frames.

Source: Wu et al., Neighbourhood representative sampling for efficient end-to-end video quality assessment (2023), and
the constants of its public command line.
"""

import torch
from torch import Tensor, nn

from vsr.memory import naming_memory
from vsr.metrics.fragments import (
    FragmentSampler,
    centre_frames,
    check_length,
    check_size,
    clip_generator,
    spread_frames,
)
from vsr.metrics.metric import Clip, Values
from vsr.metrics.settings import ScoreSettings
from vsr.metrics.video_swin import QualityHead, VideoSwin

MEAN, STD = 0.14759505, 0.03613452
ALIGNED = 8
GROUPS, LENGTH = 8, 4


class FasterVQA(nn.Module):
    """One backbone and one head."""

    def __init__(self) -> None:
        super().__init__()
        self.fragments_backbone, self.vqa_head = VideoSwin(), QualityHead()

    def forward(self, fragments: Tensor) -> float:
        """(1, 3, 32, 224, 224) normalised fragments -> score in [0, 1]."""
        raw = self.vqa_head(self.fragments_backbone(fragments)).item()
        return torch.tensor((raw - MEAN) / STD, dtype=torch.float64).sigmoid().item()


class FasterVQAScorer:
    """Collects the fragments of one clip."""

    def __init__(self, network: FasterVQA, clip: Clip, settings: ScoreSettings) -> None:
        check_length(clip.count, "FasterVQA", settings)
        generator = clip_generator(settings.seed, clip.name)
        if settings.sampling == "vqa_py":
            indices = centre_frames(clip.count)
        else:
            indices = spread_frames(clip.count, generator, groups=GROUPS, length=LENGTH)
        self._fragments = FragmentSampler(indices, generator, ALIGNED)
        self._network, self._device = network, settings.device
        self._index = 0

    def add(self, x: Tensor, y: Tensor | None) -> None:
        check_size(x, "FasterVQA")
        self._fragments.add(self._index, x[0])
        self._index += 1

    @torch.no_grad()
    def values(self) -> Values:
        with naming_memory("FasterVQA", "--device cpu"):
            return {"fastervqa": [self._network(self._fragments.result()[None].to(self._device))]}
