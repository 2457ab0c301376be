"""DOVER: technical and aesthetic quality of a video, and both in one number; each in [0, 1].

Which of the three a paper prints differs from paper to paper; so all three are in the report.

Source: Wu et al., Exploring video quality assessment on user generated contents from aesthetic and technical
perspectives (2023), and the constants of its public evaluation. The weights are for research only.
"""

import torch
from torch import Tensor, nn

from vsr.memory import naming_memory
from vsr.metrics.convnext3d import ConvNeXt3d
from vsr.metrics.fragments import (
    FragmentSampler,
    WholeFrameSampler,
    check_length,
    check_size,
    clip_generator,
    spread_frames,
)
from vsr.metrics.metric import Clip, Values
from vsr.metrics.settings import ScoreSettings
from vsr.metrics.video_quality import DOVER_COLUMNS
from vsr.metrics.video_swin import QualityHead, VideoSwin

CLIPS, FRAMES = 3, 32
TECHNICAL_MEAN, TECHNICAL_STD, TECHNICAL_SHARE = 0.1107, 0.07355, 0.6104
AESTHETIC_MEAN, AESTHETIC_STD, AESTHETIC_SHARE = -0.08285, 0.03774, 0.3896


class Dover(nn.Module):
    """Two backbones and two heads, 56.2 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.technical_backbone, self.technical_head = VideoSwin(), QualityHead()
        self.aesthetic_backbone, self.aesthetic_head = ConvNeXt3d(), QualityHead()

    def forward(self, fragments: Tensor, frames: Tensor) -> dict[str, float]:
        """The three scores.

        Args:
            fragments: (3, 3, 32, 224, 224), clips of fragments, normalised.
            frames: (1, 3, 32, 224, 224), whole frames, normalised.
        """
        technical = self.technical_head(self.technical_backbone(fragments))
        aesthetic = self.aesthetic_head(self.aesthetic_backbone(frames))
        return fused(technical.item(), aesthetic.item())


def fused(technical: float, aesthetic: float) -> dict[str, float]:
    """The outputs of the networks on the scale of opinions, each and weighted."""
    t = (technical - TECHNICAL_MEAN) / TECHNICAL_STD
    a = (aesthetic - AESTHETIC_MEAN) / AESTHETIC_STD
    raw = torch.tensor([t, a, TECHNICAL_SHARE * t + AESTHETIC_SHARE * a], dtype=torch.float64)
    return dict(zip(DOVER_COLUMNS, raw.sigmoid().tolist(), strict=True))


class DoverScorer:
    """Collects what both branches look at; memory does not grow with the length of the clip."""

    def __init__(self, network: Dover, clip: Clip, settings: ScoreSettings) -> None:
        check_length(clip.count, "DOVER", settings)
        generator = clip_generator(settings.seed, clip.name)
        runs = spread_frames(clip.count, generator, groups=CLIPS, length=FRAMES)
        singles = spread_frames(clip.count, generator, groups=FRAMES, length=1)
        self._fragments = FragmentSampler(runs, generator, aligned=FRAMES)
        self._frames = WholeFrameSampler(singles)
        self._network, self._device = network, settings.device
        self._index = 0

    def add(self, x: Tensor, y: Tensor | None) -> None:
        check_size(x, "DOVER")
        for sampler in (self._fragments, self._frames):
            sampler.add(self._index, x[0])
        self._index += 1

    @torch.no_grad()
    def values(self) -> Values:
        fragments = self._fragments.result().unflatten(1, (CLIPS, FRAMES)).transpose(0, 1)
        frames = self._frames.result()[None]
        with naming_memory("DOVER", "--device cpu"):
            scores = self._network(fragments.to(self._device), frames.to(self._device))
        return {column: [score] for column, score in scores.items()}
