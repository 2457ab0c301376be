"""Perceptual distances of pyiqa as losses. Imported and built only when a recipe asks for one; never downloaded."""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

WEIGHTS = {
    "dists": ("pyiqa/DISTS_weights-f5e65c96.pth", "checkpoints/vgg16-397923af.pth"),
    "lpips": ("pyiqa/LPIPS_v0.1_alex-df73285e.pth", "checkpoints/alexnet-owt-7be5be79.pth"),
}
"""The files that pyiqa and torchvision look for, below torch's hub folder."""


def missing_weights(name: str) -> list[Path]:
    """The weight files of a distance that are not where pyiqa looks for them."""
    return [path for file in WEIGHTS[name] if not (path := Path(torch.hub.get_dir()) / file).is_file()]


def missing_message(name: str) -> str | None:
    """What to do about a missing package or missing weight files; None when all is there."""
    if importlib.util.find_spec("pyiqa") is None:
        return f"the perceptual loss {name} needs pyiqa: pip install --no-deps -r requirements-pyiqa.txt"
    missing = missing_weights(name)
    if not missing:
        return None
    return (
        f"the perceptual loss {name} needs {', '.join(map(str, missing))}: put these files of pyiqa's and "
        f"torchvision's releases there, or set TORCH_HOME, or train with loss.perceptual=none"
    )


def build_perceptual(name: str, device: torch.device) -> nn.Module:
    """DISTS (VGG16) or LPIPS (AlexNet) as a frozen module: (N, 3, H, W) pairs in [0, 1] -> distances with gradient.

    Raises:
        FileNotFoundError: pyiqa or a weight file is missing; names the command, or the file and its place.
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
