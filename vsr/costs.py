"""What one tile of one window costs: bytes and arithmetic, counted on shapes, from the configuration of a model alone.

No weights are needed, and the size of the model hardly matters: one layer of the transformer stands for all, and the
first two batches of frames of the VAE for those that follow.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor, nn

from vsr import codec, denoiser
from vsr.counting import Count, FusedAttention
from vsr.errors import ModelError
from vsr.offload import pinned_bytes
from vsr.vae import Memory
from vsr.vae.statistics import COUNTED_FOR

META = torch.device("meta")
CHANNELS, FLOAT32 = 3, 4


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What decides the costs of a model."""

    vae: str
    """Configuration, as JSON."""
    transformer: str
    """Configuration, as JSON."""
    dtype: torch.dtype
    """Of weights and activations."""
    device: str
    """Type of the device it runs on: "cuda", "mps" or "cpu"."""

    @classmethod
    def of(cls, configs: Mapping[str, Mapping[str, Any]], dtype: torch.dtype, device: str) -> "Architecture":
        """From the configurations by the name of the network, ``vae`` and ``transformer``."""
        vae, transformer = (json.dumps(dict(configs[name]), sort_keys=True) for name in ("vae", "transformer"))
        return cls(vae=vae, transformer=transformer, dtype=dtype, device=device)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one stage, beside the weights."""

    bytes: int
    """Most that its tensors take at once."""
    bytes_with_host_caches: int
    """The same with what convolutions keep in host memory."""
    caches: Mapping[int, int]
    """What they keep there: how many pinned blocks of each size."""
    flops: float
    """Additions and multiplications."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Bytes of the networks."""

    vae: int
    transformer: int
    pinned: int
    """The transformer in pinned host memory."""
    block: int
    """One block of the transformer."""
    outside: int
    """The transformer without its blocks."""


@cache
def weights(architecture: Architecture) -> Weights:
    """Of all networks of a model."""
    vae, (one, two) = _vae(architecture), (_transformer(architecture, layers) for layers in (1, 2))
    block, more = _size(two) - _size(one), _num_layers(architecture) - 1
    return Weights(
        vae=_size(vae),
        transformer=_size(one) + more * block,
        pinned=pinned_bytes(_sizes(one, _num_layers(architecture))),
        block=block,
        outside=_size(one) - block,
    )


def encode_cost(architecture: Architecture, frames: int, height: int, width: int, strip_rows: int | None) -> Cost:
    """Pixels (1, 3, frames, height, width) to latents."""
    vae, size = _vae(architecture), architecture.dtype.itemsize
    counted = _frames_counted(vae, frames)
    cost = _count_encode(architecture, counted, height, width, strip_rows)
    clip = CHANNELS * height * width  # in float32 on the device, and once more in another dtype
    copies = (size if size != FLOAT32 else 0) * (frames - counted)
    given = FLOAT32 * frames if architecture.device != "cpu" else 0
    return _extended(cost, frames / counted, more=clip * (copies + given))


def decode_cost(architecture: Architecture, frames: int, height: int, width: int, strip_rows: int | None) -> Cost:
    """Latents to pixels (1, 3, frames, height, width) in [0, 1]."""
    vae, size = _vae(architecture), architecture.dtype.itemsize
    counted = _frames_counted(vae, frames)
    cost = _count_decode(architecture, counted, height, width, strip_rows)
    clip = CHANNELS * height * width
    joined = clip * frames * max(3 * size, size + FLOAT32, 2 * FLOAT32)  # batches put together, then made float32
    return _extended(cost, frames / counted, more=clip * size * (frames - counted), least=joined)


@cache
def denoise_cost(architecture: Architecture, frames: int, height: int, width: int) -> Cost:
    """Latents of pixels of this size through the transformer, once."""
    one, two = (_count_transformer(architecture, layers, frames, height, width) for layers in (1, 2))
    flops = one.flops + (_num_layers(architecture) - 1) * (two.flops - one.flops)
    return Cost(bytes=two.bytes, bytes_with_host_caches=two.bytes, caches={}, flops=flops)


def _extended(cost: Cost, times: float, *, more: int, least: int = 0) -> Cost:
    """For more frames than were counted."""
    return Cost(
        bytes=max(cost.bytes + more, least),
        bytes_with_host_caches=max(cost.bytes_with_host_caches + more, least),
        caches=cost.caches,
        flops=cost.flops * times,
    )


def _frames_counted(vae: AutoencoderKLCogVideoX, frames: int) -> int:
    return min(frames, 2 * codec.frame_step(vae) + 1)


@cache
def _count_encode(architecture: Architecture, frames: int, height: int, width: int, strip_rows: int | None) -> Cost:
    vae, x = _vae(architecture), torch.empty(1, CHANNELS, frames, height, width, device=META)
    return _count(architecture, vae, lambda: codec.encode(vae, x, memory=Memory(strip_rows, "cpu")), x)


@cache
def _count_decode(architecture: Architecture, frames: int, height: int, width: int, strip_rows: int | None) -> Cost:
    vae = _vae(architecture)
    z = _latents(vae, frames, height, width)
    return _count(architecture, vae, lambda: codec.decode(vae, z, memory=Memory(strip_rows, "cpu")), z)


def _count_transformer(architecture: Architecture, layers: int, frames: int, height: int, width: int) -> Cost:
    network, z = _transformer(architecture, layers), _latents(_vae(architecture), frames, height, width)
    config = network.config
    prompt = torch.empty(1, config.max_text_seq_length, config.text_embed_dim, device=META, dtype=network.dtype)
    step = torch.zeros((), dtype=torch.int64, device=META)
    return _count(architecture, network, lambda: denoiser.predict_v(network, z, prompt, step), z, prompt, step)


@torch.no_grad()
def _count(architecture: Architecture, network: nn.Module, call: Callable[[], Tensor], *given: Tensor) -> Cost:
    token = COUNTED_FOR.set(architecture.device)
    try:
        with Count([*given, *network.parameters(), *network.buffers()]) as count, _attention(network, count):
            call()
    finally:
        COUNTED_FOR.reset(token)
    return Cost(bytes=count.peak, bytes_with_host_caches=count.device_peak, caches=count.pinned, flops=count.flops)


def _attention(network: nn.Module, count: Count) -> AbstractContextManager:
    """Only where there is any: it slows every operation."""
    return FusedAttention(count) if isinstance(network, CogVideoXTransformer3DModel) else nullcontext()


def _latents(vae: AutoencoderKLCogVideoX, frames: int, height: int, width: int) -> Tensor:
    factor, ratio = codec.spatial_factor(vae), vae.config.temporal_compression_ratio
    size = (1, vae.config.latent_channels, -(-frames // ratio), height // factor, width // factor)
    return torch.empty(size, device=META)


@cache
def _vae(architecture: Architecture) -> AutoencoderKLCogVideoX:
    with _made_for(architecture):
        return AutoencoderKLCogVideoX.from_config(json.loads(architecture.vae)).eval()


@cache
def _transformer(architecture: Architecture, layers: int) -> CogVideoXTransformer3DModel:
    with _made_for(architecture):
        config = json.loads(architecture.transformer) | {"num_layers": layers}
        return CogVideoXTransformer3DModel.from_config(config).eval()


@contextmanager
def _made_for(architecture: Architecture) -> Iterator[None]:
    """Networks made inside have shapes, the right dtype, and no numbers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(architecture.dtype)
    try:
        with META:
            yield
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(f"the configuration of the model makes no sense: {error}") from error
    finally:
        torch.set_default_dtype(before)


def _num_layers(architecture: Architecture) -> int:
    default = signature(CogVideoXTransformer3DModel.__init__).parameters["num_layers"].default
    return json.loads(architecture.transformer).get("num_layers", default)


def _sizes(network: nn.Module, layers: int) -> Iterator[int]:
    """Of the tensors of a transformer as its children hold them; its one block stands for ``layers`` of them."""
    for name, child in network.named_children():
        tensors = [*child.parameters(), *child.buffers()]
        yield from [tensor.nbytes for tensor in tensors] * (layers if name == "transformer_blocks" else 1)


def _size(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()])
