"""Make the demo clips: photographs that ship inside scikit-image, filmed by a simulated camera, then degraded.

    python -m finetune.scripts.make_demo [--output datasets/demo]

Writes OUTPUT/GT-Video/NAME.mp4 (384x256) and OUTPUT/LQ-Video/NAME.mp4 (96x64), 33 frames at 24 per second, degraded by
the preset realbasicvsr. Needs no network; the same seed gives the same frames.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from finetune.data.degradation import apply_plan, load_degradation, sample_plan
from finetune.data.synthetic.camera import CameraMove, film
from finetune.data.synthetic.files import encode
from finetune.data.synthetic.pictures import photograph

SIZE, FRAMES, SCALE = (384, 256), 33, 4
"""Width and height of the ground truth, length, and how many times smaller the low quality is."""
SEED = 0
SIZE_LIMIT = 240_000
"""Bytes per file: the repository holds no binary above 250 kB."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One clip."""

    name: str
    """Of its file."""
    photo: str
    """See `photograph`."""
    move: CameraMove

    def frames(self, size: tuple[int, int], frames: int) -> np.ndarray:
        """The ground truth: (frames, height, width, 3) uint8."""
        return np.stack(list(film(photograph(self.photo), self.move, size, frames)))

    def generator(self) -> np.random.Generator:
        """Of the degradation; keyed by the clip, so that a clip is the same whichever others are made."""
        return np.random.default_rng([SEED, *self.name.encode()])


def _demo(photo: str, **move) -> Shot:
    return Shot(name=photo, photo=photo, move=CameraMove(**move))


SHOTS = (
    _demo("astronaut", center=(0.47, 0.32), step=1.05, pan=(40, 10), zoom=0.94, turn=2.0),
    _demo("coffee", center=(0.50, 0.50), step=1.25, pan=(-44, 12), zoom=1.05, turn=-3.0),
    _demo("chelsea", center=(0.50, 0.48), step=1.03, pan=(30, -10), zoom=1.04, turn=1.5),
    _demo("rocket", center=(0.48, 0.60), step=1.15, pan=(20, 36), zoom=0.94, turn=-1.0),
)


def degrade(x_gt: np.ndarray, rng: np.random.Generator, preset: str = "realbasicvsr") -> np.ndarray:
    """(F, H, W, 3) uint8 -> (F, H / SCALE, W / SCALE, 3) uint8, as training degrades its clips."""
    return apply_plan(x_gt, sample_plan(load_degradation(preset), rng, *x_gt.shape[:3], scale=SCALE))


def encode_within_limit(path: Path, frames: Sequence[np.ndarray]) -> int:
    """Encode at the best quality that stays within SIZE_LIMIT; returns its CRF (0: only the color conversion loses)."""
    for crf in count(step=2):
        encode(path, frames, crf)
        if path.stat().st_size <= SIZE_LIMIT:
            return crf


def make_demo(output: Path, shots: Sequence[Shot] = SHOTS) -> None:
    """Write both versions of every shot under ``output`` and print what came out."""
    for shot in shots:
        x_gt = shot.frames(SIZE, FRAMES)
        x_lq = degrade(x_gt, shot.generator())
        for folder, frames in (("GT-Video", x_gt), ("LQ-Video", x_lq)):
            path = output / folder / f"{shot.name}.mp4"
            crf = encode_within_limit(path, frames)
            print(f"{path}: {len(frames)} frames, {path.stat().st_size // 1000} kB, crf {crf}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("datasets/demo"), help="folder of GT-Video and LQ-Video")
    make_demo(parser.parse_args(argv).output)


if __name__ == "__main__":
    main()
