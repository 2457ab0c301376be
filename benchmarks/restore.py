"""Restoring a clip from file to file, stage by stage: our path against the reference path, on this machine.

    python -m benchmarks.restore                                                        a toy model, on a CPU
    python -m benchmarks.restore --arch cogvideox1.5-5b --dtype bfloat16 --device cuda \
        --frames 33 --size 1280x720 --output results/benchmark                          the real one, random weights

The reference path is what DOVE's published script does: the whole clip at once, diffusers' own VAE with its default
tiling, no overlap. Both sides run in one process and alternate; ratios are of medians. Several --frames and --size give
a scaling table. OUTPUT gets results.json and stages.png.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count
from tqdm import tqdm

from benchmarks.architectures import ARCHITECTURES, build
from benchmarks.bars import draw_bars
from benchmarks.hardware import conv3d_workspace, describe
from benchmarks.stopwatch import STAGES, Stopwatch, TimedPipeline
from vsr.counting import PeakBytes
from vsr.memory import keep_freed_memory
from vsr.pipelines.dove import DOVEPipeline
from vsr.restore import restore_frames
from vsr.settings import RestoreSettings
from vsr.speed import matmul_teraflops
from vsr.video_io import OutputOptions, open_writer, probe, read_frames

SIDES = {
    "ours": RestoreSettings(),
    "reference": RestoreSettings(window=0, scene_cut="off"),
}
"""How the clip is cut. The reference also sets diffusers' tiling; see `_as`."""


def write_source(path: Path, frames: int, width: int, height: int) -> None:
    """A clip of noise that drifts: nothing here depends on what it shows."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (height + frames, width, 3), dtype=np.uint8)
    folder = path.with_suffix("")
    folder.mkdir()
    for number in range(frames):
        cv2.imwrite(str(folder / f"{number:05}.png"), noise[number : number + height])


@contextmanager
def _as(side: str, pipe: DOVEPipeline) -> Iterator[None]:
    if side == "reference":
        pipe.vae.enable_tiling()
    try:
        yield
    finally:
        pipe.vae.disable_tiling()


def run(side: str, pipe: DOVEPipeline, source: Path, target: Path) -> Stopwatch:
    """Restore the clip once, one stage after the other, and tell how long each took."""
    watch = Stopwatch(pipe.device)
    with _as(side, pipe), watch.of("total"):
        with watch.of("read"):
            info = probe(source)
            clip = [frame.pixels for frame in read_frames(info)]
        with watch.of("restore"), watch.upsampling():
            restored = list(restore_frames(TimedPipeline(pipe, watch), clip, SIDES[side]))
        height, width = restored[0].shape[:2]
        with (
            watch.of("write"),
            open_writer(target, info, width=width, height=height, options=OutputOptions(audio=False)) as writer,
        ):
            for number, frame in enumerate(restored):
                writer.write(frame, number)
    return watch


def peak_bytes(side: str, pipe: DOVEPipeline, source: Path, target: Path) -> int:
    """The most that tensors took beside the weights: by the allocator on CUDA, by counting elsewhere."""
    if pipe.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run(side, pipe, source, target)
        return torch.cuda.max_memory_allocated()
    weights = [*pipe.vae.parameters(), *pipe.transformer.parameters()]
    with PeakBytes(weights) as counter:
        run(side, pipe, source, target)
    return counter.peak


def compare(pipe: DOVEPipeline, frames: int, size: tuple[int, int], runs: int) -> dict:
    """Both sides for one clip: median seconds of each stage, peak memory, arithmetic, ratios."""
    scale = int(pipe.config.scale)
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "source", Path(name) / "target.mp4"
        write_source(source, frames, size[0] // scale, size[1] // scale)
        peaks = {side: peak_bytes(side, pipe, source, target) for side in SIDES}  # warms up, too
        work = {side: _teraflop(side, pipe, source, target) for side in SIDES}
        watches = {side: [] for side in SIDES}
        for _ in tqdm(range(runs), desc=f"{frames} frames of {size[0]}x{size[1]}", unit="round", dynamic_ncols=True):
            for side, rounds in watches.items():
                rounds.append(run(side, pipe, source, target))
    stages = {
        side: {stage: statistics.median(watch.seconds[stage] for watch in rounds) for stage in (*STAGES, "total")}
        for side, rounds in watches.items()
    }
    ratios = {stage: stages["reference"][stage] / max(stages["ours"][stage], 1e-9) for stage in (*STAGES, "total")}
    return {
        "frames": frames,
        "size": list(size),
        "seconds": stages,
        "times_as_fast_as_reference": ratios,
        "peak_bytes": peaks,
        "teraflop": work,
    }


def _teraflop(side: str, pipe: DOVEPipeline, source: Path, target: Path) -> float:
    with flop_counter() as counter:
        run(side, pipe, source, target)
    return counter.get_total_flops() / 1e12


def flop_counter() -> FlopCounterMode:
    """Torch's own, which does not know oneDNN's convolution under its name, as our path calls it on a CPU."""

    def convolution(x: torch.Size, weight: torch.Size, *_args, out_shape: torch.Size, **_kwargs) -> int:
        return conv_flop_count(x, weight, out_shape, transposed=False)

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_convolution: convolution})


def show(result: dict, peak: float) -> None:
    """One clip as a table."""
    print(f"\n{result['frames']} frames of {result['size'][0]}x{result['size'][1]}")
    print(f"{'seconds':12}{'ours':>10}{'reference':>12}{'ratio':>8}")
    for stage in (*STAGES, "total"):
        ours, reference = (result["seconds"][side][stage] for side in SIDES)
        print(f"{stage:12}{ours:10.2f}{reference:12.2f}{result['times_as_fast_as_reference'][stage]:8.2f}")
    for name, unit, factor in (("peak_bytes", "peak GB", 1e-9), ("teraflop", "TFLOP", 1)):
        ours, reference = (result[name][side] * factor for side in SIDES)
        print(f"{unit:12}{ours:10.2f}{reference:12.2f}{reference / ours:8.2f}")
    shares = (result["teraflop"][side] / result["seconds"][side]["total"] / peak for side in SIDES)
    print(f"{'of matmul':12}" + "".join(f"{share:>{width}.0%}" for share, width in zip(shares, (10, 12), strict=True)))


def main(argv: list[str] | None = None) -> None:
    args = _parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    machine, peak = describe(args.device), matmul_teraflops(dtype, args.device)
    print(f"{machine}; matrix products in {args.dtype}: {peak:.2f} TFLOP/s")
    if warning := conv3d_workspace(args.device, dtype):
        print(warning)
    pipe = build(args.arch, dtype, args.device)
    results = []
    for frames in args.frames:
        for size in args.size:
            results.append(compare(pipe, frames, size, args.runs))
            show(results[-1], peak)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        facts = {"machine": machine, "arch": args.arch, "dtype": args.dtype, "matmul_teraflops": peak}
        (args.output / "results.json").write_text(json.dumps(facts | {"results": results}, indent=2) + "\n")
        draw_bars(args.output / "stages.png", results, STAGES)
        print(f"\n{args.output / 'results.json'} and {args.output / 'stages.png'}")


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def _parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=ARCHITECTURES, default="toy")
    parser.add_argument("--frames", type=int, nargs="+", default=[33], help="lengths of the clip")
    parser.add_argument("--size", type=_size, nargs="+", default=[(256, 192)], help="WIDTHxHEIGHT of the output")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=3, help="rounds of both sides")
    parser.add_argument("--threads", type=int, help="on a CPU; default: torch's own")
    parser.add_argument("--output", type=Path, help="folder for results.json and stages.png")
    return parser.parse_args(argv)


if __name__ == "__main__":
    keep_freed_memory()
    main()
