"""Between pixels and latents: the causal video VAE of CogVideoX (`AutoencoderKLCogVideoX`)."""

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

UNTILED_PIXELS = 1_500_000
"""Largest output frame that the VAE decodes whole. Above it diffusers' convolutions split a batch of frames into pieces
shorter than their kernel and raise."""


def encode(
    vae: AutoencoderKLCogVideoX, x: Tensor, *, posterior: str = "mode", generator: torch.Generator | None = None
) -> Tensor:
    """Pixels to latents, times the VAE's scaling factor.

    Args:
        x: (B, 3, F, H, W) in [-1, 1], F = 8k+1 (or 8k), H and W multiples of the VAE's spatial factor.
        posterior: "mode" (deterministic) or "sample" (as the published DOVE does, with ``generator``).

    Returns:
        z: (B, C, f, h, w) in the dtype of the VAE.
    """
    distribution = vae.encode(x.to(vae.dtype)).latent_dist
    z = distribution.mode() if posterior == "mode" else distribution.sample(generator)
    return z * vae.config.scaling_factor


def decode(vae: AutoencoderKLCogVideoX, z: Tensor) -> Tensor:
    """Latents, times the scaling factor, to pixels: (B, C, f, h, w) -> (B, 3, F, H, W), about [-1, 1], not clamped."""
    return vae.decode((1 / vae.config.scaling_factor) * z.to(vae.dtype)).sample


def spatial_factor(vae: AutoencoderKLCogVideoX) -> int:
    """Pixels per latent along height and width: 8 for CogVideoX."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def frame_step(vae: AutoencoderKLCogVideoX) -> int:
    """Frames per batch of latents: windows of ``step * k + 1`` frames come back frame-exact. 8 for CogVideoX."""
    return vae.num_latent_frames_batch_size * vae.config.temporal_compression_ratio
