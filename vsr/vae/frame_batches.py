"""Clips go through the VAE in diffusers' own batches of frames: GroupNorm takes its statistics over one batch."""

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from vsr.vae.convolutions import pointwise
from vsr.vae.memory import WHOLE, Cache, Memory
from vsr.vae.networks import decoder, encoder


def encode(vae: AutoencoderKLCogVideoX, x: Tensor, memory: Memory = WHOLE) -> Tensor:
    """Pixels (B, 3, F, H, W) in [-1, 1] to the posterior's mean and log-variance (B, 2C, f, h, w), not scaled.

    ``memory``: how to hold little at once, without gradients.
    """
    cache = Cache(memory.cache_device)
    moments = []
    for frames in _batches(x.shape[2], vae.num_sample_frames_batch_size):
        h = encoder(vae.encoder, _channels_last(x[:, :, frames]), cache, memory)
        moments.append(h if vae.quant_conv is None else pointwise(vae.quant_conv, h))
    return torch.cat(moments, dim=2).contiguous()


def decode(vae: AutoencoderKLCogVideoX, z: Tensor, memory: Memory = WHOLE) -> Tensor:
    """Latents (B, C, f, h, w), not scaled, to pixels (B, 3, F, H, W), about [-1, 1], not clamped.

    ``memory``: how to hold little at once, without gradients.
    """
    cache = Cache(memory.cache_device)
    pixels = []
    for frames in _batches(z.shape[2], vae.num_latent_frames_batch_size):
        z_batch = _channels_last(z[:, :, frames])
        z_batch = z_batch if vae.post_quant_conv is None else pointwise(vae.post_quant_conv, z_batch)
        pixels.append(decoder(vae.decoder, z_batch, cache, memory))
    return torch.cat(pixels, dim=2).contiguous()


def _batches(num_frames: int, size: int) -> Iterator[slice]:
    """Batches of ``size`` frames, the first longer by what is left over: 9, 8, 8 of 25."""
    left_over = num_frames % size
    for i in range(max(num_frames // size, 1)):
        yield slice(size * i + (left_over if i else 0), size * (i + 1) + left_over)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)
