"""Pictures to judge a restoration by: bicubic | restored | ground truth, as a video and a PNG, and their scores."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from vsr.errors import InputError
from vsr.metrics.image import psnr, ssim
from vsr.video_io import OutputOptions, VideoInfo, open_writer, probe, read_frames

FOLDER = "compare"
WIDEST = 3840
"""Pixels across the video: beyond it many players give up, so panels are made smaller."""
BAR = 28
ZOOM = 3

Panels = dict[str, np.ndarray]
"""Name: frame (H, W, 3) uint8."""


def compare(source: VideoInfo, restored: Path, ground_truth: Path | None, folder: Path) -> dict[str, dict[str, float]]:
    """Write ``folder/compare/STEM.mp4`` and ``STEM.png``.

    Args:
        source: the low-quality input.
        restored, ground_truth: files of one size and length.
        folder: of the results.

    Returns:
        With a ground truth: for "bicubic" and "restored" the psnr (dB), the ssim and the frame_difference, the mean
        absolute error of adjacent-frame differences in levels of 255 (lower is steadier). Else nothing.

    Raises:
        InputError: sizes or lengths differ.
    """
    result, folder = probe(restored), folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    scores: dict[str, _Scores] = {"bicubic": _Scores(), "restored": _Scores()} if ground_truth else {}
    with closing(_panels(source, result, ground_truth)) as frames:
        if source.kind == "image":
            shown = _scored(next(frames), scores)
        else:
            shown = _write_video(folder / f"{restored.stem}.mp4", result, frames, scores)
    picture = cv2.cvtColor(_picture(shown), cv2.COLOR_RGB2BGR)
    (folder / f"{restored.stem}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return {name: score.summary() for name, score in scores.items()}


def _panels(source: VideoInfo, result: VideoInfo, ground_truth: Path | None) -> Iterator[Panels]:
    size = (result.width, result.height)
    streams = {"bicubic": source, "restored": result, **({"ground truth": probe(ground_truth)} if ground_truth else {})}
    if ground_truth and (streams["ground truth"].width, streams["ground truth"].height) != size:
        truth = streams["ground truth"]
        raise InputError(f"{ground_truth} is {truth.width}x{truth.height}, the result {size[0]}x{size[1]}")
    readers = [_eight_bit(info) for info in streams.values()]
    try:
        for frames in zip(*readers, strict=True):
            panels = dict(zip(streams, frames, strict=True))
            yield panels | {"bicubic": cv2.resize(panels["bicubic"], size, interpolation=cv2.INTER_CUBIC)}
    except ValueError as error:
        raise InputError(f"{', '.join(info.path.name for info in streams.values())}: the lengths differ") from error
    finally:
        for reader in readers:
            reader.close()


def _eight_bit(info: VideoInfo) -> Iterator[np.ndarray]:
    for frame in read_frames(info):
        deep = frame.pixels.dtype != np.uint8
        yield ((frame.pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8) if deep else frame.pixels


def _write_video(target: Path, result: VideoInfo, frames: Iterator[Panels], scores: dict[str, "_Scores"]) -> Panels:
    """Write all panels side by side; return those of the middle frame."""
    middle, shown = (result.frame_count or 1) // 2, {}
    first = next(frames)
    row = _row(first)
    # the result's own rate, no sound: the pictures are what is compared
    info = replace(result, width=row.shape[1], height=row.shape[0], audio=(), subtitles=())
    options = OutputOptions(audio=False, crf=16)
    with open_writer(target, info, width=info.width, height=info.height, options=options) as writer:
        for number, panels in enumerate(_chain(first, frames)):
            shown = panels if number <= middle else shown
            _scored(panels, scores)
            writer.write(_row(panels).astype(writer.dtype), number)
    return shown


def _chain(first: Panels, rest: Iterator[Panels]) -> Iterator[Panels]:
    yield first
    yield from rest


def _scored(panels: Panels, scores: dict[str, "_Scores"]) -> Panels:
    for name, score in scores.items():
        score.add(panels[name], panels["ground truth"])
    return panels


class _Scores:
    """Running means over the frames of a clip against its ground truth."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {"psnr": [], "ssim": [], "frame_difference": []}
        self._previous: np.ndarray | None = None

    def add(self, frame: np.ndarray, truth: np.ndarray) -> None:
        x, y = (torch.from_numpy(f).permute(2, 0, 1)[None].float() / 255 for f in (frame, truth))
        self._values["psnr"].append(psnr(x, y).item())
        self._values["ssim"].append(ssim(x, y).item())
        error = frame.astype(np.int16) - truth
        if self._previous is not None:
            self._values["frame_difference"].append(float(np.abs(error - self._previous).mean()))
        self._previous = error

    def summary(self) -> dict[str, float]:
        return {name: float(np.mean(values)) for name, values in self._values.items() if values}


def comparison_table(scores: dict[str, dict[str, dict[str, float]]]) -> str:
    """Bicubic against restored, clip by clip, and their averages, for the terminal."""
    columns = ("psnr", "ssim", "frame_difference")
    scored = {name: clip for name, clip in scores.items() if clip}
    average = {
        kind: {
            c: float(np.mean([clip[kind][c] for clip in scored.values() if c in clip[kind]] or [np.nan]))
            for c in columns
        }
        for kind in ("bicubic", "restored")
    }
    width = max(len(name) for name in [*scored, "average"])
    heads = "".join(f"  {title:^19}" for title in ("PSNR, dB", "SSIM", "frame difference"))
    lines = [f"{'':{width}}{heads}", f"{'':{width}}" + 3 * "    bicubic  restored"]
    for name, clip in [*scored.items(), ("average", average)]:
        cells = [clip[kind].get(c, np.nan) for c in columns for kind in ("bicubic", "restored")]
        digits = (2, 2, 4, 4, 2, 2)
        lines.append(
            f"{name:{width}}"
            + "".join(f"{cell:>11.{d}f}"[1 - i % 2 :] for i, (cell, d) in enumerate(zip(cells, digits, strict=True)))
        )
    lines.append(
        "frame difference: mean absolute error of adjacent-frame differences, levels of 255; lower is steadier"
    )
    return "\n".join(lines)


def _row(panels: Panels) -> np.ndarray:
    """All panels in a row under their names, even in width and height."""
    height, width = next(iter(panels.values())).shape[:2]
    factor = min(1.0, WIDEST / (width * len(panels)))
    size = (max(int(width * factor) // 2 * 2, 2), max(int(height * factor) // 2 * 2, 2))
    resized = [cv2.resize(panel, size, interpolation=cv2.INTER_AREA) for panel in panels.values()]
    return np.concatenate([_labelled(panel, name) for name, panel in zip(panels, resized, strict=True)], axis=1)


def _labelled(panel: np.ndarray, name: str) -> np.ndarray:
    bar = np.zeros((BAR, panel.shape[1], 3), np.uint8)
    cv2.putText(bar, name, (6, BAR - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, panel], axis=0)


def _picture(panels: Panels) -> np.ndarray:
    """The row of panels, and below it the same detail of each, enlarged without interpolation."""
    top, left, height, width = _busiest(panels.get("ground truth", panels["restored"]))
    details = [panel[top : top + height, left : left + width] for panel in panels.values()]
    enlarged = np.concatenate([d.repeat(ZOOM, 0).repeat(ZOOM, 1) for d in details], axis=1)
    row = np.concatenate([_labelled(panel, name) for name, panel in panels.items()], axis=1)
    missing = row.shape[1] - enlarged.shape[1]
    return np.concatenate([row, np.pad(enlarged, ((8, 0), (0, missing), (0, 0)))], axis=0)


def _busiest(frame: np.ndarray) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the third of the frame with the strongest edges."""
    height, width = max(frame.shape[0] // ZOOM, 1), max(frame.shape[1] // ZOOM, 1)
    edges = cv2.magnitude(
        *(cv2.Sobel(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.CV_32F, *d) for d in ((1, 0), (0, 1)))
    )
    sums = cv2.integral(edges)
    totals = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(totals.argmax(), totals.shape)
    return int(top), int(left), height, width
