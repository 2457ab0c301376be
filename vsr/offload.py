"""The transformer's weights in host memory, block by block on the device: 11 GB less there for CogVideoX1.5-5B."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vsr.memory import is_out_of_memory

log = logging.getLogger(__name__)

PIECE = 1 << 30
"""Bytes of pinned memory asked for at once, a power of two: torch rounds whatever is asked for up to the next one."""
ALIGNED = 512
"""Where a tensor begins is a multiple of it."""


def offload_transformer(pipe: Any, device: torch.device) -> None:
    """Keep the transformer's weights in host memory; the VAE goes to ``device``, where everything runs.

    Diffusers' group offload brings one block at a time; on CUDA it copies the next one, out of pinned memory, while the
    one before computes.

    Args:
        pipe: a `DOVEPipeline`; changed in place, once.
        device: where it runs from now on.
    """
    if pipe.transformer_offloaded:
        return
    pipe.vae.to(device)
    pipe.transformer.to("cpu")
    pipe.transformer.enable_group_offload(
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=device.type == "cuda" and could_pin(pipe.transformer),
    )
    pipe.transformer_offloaded = True


def could_pin(network: nn.Module) -> bool:
    """Do `pin`; False, with a warning, where so much cannot be pinned."""
    try:
        pin(network)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        log.warning("not enough host memory can be pinned (%s): weights travel to the device more slowly", error)
        return False
    return True


def pin(network: nn.Module, make: Callable[[int], Tensor] | None = None) -> None:
    """Move all weights of a network on the CPU into pinned memory, one after the other, so that none is there twice.

    They lie side by side in large pieces. Alone each would be rounded up to a power of two, which is 20 GB instead of
    11 for CogVideoX1.5-5B.

    Args:
        make: pinned bytes, uint8; None: torch's.

    Raises:
        RuntimeError: so much cannot be pinned; the weights that moved stay where they are.
    """
    make = make or (lambda size: torch.empty(size, dtype=torch.uint8, pin_memory=True))
    tensors = [*network.parameters(), *network.buffers()]
    pieces: dict[int, Tensor] = {}
    for tensor, (piece, start, room) in zip(tensors, _places([tensor.nbytes for tensor in tensors]), strict=True):
        if piece not in pieces:
            pieces = {piece: make(room)}
        place = pieces[piece][start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        tensor.data = place.copy_(tensor.data)


def pinned_bytes(sizes: Iterable[int]) -> int:
    """What tensors of these sizes, in this order, take when they are pinned."""
    return sum({piece: room for piece, _, room in _places(sizes)}.values())


def _places(sizes: Iterable[int]) -> Iterable[tuple[int, int, int]]:
    """For each tensor the number of its piece, where in it the tensor starts, and the size of the piece."""
    piece, end, room = -1, 0, 0
    for size in sizes:
        if piece < 0 or end + size > room:
            piece, end, room = piece + 1, 0, max(PIECE, power_of_two(size))
        yield piece, end, room
        end += -(-size // ALIGNED) * ALIGNED


def power_of_two(size: int) -> int:
    """The next one, ``size`` included: what pinned memory of so many bytes takes."""
    return 1 << max(size - 1, 0).bit_length()
