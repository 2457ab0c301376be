"""How fast training data is made: samples per second of decoding, of each degradation step and of the whole loader.

    python -m benchmarks.data [--videos DIR] [--frames 25 --height 320 --width 640] [--samples 6]

Without --videos two clips of 1280x720 and 150 frames are made first. One GPU needs its batch size times its steps per
second; workers add up as long as there are cores.
"""

import argparse
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import torch

from finetune.data.clips import open_clip
from finetune.data.config import DataConfig
from finetune.data.dataset import CONTEXT_AREA, CONTEXT_FRAMES
from finetune.data.degradation import load_degradation, sample_plan
from finetune.data.degradation.apply import apply_operation
from finetune.data.sampler import training_loader
from finetune.data.sources import find_sources


def make_clips(folder: Path, count: int = 2) -> Path:
    """Zooms into a fractal: detail everywhere, motion everywhere."""
    for i in range(count):
        source = f"mandelbrot=s=1280x720:r=25:start_scale={1 + i}:end_scale=0.1:maxiter=300"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", "150"]
        subprocess.run([*command, "-pix_fmt", "yuv420p", folder / f"{i}.mp4"], check=True)
    return folder


def time_decoding(config: DataConfig, samples: int) -> Iterator[tuple[str, float]]:
    """Seconds per sample for the needed frames, from the middle of a clip, and for all frames of it."""
    files = find_sources(config.videos, "video")
    needed = config.frames + CONTEXT_FRAMES

    def decode(n: int, whole: bool) -> None:
        clip = open_clip(files[n % len(files)])
        count = len(clip) if whole else min(needed, len(clip))
        for _ in clip.frames((len(clip) - count) // 2, count):
            pass

    yield f"decode the {needed} needed frames", seconds_per_call(lambda n: decode(n, False), samples)
    yield "decode whole clips", seconds_per_call(lambda n: decode(n, True), samples)


def time_degradation(config: DataConfig, samples: int) -> Iterator[tuple[str, float]]:
    """Seconds per sample for each operation, averaged over plans; one that a plan leaves out counts as 0."""
    preset = load_degradation(config.degradation)
    height, width = (int(side * CONTEXT_AREA) // 16 * 16 for side in (config.height, config.width))
    clip = next_clip(config, height, width)
    spent: dict[str, float] = defaultdict(float)
    for n in range(samples):
        with timed(spent, "plan"):
            plan = sample_plan(preset, np.random.default_rng(n), *clip.shape[:3], scale=config.scale)
        frames = list(clip)
        for operation in plan.operations:
            with timed(spent, type(operation).__name__):
                frames = list(apply_operation(operation, frames))
    for name, seconds in spent.items():
        yield f"{config.degradation}: {name}", seconds / samples
    yield f"{config.degradation}: all", sum(spent.values()) / samples


def time_loader(config: DataConfig, samples: int, workers: int) -> float:
    """Seconds per sample of the whole loader, its start left out."""
    batches = iter(training_loader(replace(config, workers=workers), 0, 1, steps=samples + max(workers, 1)))
    for _ in range(max(workers, 1)):
        next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return (time.perf_counter() - start) / samples


def next_clip(config: DataConfig, height: int, width: int) -> np.ndarray:
    """Frames of the first video, interpolated to the size that is degraded."""
    clip = open_clip(find_sources(config.videos, "video")[0])
    count = min(config.frames + CONTEXT_FRAMES, len(clip))
    return np.stack([cv2.resize(frame, (width, height)) for frame in clip.frames(0, count)])


def seconds_per_call(call: Callable[[int], None], times: int) -> float:
    start = time.perf_counter()
    for n in range(times):
        call(n)
    return (time.perf_counter() - start) / times


@contextmanager
def timed(spent: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[name] += time.perf_counter() - start


def measure(config: DataConfig, samples: int) -> Iterator[tuple[str, float]]:
    """Name and seconds per sample of every measurement. On one thread, as in a worker."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    yield from time_decoding(config, samples)
    yield from time_degradation(config, samples)
    for workers in (0, 1, 2):
        yield f"whole loader, {workers} workers", time_loader(config, samples, workers)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--videos", type=Path, help="folder or list of clips (default: made on the spot)")
    add("--frames", type=int, default=25, help="of a sample")
    add("--height", type=int, default=320, help="of the crop")
    add("--width", type=int, default=640, help="of the crop")
    add("--degradation", default="realbasicvsr", help="preset or YAML file")
    add("--samples", type=int, default=6, help="per measurement")
    args = parser.parse_args(argv)
    settings = {name: getattr(args, name) for name in ("frames", "height", "width", "degradation")}
    with tempfile.TemporaryDirectory() as folder:
        config = DataConfig(videos=args.videos or make_clips(Path(folder)), **settings)
        print(f"{'':40}{'samples/s':>12}{'ms/sample':>12}")
        for name, seconds in measure(config, args.samples):
            print(f"{name:40}{1 / seconds:>12.2f}{1000 * seconds:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
