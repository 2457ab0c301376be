"""GroupNorm or spatial norm, then SiLU: what comes before every causal convolution.

The decoder's spatial norm is GroupNorm(x) * conv_y(z) + conv_b(z) with z upsampled to the size of x (arXiv:2209.09002).
1x1 convolutions commute with nearest upsampling, so both run at the size of z and only their results are repeated.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vsr.vae.precision import arithmetic_dtype
from vsr.vae.statistics import block_rows, group_statistics, standing_for_all


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
    scale, shift = (_at_latents(conv, z).to(x.dtype) for conv in (norm.conv_y, norm.conv_b))
    parts = []
    for latent, frames in enumerate(_frames_of_latents(x.shape[2], z.shape[2])):
        part = normalised[:, frames].unflatten(2, (z.shape[3], -1))
        a, b = (_rows_of_pixels(v[:, latent], x.shape[4]) for v in (scale, shift))
        parts.append((part * a + b).flatten(2, 3))
    return F.silu(rearrange(torch.cat(parts, dim=1), "b t h w c -> b c t h w"))


@dataclass(frozen=True)
class Modulation:
    """A norm with its modulation as x * scale + shift: both (B, t, h, w, C) float32, one for all without latents.

    ``repeats`` rows of pixels share a row of latents.
    """

    scale: Tensor
    shift: Tensor
    repeats: int


def modulation(norm: nn.Module, strips: Iterable[Tensor], z: Tensor | None, height: int) -> Modulation:
    """For the activation of ``height`` rows that the strips (B, C, T, rows, W) make up."""
    layer = norm if z is None else norm.norm_layer
    strips = (rearrange(x, "b c t h w -> b t h w c") for x in strips)
    mean, inverse_deviation = group_statistics(strips, layer.num_groups, layer.eps)
    scale = inverse_deviation * layer.weight.float()
    shift = layer.bias.float() - mean * scale
    scale, shift = (v[:, None, None, None] for v in (scale, shift))
    if z is None:
        return Modulation(scale, shift, repeats=height)
    y, b = (_at_latents(conv, z).float() for conv in (norm.conv_y, norm.conv_b))
    return Modulation(y * scale, torch.addcmul(b, y, shift), repeats=height // z.shape[3])


def write_norm_silu(modulation: Modulation, x: Tensor, out: Tensor, top: int = 0) -> None:
    """`norm_silu` into ``out``, without gradients: block by block while the data is in cache, in float32.

    Args:
        x, out: (B, C, T, rows, W), rows of the activation from ``top`` on.
    """
    x, out = (rearrange(v, "b c t h w -> b t h w c") for v in (x, out))
    scale, shift, repeats = modulation.scale, modulation.shift, modulation.repeats
    bottom = top + x.shape[2]
    first, last = top // repeats, ceil(bottom / repeats)
    for latent, frames in enumerate(_frames_of_latents(x.shape[1], scale.shape[1])):
        wide = [_rows_of_pixels(v[:, latent, first:last], x.shape[3]) for v in (scale, shift)]
        rows = _rows_of_latents(top, bottom, repeats, step=block_rows(x[:, frames, :1].numel(), x.device))
        for pixels, latents in standing_for_all(rows, x.device):
            a, b = (v[:, :, latents.start - first : latents.stop - first] for v in wide)
            here = slice(pixels.start - top, pixels.stop - top)
            source, target = (v[:, frames, here].unflatten(2, (a.shape[2], -1)) for v in (x, out))
            _write_block(source, a, b, target)


def _write_block(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> None:
    """SiLU(x * scale + shift) in float32: rounded coefficients would make 16-bit results worse than diffusers'."""
    if x.dtype == torch.float32:
        F.silu(torch.addcmul(shift, x, scale, out=out), inplace=True)
    else:
        wide = x.float()
        out.copy_(F.silu(torch.addcmul(shift, wide, scale, out=wide), inplace=True))


def _at_latents(convolution: nn.Module, z: Tensor) -> Tensor:
    """A causal 1x1x1 convolution of (B, c, t, h, w): (B, t, h, w, C)."""
    conv, dtype = convolution.conv, arithmetic_dtype(z)
    z, weight, bias = (v.to(dtype) for v in (z, conv.weight, conv.bias))
    return F.linear(rearrange(z, "b c t h w -> b t h w c"), weight.flatten(1), bias)


def _frames_of_latents(num_frames: int, num_latents: int) -> list[slice]:
    """The frames that each latent frame modulates: of an odd number the first has its own, the others equal runs."""
    if num_latents == 1:
        return [slice(0, num_frames)]
    first = int(num_frames > 1 and num_frames % 2 == 1)
    run = (num_frames - first) // (num_latents - first)
    rest = [slice(first + i * run, first + (i + 1) * run) for i in range(num_latents - first)]
    return [slice(0, 1)] * first + rest


def _rows_of_latents(top: int, bottom: int, repeats: int, step: int) -> Iterator[tuple[slice, slice]]:
    """Rows of pixels, up to ``step`` at once, with the rows of latents they share: several whole, or one in part."""
    while top < bottom:
        latent, whole = top // repeats, min(bottom - top, step) // repeats
        if top % repeats or not whole:
            end, latents = min((latent + 1) * repeats, top + step, bottom), slice(latent, latent + 1)
        else:
            end, latents = top + whole * repeats, slice(latent, latent + whole)
        yield slice(top, end), latents
        top = end


def _rows_of_pixels(v: Tensor, width: int) -> Tensor:
    """Rows of latents (B, rows, w, C), each repeated along the width: (B, 1, rows, 1, W, C).

    They go with pixels as (B, frames, rows, repeats, W, C).
    """
    batch, rows, latent_width, channels = v.shape
    v = v[:, :, :, None].expand(-1, -1, -1, width // latent_width, -1)
    return v.reshape(batch, 1, rows, 1, width, channels)
