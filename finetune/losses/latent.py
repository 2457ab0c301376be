"""Latent-space losses for one-step restorers. Pure functions of tensors: no models, no configuration."""

from torch import Tensor

FLOOR = 0.01
"""Of the mean squared error: below it a clip counts less and less, whose last errors would drown all others."""


def psnr_loss(z_sr: Tensor, z_gt: Tensor) -> Tensor:
    """What mean squared error leaves undone for PSNR: the mean over clips of log(MSE + `FLOOR`).

    The gradient of a clip is that of its MSE divided by the MSE, so that one that is hard to restore does not outweigh
    the others, as it does in their common MSE.

    Args:
        z_sr: restored latents, (B, C, f, h, w), float32.
        z_gt: of ground truth, same shape.

    Returns:
        Scalar; it is negative for small errors.

    Source: the PSNR loss of HINet (arXiv:2105.06337), there of pixels.
    """
    return ((z_sr - z_gt).square().flatten(1).mean(1) + FLOOR).log().mean()
