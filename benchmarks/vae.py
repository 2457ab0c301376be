"""Our VAE path against diffusers' own, untiled and tiled: time, memory and difference, on this machine.

    python -m benchmarks.vae [--frames 33 --height 384 --width 512] [--dtype float32] [--widths 16 32 32 64] [--runs 5]
                             [--strip_rows 64] [--against tiled] [--profile]

The sides alternate within one process, with one allocator setting, and ratios are of medians. The default is a toy VAE
of the real topology, an eighth as wide; ``--widths 128 256 256 512 --groups 32`` is the real one with random weights.
Memory is the peak of tensor bytes that a call makes, not what the allocator holds.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from benchmarks.stage2_memory import VAE
from vsr import vae as fast
from vsr.counting import PeakBytes
from vsr.memory import keep_freed_memory

Call = Callable[[Tensor], Tensor]
EXACT = ("ours", "strips")
"""Sides whose result is that of diffusers' untiled call; its own tiles have other statistics."""
AGAINST = ("untiled", "tiled")
"""Diffusers' own ways."""
MOST = 8
"""Operations of a profile."""


def random_vae(widths: list[int], groups: int, dtype: torch.dtype, device: str) -> AutoencoderKLCogVideoX:
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(**VAE | {"block_out_channels": tuple(widths), "norm_num_groups": groups})
    return vae.to(device, dtype).eval().requires_grad_(False)


def sides(vae: AutoencoderKLCogVideoX, direction: str, strip_rows: int | None) -> dict[str, Call]:
    """The ways of one direction by name; "strips" only where there are any."""

    def tiled(x: Tensor) -> Tensor:
        vae.enable_tiling()
        try:
            return diffusers_call(x)
        finally:
            vae.disable_tiling()

    if direction == "encode":
        diffusers_call, ours = (lambda x: vae.encode(x).latent_dist.parameters), partial(fast.encode, vae)
    else:
        diffusers_call, ours = (lambda z: vae.decode(z).sample), partial(fast.decode, vae)
    strips = {"strips": partial(ours, memory=fast.Memory(strip_rows=strip_rows))} if strip_rows else {}
    return {"ours": ours, "untiled": diffusers_call, "tiled": tiled} | strips


def timed(call: Call, x: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """The result, and seconds of the clock and of this process: beside other work compare the second."""
    start, process_start = time.perf_counter(), time.process_time()
    result = call(x)
    if x.is_cuda:
        torch.cuda.synchronize()
    return result, (time.perf_counter() - start, time.process_time() - process_start)


@torch.no_grad()
def profile(call: Call, x: Tensor) -> dict[str, float]:
    """What share of the time the operations took that took most; the profiler makes small ones seem larger."""
    with torch.profiler.profile(acc_events=True) as seen:
        call(x)
    taken = {e.key: e.self_device_time_total if x.is_cuda else e.self_cpu_time_total for e in seen.key_averages()}
    most = sorted(taken, key=taken.get, reverse=True)[:MOST]
    return {name: round(taken[name] / sum(taken.values()), 3) for name in most}


@torch.no_grad()
def compare(
    vae: AutoencoderKLCogVideoX, direction: str, x: Tensor, runs: int, strip_rows: int | None, against: list[str]
) -> dict[str, object]:
    """One direction: median seconds, ratios to ours, peak bytes, and the largest difference from untiled if it runs."""
    calls = sides(vae, direction, strip_rows)
    calls = {name: calls[name] for name in calls if name not in AGAINST or name in against}
    results, peaks, first = {}, {}, {}
    for name, call in calls.items():  # warms up, too
        with PeakBytes([x, *vae.parameters()]) as counter:
            results[name], first[name] = timed(call, x)
        peaks[name] = counter.peak
        print(f"{direction}, {name}: {first[name][0]:.1f} s while bytes are counted", file=sys.stderr, flush=True)
    exact = {name: results[name].float() for name in results if name in EXACT and "untiled" in results}
    differences = {name: (z - results["untiled"].float()).abs().max().item() for name, z in exact.items()}
    del results, exact
    times = {name: [] if runs else [first[name]] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            times[name].append(timed(call, x)[1])
    clock, process = ({name: statistics.median(t[i] for t in times[name]) for name in calls} for i in (0, 1))
    return {
        "direction": direction,
        "seconds": clock,
        "process_seconds": process,
        "times_as_fast_as": {name: clock[name] / clock["ours"] for name in calls if name != "ours"},
        "times_as_fast_as_by_process": {name: process[name] / process["ours"] for name in calls if name != "ours"},
        "peak_bytes": peaks,
        "memory_of_theirs": {name: peaks["ours"] / peaks[name] for name in calls if name in AGAINST},
        "memory_of_ours": {name: peaks[name] / peaks["ours"] for name in calls if name != "ours"},
        "differences": differences,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 32, 64])
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=5, help="0: the time of the one call whose bytes are counted")
    parser.add_argument("--strip_rows", type=int, help="also measure our path in strips of so many rows")
    parser.add_argument("--profile", action="store_true", help="also print where our and diffusers' untiled time goes")
    parser.add_argument("--threads", type=int, help="on a CPU; default: torch's own")
    parser.add_argument("--default_allocator", action="store_true", help="leave the C library's settings alone")
    parser.add_argument("--direction", choices=("encode", "decode"), nargs="+", default=["encode", "decode"])
    parser.add_argument("--against", choices=AGAINST, nargs="+", default=AGAINST, help="diffusers' sides to run")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.default_allocator:
        keep_freed_memory()
    vae = random_vae(args.widths, args.groups, getattr(torch, args.dtype), args.device)
    x = torch.rand(1, 3, args.frames, args.height, args.width).to(args.device, vae.dtype) * 2 - 1
    z = torch.randn(1, 16, (args.frames + 3) // 4, args.height // 8, args.width // 8).to(args.device, vae.dtype)
    for direction in args.direction:
        given = z if direction == "decode" else x
        result = compare(vae, direction, given, args.runs, args.strip_rows, args.against)
        if args.profile:
            calls = sides(vae, direction, None)
            result["profile"] = {name: profile(calls[name], given) for name in ("ours", "untiled")}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
