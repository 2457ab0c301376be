"""A picture of a benchmark: one bar for each side and clip, cut into stages."""

from pathlib import Path

import cv2
import numpy as np

COLORS = ((90, 90, 90), (200, 160, 60), (80, 150, 230), (60, 180, 75), (220, 120, 60), (160, 90, 200), (120, 120, 200))
"""RGB of the stages, in their order."""
BAR, GAP, LABEL, LENGTH = 26, 12, 260, 900
"""Pixels: height of a bar, space between bars, width of the labels, length of the longest bar."""


def draw_bars(path: Path, results: list[dict], stages: tuple[str, ...]) -> None:
    """Write a PNG; lengths are seconds, on one scale."""
    bars = [
        (f"{r['frames']} x {r['size'][0]}x{r['size'][1]}  {side}", seconds)
        for r in results
        for side, seconds in r["seconds"].items()
    ]
    scale = LENGTH / max(seconds["total"] for _, seconds in bars)
    picture = np.full(((len(bars) + 1) * (BAR + GAP) + GAP, LABEL + LENGTH + 120, 3), 255, np.uint8)
    for row, (label, seconds) in enumerate(bars):
        top = GAP + row * (BAR + GAP)
        _write(picture, label, (8, top + 18))
        left = float(LABEL)
        for stage, color in zip(stages, COLORS, strict=True):
            right = left + seconds[stage] * scale
            cv2.rectangle(picture, (round(left), top), (round(right), top + BAR), color, -1)
            left = right
        _write(picture, f"{seconds['total']:.2f} s", (round(left) + 8, top + 18))
    _write_legend(picture, stages, GAP + len(bars) * (BAR + GAP))
    cv2.imwrite(str(path), picture[..., ::-1])


def _write_legend(picture: np.ndarray, stages: tuple[str, ...], top: int) -> None:
    for place, (stage, color) in enumerate(zip(stages, COLORS, strict=True)):
        left = LABEL + place * 125
        cv2.rectangle(picture, (left, top + 6), (left + 14, top + 20), color, -1)
        _write(picture, stage, (left + 20, top + 18))


def _write(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (20, 20, 20), 1, cv2.LINE_AA)
