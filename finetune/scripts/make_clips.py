"""Make synthetic training clips: dead leaves and photographs under a moving camera, with objects that move.

    python -m finetune.scripts.make_clips --output datasets/synthetic --count 1200

Writes OUTPUT/NUMBER.mp4. A clip follows from its number alone: the same command goes on where it was interrupted, and a
larger count adds to what is there.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from finetune.data.synthetic.files import encode
from finetune.data.synthetic.scenes import random_scene

SIZE, FRAMES = (160, 160), 28
"""Width and height, and length, of a clip."""
SEED = 7
CRF = 6
"""Hardly any loss: the ground truth is what it is trained to make."""


def make_clip(folder: Path, number: int) -> None:
    """Write clip ``number``, unless it is there."""
    path, temporary = folder / f"{number:05}.mp4", folder / f".{number:05}.incomplete.mp4"
    if path.exists():
        return
    rng = np.random.default_rng([SEED, number])
    encode(temporary, list(random_scene(rng, SIZE, FRAMES)), CRF, preset="ultrafast")
    temporary.rename(path)


def make_clips(folder: Path, count: int) -> None:
    """Write clips 0 to count - 1, on all cores."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(_usable_cores()) as pool:
        jobs = pool.map(make_clip, [folder] * count, range(count), chunksize=4)
        for _ in tqdm(jobs, total=count, unit="clip", desc=str(folder), dynamic_ncols=True):
            pass


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write clips into")
    parser.add_argument("--count", type=int, required=True, help="number of clips")
    args = parser.parse_args(argv)
    make_clips(args.output, args.count)


if __name__ == "__main__":
    main()
