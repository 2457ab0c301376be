"""Write the list of a training set after decoding every file once.

    python finetune/scripts/prepare_dataset.py --dir datasets/train/HQ-VSR [--save LIST.txt] [--min_frames N]
        [--min_height H --min_width W]

Lists the videos under DIR, or its images if it has no videos; one path per line, relative to the folder of the list,
sorted. Files that are unreadable, cut off, too short or too small are named with the reason and left out. The default
list is DIR.txt beside DIR. Exit codes: 0 all are in, 7 some were left out, 3 nothing is left, 2 wrong usage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # called by its path, as DOVE's README does

from finetune.data.clips import open_clip
from finetune.data.sources import files_in
from vsr.errors import SOME_FAILED, InputError, UsageError, VSRError
from vsr.metrics.report import check_writable
from vsr.video_io import probe, read_frames
from vsr.video_io.temporary import complete_or_nothing


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """What a file must have to be of use."""

    frames: int = 1
    height: int = 1
    width: int = 1


def check(path: Path, minimum: Minimum) -> None:
    """Decode a file from beginning to end; InputError says why it is of no use."""
    if "\n" in path.name or "\r" in path.name:
        raise InputError(f"{path}: its name has a line break, which a list cannot hold")
    info = probe(path)
    if info.height < minimum.height or info.width < minimum.width:
        size = f"{info.width}x{info.height}"
        raise InputError(f"{path}: too small: {size}, expected at least {minimum.width}x{minimum.height}")
    count = sum(1 for _ in read_frames(info))
    if info.kind == "video":
        _check_length(path, count, minimum.frames)


def prepare(folder: Path, save: Path, minimum: Minimum) -> dict[Path, str]:
    """Write the list; returns the files that are not in it, each with the reason.

    Raises:
        InputError: nothing is left to list; no list is written.
    """
    kind = "video" if (files := files_in(folder, "video")) else "image"
    files = files or files_in(folder, "image")
    if not files:
        raise InputError(f"{folder}: holds no video and no image; expected a folder of training data")
    refused = _refused(files, minimum)
    kept = [file for file in files if file not in refused]
    _print_summary(kind, kept, refused, folder)
    if not kept:
        raise InputError(f"{folder}: none of its {len(files)} files can be used, so no list is written")
    write_list(save, kept)
    return refused


def write_list(save: Path, files: Sequence[Path]) -> None:
    """Write paths relative to the folder of the list, complete or not at all."""
    lines = [os.path.relpath(file.absolute(), save.absolute().parent) for file in files]
    with complete_or_nothing(save.absolute()) as folder:
        text = "".join(f"{line}\n" for line in lines)
        (folder / "result").write_text(text, encoding="utf-8", errors="surrogateescape")


def _check_length(path: Path, count: int, least: int) -> None:
    """Enough frames, and the number that training will read: a header that promises more makes decord hang."""
    if count < least:
        raise InputError(f"{path}: too short: {count} frames, expected at least {least}")
    if (listed := len(open_clip(path))) != count:
        raise InputError(f"{path}: its index lists {listed} frames, but it has {count}; write it anew with ffmpeg")


def _refused(files: Sequence[Path], minimum: Minimum) -> dict[Path, str]:
    refused = {}
    for file in tqdm(files, unit="file", desc="checking", dynamic_ncols=True):
        try:
            check(file, minimum)
        except InputError as error:
            refused[file] = str(error).splitlines()[0]
    return refused


def _print_summary(kind: str, kept: Sequence[Path], refused: dict[Path, str], folder: Path) -> None:
    for reason in refused.values():
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{len(kept)} {kind}s in, {len(refused)} left out")
    if kind == "video" and (images := files_in(folder, "image")):
        print(f"{len(images)} images are not in the list: it is one of videos")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dir", type=Path, required=True, help="folder of videos or images, searched recursively")
    add("--save", type=Path, help="the list to write (default: DIR.txt)")
    add("--min_frames", type=int, default=1, help="frames that a video must have: those of a sample")
    add("--min_height", type=int, default=1, help="rows that a frame must have: those of the crop")
    add("--min_width", type=int, default=1, help="columns that a frame must have: those of the crop")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Check, list and report; returns the exit code."""
    args = parse_args(argv)
    folder = Path(os.path.normpath(args.dir.absolute()))
    save = args.save or folder.with_name(f"{folder.name}.txt")
    minimum = Minimum(frames=args.min_frames, height=args.min_height, width=args.min_width)
    try:
        if not folder.is_dir():
            raise InputError(f"{args.dir}: no such folder")
        if save.suffix != ".txt":
            raise UsageError(f"--save {save}: training reads lists that end in .txt")
        check_writable(save)  # before every file is decoded
        refused = prepare(folder, save, minimum)
    except VSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"list: {save}")
    return SOME_FAILED if refused else 0


if __name__ == "__main__":
    sys.exit(main())
