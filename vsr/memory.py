"""Running out of memory, told apart from other errors and named with a remedy; and how much was used."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from vsr.errors import OutOfMemoryError

if sys.platform == "linux":
    import resource

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_C_INT = 2**31 - 1
SAID = (
    "DefaultCPUAllocator",
    "MPS backend out of memory",
    "CUDA error: out of memory",  # of pinned host memory, too
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Words of failed allocations that have no type of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """An allocation failed, on a device or, where torch says so in words only, on the host or on MPS."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in SAID)


@contextmanager
def naming_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn a failed allocation inside into an `OutOfMemoryError` that says what did not fit and what needs less."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"out of memory: {what} does not fit; use {remedy} ({error})") from error


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks for the next allocation; elsewhere nothing happens.

    By default each activation of a video network on a CPU goes back to the system and is mapped anew, page by page.
    For the start of a program: the setting holds for the whole process.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD) if mallopt else ():
            mallopt(option, LARGEST_C_INT)


def reset_peak(device: torch.device) -> None:
    """Count the peak of a CUDA device from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gigabytes(device: torch.device) -> dict[str, float]:
    """Of a CUDA device since `reset_peak`, and of the whole process on the host so far (where the system tells)."""
    peak = {}
    if device.type == "cuda":
        peak["device"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 3)
    if sys.platform == "linux":
        peak["host"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)
    return peak


def release(device: torch.device) -> None:
    """Give cached blocks back after a failure, so that the next file starts with all there is."""
    if device.type == "cuda":
        with suppress(RuntimeError), torch.cuda.device(device):  # a device that failed for good fails here again
            torch.cuda.empty_cache()
