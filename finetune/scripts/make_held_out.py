"""Make the clips that the small model is judged by: photographs and camera moves that it was not trained on.

    python -m finetune.scripts.make_held_out [--output results/held_out]

Writes 12 clips, 256x192 and 17 frames: OUTPUT/GT-Video, and 4 times smaller OUTPUT/LQ-realbasicvsr (that preset) and
OUTPUT/LQ-mild (averaged over areas, noise of sigma 5, JPEG of quality 70). The same seed gives the same frames.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from finetune.data.opencv import without_ipp
from finetune.data.synthetic.camera import CameraMove
from finetune.data.synthetic.files import encode
from finetune.data.synthetic.pictures import HELD_OUT
from finetune.scripts.make_demo import SCALE, SEED, Shot, degrade

SIZE, FRAMES = (256, 192), 17
MOVES = 2
"""Clips of each photograph."""
NOISE_SIGMA, JPEG_QUALITY = 5.0, 70


def shots() -> list[Shot]:
    """Every held-out photograph under moves drawn at random."""
    rng = np.random.default_rng([SEED, 1])
    named = [(f"{photo}_{number}", photo) for photo in HELD_OUT for number in range(MOVES)]
    return [Shot(name=name, photo=photo, move=_random_move(rng)) for name, photo in named]


def _random_move(rng: np.random.Generator) -> CameraMove:
    """Slow enough to stay over the photograph: up to 2 pixels per frame, a little zoom and rotation."""
    way, direction = rng.uniform(0, 2) * (FRAMES - 1), rng.uniform(0, 2 * np.pi)
    return CameraMove(
        center=tuple(rng.uniform(0.42, 0.58, 2)),
        step=rng.uniform(1.0, 1.3),
        pan=(way * np.cos(direction), way * np.sin(direction)),
        zoom=rng.uniform(0.92, 1.08),
        turn=rng.uniform(-4, 4),
    )


@without_ipp()
def degrade_mildly(x_gt: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Area downsampling by SCALE, Gaussian noise, JPEG: (F, H, W, 3) uint8 -> (F, H / SCALE, W / SCALE, 3) uint8."""
    small = [cv2.resize(x, None, fx=1 / SCALE, fy=1 / SCALE, interpolation=cv2.INTER_AREA) for x in x_gt]
    noisy = np.stack(small) + rng.normal(0, NOISE_SIGMA, (len(small), *small[0].shape))
    levels = noisy.round().clip(0, 255).astype(np.uint8)[..., ::-1]  # cv2 wants BGR
    files = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1] for frame in levels]
    return np.stack([cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1] for file in files])


def make_held_out(output: Path) -> None:
    """Write all clips."""
    for shot in shots():
        x_gt = shot.frames(SIZE, FRAMES)
        clips = {
            "GT-Video": x_gt,
            "LQ-realbasicvsr": degrade(x_gt, shot.generator()),
            "LQ-mild": degrade_mildly(x_gt, shot.generator()),
        }
        for folder, frames in clips.items():
            encode(output / folder / f"{shot.name}.mp4", frames, crf=0)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/held_out"), help="folder to write into")
    make_held_out(parser.parse_args(argv).output)


if __name__ == "__main__":
    main()
