"""Contact sheets: a few frames of a clip with the box that is kept, for people to look at."""

from itertools import groupby

import cv2
import numpy as np

from finetune.curation.quality import even_frames
from finetune.curation.rows import Row
from finetune.curation.stage import Bench, frames_of_scenes
from finetune.data.clips import to_8_bits
from vsr.video_io.temporary import complete_or_nothing

FOLDER = "sheets"
FRAMES = 4
HEIGHT = 180


def draw(rows: list[Row], bench: Bench) -> list[Row]:
    """Write OUTPUT/sheets/CLIP_ID.jpg for each clip of one file."""
    frames = frames_of_scenes(bench.root / rows[0]["path"], rows)
    for row, (_, group) in zip(rows, groupby(frames, key=lambda item: item[0]["scene_idx"]), strict=True):
        wanted = even_frames(row["end_frame"] - row["start_frame"], FRAMES)
        sheet = np.hstack([_thumbnail(pixels, row) for _, number, pixels in group if number in wanted])
        _, data = cv2.imencode(".jpg", sheet[..., ::-1])
        with complete_or_nothing(bench.output / FOLDER / f"{row['clip_id']}.jpg") as folder:
            (folder / "result").write_bytes(data.tobytes())
    return rows


def _thumbnail(pixels: np.ndarray, row: Row) -> np.ndarray:
    """(HEIGHT, w, 3) uint8 with the box in red."""
    factor = HEIGHT / pixels.shape[0]
    size = (max(1, round(pixels.shape[1] * factor)), HEIGHT)
    small = np.ascontiguousarray(cv2.resize(to_8_bits(pixels), size, interpolation=cv2.INTER_AREA))
    left, top = round(row["box_x"] * factor), round(row["box_y"] * factor)
    right = round((row["box_x"] + row["box_w"]) * factor) - 1
    bottom = round((row["box_y"] + row["box_h"]) * factor) - 1
    return cv2.rectangle(small, (left, top), (right, bottom), (255, 0, 0), 2)
