"""What a call without gradients keeps in memory, and where."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from vsr.errors import UsageError


@dataclass(frozen=True)
class Memory:
    """How little of the VAE's activations to hold at once; pictures do not depend on it, to rounding.

    Args:
        strip_rows: rows of an activation that a layer works on at once, at every level; None: all of them.
        cache_device: where the frames that convolutions need again wait for their next batch; None: where they were
            made. "cpu" for a VAE on a CUDA device is pinned memory of the host.

    Raises:
        UsageError: strips without a row.
    """

    strip_rows: int | None = None
    cache_device: str | None = None

    def __post_init__(self) -> None:
        if self.strip_rows is not None and self.strip_rows < 1:
            raise UsageError(f"a strip has at least one row, got strip_rows={self.strip_rows}")


WHOLE = Memory()


class Cache(dict[nn.Module, Tensor]):
    """The last input frames of each causal convolution, for the batch of frames that comes next.

    With gradients they are (B, C, k - 1, H, W). Without, (H, B, k - 1, W, C): the rows of a strip lie in one piece,
    which is what moves fast between devices, and each batch writes over the frames of the one before.
    """

    def __init__(self, device: str | None = None) -> None:
        super().__init__()
        self.device = device

    def room(self, module: nn.Module, x: Tensor, height: int) -> Tensor:
        """Where to keep the last frames of ``x`` (B, C, T, rows, W), with ``height`` rows in all: made once."""
        if module not in self:
            batch, channels, _, _, width = x.shape
            device = torch.device(self.device or x.device)
            size, pin = (height, batch, module.time_pad, width, channels), device.type == "cpu" and x.is_cuda
            self[module] = torch.empty(size, dtype=x.dtype, device=device, pin_memory=pin)
        return self[module]


def put_before(module: nn.Module, room: Tensor, before: Tensor | None) -> None:
    """Write into the first k - 1 of ``room``'s frames (B, C, k - 1 + T, rows, W) the rows kept before, (rows, B, ...).

    Before a clip stands its first frame.
    """
    target = room[:, :, : module.time_pad]
    if before is None:
        target.copy_(room[:, :, module.time_pad, None])
    else:
        target.copy_(rearrange(before, "h b t w c -> b c t h w"), non_blocking=True)


def keep_last(module: nn.Module, room: Tensor, kept: Tensor) -> None:
    """Keep the last k - 1 frames of ``room`` (B, C, k - 1 + T, rows, W) in ``kept`` (rows, B, ...)."""
    kept.copy_(rearrange(room[:, :, -module.time_pad :], "b c t h w -> h b t w c"), non_blocking=True)
