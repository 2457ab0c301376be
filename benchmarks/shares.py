"""What share of the rate of a large matrix product each stage of restoring reaches on this machine.

    python -m benchmarks.shares                                                        a toy model, on a CPU
    python -m benchmarks.shares --arch cogvideox1.5-5b --dtype bfloat16 --device cuda --size 1280x720

The numbers of `vsr.speed.SHARES` come from here. On a CPU one thread is used and its own time is taken, so that other
work on the machine does not count.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.architectures import ARCHITECTURES, build
from benchmarks.hardware import describe
from vsr.costs import Architecture, decode_cost, denoise_cost, encode_cost
from vsr.memory import keep_freed_memory
from vsr.speed import matmul_teraflops


def seconds(call: Callable[[], object], device: torch.device, clock: Callable[[], float], runs: int) -> float:
    """Median of some runs after one that warms up."""
    taken = []
    for _ in range(runs + 1):
        start = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(clock() - start)
    return statistics.median(taken[1:])


@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    args = _parse_args(argv)
    device, dtype, (width, height) = torch.device(args.device), getattr(torch, args.dtype), args.size
    clock = time.perf_counter
    if device.type == "cpu":
        torch.set_num_threads(1)
        clock = time.process_time
    pipe = build(args.arch, dtype, args.device)
    x = torch.rand(1, 3, args.frames, height, width, device=device) * 2 - 1
    z = pipe.encode(x)
    calls = {"encode": lambda: pipe.encode(x), "denoise": lambda: pipe.denoise(z), "decode": lambda: pipe.decode(z)}
    configs = {"vae": pipe.vae.config, "transformer": pipe.transformer.config}
    size = (Architecture.of(configs, dtype, device.type), args.frames, height, width)
    costs = {"encode": encode_cost(*size, None), "denoise": denoise_cost(*size), "decode": decode_cost(*size, None)}
    rate = matmul_teraflops(dtype, device, clock=clock)
    print(f"{describe(args.device)}; matrix products in {args.dtype}: {rate:.3f} TFLOP/s")
    for stage, call in calls.items():
        took = seconds(call, device, clock, args.runs)
        print(f"{stage}: {costs[stage].flops / 1e12:.3f} TFLOP, share {costs[stage].flops / took / rate / 1e12:.2f}")


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=ARCHITECTURES, default="toy")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(192, 128))
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args(argv)


if __name__ == "__main__":
    keep_freed_memory()
    main()
