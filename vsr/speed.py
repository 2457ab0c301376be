"""How fast a machine is, and how long a number of operations takes on it."""

import time
from collections.abc import Callable, Mapping

import torch

SHARES = {"encode": 0.59, "denoise": 0.50, "decode": 0.75}
"""Of the rate of large matrix products, what each stage reaches.

One run of ``python -m benchmarks.shares``: a toy model, float32, one thread of an AMD EPYC that had other work.
Nothing has been measured on a GPU."""


def matmul_teraflops(
    dtype: torch.dtype,
    device: str | torch.device,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """The best rate of a large matrix product, TFLOP/s: the roof that everything else is measured against."""
    side = 8192 if torch.device(device).type == "cuda" else 1024
    x, best = torch.randn(side, side, device=device).to(dtype), 0.0
    for _ in range(rounds):
        start = clock()
        y = x @ x
        y[0, 0].item()  # waits for the device
        best = max(best, 2 * side**3 / (clock() - start) / 1e12)
    return best


def seconds(flops: Mapping[str, float], teraflops: float) -> float:
    """Of the networks, without reading and writing.

    Args:
        flops: by stage.
        teraflops: `matmul_teraflops` of the machine.
    """
    return sum(count / (SHARES[stage] * teraflops * 1e12) for stage, count in flops.items())
