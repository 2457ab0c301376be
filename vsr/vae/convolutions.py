"""Convolutions of the VAE over time and space, and its changes of size."""

from collections.abc import Callable
from math import ceil

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vsr.vae.memory import Cache, keep_last, put_before
from vsr.vae.norms import modulation, norm_silu, write_norm_silu
from vsr.vae.precision import arithmetic_dtype

MOST_ELEMENTS = 2**31 - 1
"""Of one tensor in a convolution: beyond, GPU libraries fall back to kernels that are slow or need far more memory."""
CONVERTED_ELEMENTS = 1 << 23
"""The same where a convolution is computed in another dtype than its input has: 32 MB of float32."""


def causal_convolution(module: nn.Module, padded: Tensor, *, rows_padded: bool = False) -> Tensor:
    """A CogVideoXCausalConv3d of what `padded` or `padded_norm_silu` made for it: as many frames as they were given.

    ``rows_padded``: the input has the rows above and below, too, as a strip of a picture has.
    """
    return _convolve(module.conv, padded, (0, 0 if rows_padded else module.height_pad, module.width_pad))


def padded(module: nn.Module, x: Tensor, cache: Cache) -> Tensor:
    """The input (B, C, k - 1 + T, H, W) of a causal convolution: x behind the frames before it."""
    if torch.is_grad_enabled():
        return _behind_frames_before(module, x, cache)
    room = padded_room(module, x, x.shape[3])
    room[:, :, module.time_pad :] = x
    return _fill_frames_before(module, room, cache)


def padded_norm_silu(norm: nn.Module, module: nn.Module, x: Tensor, z: Tensor | None, cache: Cache) -> Tensor:
    """`padded` of norm and SiLU of x; without gradients that is the only place where they are written."""
    if torch.is_grad_enabled():
        return _behind_frames_before(module, norm_silu(norm, x, z), cache)
    coefficients = modulation(norm, [x], z, x.shape[3])
    room = padded_room(module, x, x.shape[3])
    write_norm_silu(coefficients, x, room[:, :, module.time_pad :])
    return _fill_frames_before(module, room, cache)


def pointwise(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """A 1x1x1 convolution."""
    return _convolve(conv, x, (0, 0, 0))


def upsample(module: nn.Module, x: Tensor) -> Tensor:
    """CogVideoXUpsample3D: nearest 2x in space, for some levels also in time, then a 3x3 convolution of each frame.

    Frames are repeated after the convolution, and in space both are one transposed convolution.
    """
    weight, bias = _weights(module.conv, x)
    weight = _transposed(weight)
    y = _each_frame(lambda frames: F.conv_transpose2d(frames, weight, bias, stride=2, padding=1), x)
    if not module.compress_time or x.shape[2] == 1:
        return y
    alone = x.shape[2] % 2
    twice = (torch.arange(2 * x.shape[2] - alone, device=x.device) + alone) // 2
    y = rearrange(y, "b c t h w -> b t h w c").index_select(1, twice)
    return rearrange(y, "b t h w c -> b c t h w")


def downsample(module: nn.Module, x: Tensor) -> Tensor:
    """CogVideoXDownsample3D: for some levels the mean of pairs of frames, then a 3x3 convolution of stride 2."""
    if module.compress_time:
        alone = x.shape[2] % 2
        pairs = x[:, :, alone:]
        x = torch.cat([x[:, :, :alone], (pairs[:, :, ::2] + pairs[:, :, 1::2]) * 0.5], dim=2)
    weight, bias = _weights(module.conv, x)
    return _each_frame(lambda frames: F.conv2d(F.pad(frames, (0, 1, 0, 1)), weight, bias, stride=2), x)


def _each_frame(convolution: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A two-dimensional convolution of the frames of x; where they are converted for it, one by one."""
    frames, dtype = rearrange(x, "b c t h w -> (b t) c h w"), arithmetic_dtype(x)
    if dtype == x.dtype:
        y = convolution(frames)
    else:
        y = torch.cat([convolution(frame.to(dtype)).to(x.dtype) for frame in frames.split(1)])
    return rearrange(y, "(b t) c h w -> b c t h w", b=len(x))


def _transposed(weight: Tensor) -> Tensor:
    """Weight of the 4x4 transposed convolution that equals nearest 2x then 3x3: (out, in, 3, 3) -> (in, out, 4, 4).

    Each input pixel meets an output row through one of the kernel's rows, or through two that fall on its two copies.
    """
    top, middle, bottom = weight.unbind(2)
    rows = torch.stack([bottom, middle + bottom, top + middle, top], dim=2)
    left, centre, right = rows.unbind(3)
    return torch.stack([right, centre + right, left + centre, left], dim=3).transpose(0, 1)


def padded_room(module: nn.Module, x: Tensor, rows: int) -> Tensor:
    """For x and the frames before it, with so many rows."""
    batch, channels, frames, _, width = x.shape
    size = (batch, channels, frames + module.time_pad, rows, width)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)


def _fill_frames_before(module: nn.Module, room: Tensor, cache: Cache) -> Tensor:
    """The first frame stands for those before the clip; the last ones go into the cache."""
    put_before(module, room, cache.get(module))
    keep_last(module, room, cache.room(module, room, room.shape[3]))
    return room


def _behind_frames_before(module: nn.Module, x: Tensor, cache: dict[nn.Module, Tensor]) -> Tensor:
    """The same without writing into a tensor, for gradients."""
    before = cache.get(module)
    before = x[:, :, :1].expand(-1, -1, module.time_pad, -1, -1) if before is None else before
    x = torch.cat([before, x], dim=2)
    cache[module] = x[:, :, -module.time_pad :].clone()
    return x


def _weights(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias in the dtype in which x is convolved."""
    dtype = arithmetic_dtype(x)
    return conv.weight.to(dtype), conv.bias.to(dtype)


def _convolve(conv: nn.Conv3d, x: Tensor, padding: tuple[int, int, int]) -> Tensor:
    """A convolution of stride 1, in groups of output frames where one tensor would be too large."""
    weight, bias = _weights(conv, x)
    converted = weight.dtype != x.dtype and not torch.is_grad_enabled()  # gradients would keep each group's float32
    reach = conv.kernel_size[0] - 1
    frames = x.shape[2] - reach
    frame_elements = x[:, :1, 0].numel() * max(conv.in_channels, conv.out_channels)
    most = max(1, (CONVERTED_ELEMENTS if converted else MOST_ELEMENTS) // frame_elements - reach)
    if most >= frames:
        return _convolve_whole(x, weight, bias, padding)
    step = ceil(frames / ceil(frames / most))  # groups of one size: the largest lies beside the whole output
    groups = (_convolve_whole(x[:, :, i : i + step + reach], weight, bias, padding) for i in range(0, frames, step))
    if torch.is_grad_enabled():
        return torch.cat(list(groups), dim=2)
    sides = (x.shape[i + 2] + 2 * padding[i] - conv.kernel_size[i] + 1 for i in (1, 2))
    size = (len(x), conv.out_channels, frames, *sides)
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    for i, group in zip(range(0, frames, step), groups, strict=True):
        out[:, :, i : i + step] = group
    return out


def _convolve_whole(x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int, int]) -> Tensor:
    """In the dtype of the weight.

    Left to itself torch takes its slow kernel for small float32 inputs on a CPU; oneDNN's is named here.
    """
    given, x = x.dtype, x.to(weight.dtype)
    named = x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if named and not torch.is_grad_enabled():
        return torch.mkldnn_convolution(x, weight, bias, padding, (1, 1, 1), (1, 1, 1), 1).to(given)
    return F.conv3d(x, weight, bias, padding=padding).to(given)
