"""Perceptual distances of pyiqa as losses. Imported and built only when a recipe asks for one; never downloaded."""

import torch
from torch import Tensor, nn

from vsr.metrics.catalog import METRICS, complaints
from vsr.metrics.settings import ScoreSettings


def missing_message(name: str) -> str | None:
    """What to do about a missing package, or weight files that are missing or damaged; None when all is there."""
    if found := complaints(METRICS[name], ScoreSettings()):
        return (
            f"the perceptual loss {name}: {'; '.join(found)}. pyiqa: pip install --no-deps -r requirements-pyiqa.txt; "
            f"files: python eval_metrics.py --download --metrics {name}; or train with loss.perceptual=none"
        )
    return None


def build_perceptual(name: str, device: torch.device) -> nn.Module:
    """DISTS (VGG16) or LPIPS (AlexNet) as a frozen module: (N, 3, H, W) pairs in [0, 1] -> distances with gradient.

    Raises:
        FileNotFoundError: pyiqa or a weight file is missing or damaged; names the command, or the file and its place.
    """
    if message := missing_message(name):
        raise FileNotFoundError(message)
    import pyiqa

    return _Float32(pyiqa.create_metric(name, as_loss=True, device=device).requires_grad_(False))


class _Float32(nn.Module):
    def __init__(self, distance: nn.Module) -> None:
        super().__init__()
        self._distance = distance

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self._distance(x.float(), y.float())
