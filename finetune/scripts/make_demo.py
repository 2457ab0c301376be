"""Make the demo clips: photographs that ship inside scikit-image, filmed by a simulated camera, then degraded.

    python -m finetune.scripts.make_demo [--output datasets/demo]

Writes OUTPUT/GT-Video/NAME.mp4 (384x256) and OUTPUT/LQ-Video/NAME.mp4 (96x64), 33 frames at 24 per second. Needs no
network; the same seed gives the same frames.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import skimage.data

WIDTH, HEIGHT, SCALE = 384, 256, 4
FRAMES, RATE = 33, 24
SEED = 0
BLUR_SIGMA, NOISE_SIGMA, JPEG_QUALITY = 1.5, 4.0, 60
SUPERSAMPLING = 2
SIZE_LIMIT = 240_000
"""Bytes per file: the repository holds no binary above 250 kB."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A camera move over one photograph, linear in a time u that eases from -0.5 to 0.5 over the clip."""

    photo: str
    """Function of skimage.data that returns the (H, W, 3) uint8 photograph."""
    center: tuple[float, float]
    """Where the camera looks half-way, as fractions of the photograph's width and height."""
    step: float
    """Photograph pixels per output pixel; 1 or more, so that the clip is as sharp as its size allows."""
    pan: tuple[float, float]
    """Way of the camera over the whole clip, right and down, in photograph pixels."""
    zoom: float = 1.0
    """How many times larger the step is at the end than at the start; below 1 the camera moves in."""
    turn: float = 0.0
    """Rotation over the whole clip, in degrees."""


SHOTS = (
    Shot(photo="astronaut", center=(0.47, 0.32), step=1.05, pan=(40, 10), zoom=0.94, turn=2.0),
    Shot(photo="coffee", center=(0.50, 0.50), step=1.25, pan=(-44, 12), zoom=1.05, turn=-3.0),
    Shot(photo="chelsea", center=(0.50, 0.48), step=1.03, pan=(30, -10), zoom=1.04, turn=1.5),
    Shot(photo="rocket", center=(0.48, 0.60), step=1.15, pan=(20, 36), zoom=0.94, turn=-1.0),
)


def camera_position(shot: Shot, photo_size: tuple[int, int], frame: int) -> np.ndarray:
    """The 2x3 matrix that takes output pixels (x, y, 1) to photograph pixels at one moment.

    Args:
        photo_size: width and height of the photograph.
        frame: 0 to FRAMES - 1.
    """
    u = -0.5 * np.cos(np.pi * frame / (FRAMES - 1))
    step = shot.step * shot.zoom**u
    angle = np.deg2rad(shot.turn * u)
    linear = step * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    look_at = np.multiply(shot.center, photo_size) + np.multiply(shot.pan, u) - 0.5
    middle = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
    return np.column_stack([linear, look_at - linear @ middle])


def film(photo: np.ndarray, shot: Shot) -> Iterator[np.ndarray]:
    """The clip of one shot: (HEIGHT, WIDTH, 3) uint8 frames, sampled finer and averaged so that nothing aliases."""
    photo_size = photo.shape[1::-1]
    fine = 1 / SUPERSAMPLING
    to_output_pixel = np.array([[fine, 0, (fine - 1) / 2], [0, fine, (fine - 1) / 2], [0, 0, 1]])
    fine_size = (WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING)
    for frame in range(FRAMES):
        matrix = camera_position(shot, photo_size, frame) @ to_output_pixel
        flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
        large = cv2.warpAffine(photo, matrix, fine_size, flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        yield cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def noise_seed(shot: Shot) -> np.random.SeedSequence:
    """Keyed by the clip, so that a clip is the same whichever others are made."""
    return np.random.SeedSequence([SEED, *shot.photo.encode()])


def degrade(frames: Iterable[np.ndarray], seed: np.random.SeedSequence) -> Iterator[np.ndarray]:
    """Low-quality frames: Gaussian blur, area downsampling by SCALE, Gaussian noise, JPEG; the same for every frame.

    Args:
        frames: (H, W, 3) uint8 RGB.
        seed: of the noise.

    Yields:
        (H / SCALE, W / SCALE, 3) uint8 RGB.
    """
    noise = np.random.default_rng(seed)
    for frame in frames:
        blurred = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), BLUR_SIGMA)
        small = cv2.resize(blurred, None, fx=1 / SCALE, fy=1 / SCALE, interpolation=cv2.INTER_AREA)
        noisy = (small + noise.normal(0, NOISE_SIGMA, small.shape)).round().clip(0, 255).astype(np.uint8)
        _, jpeg = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])  # cv2 wants BGR
        yield cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]


def encode(path: Path, frames: Sequence[np.ndarray], crf: int) -> None:
    """Write frames as H.264 4:4:4, tagged BT.709, reproducibly.

    One thread and no macroblock tree: with either, x264 makes other pixels from one run to the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    color = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
    tag = "setparams=color_primaries=bt709:color_trc=bt709"
    convert = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+full_chroma_inp"
    exact = ["-x264-params", "threads=1:mbtree=0", "-fflags", "+bitexact", "-flags", "+bitexact"]
    writer = imageio_ffmpeg.write_frames(
        path,
        (width, height),
        fps=RATE,
        pix_fmt_in="rgb24",
        pix_fmt_out="yuv444p",
        codec="libx264",
        quality=None,  # otherwise imageio-ffmpeg adds a -crf of its own
        macro_block_size=1,
        output_params=["-crf", str(crf), "-preset", "veryslow", "-vf", f"{convert},{tag}", *color, *exact],
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def encode_within_limit(path: Path, frames: Sequence[np.ndarray]) -> int:
    """Encode at the best quality that stays within SIZE_LIMIT; returns its CRF (0: only the color conversion loses)."""
    for crf in count(step=2):
        encode(path, frames, crf)
        if path.stat().st_size <= SIZE_LIMIT:
            return crf


def make_demo(output: Path, shots: Sequence[Shot] = SHOTS) -> None:
    """Write both versions of every shot under ``output`` and print what came out."""
    for shot in shots:
        photo = getattr(skimage.data, shot.photo)()
        x_gt = list(film(photo, shot))
        x_lq = list(degrade(x_gt, noise_seed(shot)))
        for folder, frames in (("GT-Video", x_gt), ("LQ-Video", x_lq)):
            path = output / folder / f"{shot.photo}.mp4"
            crf = encode_within_limit(path, frames)
            print(f"{path}: {len(frames)} frames, {path.stat().st_size // 1000} kB, crf {crf}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("datasets/demo"), help="folder of GT-Video and LQ-Video")
    make_demo(parser.parse_args(argv).output)


if __name__ == "__main__":
    main()
