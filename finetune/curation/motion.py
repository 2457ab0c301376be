"""Stage 4: how fast a scene moves, where, and the box around it that is kept.

M_ij = |F_ij| over pairs of frames, S = {M > tau}, B = bounding box of S, p pixels larger on each side. Camera motion
counts, so that a pan keeps the whole frame. The paper gives no numbers; those of the configuration are ours, and so are
the opening and the least size of a moving area, without which noise alone opens the box.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import cv2
import numpy as np

from finetune.curation.config import MotionConfig
from finetune.curation.rows import Row, rejected
from finetune.curation.stage import FLOW_NAMES, Bench, frames_of_scenes
from finetune.data.clips import to_8_bits

if TYPE_CHECKING:
    from vsr.metrics.flow import Flow

STAGE = "motion"
REFERENCE_SIDE = 720
"""Speeds are those of the same video with this short side."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """Columns x to x + w and rows y to y + h, in pixels."""

    x: int
    y: int
    w: int
    h: int


def crop_to_motion(rows: list[Row], bench: Bench) -> list[Row]:
    """Fill in score and box of the scenes of one file; reject those without motion and with too small a box."""
    config = bench.config.motion
    if not config.use:
        return [{**row, **_box_columns("box", whole_frame(row))} for row in rows]
    pairs = {row["scene_idx"]: pair_indices(row, config) for row in rows}
    found = []
    for scene, group in groupby(frames_of_scenes(bench.root / rows[0]["path"], rows), key=lambda f: f[0]["scene_idx"]):
        wanted = {number for pair in pairs[scene] for number in pair}
        small = {i: reduced(pixels, config.flow_short_side) for _, i, pixels in group if i in wanted}
        speeds = np.stack([speed(small[a], small[b], bench.flow) / (b - a) for a, b in pairs[scene]])
        found.append(judge(rows[len(found)], speeds, config))
    return found


def pair_indices(row: Row, config: MotionConfig) -> list[tuple[int, int]]:
    """Frames of the pairs, counted in the scene; the first pair begins it and the last one ends it."""
    count = row["end_frame"] - row["start_frame"]
    gap = min(max(1, round(config.gap_seconds * row["fps_num"] / row["fps_den"])), count - 1)
    if gap < 1:
        return [(0, 0)]
    starts = np.unique(np.linspace(0, count - 1 - gap, config.pairs).round().astype(int))
    return [(int(start), int(start) + gap) for start in starts]


def reduced(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """A frame for the flow: uint8, with sides that are multiples of 8, not larger than it was."""
    factor = min(1.0, short_side / min(pixels.shape[:2]))
    height, width = (max(8, round(side * factor / 8) * 8) for side in pixels.shape[:2])
    return cv2.resize(to_8_bits(pixels), (width, height), interpolation=cv2.INTER_AREA)


def speed(a: np.ndarray, b: np.ndarray, flow: "Flow") -> np.ndarray:
    """How far each pixel of a (h, w, 3) uint8 has moved in b, in its own pixels: (h, w) float32."""
    import torch

    if a is b:
        return np.zeros(a.shape[:2], np.float32)
    x, y = (torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255 for frame in (a, b))
    with torch.no_grad():
        return flow(x, y)[0].norm(dim=0).cpu().numpy()


def judge(row: Row, speeds: np.ndarray, config: MotionConfig) -> Row:
    """The row with its score and box, or its rejection.

    Args:
        speeds: (pairs, h, w), in pixels of the flow per frame.
    """
    speeds = speeds * (REFERENCE_SIDE / min(speeds.shape[1:]))
    mask = moving_mask(motion_map(speeds, config.over_pairs), config)
    score = float(speeds.mean())
    facts = {"flow_model": FLOW_NAMES[config.flow], "flow_score": score, "motion_frac": float(mask.mean())}
    row = {**row, **facts, "motion_q90": float(np.quantile(speeds, 0.9))}
    area = moving_area(mask, row["width"], row["height"])
    if area is None or score < config.min_score:
        return rejected(row, STAGE, "no_motion", f"score {score:.3f}, moving fraction {mask.mean():.3f}")
    if config.max_score is not None and score > config.max_score:
        return rejected(row, STAGE, "too_much_motion", f"score {score:.3f}")
    box = padded(area, config.padding, row["width"], row["height"], config.align)
    row = {**row, **_box_columns("motion", area), **_box_columns("box", box)}
    if min(box.w, box.h) < config.min_short_side:
        size = f"{box.w}x{box.h}, expected a short side of {config.min_short_side}"
        return rejected(row, STAGE, "box_too_small", size)
    return row


def motion_map(speeds: np.ndarray, over_pairs: str) -> np.ndarray:
    """M: one speed per pixel out of (pairs, h, w)."""
    if over_pairs == "q90":
        return np.quantile(speeds, 0.9, axis=0)
    return speeds.max(axis=0) if over_pairs == "max" else speeds.mean(axis=0)


def moving_mask(speeds: np.ndarray, config: MotionConfig) -> np.ndarray:
    """S: (h, w) bool, without specks."""
    mask = (speeds > config.threshold).astype(np.uint8)
    if config.opening:
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((config.opening, config.opening), np.uint8))
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= config.min_component * mask.size
    large[0] = False  # the background
    return large[labels]


def moving_area(mask: np.ndarray, width: int, height: int) -> Box | None:
    """The smallest box in a frame of ``width`` x ``height`` that holds the mask, which may be of another size."""
    if not mask.any():
        return None
    edges = []
    for axis, side in ((0, width), (1, height)):
        (places,) = np.nonzero(mask.any(axis=axis))
        factor = side / mask.shape[1 - axis]
        edges.append((int(places[0] * factor), min(side, int(np.ceil((places[-1] + 1) * factor)))))
    (left, right), (top, bottom) = edges
    return Box(x=left, y=top, w=right - left, h=bottom - top)


def padded(box: Box, padding: int, width: int, height: int, align: int) -> Box:
    """B: the box with its margin, inside the frame, its edges on multiples of ``align`` where there is room."""
    left, right = _padded_side(box.x, box.x + box.w, padding, width, align)
    top, bottom = _padded_side(box.y, box.y + box.h, padding, height, align)
    return Box(x=left, y=top, w=right - left, h=bottom - top)


def whole_frame(row: Row) -> Box:
    """The frame, without the last column or row if their number is odd."""
    return Box(x=0, y=0, w=row["width"] // 2 * 2, h=row["height"] // 2 * 2)


def _padded_side(low: int, high: int, padding: int, limit: int, align: int) -> tuple[int, int]:
    low = max(low - padding, 0) // align * align
    high = -(-(high + padding) // align) * align
    return low, high if high <= limit else max(limit // 2 * 2, low)


def _box_columns(prefix: str, box: Box) -> dict[str, int]:
    return {f"{prefix}_{name}": getattr(box, name) for name in ("x", "y", "w", "h")}
