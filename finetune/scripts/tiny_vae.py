"""What is done to the VAE of the small model between its trainings.

It learns pictures first, on clips of three frames. Its later frames are then worse than its first, since no convolution
has met that much past: `see_one_frame` cuts the past off, and a second training, on long clips, lets it in again.

At last `follow_pixels` gives the latents another basis, in which their distance is that of the pixels they decode to.
Stage 1 of DOVE learns by the mean squared error of latents; half of the directions of these are hardly visible, and a
network would spend half of its effort on them.
"""

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXCausalConv3d, CogVideoXSpatialNorm3D
from torch import Tensor, nn

from vsr import codec

NO_SPREAD = -30.0
"""Logarithm of the variance of the posterior in a new basis, where the channels' own variances mean nothing."""
PERTURBATION = 0.05
"""Standard deviation of what is added to a latent, small beside the 1 of its own."""


@torch.no_grad()
def see_one_frame(vae: AutoencoderKLCogVideoX) -> None:
    """Let no convolution look at frames before its own, in place; a clip that stands still comes out the same."""
    for module in vae.modules():
        if isinstance(module, CogVideoXCausalConv3d):
            weight = module.conv.weight
            now = weight.sum(dim=2)
            weight.zero_()
            weight[:, :, -1] = now


@torch.no_grad()
def follow_pixels(vae: AutoencoderKLCogVideoX, z: Tensor) -> None:
    """Let equal changes of latents be equal changes of pixels, squared and on average, in place.

    Pictures stay as they are, to rounding; the posterior has no spread any more.

    Args:
        z: (B, C, f, h, w), scaled latents of training samples; afterwards their standard deviation is 1 again.
    """
    basis = square_root(pixel_metric(vae, z))
    after = torch.einsum("dc,bcfhw->bdfhw", basis, z)
    scale = 1 / after.square().mean().sqrt().item()
    change_basis(vae, basis)
    vae.register_to_config(scaling_factor=round(vae.config.scaling_factor * scale, 4))


@torch.no_grad()
def pixel_metric(vae: AutoencoderKLCogVideoX, z: Tensor, seed: int = 0) -> Tensor:
    """How much pixels change with latents: (C, C), the mean product of changes for each pair of channels, symmetric.

    Args:
        z: (B, C, f, h, w), scaled latents around which it is measured.
        seed: of the noise, the same for every channel.
    """
    noise = torch.randn(z[:, 0].shape, generator=torch.Generator().manual_seed(seed))
    before, changes = codec.decode(vae, z), []
    for channel in range(z.shape[1]):
        moved = z.clone()
        moved[:, channel] += PERTURBATION * noise
        changes.append((codec.decode(vae, moved) - before).flatten() / PERTURBATION)
    changes = torch.stack(changes)
    return changes @ changes.T / noise.numel()


def square_root(matrix: Tensor) -> Tensor:
    """Of a symmetric matrix with positive eigenvalues: symmetric, too."""
    values, vectors = torch.linalg.eigh(matrix.double())
    return (vectors * values.sqrt() @ vectors.T).float()


@torch.no_grad()
def change_basis(vae: AutoencoderKLCogVideoX, basis: Tensor) -> None:
    """Let latents be ``basis`` @ z from now on, (C, C), where the encoder ends and wherever the decoder reads them."""
    channels, inverse = len(basis), torch.linalg.inv(basis.double()).float()
    last = vae.encoder.conv_out.conv
    last.weight[:channels] = torch.einsum("dc,c...->d...", basis, last.weight[:channels])
    last.bias[:channels] = basis @ last.bias[:channels]
    last.weight[channels:], last.bias[channels:] = 0, NO_SPREAD
    for conv in _readers_of_latents(vae.decoder):
        conv.weight.copy_(torch.einsum("oc...,cd->od...", conv.weight, inverse))


def _readers_of_latents(decoder: nn.Module) -> list[nn.Conv3d]:
    norms = [module for module in decoder.modules() if isinstance(module, CogVideoXSpatialNorm3D)]
    return [decoder.conv_in.conv, *(conv.conv for norm in norms for conv in (norm.conv_y, norm.conv_b))]
