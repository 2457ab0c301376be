"""Pixel-space losses for one-step restorers. Pure functions of tensors: no models, no configuration."""

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

PerceptualDistance = Callable[[Tensor, Tensor], Tensor]
"""(N, 3, H, W) images in [0, 1], restored and true -> distances of any shape; lower is better."""


def frame_difference_loss(x_sr: Tensor, x_gt: Tensor) -> Tensor:
    """L1 between the adjacent-frame differences of two videos: compares motion, not appearance.

        L_frame = mean |(x_sr[f+1] - x_sr[f]) - (x_gt[f+1] - x_gt[f])|

    Args:
        x_sr: restored video, (B, 3, F, H, W), float, in [0, 1].
        x_gt: ground truth, same shape and range.

    Returns:
        Scalar in pixel units, in [0, 2]. Zero for F = 1: an image has no motion.

    Source: DOVE (arXiv:2505.16239), term L_frame of the stage-2 video loss.
    """
    if x_sr.shape[2] == 1:
        return x_sr.new_zeros(())
    return F.l1_loss(x_sr.diff(dim=2), x_gt.diff(dim=2))


def refinement_loss(
    x_sr: Tensor,
    x_gt: Tensor,
    *,
    perceptual: PerceptualDistance | None,
    perceptual_weight: float,
    frame_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """MSE + perceptual distance + frame difference, for images (F = 1) and videos alike.

    Args:
        x_sr, x_gt: (B, 3, F, H, W), float32, in [0, 1].
        perceptual: DISTS in the paper; None leaves the term out.
        perceptual_weight, frame_weight: lambda_1 and lambda_2; the paper uses 1 and 1.

    Returns:
        The scalar to minimise, and its unweighted terms, detached, for the log.

    Source: DOVE (arXiv:2505.16239), stage 2.
    """
    if x_sr.shape != x_gt.shape:
        raise ValueError(f"x_sr and x_gt must have one shape, got {tuple(x_sr.shape)} and {tuple(x_gt.shape)}")
    terms = {"mse": F.mse_loss(x_sr, x_gt), "frame": frame_difference_loss(x_sr, x_gt)}
    total = terms["mse"] + frame_weight * terms["frame"]
    if perceptual is not None:
        frames_sr, frames_gt = (rearrange(x, "b c f h w -> (b f) c h w") for x in (x_sr, x_gt))
        terms["perceptual"] = perceptual(frames_sr, frames_gt).mean()
        total = total + perceptual_weight * terms["perceptual"]
    return total, {name: term.detach() for name, term in terms.items()}
