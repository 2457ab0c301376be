"""Clips whose truth is known, and runs of finetune.scripts.curate on them."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import yaml

from finetune.scripts import curate
from tests.media import clip, ffmpeg, raw_video

SIZE = (192, 128)
RATE = 25
CONFIG = {
    "metadata": {"short_side_over": 100, "frames_over": 15, "square_pixels": True},
    "scenes": {"detect": True, "adaptive_threshold": 3.0, "min_scene_frames": 15, "trim": 2, "min_frames": 15},
    "quality": {"metrics": [], "clipiqa_frames": 2, "mode": "quantile", "target_count": 100, "at_least": {}},
    "motion": {
        **{"use": True, "flow": "dis", "pairs": 8, "gap_seconds": 0.1, "flow_short_side": 384},
        **{"min_score": 0.2, "over_pairs": "max", "threshold": 1.0, "opening": 5, "min_component": 0.005},
        **{"padding": 0, "align": 2, "min_short_side": 100},
    },
    "limits": {"seconds": 60.0, "attempts": 2},
}


def texture(seed: int, width: int = 640, height: int = 400) -> np.ndarray:
    """Dead leaves: discs of all sizes and colours, (height, width, 3) uint8."""
    rng, picture = np.random.default_rng(seed), np.full((height, width, 3), 127, np.uint8)
    for radius in (4.0 / np.sqrt(rng.uniform(0.005, 1, 1500))).astype(int):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(picture, centre, int(radius), tuple(int(v) for v in rng.integers(0, 256, 3)), -1, cv2.LINE_AA)
    return picture


def pan(seed: int, count: int, step: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The camera moves ``step`` pixels a frame to the right; 0: it stands still."""
    picture, (width, height) = texture(seed), size
    return np.stack([picture[:height, (x := (step * t) % 400) : x + width] for t in range(count)])


def moving_object(count: int = 24) -> np.ndarray:
    """120x120 pixels move by (4, 1) a frame over a still background of 640x360, from (300, 100)."""
    frames = np.repeat(texture(7, 640, 360)[None], count, axis=0)
    patch = texture(8, 120, 120)
    for t in range(count):
        frames[t, 100 + t : 220 + t, 300 + 4 * t : 420 + 4 * t] = patch
    return frames


SWEPT = (300, 100, 300 + 4 * 23 + 120, 100 + 23 + 120)
"""Left, top, right and bottom of all that `moving_object` touches."""


def encode(path: Path, frames: np.ndarray, *arguments: str, rate: int = RATE) -> Path:
    """Write (F, H, W, 3) uint8 RGB as H.264."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    return raw_video(path, frames, "rgb24", "-pix_fmt", "yuv420p", "-crf", "12", *arguments, size=size, rate=str(rate))


def make_clips(folder: Path) -> Path:
    """One file for each case of section "known truth" of the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts = np.concatenate([pan(1, 30), pan(2, 16), pan(3, 30)])
    encode(folder / "cuts.mp4", cuts)
    encode(folder / "pan.mp4", pan(4, 30))
    encode(folder / "static.mp4", pan(4, 30, step=0))
    noise = np.random.default_rng(0).normal(0, 3, (30, *SIZE[::-1], 3))
    encode(folder / "noise.mp4", (pan(5, 30, step=0) + noise).round().clip(0, 255).astype(np.uint8))
    encode(folder / "object.mp4", moving_object())
    flash = pan(6, 50, step=0)
    flash[25] = 255
    encode(folder / "flash.mp4", flash)
    encode(folder / "dissolve.mp4", dissolve())
    slow_then_fast = np.concatenate([pan(1, 60, step=1), pan(2, 30, step=1)])
    select = "select='gte(n,60)+not(mod(n,2))'"
    encode(folder / "vfr.mp4", slow_then_fast, "-vf", select, "-fps_mode", "vfr", rate=30)
    turned = folder / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", folder / "pan.mp4", "-c", "copy", turned)
    encode(folder / "short.mp4", pan(4, 10))
    clip(folder / "small.mp4", size="96x64", seconds="2")
    make_broken(folder)
    return folder


def make_broken(folder: Path) -> None:
    """Files that cannot be used, each in its own way."""
    encode(folder / "whole.mp4", pan(9, 40), "-movflags", "+faststart")
    whole = (folder / "whole.mp4").read_bytes()
    (folder / "whole.mp4").rename(folder / "sound.mp4")
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    (folder / "headless.mp4").write_bytes(encode(folder / "sound.mp4", pan(9, 20)).read_bytes()[:3000])
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video")
    flipped = bytearray(whole)
    places = np.random.default_rng(0).integers(len(whole) // 2, len(whole), 60)
    for place in places:
        flipped[place] ^= 0x5A
    (folder / "flipped.mp4").write_bytes(flipped)
    ffmpeg("-f", "lavfi", "-i", "sine=f=440:d=1", folder / "sound.mp4")


def dissolve() -> np.ndarray:
    """50 frames; one picture becomes another in 20."""
    before, after = pan(1, 50).astype(float), pan(2, 50).astype(float)
    weight = np.clip((np.arange(50) - 15) / 20, 0, 1).reshape(-1, 1, 1, 1)
    return (before * (1 - weight) + after * weight).round().astype(np.uint8)


def write_config(path: Path, **changes: dict) -> Path:
    """`CONFIG` with some fields of its sections changed."""
    tree = {name: {**section, **changes.get(name, {})} for name, section in CONFIG.items()}
    path.write_text(yaml.safe_dump(tree))
    return path


def run(source: Path, output: Path, config: Path, *flags: str) -> int:
    """The exit code of curate, in this process; by default with the serial engine."""
    arguments = [f"--input={source}", f"--output={output}", f"--config={config}", "--engine=serial", "--sheets=2"]
    return curate.main([*arguments, *flags])


def rows_of(output: Path) -> list[dict]:
    return pq.read_table(output / "manifest.parquet").to_pylist()


def by_stem(output: Path) -> dict[str, list[dict]]:
    """Rows by the stem of their file, in the order of their scenes."""
    found: dict[str, list[dict]] = {}
    for row in sorted(rows_of(output), key=lambda row: row["scene_idx"] or 0):
        found.setdefault(Path(row["path"]).stem, []).append(row)
    return found


def ends(rows: list[dict]) -> list[tuple]:
    """How each row ended."""
    return [(row["status"], row["stage"], row["reason"]) for row in rows]
