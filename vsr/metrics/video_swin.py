"""Video Swin-T with gated relative position bias, the network of FasterVQA and of DOVER's technical branch.

A video of fragments has neighbours in a window that were no neighbours in the picture; tokens of one fragment use one
table of position biases, tokens of different ones another.

Source: Wu et al., FAST-VQA: efficient end-to-end video quality assessment with fragment sampling (2022), section 3.3;
Liu et al., Video Swin Transformer (2022). Built on torchvision's blocks; key names of the official files.
"""

import re
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformerBlock
from torchvision.models.video.swin_transformer import (
    ShiftedWindowAttention3d,
    SwinTransformer3d,
    _get_window_and_shift_size,
    shifted_window_attention_3d,
)

PATCH, WIDTH, DEPTHS, HEADS, WINDOW = (2, 4, 4), 96, (2, 2, 6, 2), (3, 6, 12, 24), (8, 7, 7)
FEATURES = 768
Size = tuple[int, int, int]
"""Frames, rows, columns."""


@cache
def fragment_distance(size: Size, window: Size, shift: Size) -> Tensor:
    """How many fragments lie between two tokens, rows plus columns, for all pairs of each window.

    The fragments are taken to be as many as tokens of a window, 7 by 7, spread over the padded feature map; not cut to
    1, the official weights were trained with the plain distance.

    Args:
        size: of the feature map before padding to whole windows.

    Returns:
        (windows, tokens, tokens) int64.
    """
    padded = [-(-length // side) * side for length, side in zip(size, window, strict=True)]
    rows, columns = (torch.arange(length) * side // length for length, side in zip(padded[1:], window[1:], strict=True))
    places = torch.stack(torch.meshgrid(torch.zeros(padded[0], dtype=torch.long), rows, columns, indexing="ij"), -1)
    if sum(shift):
        places = places.roll([-step for step in shift], dims=(0, 1, 2))
    for axis, side in zip((0, 2, 4), window, strict=True):
        places = places.unflatten(axis, (-1, side))
    places = places.permute(0, 2, 4, 1, 3, 5, 6).flatten(3, 5).flatten(0, 2)
    return (places[:, None] - places[:, :, None]).abs().sum(dim=-1)


class GatedAttention(ShiftedWindowAttention3d):
    """Window attention whose position bias depends on whether two tokens are of one fragment."""

    def __init__(self, *arguments: Any, gated: bool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.gated = gated
        if gated:
            self.fragment_position_bias_table = nn.Parameter(torch.zeros_like(self.relative_position_bias_table))

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, H, W, C) -> the same."""
        size = x.shape[1:4]
        window, shift = _get_window_and_shift_size(list(self.shift_size), list(size), list(self.window_size))
        return shifted_window_attention_3d(
            x,
            self.qkv.weight,
            self.proj.weight,
            self._bias(x, tuple(window), tuple(shift)),
            window,
            self.num_heads,
            shift_size=shift,
            qkv_bias=self.qkv.bias,
            proj_bias=self.proj.bias,
            training=False,
        )

    def _bias(self, x: Tensor, window: Size, shift: Size) -> Tensor:
        """(1 or B * windows, heads, tokens, tokens)."""
        inside = self.get_relative_position_bias(list(window))
        if not self.gated:
            return inside
        tokens = window[0] * window[1] * window[2]
        index = self.relative_position_index[:tokens, :tokens]
        between = self.fragment_position_bias_table[index].permute(2, 0, 1)[None]
        distance = fragment_distance(tuple(x.shape[1:4]), window, shift)[:, None].to(x)
        return (inside * distance + between * (1 - distance)).repeat(len(x), 1, 1, 1)


class VideoSwin(SwinTransformer3d):
    """Video Swin-T without its classifier: (B, 3, F, H, W) -> (B, 768, F/2, H/32, W/32); gated in all stages but the
    last."""

    def __init__(self) -> None:
        super().__init__(
            list(PATCH), WIDTH, list(DEPTHS), list(HEADS), list(WINDOW), stochastic_depth_prob=0.0, block=_block
        )
        del self.avgpool, self.head

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.features(self.patch_embed(x))).permute(0, 4, 1, 2, 3)


def _block(dim: int, *arguments: Any, attn_layer: Any = None, **options: Any) -> SwinTransformerBlock:
    """A block with our attention in place of the one that torchvision hands in."""
    gated = dim < FEATURES
    return SwinTransformerBlock(dim, *arguments, attn_layer=partial(GatedAttention, gated=gated), **options)


def official_key(key: str) -> str:
    """Name of a parameter of `VideoSwin` in the official files."""
    key = re.sub(r"^features\.([0246])\.(\d+)\.", lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}.", key)
    key = re.sub(r"^features\.([135])\.", lambda m: f"layers.{int(m[1]) // 2}.downsample.", key)
    return key.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")


class QualityHead(nn.Module):
    """A score per position of the features, averaged over clips and positions: (B, 768, F, H, W) -> ()."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.fc_hid = nn.Conv3d(FEATURES, hidden, 1)
        self.fc_last = nn.Conv3d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_last(nn.functional.gelu(self.fc_hid(x))).mean()
