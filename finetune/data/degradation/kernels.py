"""Blur kernels of Real-ESRGAN (arXiv:2107.10833, section 3) as arrays that sum to 1."""

import math

import numpy as np
import torch

from finetune.data.degradation.plan import Kernel


def kernel_weights(kernel: Kernel) -> np.ndarray:
    """Weights (size, size), float32, centred on the middle pixel, sum 1.

    With q = x^T Sigma^-1 x: generalized Gaussian exp(-q^beta / 2), plateau 1 / (1 + q^beta); sinc is the circular
    low-pass filter omega J1(omega r) / (2 pi r).
    """
    if kernel.kind == "sinc":
        weights = _sinc(kernel)
    elif kernel.kind.startswith("plateau"):
        weights = 1 / (1 + _distance(kernel) ** kernel.beta)
    else:
        weights = np.exp(-0.5 * _distance(kernel) ** kernel.beta)
    return (weights / weights.sum()).astype(np.float32)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x (to the right) and y (down) of every pixel from the centre."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return x, y


def _distance(kernel: Kernel) -> np.ndarray:
    """q = x^T Sigma^-1 x with Sigma = R(theta) diag(sigma_x^2, sigma_y^2) R(theta)^T, at every pixel."""
    x, y = _grid(kernel.size)
    cos, sin = math.cos(kernel.theta), math.sin(kernel.theta)
    return ((cos * x + sin * y) / kernel.sigma_x) ** 2 + ((cos * y - sin * x) / kernel.sigma_y) ** 2


def _sinc(kernel: Kernel) -> np.ndarray:
    radius = torch.from_numpy(np.hypot(*_grid(kernel.size)))
    at_centre = kernel.omega**2 / (4 * math.pi)
    weights = kernel.omega * torch.special.bessel_j1(kernel.omega * radius) / (2 * math.pi * radius)
    return torch.where(radius == 0, at_centre, weights).numpy()
