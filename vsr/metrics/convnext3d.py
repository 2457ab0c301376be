"""ConvNeXt-T over frames, rows and columns, the network of DOVER's aesthetic branch.

Source: Liu et al., A ConvNet for the 2020s (2022), inflated as in DOVER: the depthwise kernels of successive blocks see
1, 3, 1 frames. Key names of the official file.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)
FRAMES_SEEN = (1, 3, 1)
EPSILON = 1e-6


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, F, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Block(nn.Module):
    """x + gamma * MLP(norm(depthwise(x))) on (B, C, F, H, W)."""

    def __init__(self, width: int, frames_seen: int) -> None:
        super().__init__()
        kernel = (frames_seen, 7, 7)
        self.dwconv = nn.Conv3d(width, width, kernel, padding=tuple(side // 2 for side in kernel), groups=width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), EPSILON))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).movedim(1, -1))
        return x + (self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))).movedim(-1, 1)


class ConvNeXt3d(nn.Module):
    """(B, 3, F, H, W) -> (B, 768, F/2, H/32, W/32)."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv3d(3, WIDTHS[0], (2, 4, 4), stride=(2, 4, 4)), ChannelNorm(WIDTHS[0], eps=EPSILON))
        halvings = [
            nn.Sequential(ChannelNorm(narrow, eps=EPSILON), nn.Conv3d(narrow, wide, (1, 2, 2), stride=(1, 2, 2)))
            for narrow, wide in pairwise(WIDTHS)
        ]
        self.downsample_layers = nn.ModuleList([stem, *halvings])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, FRAMES_SEEN[index % 3]) for index in range(depth)))
            for depth, width in zip(DEPTHS, WIDTHS, strict=True)
        )
        self.norm = ChannelNorm(WIDTHS[-1], eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return self.norm(x)
