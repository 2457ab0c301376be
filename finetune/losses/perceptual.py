"""Perceptual distances of pyiqa as losses. Imported and built only when a recipe asks for one; never downloaded."""

import torch
from torch import Tensor, nn


def build_perceptual(name: str, device: torch.device) -> nn.Module:
    """DISTS (VGG16) or LPIPS (AlexNet) as a frozen module: (N, 3, H, W) pairs in [0, 1] -> distances with gradient.

    pyiqa unpickles its files whatever they are: `finetune.checks` compares them with known hashes first.
    """
    import pyiqa

    return _Float32(pyiqa.create_metric(name, as_loss=True, device=device).requires_grad_(False))


class _Float32(nn.Module):
    def __init__(self, distance: nn.Module) -> None:
        super().__init__()
        self._distance = distance

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self._distance(x.float(), y.float())
