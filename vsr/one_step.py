"""The one-step transform between the network's prediction and the clean latent, and the forward process."""

import torch
from torch import Tensor


def coefficients(alpha_bar: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """sqrt(abar) and sqrt(1 - abar), rounded the way ``dtype`` rounds them, returned as float32.

    ``torch.float32`` is exact. ``torch.bfloat16`` repeats the published DOVE, whose scheduler casts abar to the dtype
    of the network before 1 - abar and the roots: at t = 399 they become 0.625 and 0.78125 instead of 0.627331 and
    0.778753, and the released weights were trained with those.

    Args:
        alpha_bar: cumulative alpha, any shape, float, in [0, 1].
    """
    abar = alpha_bar.to(dtype)
    return abar.sqrt().float(), (1 - abar).sqrt().float()


def clean_from_v(z_t: Tensor, v: Tensor, alpha_bar: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """z_0 = sqrt(abar) z_t - sqrt(1 - abar) v, in float32.

    Args:
        z_t, v: (B, C, f, h, w).
        alpha_bar: (B,) or scalar, in [0, 1].
        dtype: arithmetic of the two coefficients, see `coefficients`.

    Source: v-prediction, Salimans & Ho (arXiv:2202.00512), appendix D; DOVE (arXiv:2505.16239), equation 2.
    """
    root, root_complement = (_per_sample(c, z_t) for c in coefficients(alpha_bar, dtype))
    return root * z_t.float() - root_complement * v.float()


def add_noise(z: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_t = sqrt(abar) z + sqrt(1 - abar) noise, in float32, returned in the dtype of ``z``."""
    root, root_complement = (_per_sample(c, z) for c in coefficients(alpha_bar))
    return (root * z.float() + root_complement * noise.float()).to(z.dtype)


def _per_sample(coefficient: Tensor, z: Tensor) -> Tensor:
    return coefficient.to(z.device).reshape(-1, *[1] * (z.ndim - 1))
