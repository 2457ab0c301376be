"""How much memory there is for a run: what the device and the host have free, or what the user allows."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from vsr.errors import UsageError

MARGIN = 0.9
"""Of the memory there is, what tensors may take: the rest is for the allocator, kernels and other programs."""
NAMES_OF_GROUPS = {
    "": ("memory.max", "memory.current", ("inactive_file", "active_file")),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
}
"""By controller: files with the limit and the use of a control group, and in memory.stat what it can give back."""
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
    """What this program can still have without swapping, where the system tells: of the machine, and of its group."""
    free = list(left_in_groups())
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free.append(next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    return min(free, default=None)


def left_in_groups(process: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What the limits of containers and of batch systems leave: Linux control groups, of version 2 and 1."""
    try:
        lines = process.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for _, controllers, group in (line.split(":", 2) for line in lines):
        if controllers not in ("", "memory"):
            continue
        top = mount / controllers
        limit, used, cached = NAMES_OF_GROUPS[controllers]
        for folder in (top / group.lstrip("/"), *(top / group.lstrip("/")).parents):
            with suppress(OSError, ValueError):  # no limit, or none that is seen from here
                parts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                in_use = int((folder / used).read_text()) - sum(int(parts.get(name, 0)) for name in cached)
                yield max(int((folder / limit).read_text()) - in_use, 0)
            if folder == top:
                break
