"""Which device and number format a pipeline runs in."""

import torch

from vsr.errors import UsageError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def choose_device(name: str = "auto") -> torch.device:
    """A device by name; "auto" takes CUDA, then MPS, then the CPU."""
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there()))
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind not in available or not available[kind]() or (number and not (number.isdigit() and int(number) < count)):
        usable = ", ".join(k for k, there in available.items() if there())
        raise UsageError(f"device {name!r} is not available on this machine; use auto or one of: {usable}")
    return torch.device(name)


def choose_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """A number format by name; "auto" takes bfloat16 where the hardware multiplies matrices in it, else float32."""
    if isinstance(name, torch.dtype):
        return name
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16_units(device) else torch.float32
    if name not in DTYPES:
        raise UsageError(f"dtype must be auto or one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


def _has_bfloat16_units(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)  # private: torch has no public question for AMX
    return device.type == "cpu" and amx is not None and amx()
