"""How much memory there is for a run: what the device and the host have free, or what the user allows."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from vsr.errors import UsageError

MARGIN = 0.9
"""Of the memory there is, what tensors may take: the rest is for the allocator, kernels and other programs."""
UNITS = {"GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bytes that tensors may take; None: no bound is known."""

    device: int | None = None
    """On the device; on a CPU, in all."""
    host: int | None = None
    """In host memory beside a device."""

    def holds(self, device: int, host: int) -> bool:
        """Whether so many bytes fit."""
        return (self.device is None or device <= self.device) and (self.host is None or host <= self.host)


def budget_for(device: torch.device, limit: int | None = None, processes: int = 1) -> Budget:
    """What is free now, before anything is loaded, less a margin.

    Args:
        limit: bytes of the device, or on a CPU of the host, that the run may use at most; None: all that are free.
        processes: that share this machine's host memory in equal parts.
    """
    free_host = _free_host_bytes()
    host = None if free_host is None else free_host // processes
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else host if device.type == "cpu" else None
    given = [size for size in (free, limit) if size is not None]
    return Budget(device=int(MARGIN * min(given)) if given else None, host=None if host is None else int(MARGIN * host))


def parse_size(text: str) -> int:
    """Bytes of "16GB", "15.5 GiB" or "800MB"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)\s*", text, flags=re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size <= 0:
        raise UsageError(f"expected an amount of memory, for example 16GB, 15.5GiB or 800MB, got {text!r}")
    return size


def _free_host_bytes() -> int | None:
    """What programs can still have without swapping, where the system tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
