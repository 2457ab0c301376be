"""Pictures to judge a restoration by: bicubic | restored | ground truth, as a video and a PNG, and their scores."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch

from vsr.errors import EncoderError, InputError
from vsr.metrics.image import psnr, ssim
from vsr.video_io import COMPARISONS, OutputOptions, VideoInfo, open_writer, probe, read_frames
from vsr.video_io.probe import Untagged

WIDEST = 3840
"""Pixels across the video: beyond it many players give up, so panels are made smaller."""
BAR = 28
ZOOM = 3

Panels = dict[str, np.ndarray]
"""Name: frame (H, W, 3) uint8."""


def check_ground_truth(truth: Path, size: tuple[int, int], frame_count: int | None) -> None:
    """Raise InputError when ground truth has another size (height, width) or length than the result will have."""
    info = probe(truth)
    if (info.height, info.width) != size:
        raise InputError(f"{truth}: is {info.width}x{info.height}, the result will be {size[1]}x{size[0]}")
    if None not in (info.frame_count, frame_count) and info.frame_count != frame_count:
        raise InputError(f"{truth}: has {info.frame_count} frames, its low-quality clip {frame_count}")


def compare(
    source: VideoInfo, restored: Path, ground_truth: Path | None, stem: str, untagged: Untagged = "auto"
) -> dict[str, dict[str, float]]:
    """Write ``compare/STEM.mp4`` and ``compare/STEM.png`` beside the result.

    Args:
        source: the low-quality input.
        restored, ground_truth: files of one size and length.
        stem: name of the comparison.
        untagged: matrix of a ground truth that states none.

    Returns:
        With a ground truth: for "bicubic" and "restored" the psnr (dB), the ssim and the frame_difference, the mean
        absolute error of adjacent-frame differences in levels of 255 (lower is steadier). Else nothing.

    Raises:
        InputError: sizes or lengths differ, or frames are too small to be scored.
        EncoderError: the comparison cannot be written.
    """
    result, folder = probe(restored), restored.parent / COMPARISONS
    truth = probe(ground_truth, untagged=untagged) if ground_truth else None
    scores: dict[str, _Scores] = {"bicubic": _Scores(), "restored": _Scores()} if ground_truth else {}
    with closing(_panels(source, result, truth)) as frames:
        if source.kind == "image":
            _, shown = next(frames)
            _add(scores, shown)
        else:
            shown = _write_video(folder / f"{stem}.mp4", source, result, frames, scores)
    _write_picture(folder / f"{stem}.png", shown)
    return {name: score.summary() for name, score in scores.items()}


def _panels(source: VideoInfo, result: VideoInfo, truth: VideoInfo | None) -> Iterator[tuple[int, Panels]]:
    """Yield (time stamp of the `_clock`, panels) for every frame."""
    timed = 0 if _clock(source, result) is source else 1
    streams = {"bicubic": source, "restored": result, **({"ground truth": truth} if truth else {})}
    if truth:
        check_ground_truth(truth.path, (result.height, result.width), result.frame_count)
    readers = [read_frames(info) for info in streams.values()]
    try:
        for frames in zip(*readers, strict=True):
            panels = {name: _eight_bit(frame.pixels) for name, frame in zip(streams, frames, strict=True)}
            size = (result.width, result.height)
            panels["bicubic"] = cv2.resize(panels["bicubic"], size, interpolation=cv2.INTER_CUBIC)
            yield frames[timed].pts, panels
    except ValueError as error:
        raise InputError(f"{', '.join(info.path.name for info in streams.values())}: the lengths differ") from error
    finally:
        for reader in readers:
            reader.close()


def _clock(source: VideoInfo, result: VideoInfo) -> VideoInfo:
    """Whose times count: the result's, unless it is a folder of frames, which has none."""
    return source if result.kind == "frames" else result


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _write_video(
    target: Path, source: VideoInfo, result: VideoInfo, frames: Iterator[tuple[int, Panels]], scores: dict
) -> Panels:
    """Write all panels side by side, at the times that come with them; return those of the middle frame."""
    middle, shown = (result.frame_count or 1) // 2, {}
    pts, panels = next(frames)
    height, width = _row(panels).shape[:2]
    clock = _clock(source, result)
    times = {"kind": clock.kind, "rate": clock.rate, "time_base": clock.time_base, "origin": clock.origin}
    info = replace(result, width=width, height=height, depth=8, audio=(), subtitles=(), has_tags=False, **times)
    options = OutputOptions(audio=False, crf=16)
    with open_writer(target, info, width=width, height=height, options=options) as writer:
        for number, (time, shot) in enumerate(chain([(pts, panels)], frames)):
            shown = shot if number <= middle else shown
            _add(scores, shot)
            writer.write(_row(shot), time)
    return shown


def _write_picture(target: Path, panels: Panels) -> None:
    picture = cv2.cvtColor(_picture(panels), cv2.COLOR_RGB2BGR)
    temporary = target.with_name(f".{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        temporary.replace(target)
    except OSError as error:
        raise EncoderError(f"cannot write {target}: {error.strerror}") from error


def _add(scores: "dict[str, _Scores]", panels: Panels) -> None:
    for name, score in scores.items():
        try:
            score.add(panels[name], panels["ground truth"])
        except ValueError as error:
            raise InputError(f"the frames cannot be scored: {error}") from error


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
