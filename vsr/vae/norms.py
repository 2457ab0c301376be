"""GroupNorm or spatial norm, then SiLU: what comes before every causal convolution.

The decoder's spatial norm is GroupNorm(x) * conv_y(z) + conv_b(z) with z upsampled to the size of x (arXiv:2209.09002).
1x1 convolutions commute with nearest upsampling, so both run at the size of z and only their results are repeated.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vsr.vae.statistics import block_rows, group_statistics


def norm_silu(norm: nn.Module, x: Tensor, z: Tensor | None) -> Tensor:
    """SiLU of the normalised ``x``, differentiable.

    Args:
        norm: GroupNorm, or CogVideoXSpatialNorm3D with its ``norm_layer``, ``conv_y`` and ``conv_b``.
        x: (B, C, T, H, W).
        z: (B, c, t, h, w), the latents that belong to x; None for GroupNorm.
    """
    if z is None:
        return F.silu(norm(x))
    normalised = rearrange(norm.norm_layer(x), "b c t h w -> b t h w c")
    scale, shift = _at_latents(norm.conv_y, z), _at_latents(norm.conv_b, z)
    parts = []
    for latent, frames in enumerate(_frames_of_latents(x.shape[2], z.shape[2])):
        part = normalised[:, frames].unflatten(2, (z.shape[3], -1))
        a, b = (_rows_of_pixels(v[:, latent], x.shape[4]) for v in (scale, shift))
        parts.append((part * a + b).flatten(2, 3))
    return F.silu(rearrange(torch.cat(parts, dim=1), "b t h w c -> b c t h w"))


def write_norm_silu(norm: nn.Module, x: Tensor, z: Tensor | None, out: Tensor) -> None:
    """`norm_silu` into ``out``, without gradients: block by block while the data is in cache, in float32."""
    x, out = (rearrange(v, "b c t h w -> b t h w c") for v in (x, out))
    scale, shift = _coefficients(norm, x, z)
    latent_frames, latent_height = scale.shape[1:3]
    repeats = x.shape[2] // latent_height
    for latent, frames in enumerate(_frames_of_latents(x.shape[1], latent_frames)):
        step = block_rows(x[:, frames, :repeats].numel(), x.device)
        for top in range(0, latent_height, step):
            a, b = (_rows_of_pixels(v[:, latent, top : top + step], x.shape[3]) for v in (scale, shift))
            pixels = slice(top * repeats, (top + step) * repeats)
            source, target = (v[:, frames, pixels].unflatten(2, (-1, repeats)) for v in (x, out))
            _write_block(source, a, b, target)


def _write_block(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> None:
    """SiLU(x * scale + shift) in float32: rounded coefficients would make 16-bit results worse than diffusers'."""
    if x.dtype == torch.float32:
        F.silu(torch.addcmul(shift, x, scale, out=out), inplace=True)
    else:
        out.copy_(F.silu(torch.addcmul(shift, x.float(), scale), inplace=True))


def _coefficients(norm: nn.Module, x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
    """Norm and modulation of ``x`` (B, T, H, W, C) as x * scale + shift: both (B, t, h, w, C) float32."""
    layer = norm if z is None else norm.norm_layer
    mean, inverse_deviation = group_statistics(x, layer.num_groups, layer.eps)
    scale = inverse_deviation * layer.weight.float()
    shift = layer.bias.float() - mean * scale
    scale, shift = (v[:, None, None, None] for v in (scale, shift))
    if z is None:
        grid = (-1, *x.shape[1:3], -1, -1)
        return scale.expand(grid), shift.expand(grid)
    y, b = _at_latents(norm.conv_y, z).float(), _at_latents(norm.conv_b, z).float()
    return y * scale, torch.addcmul(b, y, shift)


def _at_latents(convolution: nn.Module, z: Tensor) -> Tensor:
    """A causal 1x1x1 convolution of (B, c, t, h, w): (B, t, h, w, C)."""
    conv = convolution.conv
    return F.linear(rearrange(z, "b c t h w -> b t h w c"), conv.weight.flatten(1), conv.bias)


def _frames_of_latents(num_frames: int, num_latents: int) -> list[slice]:
    """The frames that each latent frame modulates: of an odd number the first has its own, the others equal runs."""
    first = int(num_frames > 1 and num_frames % 2 == 1)
    run = (num_frames - first) // (num_latents - first)
    rest = [slice(first + i * run, first + (i + 1) * run) for i in range(num_latents - first)]
    return [slice(0, 1)] * first + rest


def _rows_of_pixels(v: Tensor, width: int) -> Tensor:
    """Rows of latents (B, rows, w, C), each repeated along the width: (B, 1, rows, 1, W, C).

    They go with pixels as (B, frames, rows, repeats, W, C).
    """
    batch, rows, latent_width, channels = v.shape
    v = v[:, :, :, None].expand(-1, -1, -1, width // latent_width, -1)
    return v.reshape(batch, 1, rows, 1, width, channels)
