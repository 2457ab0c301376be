"""Encoder and decoder over one batch of frames, with gradient checkpointing where diffusers' modules ask for it."""

from collections.abc import Callable

import torch
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import (
    CogVideoXDownsample3D,
    CogVideoXResnetBlock3D,
    CogVideoXUpsample3D,
)
from torch import Tensor, nn

from vsr.vae.convolutions import (
    causal_convolution,
    downsample,
    padded,
    padded_norm_silu,
    pointwise,
    upsample,
)
from vsr.vae.memory import WHOLE, Cache, Memory
from vsr.vae.strips import Strips

Step = Callable[[nn.Module, Tensor, Tensor | None, Cache], Tensor]


def encoder(network: nn.Module, x: Tensor, cache: Cache, memory: Memory = WHOLE) -> Tensor:
    """CogVideoXEncoder3D: pixels (B, 3, T, H, W) to moments (B, 2C, t, h, w)."""
    return _network(network, [*network.down_blocks, network.mid_block], x, None, cache, memory)


def decoder(network: nn.Module, z: Tensor, cache: Cache, memory: Memory = WHOLE) -> Tensor:
    """CogVideoXDecoder3D: latents (B, C, t, h, w) to pixels (B, 3, T, H, W)."""
    return _network(network, [network.mid_block, *network.up_blocks], z, z, cache, memory)


def _network(
    network: nn.Module, blocks: list[nn.Module], x: Tensor, z: Tensor | None, cache: Cache, memory: Memory
) -> Tensor:
    """Blocks between the first and the last convolution; ``z`` modulates the norms of the decoder.

    Without gradients blocks are walked through step by step, so that nothing holds what has gone into one.
    """
    if memory.strip_rows and not torch.is_grad_enabled():
        modules = [module for block in blocks for module in _modules(block)]
        return Strips(memory.strip_rows, z, cache).network(network, modules, x)
    h = causal_convolution(network.conv_in, padded(network.conv_in, x, cache))
    for block in blocks:
        if torch.is_grad_enabled():
            h = _run(network, _block, block, h, z, cache)
            continue
        for module in _modules(block):
            h = STEPS[type(module)](module, h, z, cache)
    h = padded_norm_silu(network.norm_out, network.conv_out, h, z, cache)
    return causal_convolution(network.conv_out, h)


def _block(block: nn.Module, h: Tensor, z: Tensor | None, cache: Cache) -> Tensor:
    """A down, mid or up block."""
    for module in _modules(block):
        h = _run(block, STEPS[type(module)], module, h, z, cache)
    return h


def _modules(block: nn.Module) -> list[nn.Module]:
    """The resnets of a block, then its change of size where it has one."""
    downsamplers, upsamplers = (getattr(block, name, None) or [] for name in ("downsamplers", "upsamplers"))
    return [*block.resnets, *downsamplers, *upsamplers]


def _resnet(block: nn.Module, x: Tensor, z: Tensor | None, cache: Cache) -> Tensor:
    h = padded_norm_silu(block.norm1, block.conv1, x, z, cache)
    h = causal_convolution(block.conv1, h)
    h = padded_norm_silu(block.norm2, block.conv2, h, z, cache)
    h = causal_convolution(block.conv2, h)
    shortcut = x if block.in_channels == block.out_channels else pointwise(block.conv_shortcut, x)
    return h + shortcut if torch.is_grad_enabled() else h.add_(shortcut)


def _downsample(module: nn.Module, h: Tensor, z: Tensor | None, cache: Cache) -> Tensor:
    return downsample(module, h)


def _upsample(module: nn.Module, h: Tensor, z: Tensor | None, cache: Cache) -> Tensor:
    return upsample(module, h)


STEPS: dict[type[nn.Module], Step] = {
    CogVideoXResnetBlock3D: _resnet,
    CogVideoXDownsample3D: _downsample,
    CogVideoXUpsample3D: _upsample,
}


def _run(owner: nn.Module, step: Step, module: nn.Module, h: Tensor, z: Tensor | None, cache: Cache) -> Tensor:
    """One step with gradients; where its owner is set to checkpoint, computed again in the backward pass."""
    if not owner.gradient_checkpointing:
        return step(module, h, z, cache)
    before = {conv: cache[conv] for conv in module.modules() if conv in cache}

    def again(h: Tensor, z: Tensor | None, before: Cache) -> tuple[Tensor, Cache]:
        after = dict(before)  # the backward pass comes back here, and must find what there was
        return step(module, h, z, after), after

    h, after = owner._gradient_checkpointing_func(again, h, z, before)
    cache.update(after)
    return h
