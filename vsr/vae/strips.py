"""The networks without gradients in horizontal strips, for less memory; statistics of norms are of all strips together.

Whole are the frames that convolutions keep for the next batch, and of activations only what cannot be made anew from a
smaller one: the input of a resnet and what lies between its two convolutions, where its output is then written.
Strips go from top to bottom. Each takes the row above it out of the padded input of the one before, so nothing above a
strip is read again, and what belongs to it can be written over at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import (
    CogVideoXDownsample3D,
    CogVideoXResnetBlock3D,
    CogVideoXUpsample3D,
)
from torch import Tensor, nn

from vsr.vae.convolutions import causal_convolution, downsample, padded_room, pointwise, upsample
from vsr.vae.memory import Cache, keep_last, put_before
from vsr.vae.norms import modulation, write_norm_silu


@dataclass(frozen=True)
class Activation:
    """(B, C, T, height, W), of which `rows` gives those from one to before another: stored, or made when asked for."""

    height: int
    rows: Callable[[int, int], Tensor]


Write = Callable[[Tensor, Tensor, int], None]
"""Makes rows of a convolution's input out of rows of an activation, that start at a given one: (x, out, top)."""


@dataclass(frozen=True)
class Strips:
    """One batch of frames on its way through a network.

    Args:
        rows: of each activation to work on at once.
        z: (B, c, t, h, w), the latents that modulate the norms of the decoder; None in the encoder.
    """

    rows: int
    z: Tensor | None
    cache: Cache

    def network(self, network: nn.Module, modules: list[nn.Module], x: Tensor) -> Tensor:
        """Encoder or decoder: ``modules`` are the resnets and changes of size in their order."""
        steps = {
            CogVideoXResnetBlock3D: self._resnet,
            CogVideoXDownsample3D: self._downsampled,
            CogVideoXUpsample3D: self._upsampled,
        }
        first = self._convolved(network.conv_in, _stored(x), lambda x, out, top: out.copy_(x))
        h = _stored(_joined(first, x.shape[3]))
        for module in modules:
            h = steps[type(module)](module, h)
        return _joined(self._norm_convolved(network.norm_out, network.conv_out, h), h.height)

    def _resnet(self, block: nn.Module, x: Activation) -> Activation:
        h = _joined(self._norm_convolved(block.norm1, block.conv1, x), x.height)
        for top, y in self._norm_convolved(block.norm2, block.conv2, _stored(h)):
            bottom = top + y.shape[3]
            shortcut = x.rows(top, bottom)
            if block.in_channels != block.out_channels:
                shortcut = pointwise(block.conv_shortcut, shortcut)
            torch.add(y, shortcut, out=h[:, :, :, top:bottom])
        return _stored(h)

    def _upsampled(self, module: nn.Module, x: Activation) -> Activation:
        """Not stored: four times as large as x and more, while it costs little next to the resnet that reads it."""

        def rows(top: int, bottom: int) -> Tensor:
            above, below = max(top - 1, 0) // 2, min(bottom // 2 + 1, x.height)
            return upsample(module, x.rows(above, below))[:, :, :, top - 2 * above : bottom - 2 * above]

        return Activation(2 * x.height, rows)

    def _downsampled(self, module: nn.Module, x: Activation) -> Activation:
        height = x.height // 2
        strips = (
            (top, downsample(module, x.rows(2 * top, min(2 * bottom + 1, x.height))))
            for top, bottom in self._borders(height)
        )
        return _stored(_joined(strips, height))

    def _norm_convolved(self, norm: nn.Module, module: nn.Module, x: Activation) -> Iterator[tuple[int, Tensor]]:
        strips = (x.rows(top, bottom) for top, bottom in self._borders(x.height))
        coefficients = modulation(norm, strips, self.z, x.height)
        return self._convolved(module, x, lambda rows, out, top: write_norm_silu(coefficients, rows, out, top))

    def _convolved(self, module: nn.Module, x: Activation, write: Write) -> Iterator[tuple[int, Tensor]]:
        """A causal convolution of what ``write`` makes of x: strips, each with the number of its first row."""
        before, row_above = self.cache.get(module), None
        for top, bottom in self._borders(x.height):
            room = _padded_strip(module, x, write, top, bottom)
            inside = room[:, :, :, 1 : 1 + min(bottom + 1, x.height) - top]
            put_before(module, inside, None if before is None else before[top : bottom + 1])
            room[:, :, :, :1] = 0 if row_above is None else row_above
            row_above = room[:, :, :, -2:-1].clone()
            keep_last(module, inside[:, :, :, : bottom - top], self.cache.room(module, room, x.height)[top:bottom])
            y = causal_convolution(module, room, rows_padded=True)
            del room, inside
            yield top, y

    def _borders(self, height: int) -> Iterator[tuple[int, int]]:
        return ((top, min(top + self.rows, height)) for top in range(0, height, self.rows))


def _stored(x: Tensor) -> Activation:
    return Activation(x.shape[3], lambda top, bottom: x[:, :, :, top:bottom])


def _joined(strips: Iterator[tuple[int, Tensor]], height: int) -> Tensor:
    """Strips of one activation, each with the number of its first row, as a whole."""
    whole = None
    for top, strip in strips:
        if strip.shape[3] == height:
            return strip
        if whole is None:
            size = (*strip.shape[:3], height, strip.shape[4])
            whole = torch.empty(size, dtype=strip.dtype, device=strip.device, memory_format=torch.channels_last_3d)
        whole[:, :, :, top : top + strip.shape[3]] = strip
    return whole


def _padded_strip(module: nn.Module, x: Activation, write: Write, top: int, bottom: int) -> Tensor:
    """Input (B, C, k - 1 + T, 1 + rows + 1, W) of a causal convolution, without first row and first frames.

    Its last row is that of the strip below, or zero.
    """
    rows = x.rows(top, min(bottom + 1, x.height))
    room = padded_room(module, rows, bottom - top + 2)
    write(rows, room[:, :, module.time_pad :, 1 : 1 + rows.shape[3]], top)
    room[:, :, :, 1 + rows.shape[3] :] = 0
    return room
