"""Which of several processes this one is, by what launchers set: (LOCAL_)RANK and (LOCAL_)WORLD_SIZE."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from vsr.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The place of a process among those that share the work. Alone by default."""

    index: int = 0
    """From 0; rank 0 speaks for all."""
    size: int = 1
    """How many processes there are, on all machines."""
    local: int = 0
    """Number among the processes of this machine."""
    local_size: int = 1
    """How many processes this machine has."""


def this_rank(environment: Mapping[str, str] = os.environ) -> Rank:
    """What the launcher says; without RANK and WORLD_SIZE the process is alone.

    Raises:
        UsageError: only one of the two is set, or they make no sense.
    """
    given = {name: environment.get(name) for name in ("RANK", "WORLD_SIZE")}
    if not any(given.values()):
        return Rank()
    given["LOCAL_RANK"] = environment.get("LOCAL_RANK") or given["RANK"]
    given["LOCAL_WORLD_SIZE"] = environment.get("LOCAL_WORLD_SIZE") or given["WORLD_SIZE"]
    try:
        index, size, local, local_size = (int(value or "") for value in given.values())
    except ValueError:
        index, size, local, local_size = -1, 0, 0, 1
    if not 0 <= index < size or local < 0 or local_size < 1:
        said = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UsageError(f"expected RANK below WORLD_SIZE, both whole numbers, got {said}; set both or none of them")
    return Rank(index=index, size=size, local=local, local_size=local_size)


def own_device(device: torch.device, rank: Rank) -> torch.device:
    """The device of this process: a CUDA device without a number becomes that of LOCAL_RANK.

    A launcher may show each process only its own device; the number then starts again at 0.
    """
    if device.type != "cuda" or device.index is not None or rank.size == 1:
        return device
    own = torch.device("cuda", rank.local % torch.cuda.device_count())
    torch.cuda.set_device(own)
    return own
