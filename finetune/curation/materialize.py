"""Kept clips as files: cut, cropped and encoded once more, for those who cannot train from the manifest."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from finetune.curation.rows import Row
from finetune.curation.stage import Bench, frames_of_scenes
from vsr.video_io import OutputOptions, VideoInfo, open_writer, probe

FOLDER = "clips"
CRF = 8
"""Close to lossless; the set is a ground truth."""
CLIP_ID = r"[0-9a-f]{16}"
"""Name of a clip, see `finetune.curation.rows.with_clip_id`."""
COARSEST_CLOCK = 2_000_000_000
"""Nanoseconds; some file systems store times no finer than that."""


def write_crops(rows: list[Row], bench: Bench) -> list[Row]:
    """Write OUTPUT/clips/CLIP_ID.mp4 for each clip of one file, at a constant rate; those that are there stay.

    Each gets the time of its source: one whose source has been replaced since is written anew.
    """
    targets = {row["scene_idx"]: bench.output / FOLDER / f"{row['clip_id']}.mp4" for row in rows}
    missing = [row for row in rows if not _is_current(targets[row["scene_idx"]], row)]
    if not missing:
        return rows
    path = bench.root / rows[0]["path"]
    info = replace(probe(path), audio=(), subtitles=(), has_tags=False)
    for scene, group in groupby(frames_of_scenes(path, missing), key=lambda item: item[0]["scene_idx"]):
        _write_crop(targets[scene], info, ((row, pixels) for row, _, pixels in group))
    return rows


def _write_crop(target: Path, info: VideoInfo, frames: Iterator[tuple[Row, np.ndarray]]) -> None:
    row, first = next(frames)
    options = OutputOptions(pixel_format=_chroma_of(info), crf=CRF, fps=info.rate, audio=False)
    x, y, width, height = (row[f"box_{name}"] for name in ("x", "y", "w", "h"))
    with open_writer(target, info, width=width, height=height, options=options) as writer:
        for number, (_, pixels) in enumerate(chain([(row, first)], frames)):
            writer.write(pixels[y : y + height, x : x + width], number)
    os.utime(target, ns=(row["source_mtime_ns"],) * 2)


def _is_current(target: Path, row: Row) -> bool:
    return target.exists() and abs(target.stat().st_mtime_ns - row["source_mtime_ns"]) <= COARSEST_CLOCK


def clips_not_kept(folder: Path, kept: list[Row]) -> list[Path]:
    """Clips of earlier runs that the manifest does not keep any more. They stay: their sources may be gone."""
    names = {row["clip_id"] for row in kept}
    return sorted(p for p in folder.glob("*.mp4") if re.fullmatch(CLIP_ID, p.stem) and p.stem not in names)


def _chroma_of(info: VideoInfo) -> str:
    """The stored format that loses least of the source's."""
    if info.depth > 8:
        return "yuv420p10le"
    return "yuv444p" if "444" in info.pixel_format or info.matrix == "rgb" else "yuv420p"
