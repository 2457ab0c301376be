"""Scores of the small model on clips that it was not trained on, as its card states them.

    python -m benchmarks.small_model [--model_path pretrained_models/tiny] [--clips results/held_out]

Makes the clips where they are missing (`finetune.scripts.make_held_out`), restores both sets of them in float32, and
prints a table of each in Markdown, bicubic interpolation first, the restored clip second: PSNR in dB and SSIM, frame by
frame; the mean absolute error of adjacent-frame differences in levels of 255; how much more grain the noisiest frame
of a clip has than its median one, in levels, and in brackets that of ground truth; and how far the restored clip's mean
red, green and blue lie from those of ground truth, in levels. Pictures to look at: CLIPS/restored-SET/compare.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

import inference_script
from finetune.scripts.make_held_out import make_held_out
from vsr.compare import compare
from vsr.memory import keep_freed_memory
from vsr.restore_file import pixels_of
from vsr.video_io import find_inputs, probe

SETS = ("realbasicvsr", "mild")
DIGITS = {"psnr": 2, "ssim": 4, "frame_difference": 2}
TITLE = "| clip | PSNR, dB | SSIM | frame difference | uneven grain | shift of red, green, blue |\n" + 6 * "|---" + "|"
GRAIN_SIGMA = 1.5
"""Pixels: what is finer than this Gaussian counts as grain."""


def main(argv: list[str] | None = None) -> int:
    """Print both tables; returns the exit code of the restoration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", type=Path, default=Path("pretrained_models/tiny"))
    parser.add_argument("--clips", type=Path, default=Path("results/held_out"), help="folder of the clips and results")
    args = parser.parse_args(argv)
    if not args.clips.exists():
        make_held_out(args.clips)
    for name in SETS:
        low, high, restored = (args.clips / folder for folder in (f"LQ-{name}", "GT-Video", f"restored-{name}"))
        flags = {"input_dir": low, "output_path": restored, "model_path": args.model_path, "dtype": "float32"}
        if code := inference_script.main([*(f"--{key}={value}" for key, value in flags.items()), "--overwrite"]):
            return code
        print(f"\n{low}\n\n{table(low, restored, high)}\n", flush=True)
    return 0


def table(low: Path, restored: Path, high: Path) -> str:
    """Of all clips of one set, and their mean."""
    rows = {path.stem: scores_of(path, restored / path.name, high / path.name) for path in find_inputs(low)}
    better = sum(row["psnr"][1] > row["psnr"][0] for row in rows.values())
    count = f"\n{better} of {len(rows)} clips have a higher PSNR than bicubic interpolation."
    rows["mean"] = {key: np.mean([row[key] for row in rows.values()], axis=0) for key in next(iter(rows.values()))}
    return "\n".join([TITLE, *(_line(name, row) for name, row in rows.items()), count])


def scores_of(low: Path, restored: Path, high: Path) -> dict[str, np.ndarray]:
    """Bicubic and restored for each of `DIGITS`; "grain": of bicubic, restored and ground truth; "shift": of the three
    channels. Writes the pictures, too."""
    scores = compare(probe(low), restored, high, low.stem)
    small, result, truth = (np.stack(list(pixels_of(probe(path)))) for path in (low, restored, high))
    bicubic = [cv2.resize(frame, result.shape[2:0:-1], interpolation=cv2.INTER_CUBIC) for frame in small]
    pairs = {key: np.array([scores[kind][key] for kind in ("bicubic", "restored")]) for key in DIGITS}
    grain = np.array([uneven_grain(frames) for frames in (bicubic, result, truth)])
    return {**pairs, "grain": grain, "shift": result.mean(axis=(0, 1, 2)) - truth.mean(axis=(0, 1, 2))}


def uneven_grain(frames: Iterable[np.ndarray]) -> float:
    """Grain that one frame has and the others lack, which is seen as flicker.

    A frame's grain is the standard deviation of what is finer than `GRAIN_SIGMA`, estimated from the median of the
    absolute values (times 1.4826, as for a normal distribution): that of flat areas, edges hardly count.

    Args:
        frames: (H, W, 3) uint8 each, of one clip without cuts.

    Returns:
        sqrt(largest^2 - median^2) of the frames' grain, in levels.
    """
    grain = []
    for frame in frames:
        pixels = frame.astype(np.float32)
        grain.append(1.4826 * np.median(np.abs(pixels - cv2.GaussianBlur(pixels, (0, 0), GRAIN_SIGMA))))
    return float(np.sqrt(max(grain) ** 2 - np.median(grain) ** 2))


def _line(name: str, row: dict[str, np.ndarray]) -> str:
    cells = [" -> ".join(f"{value:.{digits}f}" for value in row[key]) for key, digits in DIGITS.items()]
    grain = "{:.2f} -> {:.2f} ({:.2f})".format(*row["grain"])
    shift = ", ".join(f"{value:+.1f}" for value in row["shift"])
    return f"| {name} | {' | '.join(cells)} | {grain} | {shift} |"


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
