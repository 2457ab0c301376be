"""Toy-size pipelines for tests: the real classes with random weights, and one without networks; clips for them."""

from types import SimpleNamespace

import numpy as np
import torch

from finetune.scripts.random_model import random_pipeline
from vsr.windows import Grid

__all__ = ["batch", "identity_pipeline", "numbered_clip", "random_pipeline", "x_lq"]


class IdentityPipeline:
    """Returns its input: what comes out of `restore_frames` is then the upsampled source, frame by frame."""

    config = SimpleNamespace(scale=4, upscale_mode="bilinear")

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.calls = []

    def restore(self, x_lq, prompt_embedding=None, timestep=None, generator=None, noise_step=None, odd=False):
        frames, height, width = x_lq.shape[-3:]
        assert frames % self.grid.step == 1
        assert height % self.grid.multiple == 0
        assert width % self.grid.multiple == 0
        self.calls.append((frames, height, width))
        return x_lq * 0.5 + 0.5


def identity_pipeline(multiple: int = 16, step: int = 8, max_pixels: int | None = None) -> IdentityPipeline:
    """A pipeline without networks that checks the sizes it is given and records them in ``calls``."""
    return IdentityPipeline(Grid(multiple=multiple, step=step, max_pixels=max_pixels))


def numbered_clip(num_frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(F, H, W, 3) uint8: a smooth random picture that drifts, so that every frame differs from every other."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase, frequency = rng.uniform(0, 6.28, 3), rng.uniform(0.05, 0.3, (2, 3))
    waves = [
        np.sin(y[..., None] * frequency[0] + x[..., None] * frequency[1] + phase + 0.37 * f) for f in range(num_frames)
    ]
    return np.stack([np.clip(128 + 80 * wave + 0.3 * f, 0, 255) for f, wave in enumerate(waves)]).astype(np.uint8)


def batch(num_frames: int = 9, kind: str = "video") -> dict:
    """One training pair of 32x32 pixels as the loader makes them."""
    generator = torch.Generator().manual_seed(0)
    x_lq, x_gt = (torch.rand(1, 3, num_frames, 32, 32, generator=generator) * 2 - 1 for _ in range(2))
    return {"x_lq": x_lq, "x_gt": x_gt, "kind": kind, "number": torch.tensor([0])}


def x_lq(frames=9, height=32, width=48, seed=0):
    """Random frames in [-1, 1]."""
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1
