"""Between pixels and latents: the causal video VAE of CogVideoX (`AutoencoderKLCogVideoX`).

Frames go through `vsr.vae`, which needs no tiles; a VAE set to tile (``vae.enable_tiling()``) goes diffusers' own way.
"""

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from vsr import vae as fast


def encode(
    vae: AutoencoderKLCogVideoX,
    x: Tensor,
    *,
    posterior: str = "mode",
    generator: torch.Generator | None = None,
    memory: fast.Memory = fast.WHOLE,
) -> Tensor:
    """Pixels to latents, times the VAE's scaling factor.

    Args:
        x: (B, 3, F, H, W) in [-1, 1], F = 8k+1 (or 8k), H and W multiples of the VAE's spatial factor.
        posterior: "mode" (deterministic) or "sample" (as the published DOVE does, with ``generator``).
        memory: how to hold little at once; without gradients, and not for a VAE set to tile.

    Returns:
        z: (B, C, f, h, w) in the dtype of the VAE.
    """
    x = x.to(vae.dtype)
    moments = vae.encode(x).latent_dist.parameters if vae.use_tiling else fast.encode(vae, x, memory)
    distribution = DiagonalGaussianDistribution(moments)
    z = distribution.mode() if posterior == "mode" else distribution.sample(generator)
    return z * vae.config.scaling_factor


def decode(vae: AutoencoderKLCogVideoX, z: Tensor, *, memory: fast.Memory = fast.WHOLE) -> Tensor:
    """Latents, times the scaling factor, to pixels: (B, C, f, h, w) -> (B, 3, F, H, W), about [-1, 1], not clamped.

    ``memory``: as in `encode`.
    """
    z = (1 / vae.config.scaling_factor) * z.to(vae.dtype)
    return vae.decode(z).sample if vae.use_tiling else fast.decode(vae, z, memory)


def spatial_factor(vae: AutoencoderKLCogVideoX) -> int:
    """Pixels per latent along height and width: 8 for CogVideoX."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def frame_step(vae: AutoencoderKLCogVideoX) -> int:
    """Frames per batch of latents: windows of ``step * k + 1`` frames come back frame-exact. 8 for CogVideoX."""
    return vae.num_latent_frames_batch_size * vae.config.temporal_compression_ratio
